"""The SQL ledger: double entry, append-only, hash-chained, on SQLite and PostgreSQL; knows nothing of models.

Read in this order:

- what there is: `values`, `schema` (the tables), `rules` and `triggers` (what the database itself refuses);
- how it is written: `database` (opening, transactions, locks, migrations: `frozen_sql`), `clock`, `bulk`, `accounts`,
  `journal` (posting, a chain of hashes), `seals` (a chain over all other rows), `scrubbing` (what was erased leaves
  the files);
- what is recorded: `providers`, `indexes`, `terms`, `holds`, `personal_data`, `issuers`, `fx`, `outputs` (logged
  outputs), `score_books` (how their credit was shared out), `set_aside`, `certificates`;
- what a close works with and decides: `periods`, `pools`, `settlement`, `statements`, `payouts` (and what becomes of
  them), `corrections` (what people post by hand);
- what is read: `balances`, `transactions`, `credits` (credits earned, by whom and by which method);
- `integrity`, which recomputes all of it, by `crosschecks`, `closechecks`, `paychecks` and `sealchecks`.
"""
