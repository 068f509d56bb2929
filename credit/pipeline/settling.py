"""What a close posts: pools divided by credits, then every line of every provider's waterfall, each a transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection

from credit.accounting.allocation import Share, allocate
from credit.accounting.fx import Conversion, PeriodRates
from credit.accounting.waterfall import Waterfall, provider_part, settle
from credit.errors import LedgerError
from credit.ledger.accounts import (
    ADVANCE_KIND,
    ESCROW,
    FEES,
    PAYABLE_KIND,
    RESERVE_KIND,
    advance_account,
    fx_account,
    payable,
    payout_account,
    pool_account,
    reserve_account,
    withholding_account,
)
from credit.ledger.fx import rates_of_period
from credit.ledger.holds import HoldEvent, holds
from credit.ledger.journal import Entry, Posting, post_all
from credit.ledger.payouts import NewPayout, add_payouts
from credit.ledger.periods import last_closed, last_day, later
from credit.ledger.pools import NewAllocation, Pool, add_allocations
from credit.ledger.settlement import (
    Correction,
    ProviderCurrency,
    Reserve,
    add_reserves,
    provider_balances,
    reserves,
)
from credit.records import HOUSE, Provider, Terms

HousePolicy = Literal["return", "redistribute", "escrow"]
"""What happens to the money that no provider's data earned: it stays with the pool's owner (`return`), is divided
among the providers (`redistribute`), or is held for whoever may claim it (`escrow`)."""

LINE_KINDS = ("reserve", "reserve-release", "recoupment", "conversion", "withholding", "fees", "payout")
"""Kinds of the transactions that stand for a waterfall's lines, each posted once for a provider and currency."""

CLOSE_KINDS = ("allocation", *LINE_KINDS)
"""Kinds of the transactions that a close posts."""


@dataclass(frozen=True, slots=True)
class Earning:
    """A share of a pool with what of it is the provider's at its rate, in minor units."""

    share: Share
    rate_ppm: int
    earned_minor: int


def divide(
    period: str,
    money: Sequence[Pool],
    credited: Mapping[str, int],
    known: Mapping[str, Provider],
    terms: Mapping[ProviderCurrency, Terms],
    house: HousePolicy,
) -> list[tuple[Pool, tuple[Earning, ...]]]:
    """Divide pools by credits; the house's credits take part unless they are to be redistributed.

    Args:
        period: the period `YYYY-MM`.
        money: its pools.
        credited: its micro-credits by provider, the house's included.
        known: all providers.
        terms: the terms of those who have any, by (provider, currency).
        house: what happens to what no provider earned.

    Raises:
        LedgerError: there is money, but nobody to divide it among.
    """
    sharing = dict(credited)
    if house == "redistribute":
        sharing = {key: micro for key, micro in credited.items() if known[key].kind == "provider"}
        if any(credited.values()) and not any(sharing.values()) and any(pool.net_minor for pool in money):
            raise LedgerError(
                f"no provider earned credits in {period}, so that nothing can be redistributed;"
                " close with --house return or --house escrow"
            )
    divided = []
    for pool in money:
        earnings = []
        for share in allocate(period, pool.net_minor, sharing):
            own = known[share.provider].kind == "house"
            rate = terms.get((share.provider, pool.currency), Terms()).rate_ppm
            earned = 0 if own else provider_part(share.amount_minor, rate)
            earnings.append(Earning(share, 0 if own else rate, earned))
        divided.append((pool, tuple(earnings)))
    return divided


def post_allocations(
    conn: Connection,
    period: str,
    divided: Sequence[tuple[Pool, Sequence[Earning]]],
    known: Mapping[str, Provider],
    house: HousePolicy,
    now: datetime,
) -> None:
    """Post every pool to those who earned it, and record the shares."""
    for pool, earnings in divided:
        lines = [Entry(account, pool.currency, amount) for account, amount in owed_to(earnings, known, house).items()]
        txn_id = None
        if lines:
            posting = Posting(
                kind="allocation",
                period=period,
                effective_on=last_day(period),
                idempotency_key=f"allocation:{period}:{pool.currency}:{pool.reference}",
                entries=(Entry(pool_account(period), pool.currency, -pool.net_minor), *lines),
                details={"pool": pool.reference, "house": house},
            )
            txn_id = post_all(conn, [posting], now=now)[0].txn_id
        shares = [item.share for item in earnings]
        add_allocations(
            conn,
            period,
            [
                NewAllocation(
                    pool.id,
                    share.provider,
                    share.credit_micro,
                    share.total_credit_micro,
                    share.amount_minor,
                    txn_id if share.amount_minor else None,
                )
                for share in shares
            ],
        )


