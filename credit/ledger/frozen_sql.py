"""The SQL of a migration, which lies beside it and never changes: one file for each engine."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection


def run_frozen_sql(conn: Connection, migration: str, revision: str) -> None:
    """Run the statements of a migration for the engine at hand; an empty line ends each.

    Args:
        conn: in the transaction of the upgrade.
        migration: the migration's own file.
        revision: its number, with which the names of its files of SQL begin.
    """
    script = Path(migration).with_name(f"{revision}_{conn.dialect.name}.sql").read_text("utf-8")
    for statement in script.strip().split("\n\n"):
        # Without parameters, so that the driver reads no % as a placeholder.
        conn.exec_driver_sql(statement, execution_options={"no_parameters": True})
