"""Why a provider was paid what it was paid, or was not: every step recomputed, with its arithmetic.

From the amount back to where it came from: waterfall, shares of the pools, credits, outputs. Each step is derived
again from entries, terms, holds and score books, and compared with what the statement says; a difference is an error,
not an explanation.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from sqlalchemy import Connection

from credit.accounting.credits import Policy
from credit.accounting.money import format_amount, format_percent
from credit.accounting.waterfall import Waterfall, provider_part, settle
from credit.errors import IntegrityError
from credit.ledger.accounts import ADVANCE_KIND, PAYABLE_KIND, RESERVE_KIND
from credit.ledger.catalog import provider_id, providers
from credit.ledger.holds import hold_history
from credit.ledger.payouts import payouts
from credit.ledger.periods import Period, last_day, periods
from credit.ledger.pools import allocations, pools
from credit.ledger.queries import credit_rows
from credit.ledger.settlement import Correction, ProviderCurrency, corrections, provider_balances, reserves
from credit.ledger.sources import book_scores, existing_period
from credit.ledger.statements import statements
from credit.ledger.terms import terms_on
from credit.pipeline.settling import CLOSE_KINDS
from credit.records import PPM, Provider, Terms, period_of

TOP = 10
"""Outputs that are shown."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of an explanation: what it is, how it is computed, and the result in minor units."""

    label: str
    arithmetic: str
    amount_minor: int


@dataclass(frozen=True, slots=True)
class CurrencySteps:
    """A balance in one currency, step by step; `status` is that of the payout, or `carried` or `none`."""

    currency: str
    pools: tuple[Step, ...]
    waterfall: tuple[Step, ...]
    corrections: tuple[Correction, ...]
    payable_minor: int
    status: str
    reason: str


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
class PayoutExplanation:
    """Everything behind what a provider was told about a period. `verdict` says it in a sentence or two."""

    provider: str
    name: str
    period: str
    verdict: str
    currencies: tuple[CurrencySteps, ...]
    credit_micro: int
    total_credit_micro: int
    collections: tuple[CreditLine, ...]
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
    months: dict[tuple[str, str], int] = {}
    for row in rows:
        if row.group.provider == provider_key:
            key = (row.group.collection, period_of(row.day))
            months[key] = months.get(key, 0) + row.credit_micro
    outputs, valued, credited = _outputs(conn, books_folder, provider_key, period, top)
    currencies = tuple(_currencies(conn, found, who)) if found.status == "closed" else ()
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
        outputs=tuple(outputs),
        outputs_valued=valued,
        outputs_credited=credited,
    )


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
            said.append(f"it earned no credits: none of {valued} outputs was supported by its data")
    if not currencies:
        said.append("there was no money for it to be paid from: no pool, no balance from before")
    return "; ".join(said)


def _currencies(conn: Connection, period: Period, who: Provider) -> Iterator[CurrencySteps]:
    """Yield the steps of every balance in the provider's statement, recomputed and compared."""
    told = [item for item in statements(conn, period.id) if item.provider == who.key]
    body: dict[str, Any] = json.loads(told[-1].body_json) if told else {"balances": []}
    paid = {item.currency: item for item in payouts(conn, period.id) if item.provider == who.key}
    terms = terms_on(conn, last_day(period.id))
    moves = [item for item in corrections(conn, period.id) if item.provider == who.key]
    for balance in body["balances"]:
        currency = balance["currency"]
        agreed = terms.get((who.key, currency), Terms())
        own = [item for item in moves if item.currency == currency]
        pool_steps, earned = _pool_steps(conn, period.id, who.key, currency, agreed)
        fall = _settle_again(conn, period, own, (who.key, currency), agreed, earned)
        _compare(fall, balance, period.id)
        status = "carried" if fall.carried_minor else "none"
        yield CurrencySteps(
            currency=currency,
            pools=tuple(pool_steps),
            waterfall=tuple(_waterfall_steps(fall, agreed)),
            corrections=tuple(item for item in own if item.kind not in CLOSE_KINDS),
            payable_minor=fall.payable_minor,
            status=paid[currency].status if currency in paid else status,
            reason=fall.reason,
        )


def _pool_steps(
    conn: Connection, period: str, provider_key: str, currency: str, terms: Terms
) -> tuple[list[Step], int]:
    """Return the provider's shares of the pools in a currency, and what of them it earned."""
    named = {item.id: item for item in pools(conn, period)}
    steps, earned = [], 0
    for item in allocations(conn, period):
        if item.provider != provider_key or item.currency != currency:
            continue
        pool = named[item.pool_id]
        down, rest = divmod(pool.net_minor * item.credit_micro, item.total_credit_micro) if pool.net_minor else (0, 0)
        extra = item.amount_minor - down
        if extra not in {0, 1} or (extra and not rest):
            raise IntegrityError(
                f"pool {pool.reference} of {period}: {provider_key} was allocated {item.amount_minor}, not {down}"
                f" or one more {currency} (minor units); run credit verify"
            )
        text = (
            f"{format_amount(pool.net_minor, currency)} × {item.credit_micro} / {item.total_credit_micro} credits"
            f" = {format_amount(down, currency)}"
        )
        if rest:
            text += f" and {rest / item.total_credit_micro:.4f} of a minor unit, "
            text += "rounded up (one of the largest remainders)" if extra else "rounded down"
        steps.append(Step(f"share of pool {pool.reference}", text, item.amount_minor))
        own = provider_part(item.amount_minor, terms.rate_ppm)
        if terms.rate_ppm != PPM:
            whole, house = format_amount(item.amount_minor, currency), format_percent(PPM - terms.rate_ppm)
            kept = format_amount(item.amount_minor - own, currency)
            steps.append(Step("at the agreed rate", f"{whole} − ⌊{whole} × {house}⌋ = {whole} − {kept}", own))
        earned += own
    return steps, earned


