"""The SQL ledger: double entry, append-only, hash-chained, on SQLite and PostgreSQL; knows nothing of models.

Read in this order: `schema` (the tables), `guards` (what the database itself refuses), `engine` (opening,
transactions, locks, migrations), `journal` (posting), `catalog` (providers, terms, models, indexes), `outputs`
(logged outputs and their score books), `periods` (pools, allocations, statements, payouts), `queries` (what
reports read) and `integrity` (recomputing all of it).
"""