def owed_to(earnings: Sequence[Earning], known: Mapping[str, Provider], house: HousePolicy) -> dict[str, int]:
    """Return what a pool's division puts into which account, in minor units, by account; zeros are left out."""
    owed: dict[str, int] = {}
    for item in earnings:
        # What own or public-domain data earned is the house's money, whichever key it is listed under.
        own = known[item.share.provider].kind == "house"
        unearned = ESCROW if own and house == "escrow" else payable(HOUSE)
        for account, amount in (
            (payable(item.share.provider), item.earned_minor),
            (unearned, item.share.amount_minor - item.earned_minor),
        ):
            owed[account] = owed.get(account, 0) + amount
    return {account: amount for account, amount in sorted(owed.items()) if amount}


def settle_all(
    conn: Connection,
    period: str,
    divided: Sequence[tuple[Pool, Sequence[Earning]]],
    corrected: Sequence[Correction],
    known: Mapping[str, Provider],
    terms: Mapping[ProviderCurrency, Terms],
) -> list[Waterfall]:
    """Return the waterfall of every provider and currency with anything to show; the house keeps its own.

    A provider's currencies that are paid in another one come first, because what they are converted to comes in there.

    Raises:
        LedgerError: a rate is missing, or a currency is to be paid in one that is itself paid in another.
    """
    inputs = _inputs(conn, period, divided, corrected, terms)
    own = {key for key in inputs.balances() if known[key[0]].kind == "provider"}
    elsewhere = {key for key in own if key in terms and terms[key].pay_in}
    converted: dict[ProviderCurrency, int] = {}
    falls: dict[ProviderCurrency, Waterfall] = {}
    for provider, currency in sorted(elsewhere):
        into = (provider, terms[provider, currency].pay_in)
        if into in terms and terms[into].pay_in:
            raise LedgerError(
                f"{provider} is paid in {into[1]} for {currency}, and in {terms[into].pay_in} for {into[1]}; agree one"
                f" currency: credit providers terms {provider} --currency {currency} --pay-in {terms[into].pay_in}"
            )
        fall = falls[provider, currency] = inputs.settle((provider, currency))
        if fall.conversion is not None:
            _add(converted, into, fall.conversion.converted_minor)
    for key in sorted({*own, *converted} - elsewhere):
        falls[key] = inputs.settle(key, converted.get(key, 0))
    return [falls[key] for key in sorted(falls, key=lambda key: (key[0], key not in elsewhere, key[1]))]


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What the balances of a period are settled from, in minor units by provider and currency."""

    opening: Mapping[ProviderCurrency, int]
    earned: Mapping[ProviderCurrency, int]
    adjusted: Mapping[ProviderCurrency, int]
    released: Mapping[ProviderCurrency, int]
    held: Mapping[ProviderCurrency, int]
    advances: Mapping[ProviderCurrency, int]
    terms: Mapping[ProviderCurrency, Terms]
    standing: Mapping[tuple[str, str | None], HoldEvent]
    rates: PeriodRates

    def balances(self) -> set[ProviderCurrency]:
        """Return whose balances have anything to show."""
        return {*self.opening, *self.held, *self.advances, *self.adjusted, *self.earned}

    def settle(self, key: ProviderCurrency, converted_in_minor: int = 0) -> Waterfall:
        """Settle one balance."""
        hold = self.standing.get((key[0], None)) or self.standing.get(key)
        return settle(
            *key,
            opening_minor=self.opening.get(key, 0),
            earned_minor=self.earned.get(key, 0),
            adjustments_minor=self.adjusted.get(key, 0),
            released_minor=self.released.get(key, 0),
            reserve_minor=self.held.get(key, 0),
            advance_minor=-self.advances.get(key, 0),
            converted_in_minor=converted_in_minor,
            terms=self.terms.get(key),
            hold=hold.reason if hold else "",
            rates=self.rates,
        )


def _inputs(
    conn: Connection,
    period: str,
    divided: Sequence[tuple[Pool, Sequence[Earning]]],
    corrected: Sequence[Correction],
    terms: Mapping[ProviderCurrency, Terms],
) -> _Inputs:
    released: dict[ProviderCurrency, int] = {}
    for due in reserves(conn, after=last_closed(conn), through=period):
        _add(released, (due.provider, due.currency), due.amount_minor)
    adjusted: dict[ProviderCurrency, int] = {}
    for item in corrected:
        _add(adjusted, (item.provider, item.currency), item.amount_minor)
    earned: dict[ProviderCurrency, int] = {}
    for pool, earnings in divided:
        for earning in earnings:
            _add(earned, (earning.share.provider, pool.currency), earning.earned_minor)
    return _Inputs(
        opening=provider_balances(conn, PAYABLE_KIND, before=period),
        earned=earned,
        adjusted=adjusted,
        released=released,
        held=provider_balances(conn, RESERVE_KIND, before=period),
        advances=provider_balances(conn, ADVANCE_KIND, through=period),
        terms=terms,
        standing=holds(conn),
        rates=PeriodRates(period, rates_of_period(conn, period)),
    )


def post_lines(
    conn: Connection,
    period: str,
    falls: Sequence[Waterfall],
    terms: Mapping[ProviderCurrency, Terms],
    now: datetime,
) -> None:
    """Post every line of every waterfall that moves money, and record what is held back and what is to be paid."""
    lines = [(fall, kind, posting) for fall in falls for kind, posting in _lines(period, fall)]
    posted = post_all(conn, [posting for _, _, posting in lines], now=now)
    held, leaving = [], []
    for (fall, kind, _), done in zip(lines, posted, strict=True):
        if kind == "payout":
            leaving.append(NewPayout(fall.provider, fall.currency, fall.payable_minor, done.txn_id))
        elif kind == "reserve":
            months = terms[fall.provider, fall.currency].reserve_release_periods
            due = later(period, months)
            held.append(Reserve(period, fall.provider, fall.currency, fall.reserve_held_minor, due, done.txn_id))
    add_payouts(conn, period, leaving)
    add_reserves(conn, held)


def _lines(period: str, fall: Waterfall) -> Iterator[tuple[str, Posting]]:
    """Yield a waterfall's lines as postings, each out of what is payable (or, released, back to it)."""
    taken = {
        "reserve": (reserve_account(fall.provider), fall.reserve_held_minor),
        "reserve-release": (reserve_account(fall.provider), -fall.reserve_released_minor),
        "recoupment": (advance_account(fall.provider), fall.recouped_minor),
        "withholding": (withholding_account(fall.provider), fall.withheld_minor),
        "fees": (FEES, fall.fees_minor),
        "payout": (payout_account(fall.provider), fall.payable_minor),
    }

    def line(kind: str, entries: tuple[Entry, ...], details: Mapping[str, Any] | None = None) -> tuple[str, Posting]:
        key = f"{kind}:{period}:{fall.provider}:{fall.currency}"
        return kind, Posting(kind, period, last_day(period), key, entries, details=details)

    for kind, (account, amount) in taken.items():
        if amount:
            own = payable(fall.provider)
            yield line(kind, (Entry(own, fall.currency, -amount), Entry(account, fall.currency, amount)))
    if fall.conversion is not None:
        yield line("conversion", conversion_entries(fall.provider, fall.conversion), rate_details(fall.conversion))


def conversion_entries(provider: str, item: Conversion) -> tuple[Entry, ...]:
    """Return the entries of a conversion: what is owed changes its currency through the account of the pair."""
    own, exchange = payable(provider), fx_account(item.given.base, item.given.quote)
    return (
        Entry(own, item.currency, -item.amount_minor),
        Entry(exchange, item.currency, item.amount_minor),
        Entry(exchange, item.into, -item.converted_minor),
        Entry(own, item.into, item.converted_minor),
    )


def rate_details(item: Conversion) -> dict[str, Any]:
    """Return what a conversion's transaction says of its rate."""
    given = item.given
    on, rate = given.on.isoformat(), str(given.rate)
    return {"base": given.base, "quote": given.quote, "on": on, "rate": rate, "source": given.source}


def _add(sums: dict[ProviderCurrency, int], key: ProviderCurrency, amount: int) -> None:
    sums[key] = sums.get(key, 0) + amount
