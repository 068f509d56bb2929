"""Checks of closes: pools, allocations, reserves, conversions and held collections follow from the journal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Row, exists, func, literal, select

from credit.ledger.accounts import AccountKind, fx_account
from credit.ledger.balances import ProviderCurrency
from credit.ledger.credits import credit_totals, credits_by_month
from credit.ledger.fx import rates_of_period
from credit.ledger.holds import held_collections
from credit.ledger.journal import journal_lines, journal_sums
from credit.ledger.limits import limited_outputs
from credit.ledger.periods import last_closed
from credit.ledger.schema import (
    account,
    allocation,
    ledger_entry,
    ledger_txn,
    period,
    pool,
    provider,
    reserve,
)
from credit.ledger.terms import terms_on
from credit.ledger.transaction_kinds import ConversionDetails, PoolDetails, TransactionKind
from credit.ledger.transactions import amounts_by_account, amounts_posted
from credit.ledger.values import last_day, later, utc_moment
from credit.ledger.verify.report import Problem
from credit.records import HOUSE, PPM, Group, Terms


def check_pools(conn: Connection) -> Iterator[Problem]:
    """Yield each pool unlike its transaction, or unlike the sum of its allocations."""
    key = literal(AccountKind.POOL.key("")) + pool.c.period_id
    posted = amounts_posted(pool.c.txn_id, key, pool.c.currency).scalar_subquery()
    shared = func.coalesce(
        select(func.sum(allocation.c.amount_minor)).where(allocation.c.pool_id == pool.c.id).scalar_subquery(), 0
    )
    undoing = ledger_txn.alias("undoing")
    undone = exists().where(undoing.c.reverses_txn_id == pool.c.txn_id)
    numbers = (posted.label("posted"), shared.label("shared"), undone.label("undone"))
    query = (
        select(pool, period.c.status, ledger_txn.c.details_json, *numbers)
        .join_from(pool, period)
        .outerjoin(ledger_txn, ledger_txn.c.id == pool.c.txn_id)
        .order_by(pool.c.id)
    )
    for row in conn.execute(query):
        place = f"pool {row.id} ({row.period_id}, {row.currency}, {row.reference})"
        said = PoolDetails(row.gross_minor, row.deductions_minor, row.reference)
        if row.net_minor != (row.posted or 0):
            yield Problem(place, f"says {row.net_minor} minor units; its transaction says {row.posted}")
        elif row.details_json is not None and PoolDetails.read(row.details_json) != said:
            yield Problem(place, f"is not what transaction {row.txn_id} added")
        divided = row.status == "closed" and not row.undone
        if row.shared != (row.net_minor if divided else 0):
            yield Problem(place, f"holds {row.net_minor} minor units; its allocations sum to {row.shared}")


def check_period_basis(conn: Connection) -> Iterator[Problem]:
    """Yield each move of a close with accounts of others than earners, or beyond their credits.

    A close must give back to the issued credits exactly the credits beyond the limits on users.
    """
    yield from _uncounted_faults(conn)
    query = (
        journal_lines(ledger_txn.c.id, ledger_txn.c.period_id, account.c.key, ledger_entry.c.account_id)
        .where(ledger_txn.c.kind == TransactionKind.PERIOD_BASIS, account.c.kind != AccountKind.ISSUED)
        .order_by(ledger_txn.c.id, ledger_entry.c.line_no)
    )
    for row in conn.execute(query).all():
        of_period = (ledger_entry.c.account_id == row.account_id, ledger_txn.c.period_id == row.period_id)
        ((left,),) = journal_sums(conn, where=of_period)
        if not row.key.startswith(AccountKind.EARNED.key("")) or left < 0:
            yield Problem(f"transaction {row.id}", f"leaves {row.key} with {left} micro-credits in {row.period_id}")


def _uncounted_faults(conn: Connection) -> Iterator[Problem]:
    """Yield each closed period without the credits beyond the limits on users, or with others."""
    kind = TransactionKind.PERIOD_BASIS
    given = journal_sums(
        conn, ledger_txn.c.period_id, where=(ledger_txn.c.kind == kind, account.c.kind == AccountKind.ISSUED)
    )
    posted: dict[str, int] = dict(given)
    closed = select(period.c.id).where(period.c.status == "closed").order_by(period.c.id)
    for name in conn.execute(closed).scalars().all():
        lost = sum(item.lost_micro for item in limited_outputs(conn, name).values())
        if lost != posted.get(name, 0):
            yield Problem(
                f"period {name}", f"left {posted.get(name, 0)} micro-credits uncounted; the limits on users say {lost}"
            )


@dataclass(frozen=True, slots=True)
class _Agreed:
    """Basis of a division of pools: credits by provider, terms, and credits of collections on hold."""

    credited: Mapping[str, int]
    terms: Mapping[ProviderCurrency, Terms]
    held: Mapping[Group, int]


def check_allocations(conn: Connection) -> Iterator[Problem]:
    """Compare allocations with credits, terms, holds and their transactions; yield each contradiction."""
    for name in conn.execute(select(allocation.c.period_id).distinct().order_by(allocation.c.period_id)).scalars():
        # Credits by month are needed, and slow, only for collections on hold.
        on_hold = _held_at_close(conn, name)
        by_month = credits_by_month(conn, name) if on_hold else {}
        held = {group: sum(by_month.get(group, {}).values()) for group in on_hold}
        agreed = _Agreed(credit_totals(conn, name), terms_on(conn, last_day(name)), held)
        query = (
            select(allocation, provider.c.key, provider.c.kind, pool.c.currency, pool.c.net_minor)
            .add_columns(pool.c.period_id.label("pool_period"))
            .join_from(allocation, provider, provider.c.id == allocation.c.provider_id)
            .join(pool, pool.c.id == allocation.c.pool_id)
            .where(allocation.c.period_id == name)
            .order_by(allocation.c.pool_id, provider.c.key)
        )
        by_pool: dict[int, list[Row[Any]]] = {}
        for row in conn.execute(query):
            by_pool.setdefault(row.pool_id, []).append(row)
        for rows in by_pool.values():
            yield from _pool_faults(conn, rows, agreed)


def _held_at_close(conn: Connection, name: str) -> Set[Group]:
    """Return the collections on hold at the close of a period."""
    closed_at = conn.execute(select(period.c.closed_at).where(period.c.id == name)).scalar()
    return held_collections(conn, until=None if closed_at is None else utc_moment(closed_at)).keys()


def _pool_faults(conn: Connection, rows: Sequence[Row[Any]], agreed: _Agreed) -> Iterator[Problem]:
    """Yield the faults in the allocations of one pool."""
    total = sum(row.credit_micro for row in rows)
    numbers = {row.txn_id for row in rows if row.txn_id is not None}
    lines = {number: amounts_by_account(conn, number, TransactionKind.ALLOCATION) for number in numbers}
    first = rows[0]
    fund = AccountKind.POOL.key(first.period_id)
    named = {fund, AccountKind.PAYABLE.key(HOUSE), AccountKind.ESCROW.key()}
    for row in rows:
        place = f"allocation {row.id} ({row.period_id}, {row.key}, {row.currency})"
        # Largest remainder gives each share its exact quotient, or one more.
        exact, rest = divmod(row.net_minor * row.credit_micro, row.total_credit_micro or 1)
        given = _given(row, agreed)
        named |= given.keys()
        if row.pool_period != row.period_id:
            yield Problem(place, f"is of another period than its pool: {row.pool_period}")
        elif (row.credit_micro, row.total_credit_micro) != (agreed.credited.get(row.key, 0), total):
            yield Problem(place, f"says {row.credit_micro} of {row.total_credit_micro} credits; the period has others")
        elif row.amount_minor not in {exact, exact + bool(rest)}:
            yield Problem(place, f"says {row.amount_minor} minor units; its share is {exact}, or one more")
        elif row.txn_id is not None and row.key != HOUSE:
            for key, minor in given.items():
                if lines[row.txn_id].get(key, 0) != minor:
                    yield Problem(
                        place,
                        f"gives {minor} at its rate; transaction {row.txn_id} put"
                        f" {lines[row.txn_id].get(key, 0)} into {key} (minor units)",
                    )
    for number, found in sorted(lines.items()):
        if not found.keys() <= named or found.get(fund) != -first.net_minor:
            yield Problem(
                f"transaction {number}", f"is not the allocation of pool {first.pool_id}, whose shares name it"
            )


def _given(row: Row[Any], agreed: _Agreed) -> dict[str, int]:
    """Return an allocation's minor units by account: one for each collection on hold, one for the rest."""
    earned = _earned(row, agreed.terms)
    given = {
        AccountKind.HELD.key(group): earned * micro // row.credit_micro
        for group, micro in agreed.held.items()
        if group.provider == row.key and micro and row.credit_micro
    }
    return {AccountKind.PAYABLE.key(row.key): earned - sum(given.values()), **given}


