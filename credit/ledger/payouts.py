"""Payouts: the money of a close to be paid, its batches, and the bank's results.

| step | from | to | status of the payout |
|---|---|---|---|
| a batch is exported | `money:payout:<provider>` | `money:payout:<provider>/exported` | exported |
| the bank has paid | `money:payout:<provider>/exported` | `money:external` | paid |
| the bank has refused | `money:payout:<provider>/exported` | `money:payout:<provider>` | failed |
| the money came back | `money:external` | `money:payout:<provider>` | failed |
| a person voids it | `money:payout:<provider>` | `money:payable:<provider>`, the house's, or escrow | void |

Each step is a transaction of the ledger and an event of the payout. The database refuses an event out of its turn, and
a status that differs from the last event's. A failed payout may leave again, in a new batch. Nothing leaves twice: only
pending and failed payouts can be exported, and one writer at a time decides. A void (`credit.ledger.voids`) has a row
of its own and no event: it is of no batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal

from sqlalchemy import ColumnElement, Connection, bindparam, case, exists, func, select, update

from credit.errors import LedgerError
from credit.ledger.accounts import AccountKind, exported_account
from credit.ledger.clock import recorded_moment
from credit.ledger.database import serialise_writers
from credit.ledger.journal import Entry, Posting, chain_head, post_all
from credit.ledger.periods import open_period_for
from credit.ledger.rows import PROVIDER, add_records, read_row
from credit.ledger.schema import payout, payout_batch, payout_event, payout_void, provider
from credit.ledger.sql import next_id
from credit.ledger.transaction_kinds import ExportDetails, ResultDetails, TransactionDetails, TransactionKind
from credit.ledger.values import utc_text
from credit.records import PaymentFormat

PayoutStatus = Literal["pending", "exported", "paid", "failed", "void"]
Outcome = Literal["paid", "failed", "returned"]

OUTCOME_KINDS: Mapping[Outcome, TransactionKind] = {
    "paid": TransactionKind.PAYMENT_PAID,
    "failed": TransactionKind.PAYMENT_FAILED,
    "returned": TransactionKind.PAYMENT_RETURNED,
}
"""Kinds of the transactions of a bank's results."""


_VOID = exists().where(payout_void.c.payout_id == payout.c.id)
_STATUS = case((_VOID, "void"), else_=payout.c.status).label("status")
_COLUMNS = (*(column for column in payout.columns if column.name != "status"), _STATUS, PROVIDER)


@dataclass(frozen=True, slots=True)
class Payout:
    """Money for a provider, in minor units, that a close decided to pay."""

    id: int
    period: str
    provider: str
    currency: str
    amount_minor: int
    status: PayoutStatus
    txn_id: int


@dataclass(frozen=True, slots=True)
class NewPayout:
    """A payout before it is recorded, in minor units, with the transaction of its approval."""

    provider: str
    currency: str
    amount_minor: int
    txn_id: int


def add_payouts(conn: Connection, name: str, items: Sequence[NewPayout]) -> None:
    """Record the payouts of a close."""
    serialise_writers(conn)
    add_records(conn, payout, items, period_id=name, status="pending")


def payout_counts(conn: Connection) -> dict[str, dict[PayoutStatus, int]]:
    """Return the number of payouts of each period by status."""
    found: dict[str, dict[PayoutStatus, int]] = {}
    by = (payout.c.period_id, _STATUS)
    for name, status, count in conn.execute(select(*by, func.count()).group_by(*by).order_by(*by)):
        found.setdefault(name, {})[status] = count
    return found


def payouts(conn: Connection, name: str) -> list[Payout]:
    """Return the payouts of a period, by provider's key and currency."""
    return _payouts(conn, payout.c.period_id == name)


def unpaid_payouts(conn: Connection, provider_key: str) -> list[Payout]:
    """Return the payouts of a provider that have not left, or came back, by currency."""
    return _payouts(conn, provider.c.key == provider_key, _STATUS.in_(["pending", "failed"]))


def _payouts(conn: Connection, *where: ColumnElement[bool]) -> list[Payout]:
    query = select(*_COLUMNS).join_from(payout, provider).where(*where)
    return [read_row(Payout, row) for row in conn.execute(query.order_by(provider.c.key, payout.c.currency))]


@dataclass(frozen=True, slots=True)
class PayoutBatch:
    """Payouts of a period and currency that left in one file; `payer_json` is the payer's own data."""

    id: int
    period: str
    currency: str
    format: PaymentFormat
    reference: str
    payer_json: str
    payout_count: int
    amount_minor: int
    file_sha256: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class BankResult:
    """A bank's result for a payout; a new one can give the bank's value date, and the fee that banks kept of it."""

    payout_id: int
    outcome: Outcome
    bank_reference: str
    reason: str
    value_on: date | None = None
    fee_minor: int | None = None


