"""The steps from a provider's shares to what is paid, computed again from the ledger and held against the statement."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from credit.accounting.fx import PeriodRates
from credit.accounting.money import format_amount, format_percent
from credit.accounting.waterfall import Waterfall, provider_part, settle
from credit.errors import IntegrityError
from credit.ledger.accounts import ADVANCE_KIND, PAYABLE_KIND, RESERVE_KIND
from credit.ledger.fx import rates_of_period
from credit.ledger.holds import hold_history
from credit.ledger.payouts import payouts
from credit.ledger.periods import Period, last_day, periods
from credit.ledger.pools import allocations, pools
from credit.ledger.settlement import Correction, ProviderCurrency, corrections, provider_balances, reserves
from credit.ledger.statements import statements
from credit.ledger.terms import terms_on
from credit.pipeline.settling import CLOSE_KINDS
from credit.records import PPM, Provider, Terms


@dataclass(frozen=True, slots=True)
class Step:
    """One line of an explanation: what it is, how it is computed, and the result in minor units."""

    label: str
    arithmetic: str
    amount_minor: int


@dataclass(frozen=True, slots=True)
class CurrencySteps:
    """A balance in one currency, step by step; `status` is that of the payout, or `carried`, `converted` or `none`."""

    currency: str
    pools: tuple[Step, ...]
    waterfall: tuple[Step, ...]
    corrections: tuple[Correction, ...]
    payable_minor: int
    status: str
    reason: str


def balance_steps(conn: Connection, period: Period, who: Provider) -> Iterator[CurrencySteps]:
    """Yield the steps of every balance in a provider's statement of a closed period, recomputed and compared.

    Raises:
        IntegrityError: a step does not come out as the statement says.
    """
    told = [item for item in statements(conn, period.id) if item.provider == who.key]
    body: dict[str, Any] = json.loads(told[-1].body_json) if told else {"balances": []}
    paid = {item.currency: item for item in payouts(conn, period.id) if item.provider == who.key}
    terms = terms_on(conn, last_day(period.id))
    moves = [item for item in corrections(conn, period.id) if item.provider == who.key]
    converted: dict[str, int] = {}
    for balance in body["balances"]:
        currency = balance["currency"]
        agreed = terms.get((who.key, currency), Terms())
        own = [item for item in moves if item.currency == currency]
        pool_steps, earned = _pool_steps(conn, period.id, who.key, currency, agreed)
        fall = _settle_again(conn, period, own, (who.key, currency), agreed, earned, converted.get(currency, 0))
        _compare(fall, balance, period.id)
        if fall.conversion is not None:  # it comes in with a balance further on: statements name those last
            into = fall.conversion.into
            converted[into] = converted.get(into, 0) + fall.conversion.converted_minor
        status = "carried" if fall.carried_minor else "converted" if fall.conversion else "none"
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
    conn: Connection,
    period: Period,
    moves: Sequence[Correction],
    at: ProviderCurrency,
    terms: Terms,
    earned: int,
    converted_in: int,
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
        converted_in_minor=converted_in,
        terms=terms,
        rates=PeriodRates(period.id, rates_of_period(conn, period.id)),
        hold=held.get(None) or held.get(at[1]) or "",
    )


def _compare(fall: Waterfall, balance: dict[str, Any], period: str) -> None:
    # What is converted is on the statement only where something was: both sides must say so.
    again = {"converted_in": 0, "converted_out": 0} | fall.lines
    for line, minor in again.items():
        said = balance.get(line, format_amount(0, fall.currency))
        if format_amount(minor, fall.currency) != said:
            raise IntegrityError(
                f"the statement of {fall.provider} for {period} says {line} {said} {fall.currency}; recomputed"
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
        ("converted in", "from the other currencies above, at their rates", fall.converted_in_minor),
        ("converted", fall.conversion.arithmetic if fall.conversion else "", -fall.converted_out_minor),
        ("withholding", f"⌊{owed} × {format_percent(terms.withholding_ppm)}⌋", -fall.withheld_minor),
        ("fees", "for a payout", -fall.fees_minor),
        ("carried forward", fall.reason, -fall.carried_minor),
    )
    yield from (Step(*line) for line in lines if line[2])
    taken = [line for line in lines if line[2]]
    total = " ".join(f"{'−' if line[2] < 0 else '+'} {money(abs(line[2]))}" for line in taken).removeprefix("+ ")
    yield Step("payable", total or "nothing came in", fall.payable_minor)
