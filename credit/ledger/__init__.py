"""The SQL ledger: double entry, append-only, hash-chained, on SQLite and PostgreSQL; knows nothing of models.

Read in this order: `schema` (the tables), `rules` and `guards` (what the database itself refuses), `engine` (opening,
transactions, locks, migrations), `journal` (posting), `catalog` (providers, models, indexes), `terms`, `outputs`
(logged outputs and their score books), `periods`, `pools`, `settlement`, `statements` and `payouts` (what a close
decides), `payments` (what becomes of payouts), `balances` and `queries` (what reports read) and `integrity`
(recomputing all of it).
"""
