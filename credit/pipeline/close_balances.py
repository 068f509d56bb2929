"""What a close decides of every provider's balance: each line of its waterfall, posted as a transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from credit.accounting.fx import Conversion, PeriodRates
from credit.accounting.statement_lines import STATEMENT_LINES, StatementLine
from credit.accounting.waterfall import HeldCollection, Waterfall, settle
from credit.errors import LedgerError
from credit.ledger.accounts import AccountKind
from credit.ledger.corrections import Correction
from credit.ledger.fx import rates_of_period
from credit.ledger.holds import HoldEvent, Scope, hold_on, holds
from credit.ledger.journal import Entry, Posting, post_all
from credit.ledger.payouts import NewPayout, add_payouts
from credit.ledger.periods import last_closed, last_day, later
from credit.ledger.pools import Pool
from credit.ledger.settlement import ProviderCurrency, Reserve, add_reserves, held_balances, provider_balances, reserves
from credit.ledger.transaction_kinds import ConversionDetails, TransactionKind
from credit.pipeline.close_pools import Earning
from credit.records import Group, Provider, Terms


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
    collections: Mapping[ProviderCurrency, tuple[HeldCollection, ...]]
    standing: Mapping[Scope, HoldEvent]
    rates: PeriodRates

    def balances(self) -> set[ProviderCurrency]:
        """Return whose balances have anything to show."""
        return {*self.opening, *self.held, *self.advances, *self.adjusted, *self.earned, *self.collections}

    def settle(self, key: ProviderCurrency, converted_in_minor: int = 0) -> Waterfall:
        """Settle one balance."""
        hold = hold_on(self.standing, *key)
        return settle(
            *key,
            opening_minor=self.opening.get(key, 0),
            earned_minor=self.earned.get(key, 0),
            adjustments_minor=self.adjusted.get(key, 0),
            released_minor=self.released.get(key, 0),
            reserve_minor=self.held.get(key, 0),
            advance_minor=-self.advances.get(key, 0),
            converted_in_minor=converted_in_minor,
            collections=self.collections.get(key, ()),
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
        if item.collection is None:
            _add(adjusted, (item.provider, item.currency), item.amount_minor)
    earned: dict[ProviderCurrency, int] = {}
    held: dict[ProviderCurrency, dict[str, int]] = {}
    for pool, earnings in divided:
        for earning in earnings:
            key = (earning.share.provider, pool.currency)
            _add(earned, key, earning.earned_minor)
            for name, minor in earning.held_minor.items():
                parts = held.setdefault(key, {})
                parts[name] = parts.get(name, 0) + minor
    standing = holds(conn)
    return _Inputs(
        opening=provider_balances(conn, AccountKind.PAYABLE, before=period),
        earned=earned,
        adjusted=adjusted,
        released=released,
        held=provider_balances(conn, AccountKind.RESERVE, before=period),
        advances=provider_balances(conn, AccountKind.ADVANCE, through=period),
        terms=terms,
        collections=held_collections_of(held_balances(conn, before=period), corrected, held, standing),
        standing=standing,
        rates=PeriodRates(period, rates_of_period(conn, period)),
    )


def held_collections_of(
    opening: Mapping[ProviderCurrency, Mapping[str, int]],
    corrected: Sequence[Correction],
    held: Mapping[ProviderCurrency, Mapping[str, int]],
    standing: Mapping[Scope, HoldEvent],
) -> dict[ProviderCurrency, tuple[HeldCollection, ...]]:
    """Return what of whose collections is on hold, or is released because no hold stands, by provider and currency."""
    moved: dict[ProviderCurrency, dict[str, int]] = {}
    for item in corrected:
        if item.collection is not None:
            parts = moved.setdefault((item.provider, item.currency), {})
            parts[item.collection] = parts.get(item.collection, 0) + item.amount_minor
    found = {}
    for key in {*opening, *moved, *held}:
        before, during, now = opening.get(key, {}), moved.get(key, {}), held.get(key, {})
        items = []
        for name in sorted({*before, *during, *now}):
            hold = standing.get((key[0], None, name))
            amounts = (before.get(name, 0), during.get(name, 0), now.get(name, 0))
            if hold is not None:
                items.append(HeldCollection(name, *amounts, 0, hold.reason))
            elif sum(amounts):
                items.append(HeldCollection(name, *amounts, sum(amounts), ""))
        if items:
            found[key] = tuple(items)
    return found


def post_lines(
    conn: Connection,
    period: str,
    falls: Sequence[Waterfall],
    terms: Mapping[ProviderCurrency, Terms],
    now: datetime,
) -> None:
    """Post every line of every waterfall that moves money, and record what is held back and what is to be paid."""
    lines = [(fall, line, posting) for fall in falls for line, posting in _lines(period, fall)]
    posted = post_all(conn, [posting for _, _, posting in lines], now=now)
    held, leaving = [], []
    for (fall, line, _), done in zip(lines, posted, strict=True):
        if line.name == "payable":
            leaving.append(NewPayout(fall.provider, fall.currency, fall.payable_minor, done.txn_id))
        elif line.name == "reserve_held":
            months = terms[fall.provider, fall.currency].reserve_release_periods
            due = later(period, months)
            held.append(Reserve(period, fall.provider, fall.currency, fall.reserve_held_minor, due, done.txn_id))
    add_payouts(conn, period, leaving)
    add_reserves(conn, held)


def _lines(period: str, fall: Waterfall) -> Iterator[tuple[StatementLine, Posting]]:
    """Yield a posting for every line that moves money: out of what is payable, or back to it."""
    for line in STATEMENT_LINES:
        if line.name == "collections_released":
            for item in fall.collections:
                if item.released_minor:
                    group = Group(fall.provider, item.collection)
                    key = TransactionKind.named(line.transaction).key(
                        period=period, group=group, currency=fall.currency
                    )
                    account = line.account.format(provider=fall.provider, collection=item.collection)
                    yield line, _posting(period, fall, line, key, account, -item.released_minor)
        elif line.name == "converted_out":
            if fall.conversion is not None:
                yield line, _conversion_posting(period, fall, line, fall.conversion)
        elif line.transaction and fall.amount(line):
            taken = fall.amount(line) if line.step == "outcome" else -line.sign * fall.amount(line)
            key = TransactionKind.named(line.transaction).key(
                period=period, provider=fall.provider, currency=fall.currency
            )
            yield line, _posting(period, fall, line, key, line.account.format(provider=fall.provider), taken)


def _posting(period: str, fall: Waterfall, line: StatementLine, key: str, account: str, amount_minor: int) -> Posting:
    """Return the posting that moves an amount from what is owed to the provider into an account."""
    entries = (
        Entry(AccountKind.PAYABLE.key(fall.provider), fall.currency, -amount_minor),
        Entry(account, fall.currency, amount_minor),
    )
    return Posting(line.transaction, period, last_day(period), key, entries)


def _conversion_posting(period: str, fall: Waterfall, line: StatementLine, item: Conversion) -> Posting:
    """Return the posting of a conversion: what is owed changes its currency through the account of the pair."""
    own = AccountKind.PAYABLE.key(fall.provider)
    exchange = line.account.format(base=item.given.base, quote=item.given.quote)
    entries = (
        Entry(own, item.currency, -item.amount_minor),
        Entry(exchange, item.currency, item.amount_minor),
        Entry(exchange, item.into, -item.converted_minor),
        Entry(own, item.into, item.converted_minor),
    )
    key = TransactionKind.named(line.transaction).key(period=period, provider=fall.provider, currency=fall.currency)
    return Posting(line.transaction, period, last_day(period), key, entries, details=_rate_details(item))


def _rate_details(item: Conversion) -> ConversionDetails:
    """Return what a conversion's transaction says of its rate."""
    given = item.given
    return ConversionDetails(given.base, given.quote, given.on.isoformat(), str(given.rate), given.source)


def _add(sums: dict[ProviderCurrency, int], key: ProviderCurrency, amount: int) -> None:
    sums[key] = sums.get(key, 0) + amount
