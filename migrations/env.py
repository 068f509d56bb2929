"""Alembic's environment: runs inside the transaction that `credit.ledger.database.upgrade` opened.

There is no alembic.ini and no offline mode. `credit init` is the way in, so that a revision and the record of it are
one transaction on both engines.
"""

from __future__ import annotations

from alembic import context

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("run the migrations with `credit init`; they need the connection that it opens")

context.configure(connection=connection)
with context.begin_transaction():
    context.run_migrations()
