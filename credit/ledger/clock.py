"""The ledger's clock: each moment is later than all recorded before, whatever the machine's clock says.

A clock can be set back, by its operator or NTP, or by a machine that resumes. What was known at a moment could then
change afterwards, because something new is recorded at or before it, and moments would not be in the order of the
chain. So the ledger keeps a clock of its own, as Lamport's clocks do: it shows what the machine's does, and where that
has not passed the last recorded moment, a microsecond more than it. All that one database transaction writes is
recorded at one moment, because nobody ever sees half of it. A clock that was ahead by mistake keeps the ledger's ahead
until time has caught up: moments are then wrong by that much, but never out of order. `notice_of_lead` says so, and
dates for banks come from the machine's clock. One that is ahead by more than ten years, as clocks are that lost count,
is refused.

Holds and closes are no transactions, and have moments too: `after_closes` and `after_holds` keep those in the order in
which they came, so that it can be told at any time later what was on hold at a close.

A moment is past for the ledger when something was recorded at or after it. What was recorded by then never changes.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, func, select

from credit.errors import LedgerError
from credit.ledger.schema import hold, ledger_txn, period
from credit.ledger.values import utc_moment
from credit.text import counted

_FLOOR = "credit.ledger.clock"
_TICK = timedelta(microseconds=1)
_UNREMARKABLE = timedelta(hours=1)
_LONGEST_REST = timedelta(days=3653)
_NEVER = datetime.min.replace(tzinfo=UTC)


def recorded_moment(conn: Connection, now: datetime) -> datetime:
    """Return when the database transaction that `conn` is in, alone among writers, records what it writes at `now`.

    Raises:
        LedgerError: the clock is ahead of the last transaction by more than ten years.
    """
    last = _last_before(conn, now) or _NEVER
    kept: tuple[object, datetime] = conn.info.get(_FLOOR, (None, _NEVER))
    if kept[0] is not conn.get_transaction():
        kept = conn.info[_FLOOR] = (conn.get_transaction(), last + _TICK)
    return max(now.astimezone(UTC), kept[1], last)


def last_recorded(conn: Connection) -> datetime | None:
    """Return when the last transaction of the chain was recorded; None where there is none."""
    query = select(ledger_txn.c.recorded_at).order_by(ledger_txn.c.seq.desc()).limit(1)
    text = conn.execute(query).scalar()
    return None if text is None else utc_moment(text)


def notice_of_lead(conn: Connection, now: datetime) -> str:
    """Return by how much the ledger's clock is ahead of the machine's, in words; empty if by an hour at most."""
    last = last_recorded(conn)
    if last is None or last - now <= _UNREMARKABLE:
        return ""
    hours = (last - now) // timedelta(hours=1)
    lead = counted(hours // 24, "day") if hours >= 48 else counted(hours, "hour")
    return (
        f"the ledger's clock is {lead} ahead of this machine's: what it records says {last:%Y-%m-%d} until time catches"
        " up; dates for banks follow this machine's clock"
    )


def _last_before(conn: Connection, now: datetime) -> datetime | None:
    """Return when the last transaction was recorded, which a right clock has not left behind for many years."""
    last = last_recorded(conn)
    if last is not None and now.astimezone(UTC) > last + _LONGEST_REST:
        raise LedgerError(
            f"this machine's clock says {now:%Y-%m-%d}, more than ten years after the last transaction"
            f" ({last:%Y-%m-%d}); set it right: what is recorded by it stays ahead of all that follows"
        )
    return last


def after_closes(conn: Connection, now: datetime) -> datetime:
    """Return when a hold is recorded: after the last close, which did not know of it."""
    _last_before(conn, now)
    closed = conn.execute(select(func.max(period.c.closed_at))).scalar()
    return max(now.astimezone(UTC), _NEVER if closed is None else utc_moment(closed) + _TICK)


def after_holds(conn: Connection, now: datetime) -> datetime:
    """Return when a period is closed: not before the last hold, which its close knew."""
    _last_before(conn, now)
    held = conn.execute(select(func.max(hold.c.created_at))).scalar()
    return max(now.astimezone(UTC), _NEVER if held is None else utc_moment(held))
