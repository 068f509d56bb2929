"""Money that leaves: personal details checked, batches of payouts into payment files, a bank's results back.

Read in this order: `details` (what is needed to pay somebody), `channels` (how each kind of payment file is written),
`export` (which payouts leave, exactly once), `results` (what the bank did with them).
"""
