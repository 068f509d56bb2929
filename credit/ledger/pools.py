"""Pools of money to distribute, the allocations into which a close divides them, and the reserves it holds back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from credit.errors import LedgerError
from credit.ledger.accounts import AccountKind
from credit.ledger.database import serialise_writers
from credit.ledger.journal import Entry, Posting, ensure_period, post
from credit.ledger.personal_data import keep_erasable
from credit.ledger.rows import PROVIDER, add_records, read_row
from credit.ledger.schema import allocation, ledger_txn, pool, provider, reserve
from credit.ledger.sql import next_id
from credit.ledger.transaction_kinds import PoolDetails, TransactionKind
from credit.ledger.values import check_currency, check_minor, first_day, later
from credit.records import period_of

_MONTHS_AHEAD = 12
"""Months after the present one that can have pools: a month further ahead is a slip of the hand."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Money to distribute for a period, in minor units; `txn_id` is None for a net of zero."""

    id: int
    period: str
    currency: str
    reference: str
    gross_minor: int
    deductions_minor: int
    net_minor: int
    txn_id: int | None


@dataclass(frozen=True, slots=True)
class Allocation:
    """A provider's share of a pool, for `credit_micro` of `total_credit_micro`, in minor units of its currency.

    `txn_id` is None for a share of zero.
    """

    period: str
    pool_id: int
    provider: str
    credit_micro: int
    total_credit_micro: int
    amount_minor: int
    txn_id: int | None


def add_pool(
    conn: Connection,
    name: str,
    currency: str,
    gross_minor: int,
    deductions_minor: int,
    reference: str,
    now: datetime,
) -> Pool:
    """Add money to distribute for a period, in minor units; the same call again returns the same pool.

    Raises:
        LedgerError: the reference belongs to another amount or to a reversed pool, an amount makes no sense, or the
            period lies more than a year ahead.
        PeriodClosedError: the period is closed.
    """
    where = f"pool {reference!r} of {name}"
    check_currency(currency)
    if not reference:
        raise LedgerError(f"a pool of {name} needs a reference that tells it from others")
    net = gross_minor - deductions_minor
    if gross_minor < 0 or deductions_minor < 0 or net < 0:
        raise LedgerError(f"{where}: {gross_minor} less {deductions_minor} is not money to distribute")
    check_minor(gross_minor, currency, where)
    if name > later(period_of(now), _MONTHS_AHEAD):
        raise LedgerError(f"{where} lies more than a year ahead; name a nearer month: {name!r} looks mistyped")
    serialise_writers(conn)
    found = next((item for item in pools(conn, name) if (item.currency, item.reference) == (currency, reference)), None)
    if found is not None:
        undone = undone_pools(conn, name).get(found.id)
        if undone is not None:
            raise LedgerError(
                f"{where} in {currency} was taken back by transaction {undone}; other money needs a reference of its"
                " own: --reference NAME"
            )
        if (found.gross_minor, found.deductions_minor) == (gross_minor, deductions_minor):
            return found
        remedy = "" if found.txn_id is None else f"; if it is wrong, take it back: credit reverse {found.txn_id}"
        raise LedgerError(
            f"{where} in {currency} holds another amount already (credit pool list {name}); other money needs a"
            f" reference of its own: --reference NAME{remedy}"
        )
    keep_erasable(conn, reference, "the reference")
    # Before posting, because a net of zero has no transaction that would open the period.
    ensure_period(conn, name, now=now)
    txn_id = None
    if net:
        kind = TransactionKind.POOL
        entries = (
            Entry(AccountKind.EXTERNAL.key(), currency, -net),
            Entry(AccountKind.POOL.key(name), currency, net),
        )
        key = kind.key(period=name, currency=currency, reference=reference)
        details = PoolDetails(gross_minor, deductions_minor, reference)
        txn_id = post(conn, Posting(kind, name, first_day(name), key, entries, details=details), now=now).txn_id
    item = Pool(next_id(conn, pool), name, currency, reference, gross_minor, deductions_minor, net, txn_id)
    add_records(conn, pool, [item])
    return item


def pools(conn: Connection, name: str) -> list[Pool]:
    """Return the pools of a period in the order of their addition."""
    return [
        read_row(Pool, row) for row in conn.execute(select(pool).where(pool.c.period_id == name).order_by(pool.c.id))
    ]


def undone_pools(conn: Connection, name: str) -> dict[int, int]:
    """Return the reversed pools of a period by id, each with the transaction of its reversal."""
    query = select(pool.c.id, ledger_txn.c.id).join(ledger_txn, ledger_txn.c.reverses_txn_id == pool.c.txn_id)
    return {number: txn_id for number, txn_id in conn.execute(query.where(pool.c.period_id == name))}


def standing_pools(conn: Connection, name: str) -> list[Pool]:
    """Return the pools of a period without reversed ones, in the order of their addition."""
    undone = undone_pools(conn, name)
    return [item for item in pools(conn, name) if item.id not in undone]


def add_allocations(conn: Connection, items: Sequence[Allocation]) -> None:
    """Record the allocations of a pool."""
    add_records(conn, allocation, items)


def allocations(conn: Connection, name: str) -> list[Allocation]:
    """Return the allocations of a period, by pool and provider's key."""
    rows = conn.execute(
        select(allocation, PROVIDER)
        .join_from(allocation, provider)
        .where(allocation.c.period_id == name)
        .order_by(allocation.c.pool_id, provider.c.key)
    )
    return [read_row(Allocation, row) for row in rows]


@dataclass(frozen=True, slots=True)
class Reserve:
    """A part of a provider's earnings of a period, in minor units, held back until the close of `release_period`."""

    period: str
    provider: str
    currency: str
    amount_minor: int
    release_period: str
    txn_id: int


def add_reserves(conn: Connection, items: Sequence[Reserve]) -> None:
    """Record the reserves of a close."""
    serialise_writers(conn)
    add_records(conn, reserve, items)


def reserves(conn: Connection, *, after: str | None, through: str | None = None) -> list[Reserve]:
    """Return the reserves due after one period and up to another, by provider, currency and period.

    None: from the first, or up to the last.
    """
    query = select(reserve, PROVIDER).join_from(reserve, provider)
    query = query.order_by(provider.c.key, reserve.c.currency, reserve.c.period_id)
    if through is not None:
        query = query.where(reserve.c.release_period <= through)
    if after is not None:
        query = query.where(reserve.c.release_period > after)
    return [read_row(Reserve, row) for row in conn.execute(query)]
