"""The steps from a provider's shares to what is paid, computed again from the ledger and held against the statement."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from sqlalchemy import Connection

from credit.accounting.amounts import amount_text, format_amount, format_percent
from credit.accounting.fx import PeriodRates
from credit.accounting.statement import on_hold_rows
from credit.accounting.statement_lines import STATEMENT_LINES
from credit.accounting.waterfall import Waterfall, provider_part, settle
from credit.errors import IntegrityError
from credit.ledger.accounts import AccountKind
from credit.ledger.corrections import Correction, corrections
from credit.ledger.credits import credits_by_group
from credit.ledger.fx import rates_of_period
from credit.ledger.holds import HoldEvent, Scope, hold_on, holds
from credit.ledger.payouts import payouts
from credit.ledger.periods import Period, last_day, periods
from credit.ledger.pools import allocations, pools
from credit.ledger.settlement import ProviderCurrency, held_balances, provider_balances, reserves
from credit.ledger.statements import statements
from credit.ledger.terms import terms_on
from credit.ledger.transaction_kinds import CLOSE_KINDS, TransactionKind
from credit.pipeline.close_balances import held_collections_of
from credit.pipeline.close_pools import held_parts
from credit.records import CREDIT, PPM, Group, Provider, Terms


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
    by_group = credits_by_group(conn, period.id)
    standing = holds(conn, who.key, until=period.closed_at)
    held = {name: by_group.get(Group(who.key, name), 0) for _, _, name in standing if name is not None}
    converted: dict[str, int] = {}
    for balance in body["balances"]:
        currency = balance["currency"]
        agreed = terms.get((who.key, currency), Terms())
        own = [item for item in moves if item.currency == currency]
        pool_steps, earned = _pool_steps(conn, period.id, who.key, currency, agreed, held)
        came_in = converted.get(currency, 0)
        fall = _settle_again(conn, period, own, (who.key, currency), agreed, earned, came_in, standing)
        _compare(fall, balance, period.id)
        if on_hold_rows(fall) != [row for row in body.get("on_hold", []) if row["currency"] == currency]:
            raise IntegrityError(
                f"the statement of {who.key} for {period.id} says something else of collections on hold in {currency}"
                " than holds and transactions; run credit verify"
            )
        if fall.conversion is not None:  # it comes in with a balance further on: statements name those last
            into = fall.conversion.into
            converted[into] = converted.get(into, 0) + fall.conversion.converted_minor
        status = "carried" if fall.carried_forward_minor else "converted" if fall.conversion else "none"
        yield CurrencySteps(
            currency=currency,
            pools=tuple(pool_steps),
            waterfall=tuple(_line_steps(fall, agreed)),
            corrections=tuple(item for item in own if item.kind not in CLOSE_KINDS),
            payable_minor=fall.payable_minor,
            status=paid[currency].status if currency in paid else status,
            reason=fall.reason,
        )


@dataclass(slots=True)
class _Earned:
    """What was earned in a currency, and what of it by each collection that was on hold, in minor units."""

    all_minor: int
    held_minor: dict[str, int]


def _pool_steps(
    conn: Connection, period: str, provider_key: str, currency: str, terms: Terms, held: Mapping[str, int]
) -> tuple[list[Step], _Earned]:
    """Return the provider's shares of the pools in a currency, and what of them it, and its held collections, earned.

    `held` is the micro-credits of each of its collections that was on hold.
    """
    named = {item.id: item for item in pools(conn, period)}
    steps, earned = [], _Earned(0, {})
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
        net, credited = format_amount(pool.net_minor, currency), amount_text(item.credit_micro, CREDIT)
        exact = _exact(down, Fraction(rest, item.total_credit_micro or 1), currency)
        text = f"{net} × {credited} / {amount_text(item.total_credit_micro, CREDIT)} credits = {exact}"
        if rest:
            text += f", rounded {'up' if extra else 'down'} (largest remainders go up)"
        steps.append(Step(f"share of pool {pool.reference}", text, item.amount_minor))
        own = provider_part(item.amount_minor, terms.rate_ppm)
        if terms.rate_ppm != PPM:
            whole, house = format_amount(item.amount_minor, currency), format_percent(PPM - terms.rate_ppm)
            kept = format_amount(item.amount_minor - own, currency)
            steps.append(Step("at the agreed rate", f"{whole} − ⌊{whole} × {house}⌋ = {whole} − {kept}", own))
        earned.all_minor += own
        for name, minor in held_parts(own, item.credit_micro, held).items():
            whole, part = format_amount(own, currency), f"{amount_text(held[name], CREDIT)} / {credited}"
            steps.append(Step(f"of it, on hold: {name}", f"⌊{whole} × {part} credits⌋", minor))
            earned.held_minor[name] = earned.held_minor.get(name, 0) + minor
    return steps, earned


def _settle_again(
    conn: Connection,
    period: Period,
    moves: Sequence[Correction],
    at: ProviderCurrency,
    terms: Terms,
    earned: _Earned,
    converted_in: int,
    standing: Mapping[Scope, HoldEvent],
) -> Waterfall:
    """Settle a balance from what the ledger had when the period was closed; `moves` are the balance's own."""
    closed_before = max((item.id for item in periods(conn) if item.id < period.id), default=None)
    due = reserves(conn, after=closed_before, through=period.id)
    advances = provider_balances(conn, AccountKind.ADVANCE, through=period.id)
    recouped = -sum(item.amount_minor for item in moves if item.kind == TransactionKind.RECOUPMENT)
    hold = hold_on(standing, *at)
    by_others = [item for item in moves if item.kind not in CLOSE_KINDS]
    opening_held = {key: parts for key, parts in held_balances(conn, before=period.id).items() if key == at}
    collections = held_collections_of(opening_held, by_others, {at: earned.held_minor}, standing)
    return settle(
        *at,
        opening_minor=provider_balances(conn, AccountKind.PAYABLE, before=period.id).get(at, 0),
        earned_minor=earned.all_minor,
        adjustments_minor=sum(item.amount_minor for item in by_others if item.collection is None),
        released_minor=sum(item.amount_minor for item in due if (item.provider, item.currency) == at),
        reserve_minor=provider_balances(conn, AccountKind.RESERVE, before=period.id).get(at, 0),
        advance_minor=recouped - advances.get(at, 0),
        converted_in_minor=converted_in,
        collections=collections.get(at, ()),
        terms=terms,
        rates=PeriodRates(period.id, rates_of_period(conn, period.id)),
        hold=hold.reason if hold else "",
    )