@dataclass(frozen=True, slots=True)
class BatchedPayout:
    """A payout in a batch, with the version of the provider's details in the file, and the bank's results.

    `reference` is the payout's id in the file and unique over all batches. `results` are in order: none yet, one, or
    paid and then returned.
    """

    payout: Payout
    details_id: int
    reference: str
    results: tuple[BankResult, ...]

    @property
    def outcome(self) -> Outcome | None:
        """The last outcome; None before the first."""
        return self.results[-1].outcome if self.results else None


@dataclass(frozen=True, slots=True)
class NewBatch:
    """The identity of the next batch, from which its file is made.

    `created_at` is by the ledger's clock, `exported_on` a day in UTC by the machine's.
    """

    id: int
    reference: str
    created_at: datetime
    exported_on: date


def payable_payouts(conn: Connection, period: str, *, retry: bool) -> list[Payout]:
    """Return a period's pending payouts, or with `retry` its failed ones, by provider and currency."""
    return _payouts(conn, payout.c.period_id == period, _STATUS.in_(["failed" if retry else "pending"]))


def next_batch(conn: Connection, now: datetime) -> NewBatch:
    """Return the identity of the next batch.

    Its reference carries the head of the chain, so batches of two ledgers never share one.
    """
    serialise_writers(conn)
    number = next_id(conn, payout_batch)  # safe: one writer at a time, and the batch follows in this transaction
    _, head = chain_head(conn)
    return NewBatch(number, f"CR{number}-{head[:8]}", recorded_moment(conn, now), now.astimezone(UTC).date())


def payout_reference(batch_reference: str, payout_id: int) -> str:
    """Return a payout's id in the file of a batch: at most 35 characters that every payment service takes."""
    return f"{batch_reference}-{payout_id}"


def record_batch(
    conn: Connection,
    new: NewBatch,
    *,
    period: str,
    currency: str,
    format: PaymentFormat,  # noqa: A002 - the column's name, and always given by keyword
    payer_json: str,
    items: Sequence[tuple[Payout, int]],
    file_sha256: str,
    waiting_days: int | None = None,
) -> PayoutBatch:
    """Record an exported file: the batch, the transaction of its money, and an event for each payout.

    Args:
        conn: from `Ledger.write`, in the transaction of `next_batch`.
        new: from `next_batch`.
        period: the payouts' period.
        currency: the payouts' currency.
        format: of the file.
        payer_json: the payer's data in the file.
        items: each payout, with the version of its provider's details in the file.
        file_sha256: of the file.
        waiting_days: how long a changed account has to wait.

    Raises:
        LedgerError: one of the payouts cannot leave.
    """
    lines = [
        entry
        for item, _ in items
        for entry in (
            Entry(AccountKind.PAYOUT.key(item.provider), currency, -item.amount_minor),
            Entry(exported_account(item.provider), currency, item.amount_minor),
        )
    ]
    details = ExportDetails(
        batch=new.id,
        reference=new.reference,
        format=format,
        period=period,
        payer=payer_json,
        payouts=[item.id for item, _ in items],
        details=[version for _, version in items],
        file_sha256=file_sha256,
        waiting_days=waiting_days,
    )
    kind = TransactionKind.PAYMENT_EXPORT
    step = _Step(kind, kind.key(batch=new.id), lines, details, new.exported_on)
    (txn_id,) = _post(conn, [step], new.created_at)
    batch = PayoutBatch(
        new.id,
        period,
        currency,
        format,
        new.reference,
        payer_json,
        len(items),
        sum(item.amount_minor for item, _ in items),
        file_sha256,
        new.created_at,
    )
    add_records(conn, payout_batch, [batch], txn_id=txn_id)
    _add_events(
        conn, new.id, [_Event(item.id, "exported", txn_id, details_id) for item, details_id in items], new.created_at
    )
    return batch


