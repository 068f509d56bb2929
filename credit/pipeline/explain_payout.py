"""Explanation of a payout: every step recomputed, with its arithmetic.

It leads from the amount back to its sources: lines of the statement, shares of the pools, credits, outputs. Each step
is computed again from entries, terms, holds and score books. A difference to the statement is an error.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from sqlalchemy import Connection

from credit.accounting.amounts import money_text
from credit.accounting.credits import ECHO, Policy
from credit.ledger.credits import credit_rows
from credit.ledger.periods import Period, existing_period
from credit.ledger.providers import provider_id, providers
from credit.ledger.score_books import book_scores, standing_rows
from credit.ledger.transactions import reversed_transactions
from credit.pipeline.explain_balances import CurrencySteps, balance_steps
from credit.pipeline.period_basis import checked_moves, is_of, moved_credits
from credit.records import Group, Provider, period_of
from credit.text import counted

TOP = 10
"""Outputs to show."""


@dataclass(frozen=True, slots=True)
class CreditLine:
    """Micro-credits of a collection from outputs of one month; late outputs are of an earlier month than the period."""

    collection: str
    month: str
    credit_micro: int


@dataclass(frozen=True, slots=True)
class OutputLine:
    """Credits of a collection from one output: weight × value / positive_sum, the values in nats of `measure`."""

    output: str
    day: str
    collection: str
    measure: str
    value: float
    positive_sum: float
    weight_micro: int
    credit_micro: int


@dataclass(frozen=True, slots=True)
class MovedCredits:
    """Credits of a collection from its outputs alone, and credits the period's sums moved to it (negative: from it)."""

    collection: str
    alone_micro: int
    moved_micro: int


@dataclass(frozen=True, slots=True)
class PayoutExplanation:
    """Everything behind a provider's statement of a period; `verdict` is its summary in a sentence or two.

    `moved` is empty where every output pays alone. For an open period it shows the credits that a close would move.
    """

    provider: str
    name: str
    period: str
    verdict: str
    currencies: tuple[CurrencySteps, ...]
    credit_micro: int
    total_credit_micro: int
    collections: tuple[CreditLine, ...]
    moved: tuple[MovedCredits, ...]
    outputs: tuple[OutputLine, ...]
    outputs_valued: int
    outputs_credited: int


def explain_payout(
    conn: Connection, books_folder: Path, provider_key: str, period: str, *, top: int = TOP
) -> PayoutExplanation:
    """Explain a provider's payout for a period, or why there is none.

    Args:
        conn: from `Ledger.read`.
        books_folder: folder of the score books.
        provider_key: the provider's key.
        period: the period `YYYY-MM`.
        top: number of outputs to name, those with most credits first.

    Raises:
        LedgerError: the provider or the period is unknown.
        IntegrityError: a step differs from the statement, or a score book is missing or changed.
    """
    provider_id(conn, provider_key)
    found = existing_period(conn, period)
    who = next(item for item in providers(conn) if item.key == provider_key)
    rows = credit_rows(conn, period)
    closed = found.status == "closed"
    moved = (checked_moves if closed else moved_credits)(conn, books_folder, period).by_group
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
        moved=tuple(_own_moves(provider_key, months, moved, closed=closed)),
        outputs=tuple(outputs),
        outputs_valued=valued,
        outputs_credited=credited,
    )


def _own_moves(
    provider_key: str, months: Mapping[tuple[str, str], int], moved: Mapping[Group, int], *, closed: bool
) -> Iterator[MovedCredits]:
    """Yield the credits moved to each collection of a provider; the credits of a closed period include them."""
    for group, micro in moved.items():
        if group.provider == provider_key:
            credited = sum(amount for (collection, _), amount in months.items() if collection == group.collection)
            yield MovedCredits(group.collection, credited - micro if closed else credited, micro)


def _verdict(
    period: Period, who: Provider, currencies: Sequence[CurrencySteps], credit_micro: int, valued: int, credited: int
) -> str:
    """Return the payout in words, or the reason why there is none."""
    if who.kind == "house":
        return f"{who.key} is own or public-domain data: what it earns is the house's and is never paid out"
    if period.status == "open":
        return f"period {period.id} is open: nothing is paid before it is closed (credit close {period.id})"
    said = [
        f"{money_text(item.payable_minor, item.currency)} ({item.status})"
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
    """Return the outputs with most credits, and the number of outputs valued and credited for the provider.

    An output whose credits were reversed gives none.
    """
    valued = credited = 0
    undone = reversed_transactions(conn)
    best: list[tuple[int, str, str, OutputLine]] = []
    for book, rows in book_scores(conn, books_folder, period):
        measure = Policy.from_json(book.policy_json).measure
        sums = rows.group_by("output_id").agg(
            pl.col(measure).filter(pl.col(measure) > 0).sum().alias("positive_sum"),
            pl.col("credit_micro").filter(~is_of(ECHO)).sum().alias("weight_micro"),
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
        # After each book: a period can have millions of outputs, and only a few are shown.
        best = heapq.nsmallest(top, best, key=lambda item: item[:3])
    return [item[3] for item in best], valued, credited
