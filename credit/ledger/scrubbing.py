"""Scrubbing: remove the bytes of deleted rows and emptied texts from a database's files, or say that they are there.

A deleted row, or the old version of a changed one, stays in the files while an older snapshot may read it, and longer
until the engine cleans up. Scrubbing makes either engine clean up at once, and asks for the result.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.exc import OperationalError

from credit.errors import LedgerError, LockHeldError

_AGAIN = "end it, then run this again to clean the files"
_LOCK_NOT_AVAILABLE = "55P03"
"""PostgreSQL's SQLSTATE of a lock that was not given in time."""


def scrub_sqlite(conn: Connection, place: str) -> None:
    """Rewrite the database file without deleted rows, and cut the write-ahead log to nothing."""
    raw = conn.connection.driver_connection
    if raw is None:
        raise LedgerError(f"the connection to {place} was lost; run this again")
    # Both: VACUUM writes the new pages into the log, and the old ones stay in the file until the checkpoint.
    try:
        raw.execute("VACUUM")
        busy, _, _ = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError as error:
        # The low byte is the primary code; the rest tells apart variants such as SQLITE_BUSY_SNAPSHOT.
        if error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise LockHeldError(f"another run writes to {place} ({error}); {_AGAIN}") from error
        raise LedgerError(f"{place} cannot be written anew ({error}); mend that, then run this again") from error
    if busy:
        raise LockHeldError(f"another run reads {place}; {_AGAIN}")


def scrub_postgresql(conn: Connection, tables: Sequence[Table], place: str, *, wait_ms: int) -> None:
    """Rewrite tables that lose data, and ask the server for old rows left in them.

    VACUUM FULL keeps rows for open snapshots, and passes over tables of other users; it calls neither an error. The
    first number in a detail of its notices counts the kept rows.
    """
    # VACUUM cannot run inside a transaction.
    conn.execution_options(isolation_level="AUTOCOMMIT")
    raw: Any = conn.connection.driver_connection
    carried: list[int] = []
    said: list[str] = []

    def told(notice: Any) -> None:
        said.append(str(notice.message_primary))
        carried.extend(int(number) for number in re.findall(r"^\d+", notice.message_detail or ""))

    raw.add_notice_handler(told)
    conn.exec_driver_sql(f"SET lock_timeout = {wait_ms}")
    names = ", ".join(table.name for table in tables)
    try:
        conn.exec_driver_sql(f"VACUUM (FULL, VERBOSE) {names}")
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise LockHeldError(f"another session of {place} uses {names}; {_AGAIN}") from error
    finally:
        conn.exec_driver_sql("RESET lock_timeout")
        raw.remove_notice_handler(told)
    # No count for a table means that the server skipped it.
    if len(carried) < len(tables):
        raise LedgerError(f"{place} did not write {names} anew: {'; '.join(said)}; run this as its owner")
    if any(carried):
        raise LockHeldError(f"an older transaction in {place} may still read deleted rows; {_AGAIN}")
