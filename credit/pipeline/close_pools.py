"""The pools of a close: divided by credits, each share to its provider at the agreed rate, the rest to the house."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection

from credit.accounting.apportion import Earning, allocate
from credit.accounting.waterfall import provider_part
from credit.errors import LedgerError
from credit.ledger.accounts import AccountKind
from credit.ledger.balances import ProviderCurrency
from credit.ledger.holds import HoldEvent
from credit.ledger.journal import Entry, Posting, post
from credit.ledger.pools import Allocation, Pool, add_allocations
from credit.ledger.transaction_kinds import AllocationDetails, TransactionKind
from credit.ledger.values import last_day
from credit.records import HOUSE, Group, Provider, Terms

HousePolicy = Literal["return", "redistribute", "escrow"]
"""The use of money that no provider's data earned: it stays with the pool's owner (`return`), is divided among the
providers (`redistribute`), or is held for whoever may claim it (`escrow`)."""


@dataclass(slots=True)
class Earned:
    """Earnings of a provider in a currency, and the part of each collection on hold, in minor units."""

    all_minor: int
    held_minor: dict[str, int]


def earned_in(divided: Sequence[tuple[Pool, Sequence[Earning]]]) -> dict[ProviderCurrency, Earned]:
    """Return everybody's earnings from all pools, by provider and currency."""
    found: dict[ProviderCurrency, Earned] = {}
    for pool, earnings in divided:
        for item in earnings:
            of = found.setdefault((item.share.provider, pool.currency), Earned(0, {}))
            of.all_minor += item.earned_minor
            for name, minor in item.held_minor.items():
                of.held_minor[name] = of.held_minor.get(name, 0) + minor
    return found


def divide(
    period: str,
    money: Sequence[Pool],
    credited: Mapping[str, int],
    known: Mapping[str, Provider],
    terms: Mapping[ProviderCurrency, Terms],
    house: HousePolicy,
    held: Mapping[Group, int],
) -> list[tuple[Pool, tuple[Earning, ...]]]:
    """Divide pools by credits; the house's credits take part unless they are to be redistributed.

    Args:
        period: the period `YYYY-MM`.
        money: its pools.
        credited: its micro-credits by provider, the house's included.
        known: all providers.
        terms: the terms of those who have any, by (provider, currency).
        house: the use of money that no provider earned.
        held: the period's micro-credits of each collection on hold.

    Raises:
        LedgerError: there is money, but nobody to divide it among.
    """
    sharing = dict(credited)
    if house == "redistribute":
        sharing = {key: micro for key, micro in credited.items() if known[key].kind == "provider"}
        if any(credited.values()) and not any(sharing.values()) and any(pool.net_minor for pool in money):
            raise LedgerError(
                f"no provider earned credits in {period}, so nothing can be redistributed;"
                " close with --house return or --house escrow"
            )
    on_hold: dict[str, dict[str, int]] = {}
    for group, micro in held.items():
        on_hold.setdefault(group.provider, {})[group.collection] = micro
    divided = []
    for pool in money:
        earnings = []
        for share in allocate(period, pool.net_minor, sharing):
            own = known[share.provider].kind == "house"
            rate = terms.get((share.provider, pool.currency), Terms()).rate_ppm
            # Data of the house earn like any other, and the money stays with the house.
            earned = 0 if own else provider_part(share.amount_minor, rate)
            parts = held_parts(earned, share.credit_micro, on_hold.get(share.provider, {}))
            earnings.append(Earning(share, 0 if own else rate, earned, parts))
        divided.append((pool, tuple(earnings)))
    return divided


def held_parts(earned_minor: int, credit_micro: int, held: Mapping[str, int]) -> dict[str, int]:
    """Return the parts of a provider's earnings that its collections on hold earned, each rounded down; no zeros.

    Args:
        earned_minor: the provider's earnings from a pool.
        credit_micro: all its micro-credits.
        held: the micro-credits of each of its collections on hold.
    """
    parts = {name: earned_minor * micro // credit_micro for name, micro in sorted(held.items()) if micro}
    return {name: minor for name, minor in parts.items() if minor}


def post_allocations(
    conn: Connection,
    period: str,
    divided: Sequence[tuple[Pool, Sequence[Earning]]],
    known: Mapping[str, Provider],
    house: HousePolicy,
    holds: Mapping[Group, HoldEvent],
    now: datetime,
) -> None:
    """Post every pool to those who earned it, and record the shares; `holds` says why collections are on hold."""
    for pool, earnings in divided:
        lines = [Entry(account, pool.currency, amount) for account, amount in owed_to(earnings, known, house).items()]
        txn_id = None  # a pool of 0 moves no money, but its shares are recorded all the same
        held = {Group(item.share.provider, name) for item in earnings for name in item.held_minor}
        reasons = {str(group): holds[group].reason for group in sorted(held)}
        if lines:
            posting = Posting(
                kind=TransactionKind.ALLOCATION,
                period=period,
                effective_on=last_day(period),
                idempotency_key=TransactionKind.ALLOCATION.key(
                    period=period, currency=pool.currency, reference=pool.reference
                ),
                entries=(Entry(AccountKind.POOL.key(period), pool.currency, -pool.net_minor), *lines),
                details=AllocationDetails(pool.reference, house, reasons or None),
            )
            txn_id = post(conn, posting, now=now).txn_id
        shares = [item.share for item in earnings]
        add_allocations(
            conn,
            [
                Allocation(
                    period,
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
    """Return the amounts that a divided pool puts into accounts, in minor units, by account; no zeros."""
    owed: dict[str, int] = {}
    for item in earnings:
        # Earnings of own or public-domain data are the house's money, under whichever key the data are listed.
        own = known[item.share.provider].kind == "house"
        unearned = AccountKind.ESCROW.key() if own and house == "escrow" else AccountKind.PAYABLE.key(HOUSE)
        held = [
            (AccountKind.HELD.key(Group(item.share.provider, name)), minor) for name, minor in item.held_minor.items()
        ]
        for account, amount in (
            (AccountKind.PAYABLE.key(item.share.provider), item.earned_minor - sum(item.held_minor.values())),
            *held,
            (unearned, item.share.amount_minor - item.earned_minor),
        ):
            owed[account] = owed.get(account, 0) + amount
    return {account: amount for account, amount in sorted(owed.items()) if amount}