def _settle_again(
    conn: Connection, period: Period, moves: Sequence[Correction], at: ProviderCurrency, terms: Terms, earned: int
) -> Waterfall:
    """Settle a balance from what the ledger had when the period was closed; `moves` are the balance's own."""
    closed_before = max((item.id for item in periods(conn) if item.id < period.id), default=None)
    due = reserves(conn, after=closed_before, through=period.id)
    advances = provider_balances(conn, ADVANCE_KIND, through=period.id)
    recouped = -sum(item.amount_minor for item in moves if item.kind == "recoupment")
    held: dict[str | None, str] = {}
    for event in hold_history(conn, at[0]):
        if period.closed_at is not None and event.created_at <= period.closed_at:
            held[event.currency] = event.reason if event.action == "hold" else ""
    return settle(
        *at,
        opening_minor=provider_balances(conn, PAYABLE_KIND, before=period.id).get(at, 0),
        earned_minor=earned,
        adjustments_minor=sum(item.amount_minor for item in moves if item.kind not in CLOSE_KINDS),
        released_minor=sum(item.amount_minor for item in due if (item.provider, item.currency) == at),
        reserve_minor=provider_balances(conn, RESERVE_KIND, before=period.id).get(at, 0),
        advance_minor=recouped - advances.get(at, 0),
        terms=terms,
        hold=held.get(None) or held.get(at[1]) or "",
    )


def _compare(fall: Waterfall, balance: dict[str, Any], period: str) -> None:
    again = {
        "opening": fall.opening_minor,
        "earned": fall.earned_minor,
        "adjustments": fall.adjustments_minor,
        "reserve_held": fall.reserve_held_minor,
        "reserve_released": fall.reserve_released_minor,
        "advances_recouped": fall.recouped_minor,
        "withholding": fall.withheld_minor,
        "fees": fall.fees_minor,
        "payable": fall.payable_minor,
        "carried_forward": fall.carried_minor,
    }
    for line, minor in again.items():
        if format_amount(minor, fall.currency) != balance[line]:
            raise IntegrityError(
                f"the statement of {fall.provider} for {period} says {line} {balance[line]} {fall.currency}; recomputed"
                f" it is {format_amount(minor, fall.currency)}; run credit verify"
            )


def _waterfall_steps(fall: Waterfall, terms: Terms) -> Iterator[Step]:
    """Yield the lines of a waterfall with how each is computed; those that are nothing are left out."""

    def money(minor: int) -> str:
        return format_amount(minor, fall.currency)

    earned, owed = money(fall.earned_minor), money(fall.owed_minor)
    left = fall.advance_balance_minor + fall.recouped_minor
    recoverable = f"⌊{earned} × {format_percent(terms.recoupment_ppm)}⌋"
    before = money(fall.owed_minor + fall.recouped_minor)
    lines = (
        ("opening", "carried forward by the period before", fall.opening_minor),
        ("earned", "the shares of the pools above", fall.earned_minor),
        ("adjustments", "the corrections below", fall.adjustments_minor),
        ("reserve held", f"⌊{earned} × {format_percent(terms.reserve_ppm)}⌋", -fall.reserve_held_minor),
        ("reserve released", "held earlier, due by this period", fall.reserve_released_minor),
        (
            "advances recouped",
            f"the least of {money(left)} left of advances, {recoverable} and the balance of {before}",
            -fall.recouped_minor,
        ),
        ("withholding", f"⌊{owed} × {format_percent(terms.withholding_ppm)}⌋", -fall.withheld_minor),
        ("fees", "for a payout", -fall.fees_minor),
        ("carried forward", fall.reason, -fall.carried_minor),
    )
    yield from (Step(*line) for line in lines if line[2])
    taken = [line for line in lines if line[2]]
    total = " ".join(f"{'−' if line[2] < 0 else '+'} {money(abs(line[2]))}" for line in taken).removeprefix("+ ")
    yield Step("payable", total or "nothing came in", fall.payable_minor)


def _outputs(
    conn: Connection, books_folder: Path, provider_key: str, period: str, top: int
) -> tuple[list[OutputLine], int, int]:
    """Return the outputs that gave most, how many outputs the provider was valued for, and for how many credited."""
    valued = credited = 0
    best: list[tuple[int, str, str, OutputLine]] = []
    for book, rows in book_scores(conn, books_folder, period):
        measure = Policy.from_json(book.policy_json).measure
        sums = rows.group_by("output_id").agg(
            pl.col(measure).filter(pl.col(measure) > 0).sum().alias("positive_sum"),
            pl.col("credit_micro").sum().alias("weight_micro"),
        )
        own = rows.filter(pl.col("provider") == provider_key)
        valued += own["output_id"].n_unique()
        paid = own.filter(pl.col("credit_micro") > 0)
        credited += paid["output_id"].n_unique()
        columns = ("name", "day", "collection", measure, "positive_sum", "weight_micro", "credit_micro")
        for name, day, collection, value, positive, weight, micro in (
            paid.join(sums, on="output_id").select(columns).iter_rows()
        ):
            line = OutputLine(name, day, collection, measure, value, positive, weight, micro)
            best.append((-micro, name, collection, line))
        best = heapq.nsmallest(top, best, key=lambda item: item[:3])
    return [item[3] for item in best], valued, credited
