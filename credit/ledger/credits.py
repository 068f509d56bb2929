"""Credits earned in a period, by group and day, with their indexes and policies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, exists, func, literal_column, select

from credit.ledger.accounts import AccountKind
from credit.ledger.journal import journal_sums
from credit.ledger.limits import limited_outputs
from credit.ledger.schema import (
    account,
    attribution_index,
    compute_run,
    ledger_entry,
    ledger_txn,
    output,
    provider,
    score_book,
    valuation,
)
from credit.ledger.sql import exact_sum, join_sum
from credit.ledger.transaction_kinds import CreditsDetails, RestatementDetails, TransactionKind
from credit.records import CREDIT, PPM, Group, output_name


@dataclass(frozen=True, slots=True)
class CreditRow:
    """Micro-credits earned by a group in a period with the outputs of one day (UTC)."""

    group: Group
    day: date
    credit_micro: int


def credit_rows(conn: Connection, period: str) -> list[CreditRow]:
    """Return the credits of a period, ordered by provider, collection and day."""
    rows = journal_sums(conn, provider.c.key, account.c.collection, ledger_txn.c.effective_on, where=_earned_in(period))
    return [CreditRow(Group(key, collection), date.fromisoformat(day), micro) for key, collection, day, micro in rows]


def _earned_in(period: str) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions for journal lines that credit collections in a period."""
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
    """Return the micro-credits moved by the sums of a period at its close, by group."""
    where = (*_earned_in(period), ledger_txn.c.kind == TransactionKind.PERIOD_BASIS)
    sums = journal_sums(conn, provider.c.key, account.c.collection, where=where)
    return {Group(key, collection): micro for key, collection, micro in sums}


@dataclass(frozen=True, slots=True)
class Decider:
    """An output or a day (UTC) with the micro-credits it distributes, and their share of a period's."""

    name: str
    credit_micro: int
    share_ppm: int


@dataclass(frozen=True, slots=True)
class Concentration:
    """Output, day and user that decide most of a period's credits, and the number of its outputs with a weight.

    `credit_micro` is without the credits beyond the limits on users. `user` is None if the log names nobody.
    """

    outputs: int
    credit_micro: int
    output: Decider
    day: Decider
    user: Decider | None = None


def concentration(conn: Connection, period: str) -> Concentration | None:
    """Return the output, day and user behind most of a period's credits; None if no output distributes any.

    Weights tell it, because an output distributes all of its weight, as far as limits on users let it. Outputs with
    reversed credits do not count.
    """
    rows = conn.execute(_weights(period, score_book.c.sha256, _day.label("day"))).all()
    if not rows:
        return None
    days: dict[str, int] = {}
    for row in rows:
        days[row.day] = days.get(row.day, 0) + join_sum(row.high, row.low)
    named = output.c.user_hmac.is_not(None)
    users: dict[str, int] = {
        row.user: join_sum(row.high, row.low)
        for row in conn.execute(_weights(period, output.c.user_hmac.label("user")).where(named))
    }
    for item in limited_outputs(conn, period).values():
        days[item.output.day] -= item.lost_micro
        if item.output.user:
            users[item.output.user] -= item.lost_micro
    total = sum(days.values())
    top = min(rows, key=lambda row: (-row.most, row.day, row.sha256))
    # The heaviest output may be limited itself; no output decides more than the whole.
    most = min(top.most, total)
    heaviest = _output_of_weight(conn, top.most, top.day, top.sha256)
    return Concentration(
        sum(row.outputs for row in rows),
        total,
        Decider(heaviest, most, most * PPM // total if total else 0),
        _heaviest(days, total),
        _heaviest(users, total) if users else None,
    )


def _heaviest(sums: Mapping[str, int], total: int) -> Decider:
    name = min(sums, key=lambda name: (-sums[name], name))
    return Decider(name, sums[name], sums[name] * PPM // total if total else 0)


# No bound parameters: PostgreSQL would not see that the grouped expression is the selected one.
_day = func.substr(output.c.occurred_at, literal_column("1"), literal_column("10"))


def _weights(period: str, *by: ColumnElement[str]) -> Select[Any]:
    """Select the count, the sum in two halves and the greatest weight of outputs, by some columns.

    The outputs are those with credits in the period that stand. The database groups them: a book has a user's outputs
    of a day, and there may be as many of these as outputs.
    """
    # A key is `credits:HASH:DAY`: with both empty, all but its last colon stand before the hash. substr counts from 1.
    before = len(TransactionKind.CREDITS.key(score_book="", day="")) - 1
    of_book = func.substr(ledger_txn.c.idempotency_key, before + 1, 64) == score_book.c.sha256
    of_day = (output.c.id == valuation.c.output_id) & (_day == ledger_txn.c.effective_on)
    undoing = ledger_txn.alias("undoing")
    weight = output.c.weight_micro
    high, low = exact_sum(weight)
    sums = (func.count().label("outputs"), high.label("high"), low.label("low"), func.max(weight).label("most"))
    columns: tuple[ColumnElement[Any], ...] = (*by, *sums)
    return (
        select(*columns)
        .join_from(ledger_txn, score_book, of_book)
        .join(valuation, valuation.c.score_book_id == score_book.c.id)
        .join(output, of_day)
        .where(ledger_txn.c.period_id == period, ledger_txn.c.kind == TransactionKind.CREDITS, weight > 0)
        .where(~exists().where(undoing.c.reverses_txn_id == ledger_txn.c.id))
        .group_by(*by)
    )


def _output_of_weight(conn: Connection, weight_micro: int, day: str, book: str) -> str:
    """Return the name of the first output of a weight, a day and a score book."""
    query = (
        select(output.c.source, output.c.external_id)
        .join_from(score_book, valuation, valuation.c.score_book_id == score_book.c.id)
        .join(output, output.c.id == valuation.c.output_id)
        .where(score_book.c.sha256 == book, output.c.weight_micro == weight_micro, _day == day)
        .order_by(output.c.source, output.c.external_id)
    )
    return output_name(*conn.execute(query.limit(1)).one())


@dataclass(frozen=True, slots=True, order=True)
class CreditMethod:
    """The index and the policy (JSON) behind credits."""

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
