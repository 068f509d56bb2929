"""Changes behind the ledger's back, for tests of what `credit verify` finds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from credit.ledger import triggers
from credit.ledger.verify import CHECKS
from credit.ledger.verify.definitions import check_definitions

CHECKS_OF_ROWS = tuple(check for check in CHECKS if check is not check_definitions)
"""Every check but that of tables and triggers: where triggers are off, it would name them."""

INSERT_ENTRY = (
    "INSERT INTO ledger_entry (txn_id, line_no, entry_count, account_id, commodity, amount)"
    " VALUES (:txn, :line, :count, :account, :commodity, :amount)"
)


@contextmanager
def unguarded(url: str, *, undo: bool = False) -> Iterator[Connection]:
    """A transaction in which no trigger, foreign key and (on SQLite) no CHECK holds; the triggers are back afterwards.

    `undo`: it leaves nothing.
    """
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)
    with engine.connect() as conn:
        if conn.dialect.name == "postgresql":
            conn.exec_driver_sql("SET session_replication_role = replica")
            yield conn
        else:
            conn.connection.driver_connection.isolation_level = None
            conn.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
            conn.exec_driver_sql("BEGIN")
            made = triggers.installed(conn)
            for name in made:
                conn.exec_driver_sql(f"DROP TRIGGER {name}")
            yield conn
            if not undo:
                for definition in made.values():
                    conn.exec_driver_sql(definition)
        conn.rollback() if undo else conn.commit()


@contextmanager
def undone(conn: Connection) -> Iterator[Connection]:
    """Context in a transaction; whatever happens in it is undone at its end."""
    with conn.begin_nested() as savepoint:
        yield conn
        savepoint.rollback()
