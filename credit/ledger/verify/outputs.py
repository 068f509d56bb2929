"""Checks of outputs, of their files and score books, and of unvalued outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Row, exists, func, select

from credit.ledger.outputs import changed_outputs, is_unvalued
from credit.ledger.schema import ingest_file, ledger_txn, output, purge, score_book, unvalued, valuation
from credit.ledger.transaction_kinds import TransactionKind, UnvaluedDetails
from credit.ledger.unvalued import event_rows
from credit.ledger.verify.report import Problem
from credit.records import output_name


def check_outputs(conn: Connection) -> Iterator[Problem]:
    """Yield each output with a content other than its stored hash says."""
    for number in changed_outputs(conn):
        yield Problem(f"output {number}", "its content does not have its stored hash")


def check_counts(conn: Connection) -> Iterator[Problem]:
    """Yield each file of outputs and each score book with another number of outputs than it states."""
    for parent, stated, child in (
        (ingest_file, ingest_file.c.accepted, output.c.ingest_file_id),
        (score_book, score_book.c.output_count, valuation.c.score_book_id),
    ):
        found = func.count(child)
        rows = conn.execute(
            select(parent.c.id, stated, found)
            .outerjoin_from(parent, child.table, child == parent.c.id)
            .group_by(parent.c.id, stated)
            .having(found != stated)
            .order_by(parent.c.id)
        )
        for number, said, count in rows:
            yield Problem(f"{parent.name} {number}", f"says {said} outputs and has {count}")


def check_purges(conn: Connection) -> Iterator[Problem]:
    """Yield each purge that emptied another number of outputs than it states, or one from after its day."""
    emptied, latest = func.count(output.c.id), func.max(output.c.occurred_at)
    rows = conn.execute(
        select(purge.c.id, purge.c.outputs, purge.c.before, emptied, latest)
        .outerjoin_from(purge, output, output.c.purge_id == purge.c.id)
        .group_by(purge.c.id, purge.c.outputs, purge.c.before)
        .order_by(purge.c.id)
    )
    for number, said, before, count, last in rows:
        if count != said:
            yield Problem(f"purge {number}", f"says {said} outputs and emptied {count}")
        elif last >= before:
            yield Problem(f"purge {number}", f"emptied an output of {last[:10]}, and says only those before {before}")


def check_unvalued(conn: Connection) -> Iterator[Problem]:
    """Yield each difference between acts on unvalued outputs and their transactions, and each without the other.

    An output both valued and unvalued is a problem too.
    """
    before: dict[int, Row[Any]] = {}
    for row in conn.execute(event_rows().order_by(unvalued.c.id)).all():
        fault = _unvalued_fault(row, before.get(row.output_id))
        if fault is not None:
            yield Problem(f"unvalued {row.id}", fault)
        before[row.output_id] = row
    undone = ledger_txn.alias("undone")
    rowless = (
        select(ledger_txn.c.id)
        .outerjoin_from(ledger_txn, undone, undone.c.id == ledger_txn.c.reverses_txn_id)
        .where((ledger_txn.c.kind == TransactionKind.UNVALUED) | (undone.c.kind == TransactionKind.UNVALUED))
        .where(~exists().where(unvalued.c.txn_id == ledger_txn.c.id))
        .order_by(ledger_txn.c.id)
    )
    for number in conn.execute(rowless).scalars():
        yield Problem(f"transaction {number}", "made an output unvalued, or restored one, and no row says which")
    both = select(output.c.id).join_from(output, valuation).where(is_unvalued()).order_by(output.c.id)
    for number in conn.execute(both).scalars():
        yield Problem(f"output {number}", "is valued and unvalued at once")


def _unvalued_fault(row: Row[Any], before: Row[Any] | None) -> str | None:
    """Return the fault in one act on an output, given the act before on the same output."""
    posted = (row.kind, row.memo, row.posted_at)
    if row.action == "unvalued":
        said = UnvaluedDetails(output_name(row.source, row.external_id), row.content_sha256)
        if (
            posted != (TransactionKind.UNVALUED, row.reason, row.recorded_at)
            or UnvaluedDetails.read(row.details_json) != said
            or row.amount != row.weight_micro
        ):
            return f"is not what transaction {row.txn_id} took out"
    elif (
        before is None
        or posted != (TransactionKind.REVERSAL, row.reason, row.recorded_at)
        or row.reverses_txn_id != before.txn_id
    ):
        return f"is not what transaction {row.txn_id} restored"
    if before is not None and before.action == row.action:
        return f"says {row.action} twice in a row"
    return None
