"""The SQL ledger: double entry, append-only, hash-chained, on SQLite and PostgreSQL; it knows nothing of models.

Read in this order:

1. Tables: `accounts` and `transaction_kinds` (the two tables of kinds), `values`, `columns`, `schema`, and `rules` with
   `triggers` (refusals of the database itself); `views` (for other software).
2. Writing: `actor`, `database` (opening, transactions, locks), `sql` (ids, exact sums, bulk inserts), `clock`,
   `journal` (posting, a chain of hashes, and the join that reads it), `seals` (a chain of hashes over all other rows),
   `rows` (records and rows), `scrubbing`.
3. Records: `providers`, `indexes` (with certificates and reviews), `terms`, `holds`, `personal_data`, `fx`.
4. Outputs: `outputs`, `aliases` (names of models in logs), `admission` with `identities` and `lookalikes` (one call is
   one output), `file_readings`, `score_books`, `unvalued`, `purges`.
5. A month: `periods`, `limits` (on users), `pools` (with allocations and reserves), `credits`, `statements`, `payouts`,
   `voids`, `payee_accounts` (red flags), `corrections`, `remittances`.
6. Who may do what: `guards` and `approvals` (two pairs of eyes), `roles` (of a PostgreSQL database).
7. Heads: `signing_keys`, `merkle`, `heads` (with `credit.proofs`, which others check them by).
8. Reading: `balances`, `transactions`.
9. `verify`, which recomputes everything.
"""
