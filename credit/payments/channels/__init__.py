"""Payment channels: how payouts leave, one file a channel."""
