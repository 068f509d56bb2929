"""What reports and `credit status` read; nothing here writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import Connection, distinct, func, select

from credit.ledger.accounts import AccountKind
from credit.ledger.journal import chain_head
from credit.ledger.outputs import month_bounds, pending_count
from credit.ledger.periods import Period, periods
from credit.ledger.schema import (
    account,
    attribution_index,
    compute_run,
    exact_sum,
    join_sum,
    ledger_entry,
    ledger_txn,
    model,
    output,
    provider,
    score_book,
    valuation,
)
from credit.ledger.set_aside import standing
from credit.ledger.transaction_kinds import CreditsDetails, RestatementDetails, TransactionKind
from credit.records import CREDIT, Group


@dataclass(frozen=True, slots=True)
class CreditRow:
    """Micro-credits that a group earned in a period with the outputs of one day (UTC)."""

    group: Group
    day: date
    credit_micro: int


@dataclass(frozen=True, slots=True)
class Status:
    """What there is in the ledger, in numbers. `outputs` counts by the month of occurrence."""

    providers: int
    models: int
    indexes: int
    outputs: dict[str, int]
    pending: int
    set_aside: int
    books: int
    transactions: int
    chain_head: str
    periods: tuple[Period, ...]


def credit_rows(conn: Connection, period: str) -> list[CreditRow]:
    """Return what was earned in a period by provider, collection and day, in that order, from its entries."""
    rows = conn.execute(
        select(provider.c.key, account.c.collection, ledger_txn.c.effective_on, *exact_sum(ledger_entry.c.amount))
        .join_from(ledger_txn, ledger_entry, ledger_entry.c.txn_id == ledger_txn.c.id)
        .join(account, account.c.id == ledger_entry.c.account_id)
        .join(provider, provider.c.id == account.c.provider_id)
        .where(
            ledger_txn.c.period_id == period, account.c.kind == AccountKind.EARNED, ledger_entry.c.commodity == CREDIT
        )
        .group_by(provider.c.key, account.c.collection, ledger_txn.c.effective_on)
        .order_by(provider.c.key, account.c.collection, ledger_txn.c.effective_on)
    )
    return [
        CreditRow(Group(key, collection), date.fromisoformat(day), join_sum(high, low))
        for key, collection, day, high, low in rows
    ]


def credits_by_month(conn: Connection, period: str) -> dict[Group, dict[str, int]]:
    """Return the micro-credits that each group earned in a period, by the month in which its outputs occurred.

    The database adds them up: as many rows come from it as there are groups, whatever the number of outputs and days.
    """
    month = func.substr(ledger_txn.c.effective_on, 1, 7).label("month")
    rows = conn.execute(
        select(provider.c.key, account.c.collection, month, *exact_sum(ledger_entry.c.amount))
        .join_from(ledger_txn, ledger_entry, ledger_entry.c.txn_id == ledger_txn.c.id)
        .join(account, account.c.id == ledger_entry.c.account_id)
        .join(provider, provider.c.id == account.c.provider_id)
        .where(
            ledger_txn.c.period_id == period, account.c.kind == AccountKind.EARNED, ledger_entry.c.commodity == CREDIT
        )
        .group_by(provider.c.key, account.c.collection, "month")
        .order_by(provider.c.key, account.c.collection, "month")
    )
    found: dict[Group, dict[str, int]] = {}
    for key, collection, name, high, low in rows:
        found.setdefault(Group(key, collection), {})[name] = join_sum(high, low)
    return found


def credits_by_group(conn: Connection, period: str) -> dict[Group, int]:
    """Return the micro-credits that each group earned in a period, sorted by group."""
    totals: dict[Group, int] = {}
    for row in credit_rows(conn, period):
        totals[row.group] = totals.get(row.group, 0) + row.credit_micro
    return totals


@dataclass(frozen=True, slots=True, order=True)
class CreditMethod:
    """How credits came about: the index and the policy (JSON) by which outputs were valued."""

    index_fingerprint: str
    policy_json: str


def credit_methods(conn: Connection, period: str) -> list[CreditMethod]:
    """Return by which indexes and policies the credits posted in a period came about, in order."""
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
    """How a closed period was computed anew: by the index that it names, if any, and with changes of the policy."""

    restates: str
    index_fingerprint: str | None
    policy_changes: Mapping[str, Any]


def standing_restatements(conn: Connection, period: str) -> list[RestatementMethod]:
    """Return how earlier periods were computed anew by what was posted in a period and not reversed, in order."""
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


def outputs_valued(conn: Connection, period: str) -> int:
    """Count the outputs of a month that at least one index has valued."""
    low, high = month_bounds(period)
    query = (
        select(func.count(distinct(output.c.id)))
        .join_from(output, valuation)
        .where(output.c.occurred_at >= low, output.c.occurred_at < high)
    )
    return int(conn.execute(query).scalar_one())


def status(conn: Connection) -> Status:
    """Count what there is."""
    month = func.substr(output.c.occurred_at, 1, 7)
    by_month = conn.execute(select(month, func.count()).group_by(month).order_by(month))
    seq, head = chain_head(conn)
    tables = (provider, model, attribution_index, score_book)
    counts = [int(conn.execute(select(func.count()).select_from(table)).scalar_one()) for table in tables]
    return Status(
        providers=counts[0],
        models=counts[1],
        indexes=counts[2],
        outputs={name: count for name, count in by_month},
        pending=pending_count(conn),
        set_aside=len(standing(conn)),
        books=counts[3],
        transactions=seq,
        chain_head=head,
        periods=tuple(periods(conn)),
    )
