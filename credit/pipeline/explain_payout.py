"""Why a provider was paid what it was paid, or was not: every step recomputed, with its arithmetic.

From the amount back to where it came from: waterfall, shares of the pools, credits, outputs. Each step is derived
again from entries, terms, holds and score books, and compared with what the statement says; a difference is an error,
not an explanation.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from sqlalchemy import Connection

from credit.accounting.amounts import format_amount
from credit.accounting.credits import Policy
from credit.ledger.credits import credit_rows
from credit.ledger.periods import Period
from credit.ledger.providers import provider_id, providers
from credit.ledger.score_books import book_scores, existing_period, reversed_transactions, standing_rows
from credit.pipeline.explain_balances import CurrencySteps, balance_steps
from credit.pipeline.period_basis import checked_pooling, moved_credits
from credit.records import Group, Provider, period_of
from credit.text import counted

TOP = 10
"""Outputs that are shown."""


@dataclass(frozen=True, slots=True)
class CreditLine:
    """Micro-credits of a collection from outputs of one month, which is earlier than the period if they came late."""

    collection: str
    month: str
    credit_micro: int


@dataclass(frozen=True, slots=True)
class OutputLine:
    """What one output gave to a collection: weight × value / positive_sum, the values in nats of `measure`."""

    output: str
    day: str
    collection: str
    measure: str
    value: float
    positive_sum: float
    weight_micro: int
    credit_micro: int


@dataclass(frozen=True, slots=True)
class PooledLine:
    """What the sums of the period moved to a collection (or, negative, from it), beside what its outputs gave it."""

    collection: str
    alone_micro: int
    moved_micro: int


@dataclass(frozen=True, slots=True)
class PayoutExplanation:
    """Everything behind what a provider was told about a period. `verdict` says it in a sentence or two.

    `pooled` is empty where every output pays alone. While a period is open it says what a close would move.
    """

    provider: str
    name: str
    period: str
    verdict: str
    currencies: tuple[CurrencySteps, ...]
    credit_micro: int
    total_credit_micro: int
    collections: tuple[CreditLine, ...]
    pooled: tuple[PooledLine, ...]
    outputs: tuple[OutputLine, ...]
    outputs_valued: int
    outputs_credited: int


def explain_payout(
    conn: Connection, books_folder: Path, provider_key: str, period: str, *, top: int = TOP
) -> PayoutExplanation:
    """Explain what a provider is paid for a period, or why it is not.

    Args:
        conn: from `Ledger.read`.
        books_folder: where the score books lie.
        provider_key: the provider's key.
        period: the period `YYYY-MM`.
        top: how many outputs to name, those that gave most first.

    Raises:
        LedgerError: the provider or the period is unknown.
        IntegrityError: a step does not come out as the statement says, or a score book is missing or changed.
    """
    provider_id(conn, provider_key)
    found = existing_period(conn, period)
    who = next(item for item in providers(conn) if item.key == provider_key)
    rows = credit_rows(conn, period)
    closed = found.status == "closed"
    moved = (checked_pooling if closed else moved_credits)(conn, books_folder, period)
    months: dict[tuple[str, str], int] = {}
    for row in rows:
        if row.group.provider == provider_key:
            key = (row.group.collection, period_of(row.day))
            months[key] = months.get(key, 0) + row.credit_micro
    outputs, valued, credited = _outputs(conn, books_folder, provider_key, period, top)
    currencies = tuple(balance_steps(conn, found, who)) if closed else ()
    credit_micro = sum(months.values())
    return PayoutExplanation(
        provider=provider_key,
        name=who.name,
        period=period,
        verdict=_verdict(found, who, currencies, credit_micro, valued, credited),
        currencies=currencies,
        credit_micro=credit_micro,
        total_credit_micro=sum(row.credit_micro for row in rows),
        collections=tuple(CreditLine(*key, micro) for key, micro in sorted(months.items())),
        pooled=tuple(_pooled(provider_key, months, moved, closed=closed)),
        outputs=tuple(outputs),
        outputs_valued=valued,
        outputs_credited=credited,
    )


def _pooled(
    provider_key: str, months: Mapping[tuple[str, str], int], moved: Mapping[Group, int], *, closed: bool
) -> Iterator[PooledLine]:
    """Yield what was moved to or from each collection of a provider; once closed, it stands in its credits already."""
    for group, micro in moved.items():
        if group.provider == provider_key:
            credited = sum(amount for (collection, _), amount in months.items() if collection == group.collection)
            yield PooledLine(group.collection, credited - micro if closed else credited, micro)


def _verdict(
    period: Period, who: Provider, currencies: Sequence[CurrencySteps], credit_micro: int, valued: int, credited: int
) -> str:
    """Say in words what is paid, or why nothing is."""
    if who.kind == "house":
        return f"{who.key} is own or public-domain data: what it earns is the house's and is never paid out"
    if period.status == "open":
        return f"period {period.id} is open: nothing is paid before it is closed (credit close {period.id})"
    said = [
        f"{format_amount(item.payable_minor, item.currency)} {item.currency} ({item.status})"
        if item.payable_minor
        else f"nothing in {item.currency}: {item.reason}"
        for item in currencies
    ]
    if credit_micro == 0:
        if valued == 0:
            said.append("its data was valued for no output: it is not in the index that was used")
        elif credited == 0:
            said.append(f"it earned no credits: none of {counted(valued, 'output')} was supported by its data")
    if not currencies:
        said.append("there was no money for it to be paid from: no pool, no balance from before")
    return "; ".join(said)


def _outputs(
    conn: Connection, books_folder: Path, provider_key: str, period: str, top: int
) -> tuple[list[OutputLine], int, int]:
    """Return the outputs that gave most, how many outputs the provider was valued for, and for how many credited.

    An output whose credits were reversed gave none.
    """
    valued = credited = 0
    undone = reversed_transactions(conn)
    best: list[tuple[int, str, str, OutputLine]] = []
    for book, rows in book_scores(conn, books_folder, period):
        measure = Policy.from_json(book.policy_json).measure
        sums = rows.group_by("output_id").agg(
            pl.col(measure).filter(pl.col(measure) > 0).sum().alias("positive_sum"),
            pl.col("credit_micro").sum().alias("weight_micro"),
        )
        own = rows.filter(pl.col("provider") == provider_key)
        valued += own["output_id"].n_unique()
        paid = standing_rows(book, own, undone).filter(pl.col("credit_micro") > 0)
        credited += paid["output_id"].n_unique()
        columns = ("name", "day", "collection", measure, "positive_sum", "weight_micro", "credit_micro")
        for name, day, collection, value, positive, weight, micro in (
            paid.join(sums, on="output_id").select(columns).iter_rows()
        ):
            line = OutputLine(name, day, collection, measure, value, positive, weight, micro)
            best.append((-micro, name, collection, line))
        best = heapq.nsmallest(top, best, key=lambda item: item[:3])
    return [item[3] for item in best], valued, credited
