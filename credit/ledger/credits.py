"""Credits earned in a period: by whom, on which days, and by which indexes and policies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, literal_column, select

from credit.ledger.accounts import AccountKind
from credit.ledger.journal import journal_sums
from credit.ledger.schema import (
    account,
    attribution_index,
    compute_run,
    ledger_entry,
    ledger_txn,
    provider,
    score_book,
)
from credit.ledger.transaction_kinds import CreditsDetails, RestatementDetails, TransactionKind
from credit.records import CREDIT, Group


@dataclass(frozen=True, slots=True)
class CreditRow:
    """Micro-credits that a group earned in a period with the outputs of one day (UTC)."""

    group: Group
    day: date
    credit_micro: int


def credit_rows(conn: Connection, period: str) -> list[CreditRow]:
    """Return the credits of a period by provider, collection and day, in that order."""
    rows = journal_sums(conn, provider.c.key, account.c.collection, ledger_txn.c.effective_on, where=_earned_in(period))
    return [CreditRow(Group(key, collection), date.fromisoformat(day), micro) for key, collection, day, micro in rows]


def _earned_in(period: str) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions for lines of the journal by which collections earned credits in a period."""
    earned = account.c.kind == AccountKind.EARNED
    return ledger_txn.c.period_id == period, earned, ledger_entry.c.commodity == CREDIT


def credit_totals(conn: Connection, period: str) -> dict[str, int]:
    """Return each provider's micro-credits of a period, the house's included."""
    return dict(journal_sums(conn, provider.c.key, where=_earned_in(period)))


def credits_by_month(conn: Connection, period: str) -> dict[Group, dict[str, int]]:
    """Return each group's micro-credits of a period, by the month of the outputs."""
    # No bound parameters: PostgreSQL would not see that the grouped expression is the selected one.
    month = func.substr(ledger_txn.c.effective_on, literal_column("1"), literal_column("7"))
    found: dict[Group, dict[str, int]] = {}
    for key, collection, name, micro in journal_sums(
        conn, provider.c.key, account.c.collection, month, where=_earned_in(period)
    ):
        found.setdefault(Group(key, collection), {})[name] = micro
    return found


def credits_by_group(conn: Connection, period: str) -> dict[Group, int]:
    """Return each group's micro-credits of a period, sorted by group."""
    totals: dict[Group, int] = {}
    for row in credit_rows(conn, period):
        totals[row.group] = totals.get(row.group, 0) + row.credit_micro
    return totals


def posted_moves(conn: Connection, period: str) -> dict[Group, int]:
    """Return the micro-credits that the close of a period moved by its sums, by group."""
    where = (*_earned_in(period), ledger_txn.c.kind == TransactionKind.PERIOD_BASIS)
    sums = journal_sums(conn, provider.c.key, account.c.collection, where=where)
    return {Group(key, collection): micro for key, collection, micro in sums}


@dataclass(frozen=True, slots=True, order=True)
class CreditMethod:
    """The index and the policy (JSON) that credits come from."""

    index_fingerprint: str
    policy_json: str


def credit_methods(conn: Connection, period: str) -> list[CreditMethod]:
    """Return the indexes and policies behind the credits posted in a period, in order."""
    query = select(ledger_txn.c.details_json).where(
        ledger_txn.c.period_id == period, ledger_txn.c.kind == TransactionKind.CREDITS
    )
    said = [CreditsDetails.read(details) for details in conn.execute(query).scalars()]
    books = {item.score_book for item in said if item is not None}
    rows = conn.execute(
        select(score_book.c.sha256, compute_run.c.policy_json, attribution_index.c.fingerprint)
        .join_from(score_book, compute_run, compute_run.c.id == score_book.c.compute_run_id)
        .join(attribution_index, attribution_index.c.id == compute_run.c.index_id)
    )
    return sorted({CreditMethod(index, policy) for sha256, policy, index in rows if sha256 in books})


@dataclass(frozen=True, slots=True)
class RestatementMethod:
    """The method of a restatement: another index, if it names one, and changes of the policy."""

    restates: str
    index_fingerprint: str | None
    policy_changes: Mapping[str, Any]


def standing_restatements(conn: Connection, period: str) -> list[RestatementMethod]:
    """Return the methods of the restatements posted in a period, in order, without reversed ones."""
    undone = select(ledger_txn.c.reverses_txn_id).where(ledger_txn.c.reverses_txn_id.is_not(None))
    query = (
        select(ledger_txn.c.details_json)
        .where(
            ledger_txn.c.period_id == period,
            ledger_txn.c.kind == TransactionKind.RESTATEMENT,
            ledger_txn.c.id.not_in(undone),
        )
        .order_by(ledger_txn.c.id)
    )
    said = [RestatementDetails.read(details) for details in conn.execute(query).scalars()]
    return [
        RestatementMethod(item.restates, item.method.get("index"), item.method.get("policy", {}))
        for item in said
        if item is not None
    ]
