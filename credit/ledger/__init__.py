"""The SQL ledger: double entry, append-only, hash-chained, on SQLite and PostgreSQL; it knows nothing of models.

Read in this order:

1. Tables: `accounts` and `transaction_kinds` (the two tables of kinds), `values`, `columns`, `schema`, and `rules` with
   `triggers` (refusals of the database itself).
2. Writing: `actor`, `database` (opening, transactions, locks), `sql` (ids, exact sums, bulk inserts), `clock`,
   `journal` (posting, a chain of hashes, and the join that reads it), `seals` (a chain of hashes over all other rows),
   `rows` (records and rows), `scrubbing`.
3. Records: `providers`, `indexes` (with certificates), `terms`, `holds`, `personal_data`, `fx`, `outputs`,
   `score_books`, `unvalued`.
4. A month: `periods`, `pools` (with allocations and reserves), `credits`, `statements`, `payouts`,
   `payee_accounts` (red flags), `corrections`.
5. Two pairs of eyes: `guards`, `approvals`.
6. Heads: `signing_keys`, `merkle`, `heads` (with `credit.proofs`, which others check them by).
7. Reading: `balances`, `transactions`.
8. `verify`, which recomputes everything.
"""
