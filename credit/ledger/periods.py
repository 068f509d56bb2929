"""Periods: calendar months that open with their first posting and close in their order, for good."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from sqlalchemy import Connection, func, select, update

from credit.errors import LedgerError, PeriodClosedError
from credit.ledger.clock import after_holds
from credit.ledger.database import serialise_writers
from credit.ledger.journal import ensure_period
from credit.ledger.outputs import has_outputs
from credit.ledger.rows import read_row
from credit.ledger.schema import period
from credit.ledger.seals import seal_row
from credit.ledger.values import check_period, following, utc_text
from credit.records import period_of


@dataclass(frozen=True, slots=True)
class Period:
    """A calendar month; `close_policy_json` is the policy of its close."""

    id: str
    status: Literal["open", "closed"]
    opened_at: datetime
    closed_at: datetime | None
    close_policy_json: str | None


def periods(conn: Connection) -> list[Period]:
    """Return every period of the ledger, in order."""
    return [read_row(Period, row) for row in conn.execute(select(period).order_by(period.c.id))]


def existing_period(conn: Connection, name: str) -> Period:
    """Return a period; LedgerError when it has no postings or is no month."""
    check_period(name)
    found = next((item for item in periods(conn) if item.id == name), None)
    if found is None:
        raise LedgerError(
            f"the ledger has no period {name}; it opens with its first credits (credit compute) or pool"
            f" (credit pool add {name} AMOUNT CURRENCY)"
        )
    return found


def last_closed(conn: Connection) -> str | None:
    """Return the last closed period, or None; the periods before it take no postings either."""
    return conn.execute(select(func.max(period.c.id)).where(period.c.status == "closed")).scalar()


def open_period_for(conn: Connection, day: date) -> str:
    """Return the period in which a day counts: its own month, or the first month after the last closed one."""
    closed = last_closed(conn)
    name = period_of(day)
    return name if closed is None or name > closed else following(closed)


def unclosed_before(conn: Connection, name: str) -> list[str]:
    """Return the open periods before `name`, in order; they must close first."""
    query = select(period.c.id).where(period.c.id < name, period.c.status == "open").order_by(period.c.id)
    return list(conn.execute(query).scalars())


def close_lock(conn: Connection, name: str, *, now: datetime) -> None:
    """Lock a period for its close: until commit, nobody else posts into it or closes it.

    A month with logged outputs but without postings is opened first.

    Raises:
        LedgerError: there is no such period.
        PeriodClosedError: the period, or a later one, is closed.
    """
    serialise_writers(conn)
    # PostgreSQL: posts hold the row FOR SHARE until they commit (see `triggers`). SQLite ignores FOR UPDATE.
    query = select(period.c.status).where(period.c.id == name).with_for_update()
    status = conn.execute(query).scalar()
    if status is None:
        if not has_outputs(conn, name):
            raise LedgerError(f"there is no period {name}; it opens with its first output or pool")
        ensure_period(conn, name, now=now)
        conn.execute(query)  # again, to lock the new row
    if status == "closed":
        raise PeriodClosedError(f"period {name} is closed already")


def mark_closed(conn: Connection, name: str, *, policy_json: str, now: datetime) -> None:
    """Close a period for good: the last step of a close, in the transaction of `close_lock`."""
    values = {"status": "closed", "closed_at": utc_text(after_holds(conn, now)), "close_policy_json": policy_json}
    conn.execute(update(period).where(period.c.id == name).values(**values))
    seal_row(conn, period, name)