def record_results(conn: Connection, batch: PayoutBatch, results: Sequence[BankResult], *, now: datetime) -> None:
    """Record results of payouts of a batch, each as a transaction and an event.

    A transaction takes effect on the bank's value date, so that a payment of November which is confirmed in January is
    November's in the books; without one, on the day of recording.

    Raises:
        LedgerError: a payout is not exported (or, before a return, not paid), or it left in another batch.
    """
    items = {item.payout.id: item.payout for item in batch_items(conn, batch)}
    external = AccountKind.EXTERNAL.key()
    steps = []
    for result in results:
        item = items[result.payout_id]
        source = external if result.outcome == "returned" else exported_account(item.provider)
        to = external if result.outcome == "paid" else AccountKind.PAYOUT.key(item.provider)
        lines = [Entry(source, item.currency, -item.amount_minor), Entry(to, item.currency, item.amount_minor)]
        valued = result.value_on.isoformat() if result.value_on else None
        details = ResultDetails(batch.id, item.id, result.bank_reference, result.reason, valued, result.fee_minor)
        kind, day = OUTCOME_KINDS[result.outcome], result.value_on or now.date()
        steps.append(_Step(kind, kind.key(batch=batch.id, payout=item.id), lines, details, day))
    posted = _post(conn, steps, now)
    events = [
        _Event(
            result.payout_id,
            "paid" if result.outcome == "paid" else "failed",
            txn_id,
            reference=result.bank_reference,
            reason=result.reason,
        )
        for result, txn_id in zip(results, posted, strict=True)
    ]
    _add_events(conn, batch.id, events, now)


def batches(conn: Connection, period: str | None = None) -> list[PayoutBatch]:
    """Return the batches of a period, or all, in the order of export."""
    query = select(payout_batch).order_by(payout_batch.c.id)
    if period is not None:
        query = query.where(payout_batch.c.period_id == period)
    return [read_row(PayoutBatch, row) for row in conn.execute(query)]


def batch(conn: Connection, number: int) -> PayoutBatch:
    """Return a batch; LedgerError when there is none with this number."""
    found = [item for item in batches(conn) if item.id == number]
    if not found:
        raise LedgerError(f"there is no batch {number}; list the batches: credit pay list")
    return found[0]


def batch_items(conn: Connection, item: PayoutBatch) -> list[BatchedPayout]:
    """Return the payouts of a batch, in the order of its file."""
    events: dict[int, list[tuple[str, int | None, str, str]]] = {}
    query = select(payout_event).where(payout_event.c.batch_id == item.id).order_by(payout_event.c.id)
    for row in conn.execute(query):
        events.setdefault(row.payout_id, []).append((row.status, row.details_id, row.reference, row.reason))
    rows = conn.execute(
        select(*_COLUMNS)
        .join_from(payout, provider)
        .join(payout_event, payout_event.c.payout_id == payout.c.id)
        .where(payout_event.c.batch_id == item.id, payout_event.c.status == "exported")
        .order_by(payout_event.c.id)
    )
    found = []
    for row in rows:
        # The first event of a payout in a batch is its export.
        (_, version, _, _), *later = events[row.id]
        results = tuple(
            BankResult(row.id, result_outcome(status, first=place == 0), bank_reference, reason)
            for place, (status, _, bank_reference, reason) in enumerate(later)
        )
        found.append(
            BatchedPayout(read_row(Payout, row), int(version or 0), payout_reference(item.reference, row.id), results)
        )
    return found


def result_outcome(status: str, *, first: bool) -> Outcome:
    """Return the outcome of an event after the export: a payout that fails after it was paid came back."""
    return "paid" if status == "paid" else "failed" if first else "returned"


@dataclass(frozen=True, slots=True)
class _Step:
    """A step of a payment before its posting."""

    kind: TransactionKind
    key: str
    lines: Sequence[Entry]
    details: TransactionDetails
    day: date


def _post(conn: Connection, steps: Sequence[_Step], now: datetime) -> list[int]:
    """Post each step in the first open period from its day on; return the transactions' ids."""
    periods = {day: open_period_for(conn, day) for day in {step.day for step in steps}}
    postings = [
        Posting(step.kind, periods[step.day], step.day, step.key, tuple(step.lines), details=step.details)
        for step in steps
    ]
    return [item.txn_id for item in post_all(conn, postings, now=now)]


@dataclass(frozen=True, slots=True)
class _Event:
    """A step that a payout made in a batch, with its transaction."""

    payout_id: int
    status: PayoutStatus
    txn_id: int
    details_id: int | None = None
    reference: str = ""
    reason: str = ""


def _add_events(conn: Connection, batch_id: int, events: Sequence[_Event], now: datetime) -> None:
    """Record events, and give each payout the status of its own."""
    add_records(conn, payout_event, events, batch_id=batch_id, recorded_at=utc_text(recorded_moment(conn, now)))
    # After the events, because a trigger compares the new status with the last event.
    reached = [{"of": item.payout_id, "to": item.status} for item in events]
    conn.execute(update(payout).where(payout.c.id == bindparam("of")).values(status=bindparam("to")), reached)
