"""Checks of payouts, their batches and events: every column must match the hash-chained transactions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Row, exists, func, literal, select

from credit.ledger.accounts import AccountKind, exported_account
from credit.ledger.payouts import OUTCOME_KINDS, payout_reference, result_outcome
from credit.ledger.schema import ledger_entry, ledger_txn, payout, payout_batch, payout_event, payout_void, provider
from credit.ledger.transaction_kinds import ExportDetails, ResultDetails, TransactionKind, VoidDetails
from credit.ledger.transactions import amounts_posted
from credit.ledger.verify.report import Problem

_STREAM = {"yield_per": 1000}


def check_payouts(conn: Connection) -> Iterator[Problem]:
    """Yield each payout unlike its approval or its last event."""
    key = literal(AccountKind.PAYOUT.key("")) + provider.c.key
    amounts = amounts_posted(payout.c.txn_id, key, payout.c.currency)
    approved = amounts.with_only_columns(func.sum(ledger_entry.c.amount)).scalar_subquery()
    last = (
        select(payout_event.c.status)
        .where(payout_event.c.payout_id == payout.c.id)
        .order_by(payout_event.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    query = (
        select(payout, approved.label("approved"), func.coalesce(last, "pending").label("last"))
        .add_columns(ledger_txn.c.period_id.label("approved_in"))
        .join_from(payout, provider)
        .join(ledger_txn, ledger_txn.c.id == payout.c.txn_id)
        .order_by(payout.c.id)
    )
    for row in conn.execute(query, execution_options=_STREAM):
        place = f"payout {row.id}"
        if row.amount_minor != row.approved or row.period_id != row.approved_in:
            yield Problem(place, f"is not what transaction {row.txn_id} approved: {row.approved} {row.currency}")
        elif row.status != row.last:
            yield Problem(place, f"says {row.status}; its last event says {row.last}")


def check_batches(conn: Connection) -> Iterator[Problem]:
    """Yield each batch unlike the transaction of its export."""
    query = (
        select(payout_batch, ledger_txn.c.kind, ledger_txn.c.details_json, ledger_txn.c.recorded_at)
        .join_from(payout_batch, ledger_txn, ledger_txn.c.id == payout_batch.c.txn_id)
        .order_by(payout_batch.c.id)
    )
    for row in conn.execute(query):
        events = conn.execute(
            select(payout_event.c.payout_id, payout_event.c.details_id, payout.c.amount_minor, payout.c.currency)
            .join_from(payout_event, payout)
            .where(payout_event.c.batch_id == row.id, payout_event.c.status == "exported")
            .order_by(payout_event.c.id)
        ).all()
        posted = ExportDetails.read(row.details_json)
        said = ExportDetails(
            batch=row.id,
            reference=row.reference,
            format=row.format,
            period=row.period_id,
            payer=row.payer_json,
            payouts=[item.payout_id for item in events],
            details=[item.details_id for item in events],
            file_sha256=row.file_sha256,
            waiting_days=posted.waiting_days if posted else None,  # a fact of the transaction alone
        )
        sums = (len(events), sum(item.amount_minor for item in events), {item.currency for item in events})
        if (
            (row.kind, row.created_at) != (TransactionKind.PAYMENT_EXPORT, row.recorded_at)
            or posted != said
            or sums != (row.payout_count, row.amount_minor, {row.currency})
        ):
            yield Problem(f"payout_batch {row.id}", f"is not what transaction {row.txn_id} exported")


def check_events(conn: Connection) -> Iterator[Problem]:
    """Yield each event of a payout unlike its transaction, in its facts or in the money it moved."""
    # A failure after `paid` is a return, of another kind of transaction.
    before = payout_event.alias("before")
    paid_before = exists().where(
        before.c.payout_id == payout_event.c.payout_id,
        before.c.batch_id == payout_event.c.batch_id,
        before.c.status == "paid",
        before.c.id < payout_event.c.id,
    )
    query = (
        select(
            payout_event,
            paid_before.label("paid_before"),
            payout.c.amount_minor,
            payout.c.currency,
            payout_batch.c.reference.label("batch_reference"),
            provider.c.key,
            ledger_txn.c.kind,
            ledger_txn.c.details_json,
            ledger_txn.c.effective_on,
            ledger_txn.c.recorded_at.label("posted_at"),
        )
        .join_from(payout_event, payout)
        .join(provider, provider.c.id == payout.c.provider_id)
        .join(payout_batch, payout_batch.c.id == payout_event.c.batch_id)
        .join(ledger_txn, ledger_txn.c.id == payout_event.c.txn_id)
        .order_by(payout_event.c.id)
    )
    for row in conn.execute(query):
        fault = _event_fault(conn, row)
        if fault is not None:
            name = payout_reference(row.batch_reference, row.payout_id)
            yield Problem(f"payout_event {row.id}", f"{name} {row.status}: {fault}")


def _event_fault(conn: Connection, row: Row[Any]) -> str | None:
    """Return the fault in one event; None where its transaction recorded it and moved its money."""
    if row.status == "exported":
        kind, to = TransactionKind.PAYMENT_EXPORT, exported_account(row.key)
        batch = ExportDetails.read(row.details_json)
        agrees = batch is not None and batch.batch == row.batch_id and row.payout_id in batch.payouts
        agrees = agrees and not row.reference and not row.reason
    else:
        outcome = result_outcome(row.status, first=not row.paid_before)
        kind = OUTCOME_KINDS[outcome]
        to = AccountKind.EXTERNAL.key() if outcome == "paid" else AccountKind.PAYOUT.key(row.key)
        told = ResultDetails.read(row.details_json)
        # A result with a value date took effect on it.
        valued = row.effective_on if told is not None and told.value_on is not None else None
        fee = told.fee_minor if told is not None else None  # a fact of the transaction alone
        agrees = told == ResultDetails(row.batch_id, row.payout_id, row.reference, row.reason, valued, fee)
    if not agrees or (row.kind, row.posted_at) != (kind, row.recorded_at):
        return f"transaction {row.txn_id} says something else"
    if row.amount_minor not in conn.execute(amounts_posted(row.txn_id, to, row.currency)).scalars().all():
        return f"transaction {row.txn_id} did not move {row.amount_minor} {row.currency} (minor units) to {to}"
    return None


def check_voids(conn: Connection) -> Iterator[Problem]:
    """Yield each void unlike its transaction, or of a payout whose last event let it leave."""
    query = (
        select(payout_void, payout.c.amount_minor, payout.c.currency, payout.c.status, provider.c.key)
        .add_columns(ledger_txn.c.kind, ledger_txn.c.memo, ledger_txn.c.details_json, ledger_txn.c.recorded_at)
        .join_from(payout_void, payout)
        .join(provider, provider.c.id == payout.c.provider_id)
        .join(ledger_txn, ledger_txn.c.id == payout_void.c.txn_id)
        .order_by(payout_void.c.id)
    )
    for row in conn.execute(query):
        place = f"payout_void {row.id}"
        said = (row.kind, row.memo, VoidDetails.read(row.details_json))
        if said != (TransactionKind.PAYOUT_VOID, row.reason, VoidDetails(row.payout_id, row.goes_to)):
            yield Problem(place, f"transaction {row.txn_id} says something else")
        left = amounts_posted(row.txn_id, AccountKind.PAYOUT.key(row.key), row.currency)
        if -row.amount_minor not in conn.execute(left).scalars().all():
            yield Problem(
                place, f"transaction {row.txn_id} did not take {row.amount_minor} {row.currency} (minor units)"
            )
        if row.status not in {"pending", "failed"}:
            yield Problem(place, f"its payout is {row.status}")
