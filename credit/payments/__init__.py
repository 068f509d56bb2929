"""Payments: personal details of payees, batches of payouts in payment files, results of the bank.

Read in this order: `details` (personal details, with `bank_accounts` for IBANs), `channels` (a kind of payment file
each), `export` (payouts leave in files, each once), `results` (the bank's answers; `bank_files` reads those in XML).
"""