def _compare(fall: Waterfall, balance: dict[str, Any], period: str) -> None:
    for name, minor in fall.amounts.items():
        again = format_amount(minor, fall.currency)
        if again != balance[name]:
            raise IntegrityError(
                f"the statement of {fall.provider} for {period} says {name} {balance[name]} {fall.currency}; recomputed"
                f" it is {again}; run credit verify"
            )


def _line_steps(fall: Waterfall, terms: Terms) -> Iterator[Step]:
    """Yield every line of a balance that is not 0, with its arithmetic; `payable`, as the sum of the others, last."""
    arithmetic = _arithmetic(fall, terms)
    shown, total = [], ""
    for line in STATEMENT_LINES:
        amount = fall.amount(line)
        if amount and line.name != "payable":
            # The balance carried forward leaves the payable amount, but is shown with its own sign: a debt is negative.
            signed = line.sign * amount
            moved = -amount if line.step == "outcome" else signed
            shown.append(Step(line.heading, arithmetic.get(line.name, line.explained), signed))
            total += f" {'−' if moved < 0 else '+'} {format_amount(abs(moved), fall.currency)}"
    yield from shown
    yield Step("payable", total.removeprefix(" + ").strip() or "nothing came in", fall.payable_minor)


def _exact(whole_minor: int, fraction: Fraction, currency: str) -> str:
    """Return an amount with four digits of a fraction of its minor unit, cut off, unless that is 0."""
    whole = format_amount(whole_minor, currency)
    if not fraction:
        return whole
    return f"{whole}{'' if '.' in whole else '.'}{fraction.numerator * 10**4 // fraction.denominator:04d}"


def _arithmetic(fall: Waterfall, terms: Terms) -> dict[str, str]:
    """Return how the lines with numbers in them are computed, by the line's name."""

    def money(minor: int) -> str:
        return format_amount(minor, fall.currency)

    def part(base_minor: int, rate_ppm: int) -> str:
        return f"⌊{money(base_minor)} × {format_percent(rate_ppm)}⌋"

    kept = [item for item in fall.collections if item.reason]
    freed = [item.collection for item in fall.collections if item.released_minor]
    advances = fall.advance_balance_minor + fall.advances_recouped_minor
    recoverable = part(fall.disposable_minor, terms.recoupment_ppm)
    before = fall.owed_minor + fall.advances_recouped_minor
    return {
        "collections_held": "; ".join(
            f"{item.collection}: {item.reason}; {money(item.balance_minor)} held by now" for item in kept
        ),
        "collections_released": f"held earlier: {', '.join(freed)}",
        "reserve_held": part(fall.disposable_minor, terms.reserve_ppm),
        "advances_recouped": (
            f"the least of {money(advances)} left of advances, {recoverable} and the balance of {money(before)}"
        ),
        "withholding": part(fall.owed_minor, terms.withholding_ppm),
        "converted_out": fall.conversion.arithmetic if fall.conversion else "",
        "carried_forward": fall.reason,
    }