def _earned(row: Row[Any], terms: Mapping[ProviderCurrency, Terms]) -> int:
    """Return the provider's minor units of an allocation: all but the house's part, rounded down."""
    if row.kind == "house":
        return 0
    house_ppm = PPM - terms.get((row.key, row.currency), Terms()).rate_ppm
    return int(row.amount_minor) - int(row.amount_minor) * house_ppm // PPM


def check_reserves(conn: Connection) -> Iterator[Problem]:
    """Yield each reserve unlike its transaction, or due at another time than agreed."""
    query = (
        select(reserve, provider.c.key, ledger_txn.c.kind, ledger_txn.c.period_id.label("held_in"))
        .join_from(reserve, provider, provider.c.id == reserve.c.provider_id)
        .join(ledger_txn, ledger_txn.c.id == reserve.c.txn_id)
        .order_by(reserve.c.id)
    )
    for row in conn.execute(query).all():
        place = f"reserve {row.id} ({row.period_id}, {row.key}, {row.currency})"
        held = conn.execute(amounts_posted(row.txn_id, AccountKind.RESERVE.key(row.key), row.currency)).scalars().all()
        agreed = terms_on(conn, last_day(row.period_id)).get((row.key, row.currency), Terms())
        if row.amount_minor not in held or (row.kind, row.held_in) != (TransactionKind.RESERVE, row.period_id):
            yield Problem(place, f"is not what transaction {row.txn_id} held back")
        elif row.release_period != later(row.period_id, agreed.reserve_release_periods):
            yield Problem(place, f"is to be released in {row.release_period}; the terms say otherwise")


