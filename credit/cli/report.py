"""`credit report`."""
