"""Outputs that cannot be valued, set aside on record, so that they hold up no close.

What an output would distribute goes to the account `credits:set-aside` instead of to anybody who might have earned it:
the pool is divided by what the other outputs gave. It is a transaction like any other, in the period in which the
output counts, with the reason as its memo. Taken back, it is reversed, and the output waits to be valued again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, Select, exists, func, select

from credit.errors import LedgerError
from credit.ledger import schema
from credit.ledger.accounts import AccountKind
from credit.ledger.clock import recorded_moment
from credit.ledger.crosschecks import Problem
from credit.ledger.database import serialise_writers
from credit.ledger.journal import Entry, Posting, post, reverse
from credit.ledger.outputs import called, is_set_aside
from credit.ledger.periods import first_day, open_period_for
from credit.ledger.personal_data import keep_erasable
from credit.ledger.schema import ledger_entry, ledger_txn, next_id, output, valuation
from credit.ledger.seals import add_rows
from credit.ledger.transaction_kinds import TransactionKind, UnvaluedDetails
from credit.ledger.values import is_storable, utc_moment, utc_text
from credit.records import CREDIT, output_name

Action = Literal["set-aside", "restored"]


@dataclass(frozen=True, slots=True)
class SetAside:
    """An output that was set aside, or taken back; `period` is the one that it counts in."""

    output: str
    action: Action
    reason: str
    period: str
    weight_micro: int
    txn_id: int
    recorded_at: datetime


def set_aside(conn: Connection, name: str, reason: str, *, now: datetime) -> SetAside:
    """Set an output aside, by the name that reports call it; again changes nothing.

    Raises:
        LedgerError: there is no such output, it is valued, weighs nothing, is set aside for another reason, or no
            reason is given.
    """
    item = _begin(conn, name, reason, "set aside")
    last = _last(conn, item.id)
    if last is not None and last.action == "set-aside":
        if last.reason == reason:
            return last
        raise LedgerError(f"output {name!r} is set aside already: {last.reason}")
    if item.valued:
        raise LedgerError(
            f"output {name!r} is valued and credited; credit reverse undoes the credits of a day, credit restate those"
            " of a closed period"
        )
    if item.weight_micro == 0:
        raise LedgerError(f"output {name!r} weighs nothing: it distributes nothing and holds up no close")
    day = date.fromisoformat(item.occurred_at[:10])
    entries = (
        Entry(AccountKind.ISSUED.key(), CREDIT, -item.weight_micro),
        Entry(AccountKind.SET_ASIDE.key(), CREDIT, item.weight_micro),
    )
    kind = TransactionKind.SET_ASIDE
    key = kind.key(output=item.id, times=item.events)
    details = UnvaluedDetails(name, item.content_sha256)
    posting = Posting(kind, open_period_for(conn, day), day, key, entries, memo=reason, details=details)
    return _record(conn, item.id, "set-aside", reason, post(conn, posting, now=now).txn_id, now)


def restore(conn: Connection, name: str, reason: str, *, now: datetime) -> SetAside:
    """Let an output that was set aside wait for its valuation again; again changes nothing.

    Raises:
        LedgerError: there is no such output, it is not set aside, or no reason is given.
    """
    item = _begin(conn, name, reason, "taken back")
    last = _last(conn, item.id)
    if last is None:
        raise LedgerError(f"output {name!r} is not set aside; see what is: credit outputs list")
    if last.action == "restored":
        return last
    period = open_period_for(conn, first_day(last.period))
    done = reverse(conn, last.txn_id, period=period, reason=reason, now=now)
    return _record(conn, item.id, "restored", reason, done.txn_id, now)


def history(conn: Connection) -> list[SetAside]:
    """Return everything that was ever set aside or taken back, in order."""
    return [_to_event(row) for row in conn.execute(_events().order_by(schema.set_aside.c.id))]


def standing(conn: Connection, period: str | None = None) -> list[SetAside]:
    """Return what is set aside now, of one period or of all, in the order in which it was."""
    last = {item.output: item for item in history(conn)}
    return [item for item in last.values() if item.action == "set-aside" and period in {None, item.period}]


def check_set_aside(conn: Connection) -> Iterator[Problem]:
    """Yield every row that its transaction does not say, and every transaction that has lost its row."""
    before: dict[int, Row[Any]] = {}
    for row in conn.execute(_events().order_by(schema.set_aside.c.id)).all():
        fault = _fault(row, before.get(row.output_id))
        if fault is not None:
            yield Problem(f"set_aside {row.id}", fault)
        before[row.output_id] = row
    undone = ledger_txn.alias("undone")
    rowless = (
        select(ledger_txn.c.id)
        .outerjoin_from(ledger_txn, undone, undone.c.id == ledger_txn.c.reverses_txn_id)
        .where((ledger_txn.c.kind == TransactionKind.SET_ASIDE) | (undone.c.kind == TransactionKind.SET_ASIDE))
        .where(~exists().where(schema.set_aside.c.txn_id == ledger_txn.c.id))
        .order_by(ledger_txn.c.id)
    )
    for number in conn.execute(rowless).scalars():
        yield Problem(f"transaction {number}", "sets an output aside, or takes it back, and no row says which")
    both = select(output.c.id).join_from(output, valuation).where(is_set_aside()).order_by(output.c.id)
    for number in conn.execute(both).scalars():
        yield Problem(f"output {number}", "is valued, and set aside at once")


def _fault(row: Row[Any], before: Row[Any] | None) -> str | None:
    said = UnvaluedDetails.read(row.details_json)
    posted = (row.kind, row.memo, row.posted_at)
    if row.action == "set-aside":
        expected = UnvaluedDetails(_name(row), row.content_sha256)
        if (
            posted != (TransactionKind.SET_ASIDE, row.reason, row.recorded_at)
            or said != expected
            or row.amount != row.weight_micro
        ):
            return f"is not what transaction {row.txn_id} says was set aside"
    elif (
        before is None
        or posted != (TransactionKind.REVERSAL, row.reason, row.recorded_at)
        or row.reverses_txn_id != before.txn_id
    ):
        return f"is not what transaction {row.txn_id} says was taken back"
    if before is not None and before.action == row.action:
        return f"says {row.action} twice in a row"
    return None


def _begin(conn: Connection, name: str, reason: str, what: str) -> Row[Any]:
    """Find an output by its name, with whether it is valued and how often it was set aside or taken back."""
    if not reason.strip() or not is_storable(reason):
        raise LedgerError(f"output {name!r} is not {what} without a reason, in words that a database can keep")
    serialise_writers(conn)
    keep_erasable(conn, reason, "the reason")
    valued = exists().where(valuation.c.output_id == output.c.id).label("valued")
    events = select(func.count()).where(schema.set_aside.c.output_id == output.c.id).scalar_subquery().label("events")
    found = conn.execute(called(select(output, valued, events), name)).one_or_none()
    if found is None:
        raise LedgerError(f"there is no output {name!r}; credit outputs list shows what waits to be valued")
    return found


def _record(conn: Connection, output_id: int, action: Action, reason: str, txn_id: int, now: datetime) -> SetAside:
    row = {"id": next_id(conn, schema.set_aside), "output_id": output_id, "action": action, "reason": reason}
    add_rows(conn, schema.set_aside, [{**row, "txn_id": txn_id, "recorded_at": utc_text(recorded_moment(conn, now))}])
    found = _last(conn, output_id)
    if found is None:
        raise LedgerError(f"output {output_id} was not recorded as {action}")
    return found


def _last(conn: Connection, output_id: int) -> SetAside | None:
    newest = _events().where(schema.set_aside.c.output_id == output_id).order_by(schema.set_aside.c.id.desc())
    row = conn.execute(newest.limit(1)).one_or_none()
    return None if row is None else _to_event(row)


def _events() -> Select[Any]:
    table = schema.set_aside
    amount = select(func.max(ledger_entry.c.amount)).where(ledger_entry.c.txn_id == table.c.txn_id).scalar_subquery()
    return (
        select(table, output.c.source, output.c.external_id, output.c.weight_micro, output.c.content_sha256)
        .add_columns(ledger_txn.c.kind, ledger_txn.c.memo, ledger_txn.c.details_json, ledger_txn.c.reverses_txn_id)
        .add_columns(ledger_txn.c.period_id, ledger_txn.c.recorded_at.label("posted_at"), amount.label("amount"))
        .join_from(table, output, output.c.id == table.c.output_id)
        .join(ledger_txn, ledger_txn.c.id == table.c.txn_id)
    )


def _name(row: Row[Any]) -> str:
    return output_name(row.source, row.external_id)


def _to_event(row: Row[Any]) -> SetAside:
    moment = utc_moment(row.recorded_at)
    return SetAside(_name(row), row.action, row.reason, row.period_id, row.weight_micro, row.txn_id, moment)
