"""Payment channels: the registry of all ways for payouts to leave, one file a channel.

To add a channel, change:

1. `credit/records.py`: its name in `PaymentFormat`, the values that the ledger takes;
2. a new file here: a `Channel` with its limits, its checks and its writer;
3. this registry, and its row in `credit/accounting/payability.py`: what a close must know of it;
4. `migrations/versions`: a revision, because the database checks the name.
"""

from __future__ import annotations

from collections.abc import Mapping

from credit.payments.channels import own_csv, paypal, sepa, wise
from credit.payments.channels.channel import Channel
from credit.records import PaymentFormat

CHANNELS: Mapping[PaymentFormat, Channel] = {
    channel.name: channel for channel in (own_csv.CHANNEL, sepa.CHANNEL, paypal.CHANNEL, wise.CHANNEL)
}
"""Every channel by its name; help and messages name them in this order."""
