"""The ledger's clock: it never goes back, even when the machine's clock does.

An operator, NTP or a resuming machine can set a clock back. Moments would then leave the order of the chain, and the
answer to "what did the ledger know at noon?" could change in the afternoon. So the ledger keeps a logical clock
(Lamport, 1978). It shows the machine's time. If the last recorded moment is later, it shows one microsecond
after it. All rows of one database transaction get one moment, because nobody ever sees half of it.

A clock set ahead by mistake keeps the ledger's clock ahead until time catches up. Moments are then wrong, but never out
of order. `notice_of_lead` says so, and dates for banks come from the machine's clock. The ledger refuses a clock more
than ten years ahead.

Holds and closes are no transactions and have moments too. `after_closes` and `after_holds` keep both in their true
order. So the ledger can always tell the holds at a close.

A moment is past for the ledger once it has recorded something at or after it. The record up to it never changes.
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
    """Return the recording moment, at `now`, of the present database transaction; no other one may write.

    Raises:
        LedgerError: the clock is ahead of the last transaction by more than ten years.
    """
    last = _last_before(conn, now) or _NEVER
    # The floor holds for the whole database transaction: its own postings must not push it on.
    kept: tuple[object, datetime] = conn.info.get(_FLOOR, (None, _NEVER))
    if kept[0] is not conn.get_transaction():
        kept = conn.info[_FLOOR] = (conn.get_transaction(), last + _TICK)
    return max(now.astimezone(UTC), kept[1], last)


def last_recorded(conn: Connection) -> datetime | None:
    """Return the recording moment of the chain's last transaction; None where there is none."""
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
    """Return the recording moment of the last transaction; refuse a clock many years past it."""
    last = last_recorded(conn)
    if last is not None and now.astimezone(UTC) > last + _LONGEST_REST:
        raise LedgerError(
            f"this machine's clock says {now:%Y-%m-%d}, more than ten years after the last transaction"
            f" ({last:%Y-%m-%d}); set it right: the ledger's clock would stay ahead with it"
        )
    return last


def after_closes(conn: Connection, now: datetime) -> datetime:
    """Return the moment of a new hold: after the last close, because the close did not know of it."""
    _last_before(conn, now)
    # A microsecond later, because `holds(until=closed_at)` counts a hold of the same moment.
    closed = conn.execute(select(func.max(period.c.closed_at))).scalar()
    return max(now.astimezone(UTC), _NEVER if closed is None else utc_moment(closed) + _TICK)


def after_holds(conn: Connection, now: datetime) -> datetime:
    """Return the moment of a close: not before the last hold, because the close knows of it."""
    _last_before(conn, now)
    held = conn.execute(select(func.max(hold.c.created_at))).scalar()
    return max(now.astimezone(UTC), _NEVER if held is None else utc_moment(held))
