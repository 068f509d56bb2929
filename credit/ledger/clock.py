"""When the ledger records something: later than all that it recorded before, whatever the machine's clock says.

A clock can be set back, by its operator or NTP, or by a machine that resumes. What was known at a moment could then
change afterwards, because something new is recorded at or before it, and moments would not be in the order of the
chain. So the ledger keeps a clock of its own, as Lamport's clocks do: it shows what the machine's does, and where that
has not passed the last recorded moment, a microsecond more than it. All that one database transaction writes is
recorded at one moment, because nobody ever sees half of it. A clock that was ahead by mistake keeps the ledger's ahead
until time has caught up: moments are then wrong by that much, but never out of order.

Holds and closes are no transactions, and have moments too: `after_closes` and `after_holds` keep those in the order in
which they came, so that it can be told at any time later what was on hold at a close.

A moment is past for the ledger when something was recorded at or after it. What was recorded by then never changes.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, func, select

from credit.ledger.schema import hold, ledger_txn, period
from credit.ledger.values import utc_moment

_FLOOR = "credit.ledger.clock"
_TICK = timedelta(microseconds=1)
_NEVER = datetime.min.replace(tzinfo=UTC)


def recorded_moment(conn: Connection, now: datetime) -> datetime:
    """Return when the database transaction that `conn` is in, alone among writers, records what it writes at `now`."""
    last = last_recorded(conn) or _NEVER
    kept: tuple[object, datetime] = conn.info.get(_FLOOR, (None, _NEVER))
    if kept[0] is not conn.get_transaction():
        kept = conn.info[_FLOOR] = (conn.get_transaction(), last + _TICK)
    return max(now.astimezone(UTC), kept[1], last)


def last_recorded(conn: Connection) -> datetime | None:
    """Return when the last transaction of the chain was recorded; None where there is none."""
    query = select(ledger_txn.c.recorded_at).order_by(ledger_txn.c.seq.desc()).limit(1)
    text = conn.execute(query).scalar()
    return None if text is None else utc_moment(text)


def after_closes(conn: Connection, now: datetime) -> datetime:
    """Return when a hold is recorded: after the last close, which did not know of it."""
    closed = conn.execute(select(func.max(period.c.closed_at))).scalar()
    return max(now.astimezone(UTC), _NEVER if closed is None else utc_moment(closed) + _TICK)


def after_holds(conn: Connection, now: datetime) -> datetime:
    """Return when a period is closed: not before the last hold, which its close knew."""
    held = conn.execute(select(func.max(hold.c.created_at))).scalar()
    return max(now.astimezone(UTC), _NEVER if held is None else utc_moment(held))