def check_conversions(conn: Connection) -> Iterator[Problem]:
    """Yield each conversion by a rate unknown to its period, or by way of another pair's account."""
    query = (
        select(ledger_txn.c.id, ledger_txn.c.period_id, ledger_txn.c.details_json)
        .where(ledger_txn.c.kind == TransactionKind.CONVERSION)
        .order_by(ledger_txn.c.id)
    )
    for number, name, details_json in conn.execute(query).all():
        # Unreadable details match no rate, so that they are named below.
        said = ConversionDetails.read(details_json) or ConversionDetails("", "", "", "", "")
        pair = (said.base, said.quote)
        given = rates_of_period(conn, name).get(pair)
        if given is None or (given.on.isoformat(), str(given.rate), given.source) != (said.on, said.rate, said.source):
            place = f"fx_rate of {name}, {'/'.join(pair)}"
            yield Problem(place, f"is not what transaction {number} converted by: {said.said()}")
        keys = select(account.c.key).join(ledger_entry).where(ledger_entry.c.txn_id == number)
        if fx_account(*pair) not in set(conn.execute(keys).scalars()):
            yield Problem(f"transaction {number}", f"does not convert by way of {fx_account(*pair)}")


def check_held(conn: Connection) -> Iterator[Problem]:
    """Yield each fault in the accounts of held collections.

    Only allocations, restatements and releases move their money. The first close after the end of a hold releases it
    all.
    """
    rows = conn.execute(
        journal_lines(account.c.key, provider.c.key.label("owner"), account.c.collection, owners=True)
        .add_columns(ledger_txn.c.id, ledger_txn.c.kind, ledger_txn.c.period_id)
        .add_columns(ledger_entry.c.commodity, ledger_entry.c.amount)
        .where(account.c.kind == AccountKind.HELD)
        .order_by(account.c.key, ledger_entry.c.commodity, ledger_txn.c.period_id, ledger_txn.c.id)
    ).all()
    last = last_closed(conn)
    kept = frozenset[Group]() if last is None else _held_at_close(conn, last)
    for (key, currency), own in groupby(rows, lambda row: (row.key, row.commodity)):
        held = settled = 0
        for row in own:
            held += row.amount
            settled = held if last is not None and row.period_id <= last else settled
            fault = _held_fault(conn, row, held)
            if fault is not None:
                yield Problem(f"transaction {row.id}", fault)
        # Judged as of the last close: later postings may still wait for theirs.
        if settled and Group(row.owner, row.collection) not in kept:
            yield Problem(
                f"account {key}", f"holds {settled} {currency} (minor units) that a close should have released"
            )


def _held_fault(conn: Connection, row: Row[Any], left_minor: int) -> str | None:
    """Return the fault in a movement of a held collection's money; `left_minor` remained after it."""
    if row.kind not in {TransactionKind.ALLOCATION, TransactionKind.RESTATEMENT, TransactionKind.COLLECTION_RELEASE}:
        return f"is neither allocation nor restatement or release, and moves {row.key}"
    if left_minor < 0:
        return f"leaves {left_minor} {row.commodity} (minor units) in {row.key}"
    if row.kind == TransactionKind.COLLECTION_RELEASE:
        lines = {row.key: row.amount, AccountKind.PAYABLE.key(row.owner): -row.amount}
        if left_minor or amounts_by_account(conn, row.id, TransactionKind.COLLECTION_RELEASE) != lines:
            return f"does not give the whole of {row.key} to its provider"
        if Group(row.owner, row.collection) in _held_at_close(conn, row.period_id):
            return f"releases {row.key}, which was on hold"
    return None
