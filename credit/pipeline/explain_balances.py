"""The steps from pools to a payout, recomputed from the ledger and compared with the statement."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Any

from sqlalchemy import Connection

from credit.accounting.amounts import amount_text, format_amount, format_amounts, format_percent
from credit.accounting.statement import on_hold_rows
from credit.accounting.statement_lines import STATEMENT_LINES
from credit.accounting.waterfall import Waterfall, provider_part
from credit.errors import IntegrityError
from credit.ledger.balances import ProviderCurrency
from credit.ledger.corrections import corrections
from credit.ledger.credits import credits_by_group
from credit.ledger.holds import holds
from credit.ledger.payouts import payouts
from credit.ledger.periods import Period
from credit.ledger.pools import Allocation, Pool, allocations, pools
from credit.ledger.statements import statements
from credit.ledger.terms import terms_on
from credit.ledger.transaction_kinds import CLOSE_KINDS
from credit.ledger.values import last_day
from credit.pipeline.close_balances import balance_inputs
from credit.pipeline.close_pools import Earned, held_parts
from credit.records import CREDIT, PPM, Correction, Group, Provider, Terms


@dataclass(frozen=True, slots=True)
class Step:
    """A line of an explanation: its label, its arithmetic, and the result in minor units."""

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
    paid = {item.currency: item.status for item in payouts(conn, period.id) if item.provider == who.key}
    terms = terms_on(conn, last_day(period.id))
    moves = [item for item in corrections(conn, period.id) if item.provider == who.key]
    # Holds of the moment of the close: one placed or released later changes nothing of it.
    standing = holds(conn, until=period.closed_at)
    by_group = credits_by_group(conn, period.id)
    held = {name: by_group.get(Group(key, name), 0) for key, _, name in standing if key == who.key and name is not None}
    pool_steps: dict[str, list[Step]] = {}
    earned: dict[ProviderCurrency, Earned] = {}
    for currency in (balance["currency"] for balance in body["balances"]):
        at = (who.key, currency)
        pool_steps[currency], earned[at] = _pool_steps(conn, period.id, at, terms.get(at, Terms()), held)
    inputs = balance_inputs(conn, period.id, earned, moves, terms, standing)
    converted: dict[str, int] = {}
    for balance in body["balances"]:
        currency = balance["currency"]
        fall = inputs.settle((who.key, currency), converted.get(currency, 0))
        _compare(fall, balance, body.get("on_hold", []), period.id)
        if fall.conversion is not None:  # it comes in with a balance further on: statements name those last
            into = fall.conversion.into
            converted[into] = converted.get(into, 0) + fall.conversion.converted_minor
        unpaid = "carried" if fall.carried_forward_minor else "converted" if fall.conversion else "none"
        yield CurrencySteps(
            currency=currency,
            pools=tuple(pool_steps[currency]),
            waterfall=tuple(_line_steps(fall, terms.get((who.key, currency), Terms()))),
            corrections=tuple(item for item in moves if item.currency == currency and item.kind not in CLOSE_KINDS),
            payable_minor=fall.payable_minor,
            status=paid.get(currency, unpaid),
            reason=fall.reason,
        )


def _pool_steps(
    conn: Connection, period: str, at: ProviderCurrency, terms: Terms, held: Mapping[str, int]
) -> tuple[list[Step], Earned]:
    """Return the steps from the pools in a currency to the provider's earnings, and those earnings.

    `held` is the micro-credits of each of its collections that was on hold.
    """
    _, currency = at
    named = {item.id: item for item in pools(conn, period)}
    steps, earned = [], Earned(0, {})
    for item in allocations(conn, period):
        pool = named[item.pool_id]
        if (item.provider, pool.currency) != at:
            continue
        steps.append(_share_step(pool, item))
        own = provider_part(item.amount_minor, terms.rate_ppm)
        if terms.rate_ppm != PPM:
            whole, house = format_amount(item.amount_minor, currency), format_percent(PPM - terms.rate_ppm)
            kept = format_amount(item.amount_minor - own, currency)
            steps.append(Step("at the agreed rate", f"{whole} − ⌊{whole} × {house}⌋ = {whole} − {kept}", own))
        earned.all_minor += own
        for name, minor in held_parts(own, item.credit_micro, held).items():
            whole = format_amount(own, currency)
            part = f"{amount_text(held[name], CREDIT)} / {amount_text(item.credit_micro, CREDIT)}"
            steps.append(Step(f"of it, on hold: {name}", f"⌊{whole} × {part} credits⌋", minor))
            earned.held_minor[name] = earned.held_minor.get(name, 0) + minor
    return steps, earned


def _share_step(pool: Pool, item: Allocation) -> Step:
    """Return the step from a pool to a provider's share; IntegrityError if the share cannot be right."""
    exact = Fraction(pool.net_minor * item.credit_micro, item.total_credit_micro) if pool.net_minor else Fraction(0)
    down = floor(exact)
    extra = item.amount_minor - down
    if extra not in {0, 1} or (extra and exact == down):
        raise IntegrityError(
            f"pool {pool.reference} of {pool.period}: {item.provider} was allocated {item.amount_minor}, not {down}"
            f" or one more {pool.currency} (minor units); run credit verify"
        )
    net, credited = format_amount(pool.net_minor, pool.currency), amount_text(item.credit_micro, CREDIT)
    text = f"{net} × {credited} / {amount_text(item.total_credit_micro, CREDIT)} credits"
    text += f" = {_exact(down, exact - down, pool.currency)}"
    if exact != down:
        text += f", rounded {'up' if extra else 'down'} (rounding: largest remainder)"
    return Step(f"share of pool {pool.reference}", text, item.amount_minor)


def _compare(fall: Waterfall, balance: dict[str, Any], on_hold: list[dict[str, str]], period: str) -> None:
    """Raise IntegrityError if a statement's balance, or its collections on hold, do not come out again."""
    for name, again in format_amounts(fall.amounts, fall.currency).items():
        if again != balance[name]:
            raise IntegrityError(
                f"the statement of {fall.provider} for {period} says {name} {balance[name]} {fall.currency}; recomputed"
                f" it is {again}; run credit verify"
            )
    if on_hold_rows(fall) != [row for row in on_hold if row["currency"] == fall.currency]:
        raise IntegrityError(
            f"the statement of {fall.provider} for {period} says something else of collections on hold in"
            f" {fall.currency} than holds and transactions; run credit verify"
        )


def _line_steps(fall: Waterfall, terms: Terms) -> Iterator[Step]:
    """Yield every line of a balance that is not 0, with its arithmetic; `payable`, as the sum of the others, last."""
    arithmetic, amounts = _arithmetic(fall, terms), fall.amounts
    shown, total = [], ""
    for line in STATEMENT_LINES:
        amount = amounts[line.name]
        if amount and line.name != "payable":
            # The balance carried forward leaves the payable amount, but is shown with its own sign: a debt is negative.
            signed = line.sign * amount
            moved = -amount if line.section == "outcome" else signed
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
    """Return the arithmetic of every line with numbers in it, by the line's name."""

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
        "withholding": part(fall.owed_minor - fall.carried_forward_minor, terms.withholding_ppm),
        "converted_out": fall.conversion.arithmetic if fall.conversion else "",
        "carried_forward": fall.reason,
    }
