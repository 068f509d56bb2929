"""Money that leaves: personal details checked, batches of payouts into payment files, a bank's results back.

Read in this order: `details` (what is needed to pay somebody), `lines` (a payout as a file states it, and what no
file may hold), `files` (CSV, PayPal, Wise), `sepa` (pain.001), `export` (which payouts leave, exactly once),
`confirm` (results), `beancount` (a period's books in another ledger's language).
"""
