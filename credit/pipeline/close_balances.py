"""The balances of a close: earnings become the lines of statements, and lines with money become transactions.

`credit.accounting.statement_lines` is the table of lines. `credit.accounting.waterfall.settle` computes them, from
inputs read here from the ledger; `credit explain payout` later settles from the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from sqlalchemy import Connection

from credit.accounting.fx import Conversion, PeriodRates
from credit.accounting.statement_lines import STATEMENT_LINES, StatementLine
from credit.accounting.waterfall import HeldCollection, Waterfall, settle
from credit.errors import LedgerError
from credit.ledger.accounts import AccountKind, fx_account
from credit.ledger.balances import ProviderCurrency, held_balances, provider_balances
from credit.ledger.fx import rates_of_period
from credit.ledger.holds import HoldEvent, Scope, hold_on
from credit.ledger.journal import Entry, Posting, post_all
from credit.ledger.payouts import NewPayout, add_payouts
from credit.ledger.periods import periods
from credit.ledger.pools import Reserve, add_reserves, reserves
from credit.ledger.transaction_kinds import CLOSE_KINDS, ConversionDetails, TransactionKind
from credit.ledger.values import last_day, later
from credit.pipeline.close_pools import Earned
from credit.records import Correction, Group, Provider, Terms

_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class BalanceInputs:
    """The inputs of a period's balances, in minor units by provider and currency.

    `advances` are balances of accounts: negative until an advance is paid back.
    """

    opening: Mapping[ProviderCurrency, int]
    earned: Mapping[ProviderCurrency, Earned]
    adjusted: Mapping[ProviderCurrency, int]
    released: Mapping[ProviderCurrency, int]
    reserves: Mapping[ProviderCurrency, int]
    advances: Mapping[ProviderCurrency, int]
    collections: Mapping[ProviderCurrency, tuple[HeldCollection, ...]]
    terms: Mapping[ProviderCurrency, Terms]
    standing: Mapping[Scope, HoldEvent]
    rates: PeriodRates

    def balances(self) -> set[ProviderCurrency]:
        """Return the providers and currencies with something to show."""
        return {*self.opening, *self.reserves, *self.advances, *self.adjusted, *self.earned, *self.collections}

    def settle(self, key: ProviderCurrency, converted_in_minor: int = 0) -> Waterfall:
        """Settle one balance."""
        hold = hold_on(self.standing, *key)
        return settle(
            *key,
            opening_minor=self.opening.get(key, 0),
            earned_minor=self.earned[key].all_minor if key in self.earned else 0,
            adjustments_minor=self.adjusted.get(key, 0),
            released_minor=self.released.get(key, 0),
            reserve_minor=self.reserves.get(key, 0),
            advance_minor=-self.advances.get(key, 0),
            converted_in_minor=converted_in_minor,
            collections=self.collections.get(key, ()),
            terms=self.terms.get(key),
            hold=hold.reason if hold else "",
            rates=self.rates,
        )


def balance_inputs(
    conn: Connection,
    period: str,
    earned: Mapping[ProviderCurrency, Earned],
    corrected: Sequence[Correction],
    terms: Mapping[ProviderCurrency, Terms],
    standing: Mapping[Scope, HoldEvent],
) -> BalanceInputs:
    """Read the inputs of a period's balances; before its close and ever after they are the same.

    Args:
        conn: from `Ledger.read` or `Ledger.write`.
        period: the period `YYYY-MM`.
        earned: earnings from the period's pools.
        corrected: the period's movements of payable accounts; the function leaves out those of the close itself.
        terms: the agreed terms.
        standing: the holds in force at the close.
    """
    # Not the calendar month before: months without a period are skipped, and their reserves fall due here.
    closed_before = max((item.id for item in periods(conn) if item.id < period), default=None)
    released: dict[ProviderCurrency, int] = {}
    for due in reserves(conn, after=closed_before, through=period):
        _add(released, (due.provider, due.currency), due.amount_minor)
    advances = provider_balances(conn, AccountKind.ADVANCE, through=period)
    adjusted: dict[ProviderCurrency, int] = {}
    moved: dict[ProviderCurrency, dict[str, int]] = {}
    for item in corrected:
        key = (item.provider, item.currency)
        if item.kind == TransactionKind.RECOUPMENT:  # of this close, which lowered the advance: add it back
            _add(advances, key, item.amount_minor)
        elif item.kind in CLOSE_KINDS:
            continue
        elif item.collection is None:
            _add(adjusted, key, item.amount_minor)
        else:
            _add(moved.setdefault(key, {}), item.collection, item.amount_minor)
    return BalanceInputs(
        opening=provider_balances(conn, AccountKind.PAYABLE, before=period),
        earned=earned,
        adjusted=adjusted,
        released=released,
        reserves=provider_balances(conn, AccountKind.RESERVE, before=period),
        advances=advances,
        collections=_held_collections(held_balances(conn, before=period), moved, earned, standing),
        terms=terms,
        standing=standing,
        rates=PeriodRates(period, rates_of_period(conn, period)),
    )


def _held_collections(
    opening: Mapping[ProviderCurrency, Mapping[str, int]],
    moved: Mapping[ProviderCurrency, Mapping[str, int]],
    earned: Mapping[ProviderCurrency, Earned],
    standing: Mapping[Scope, HoldEvent],
) -> dict[ProviderCurrency, tuple[HeldCollection, ...]]:
    """Return the collections on hold, and those released because their hold has ended."""
    found = {}
    for key in {*opening, *moved, *earned}:
        before, during = opening.get(key, {}), moved.get(key, {})
        now = earned[key].held_minor if key in earned else {}
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


def settle_all(inputs: BalanceInputs, known: Mapping[str, Provider]) -> list[Waterfall]:
    """Return the waterfall of every provider and currency with something to show; the house has none.

    A currency with another `pay_in` comes first: its balance is converted, and comes in with the other currency.

    Raises:
        LedgerError: a rate is missing, or the terms pay a currency in one with a `pay_in` of its own.
    """
    terms = inputs.terms
    own = {key for key in inputs.balances() if known[key[0]].kind == "provider"}
    elsewhere = {key for key in own if key in terms and terms[key].pay_in}
    converted: dict[ProviderCurrency, int] = {}
    falls: dict[ProviderCurrency, Waterfall] = {}
    # First, for their converted amounts come in with the currencies below.
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


def post_lines(
    conn: Connection,
    period: str,
    falls: Sequence[Waterfall],
    terms: Mapping[ProviderCurrency, Terms],
    now: datetime,
) -> None:
    """Post the lines with money, and record the reserves and the payouts."""
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
    """Yield each line with money and its posting."""
    amounts = fall.amounts
    for line in STATEMENT_LINES:
        if line.name == "collections_released":
            for item in fall.collections:
                if item.released_minor:
                    group, kind = Group(fall.provider, item.collection), TransactionKind.COLLECTION_RELEASE
                    key = kind.key(period=period, group=group, currency=fall.currency)
                    yield line, _posting(period, fall, kind, key, group, -item.released_minor)
        elif line.name == "converted_out":
            if fall.conversion is not None:
                yield line, _conversion_posting(period, fall, fall.conversion)
        elif line.transaction and amounts[line.name]:
            # Out of the payable account goes all of an outcome; any other line goes against its sign.
            taken = amounts[line.name] if line.section == "outcome" else -line.sign * amounts[line.name]
            kind = TransactionKind.named(line.transaction)
            key = kind.key(period=period, provider=fall.provider, currency=fall.currency)
            yield line, _posting(period, fall, kind, key, fall.provider, taken)


def _posting(
    period: str, fall: Waterfall, kind: TransactionKind, key: str, owner: str | Group, amount_minor: int
) -> Posting:
    """Return the posting of a line: out of the provider's payable account, or into it if the amount is negative."""
    entries = (
        Entry(AccountKind.PAYABLE.key(fall.provider), fall.currency, -amount_minor),
        Entry(kind.counterpart.key(owner), fall.currency, amount_minor),
    )
    return Posting(kind, period, last_day(period), key, entries)


def _conversion_posting(period: str, fall: Waterfall, item: Conversion) -> Posting:
    """Return the posting of a conversion, through the account of the two currencies: each currency sums to zero."""
    own = AccountKind.PAYABLE.key(fall.provider)
    exchange = fx_account(item.given.base, item.given.quote)
    entries = (
        Entry(own, item.currency, -item.amount_minor),
        Entry(exchange, item.currency, item.amount_minor),
        Entry(exchange, item.into, -item.converted_minor),
        Entry(own, item.into, item.converted_minor),
    )
    kind = TransactionKind.CONVERSION
    key = kind.key(period=period, provider=fall.provider, currency=fall.currency)
    return Posting(kind, period, last_day(period), key, entries, details=_rate_details(item))


def _rate_details(item: Conversion) -> ConversionDetails:
    """Return the details of a conversion's transaction: its rate, day and source."""
    given = item.given
    return ConversionDetails(given.base, given.quote, given.on.isoformat(), str(given.rate), given.source)


def _add(sums: dict[_Key, int], key: _Key, amount: int) -> None:
    sums[key] = sums.get(key, 0) + amount
