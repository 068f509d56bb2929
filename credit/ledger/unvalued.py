"""Unvalued outputs: a person takes out an output that can never be valued, with a reason, so a period can close.

Taking an output out posts its weight to the account `credits:unvalued` in the period in which it counts; nobody earns
it, and pools are divided by what the other outputs gave. The posting's memo is the reason. Restoring an output reverses
that posting, and the output is pending again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, Select, exists, func, select

from credit.errors import LedgerError
from credit.ledger import schema
from credit.ledger.accounts import AccountKind
from credit.ledger.clock import recorded_moment
from credit.ledger.database import serialise_writers
from credit.ledger.journal import Entry, Posting, post, reverse
from credit.ledger.outputs import called
from credit.ledger.periods import open_period_for
from credit.ledger.personal_data import keep_erasable
from credit.ledger.schema import ledger_entry, ledger_txn, output, valuation
from credit.ledger.seals import add_rows
from credit.ledger.sql import next_id
from credit.ledger.transaction_kinds import TransactionKind, UnvaluedDetails
from credit.ledger.values import first_day, is_storable, utc_moment, utc_text
from credit.records import CREDIT, output_name

Action = Literal["unvalued", "restored"]


@dataclass(frozen=True, slots=True)
class UnvaluedEvent:
    """One act: a person took an output out, or restored it. `period` is the one in which the act counts."""

    output: str
    action: Action
    reason: str
    period: str
    weight_micro: int
    txn_id: int
    recorded_at: datetime


def unvalue(conn: Connection, name: str, reason: str, *, now: datetime) -> UnvaluedEvent:
    """Take an output out, by the name that reports call it. The same call again changes nothing.

    Raises:
        LedgerError: the ledger has no such output, or the output is valued, weighs nothing, or is out already for
            another reason; or the reason is empty.
    """
    item = _begin(conn, name, reason, "taken out")
    last = _last(conn, item.id)
    if last is not None and last.action == "unvalued":
        if last.reason == reason:
            return last
        raise LedgerError(f"output {name!r} is unvalued already: {last.reason}")
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
        Entry(AccountKind.UNVALUED.key(), CREDIT, item.weight_micro),
    )
    kind = TransactionKind.UNVALUED
    # Numbered by the acts so far: the same output can be taken out, restored and taken out again.
    key = kind.key(output=item.id, times=item.events)
    details = UnvaluedDetails(name, item.content_sha256)
    posting = Posting(kind, open_period_for(conn, day), day, key, entries, memo=reason, details=details)
    return _record(conn, item.id, "unvalued", reason, post(conn, posting, now=now).txn_id, now)


def restore(conn: Connection, name: str, reason: str, *, now: datetime) -> UnvaluedEvent:
    """Make an unvalued output pending again. The same call again changes nothing.

    Raises:
        LedgerError: the ledger has no such output, or nobody took it out; or the reason is empty.
    """
    item = _begin(conn, name, reason, "restored")
    last = _last(conn, item.id)
    if last is None:
        raise LedgerError(f"output {name!r} is not unvalued; list the unvalued ones: credit outputs list")
    if last.action == "restored":
        return last
    period = open_period_for(conn, first_day(last.period))
    done = reverse(conn, last.txn_id, period=period, reason=reason, now=now)
    return _record(conn, item.id, "restored", reason, done.txn_id, now)


def history(conn: Connection) -> list[UnvaluedEvent]:
    """Return every act on unvalued outputs, in order."""
    return [_to_event(row) for row in conn.execute(event_rows().order_by(schema.unvalued.c.id))]


def unvalued_outputs(conn: Connection, period: str | None = None) -> list[UnvaluedEvent]:
    """Return the present unvalued outputs, of one period or of all, in the order of taking out."""
    # The last act on each output wins.
    last = {item.output: item for item in history(conn)}
    return [item for item in last.values() if item.action == "unvalued" and period in {None, item.period}]


def event_rows() -> Select[Any]:
    """Return the query for every act on an output, with the output, the transaction and the largest amount in it."""
    table = schema.unvalued
    amount = select(func.max(ledger_entry.c.amount)).where(ledger_entry.c.txn_id == table.c.txn_id).scalar_subquery()
    return (
        select(table, output.c.source, output.c.external_id, output.c.weight_micro, output.c.content_sha256)
        .add_columns(ledger_txn.c.kind, ledger_txn.c.memo, ledger_txn.c.details_json, ledger_txn.c.reverses_txn_id)
        .add_columns(ledger_txn.c.period_id, ledger_txn.c.recorded_at.label("posted_at"), amount.label("amount"))
        .join_from(table, output, output.c.id == table.c.output_id)
        .join(ledger_txn, ledger_txn.c.id == table.c.txn_id)
    )


def _begin(conn: Connection, name: str, reason: str, what: str) -> Row[Any]:
    """Return an output by its name; `valued` and `events` (the acts on it so far) come with its columns."""
    if not reason.strip() or not is_storable(reason):
        raise LedgerError(f"output {name!r} can be {what} only with a reason, in words that a database can keep")
    serialise_writers(conn)
    keep_erasable(conn, reason, "the reason")
    valued = exists().where(valuation.c.output_id == output.c.id).label("valued")
    events = select(func.count()).where(schema.unvalued.c.output_id == output.c.id).scalar_subquery().label("events")
    found = conn.execute(called(select(output, valued, events), name)).one_or_none()
    if found is None:
        raise LedgerError(f"there is no output {name!r}; list the pending ones: credit outputs list")
    return found


def _record(conn: Connection, output_id: int, action: Action, reason: str, txn_id: int, now: datetime) -> UnvaluedEvent:
    row = {"id": next_id(conn, schema.unvalued), "output_id": output_id, "action": action, "reason": reason}
    add_rows(conn, schema.unvalued, [{**row, "txn_id": txn_id, "recorded_at": utc_text(recorded_moment(conn, now))}])
    found = _last(conn, output_id)
    if found is None:
        raise LedgerError(f"output {output_id} was not recorded as {action}")
    return found


def _last(conn: Connection, output_id: int) -> UnvaluedEvent | None:
    newest = event_rows().where(schema.unvalued.c.output_id == output_id).order_by(schema.unvalued.c.id.desc())
    row = conn.execute(newest.limit(1)).one_or_none()
    return None if row is None else _to_event(row)


def _to_event(row: Row[Any]) -> UnvaluedEvent:
    return UnvaluedEvent(
        output=output_name(row.source, row.external_id),
        action=row.action,
        reason=row.reason,
        period=row.period_id,
        weight_micro=row.weight_micro,
        txn_id=row.txn_id,
        recorded_at=utc_moment(row.recorded_at),
    )
