"""Alembic's environment: runs inside the transaction that `credit.ledger.database.upgrade` opened.

There is no alembic.ini and no offline mode. `credit init` is the way in, so that a revision and the record of it are
one transaction on both engines.
"""

from __future__ import annotations

from pathlib import Path

from alembic import context

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("run the migrations with `credit init`; they need the connection that it opens")


def run_sql_beside(revision: str) -> None:
    """Run the SQL beside a revision's file. It is in SQLite's words; PostgreSQL has other names for two types."""
    script = Path(revision).with_suffix(".sql").read_text("utf-8")
    if connection.dialect.name == "postgresql":
        for ours, theirs in ((") STRICT;", ");"), (" INTEGER", " BIGINT"), (" TEXT", ' TEXT COLLATE "C"')):
            script = script.replace(ours, theirs)
    for statement in script.split(";\n")[:-1]:
        # Without parameters, so that the driver reads no % as a placeholder.
        connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


# Handed over, because a revision has no package to import it from; 0001 is frozen with a loop of its own.
context.config.attributes["run_sql_beside"] = run_sql_beside
context.configure(connection=connection)
with context.begin_transaction():
    context.run_migrations()
