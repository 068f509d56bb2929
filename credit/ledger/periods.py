"""Periods and what is decided at their close: pools, allocations, statements, payouts; and balances as of a date."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import date, datetime, timedelta
from typing import Literal

from sqlalchemy import Connection, func, insert, select, update

from credit.errors import LedgerError, PeriodClosedError
from credit.ledger.accounts import EARNED_KIND, EXTERNAL, pool_account
from credit.ledger.catalog import provider_id
from credit.ledger.engine import serialise_writers
from credit.ledger.journal import Entry, Posting, ensure_period, post
from credit.ledger.schema import (
    account,
    allocation,
    exact_sum,
    join_sum,
    ledger_entry,
    ledger_txn,
    next_id,
    payout,
    period,
    pool,
    provider,
    statement,
)
from credit.ledger.values import is_currency, utc_moment, utc_text
from credit.records import CREDIT, period_of

PayoutStatus = Literal["pending", "exported", "paid", "failed"]


@dataclass(frozen=True, slots=True)
class Period:
    """A calendar month; what closed it is in `close_policy_json`."""

    id: str
    status: Literal["open", "closed"]
    opened_at: datetime
    closed_at: datetime | None
    close_policy_json: str | None


@dataclass(frozen=True, slots=True)
class Pool:
    """Money to distribute for a period, in minor units; `txn_id` is None when the net is zero.

    Its fields are the columns of the table `pool`, in their order.
    """

    id: int
    period: str
    currency: str
    reference: str
    gross_minor: int
    deductions_minor: int
    net_minor: int
    txn_id: int | None


@dataclass(frozen=True, slots=True)
class NewAllocation:
    """A provider's share of a pool, to be recorded: `credit_micro` out of `total_credit_micro` credits."""

    pool_id: int
    provider: str
    credit_micro: int
    total_credit_micro: int
    amount_minor: int
    txn_id: int | None


@dataclass(frozen=True, slots=True)
class Allocation:
    """A provider's share of a pool, as recorded, in minor units of the pool's currency."""

    period: str
    pool_id: int
    provider: str
    currency: str
    credit_micro: int
    total_credit_micro: int
    amount_minor: int
    txn_id: int | None


@dataclass(frozen=True, slots=True)
class Statement:
    """What a provider was told about a period: the exact text, and its SHA-256."""

    period: str
    provider: str
    version: int
    sha256: str
    body_json: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Payout:
    """Money that leaves for a provider, in minor units."""

    id: int
    period: str
    provider: str
    currency: str
    amount_minor: int
    status: PayoutStatus
    txn_id: int


def following(name: str) -> str:
    """Return the period after `name`."""
    year, month = int(name[:4]), int(name[5:])
    return f"{year + 1:04d}-01" if month == 12 else f"{year:04d}-{month + 1:02d}"


def periods(conn: Connection) -> list[Period]:
    """Return every period that was ever opened, in order."""
    return [
        Period(
            row.id,
            row.status,
            utc_moment(row.opened_at),
            None if row.closed_at is None else utc_moment(row.closed_at),
            row.close_policy_json,
        )
        for row in conn.execute(select(period).order_by(period.c.id))
    ]


def first_day(name: str) -> date:
    """Return the first day of a period."""
    return date.fromisoformat(f"{name}-01")


def last_day(name: str) -> date:
    """Return the last day of a period."""
    return first_day(following(name)) - timedelta(days=1)


def last_closed(conn: Connection) -> str | None:
    """Return the last period that was closed, or None; no period before it can be posted into any more."""
    return conn.execute(select(func.max(period.c.id)).where(period.c.status == "closed")).scalar()


def open_period_for(conn: Connection, day: date) -> str:
    """Return the period in which something of that day counts: its own month, or the first one that is not closed."""
    closed = last_closed(conn)
    name = period_of(day)
    return name if closed is None or name > closed else following(closed)


def unclosed_before(conn: Connection, name: str) -> list[str]:
    """Return the open periods before `name`, in order: they close first."""
    query = select(period.c.id).where(period.c.id < name, period.c.status == "open").order_by(period.c.id)
    return list(conn.execute(query).scalars())


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
        LedgerError: the reference was used with another amount, or an amount makes no sense.
        PeriodClosedError: the period is closed.
    """
    where = f"pool {reference!r} of {name}"
    if not is_currency(currency):
        raise LedgerError(f"{where}: {currency!r} is not an ISO 4217 code such as USD")
    if not reference:
        raise LedgerError(f"a pool of {name} needs a reference that tells it from others")
    net = gross_minor - deductions_minor
    if gross_minor < 0 or deductions_minor < 0 or net < 0:
        raise LedgerError(f"{where}: {gross_minor} less {deductions_minor} is not money to distribute")
    serialise_writers(conn)
    found = next((item for item in pools(conn, name) if (item.currency, item.reference) == (currency, reference)), None)
    if found is not None:
        if (found.gross_minor, found.deductions_minor) == (gross_minor, deductions_minor):
            return found
        raise LedgerError(
            f"{where} holds {found.gross_minor} less {found.deductions_minor} {currency} (minor units) already;"
            " money on top of it needs a reference of its own"
        )
    ensure_period(conn, name, now=now)
    txn_id = None
    if net:
        entries = (Entry(EXTERNAL, currency, -net), Entry(pool_account(name), currency, net))
        key = f"pool:{name}:{currency}:{reference}"
        first_day = date.fromisoformat(f"{name}-01")
        details = {"gross_minor": gross_minor, "deductions_minor": deductions_minor, "reference": reference}
        txn_id = post(conn, Posting("pool", name, first_day, key, entries, details=details), now=now).txn_id
    item = Pool(next_id(conn, pool), name, currency, reference, gross_minor, deductions_minor, net, txn_id)
    conn.execute(insert(pool).values(astuple(item)))
    return item


def pools(conn: Connection, name: str) -> list[Pool]:
    """Return the pools of a period in the order in which they were added."""
    return [Pool(*row) for row in conn.execute(select(pool).where(pool.c.period_id == name).order_by(pool.c.id))]


def credit_totals(conn: Connection, name: str) -> dict[str, int]:
    """Return the micro-credits that each provider earned in a period, from its entries; the house included."""
    rows = conn.execute(
        select(provider.c.key, *exact_sum(ledger_entry.c.amount))
        .join_from(ledger_txn, ledger_entry, ledger_entry.c.txn_id == ledger_txn.c.id)
        .join(account, account.c.id == ledger_entry.c.account_id)
        .join(provider, provider.c.id == account.c.provider_id)
        .where(ledger_txn.c.period_id == name, account.c.kind == EARNED_KIND, ledger_entry.c.commodity == CREDIT)
        .group_by(provider.c.key)
        .order_by(provider.c.key)
    )
    return {key: join_sum(high, low) for key, high, low in rows}


def close_lock(conn: Connection, name: str) -> None:
    """Take the period for closing: until commit nobody else posts into it or closes it.

    Raises:
        LedgerError: there is no such period; PeriodClosedError: it is closed already.
    """
    serialise_writers(conn)
    status = conn.execute(select(period.c.status).where(period.c.id == name).with_for_update()).scalar()
    if status is None:
        raise LedgerError(f"there is no period {name}; it opens with its first output or pool")
    if status == "closed":
        raise PeriodClosedError(f"period {name} is closed already")


def mark_closed(conn: Connection, name: str, *, policy_json: str, now: datetime) -> None:
    """Close a period for good; the last step of a close, in the transaction that called `close_lock`."""
    values = {"status": "closed", "closed_at": utc_text(now), "close_policy_json": policy_json}
    conn.execute(update(period).where(period.c.id == name).values(**values))


def add_allocations(conn: Connection, name: str, items: Sequence[NewAllocation]) -> None:
    """Record the shares of a period's pools."""
    first = next_id(conn, allocation)
    owners = {key: number for key, number in conn.execute(select(provider.c.key, provider.c.id))}
    rows = [
        {
            "id": first + offset,
            "period_id": name,
            "pool_id": item.pool_id,
            "provider_id": owners[item.provider],
            "credit_micro": item.credit_micro,
            "total_credit_micro": item.total_credit_micro,
            "amount_minor": item.amount_minor,
            "txn_id": item.txn_id,
        }
        for offset, item in enumerate(items)
    ]
    if rows:
        conn.execute(insert(allocation), rows)


def allocations(conn: Connection, name: str) -> list[Allocation]:
    """Return the shares of a period's pools, by pool and provider's key."""
    columns = (allocation.c.period_id, allocation.c.pool_id, provider.c.key, pool.c.currency)
    amounts = (allocation.c.credit_micro, allocation.c.total_credit_micro, allocation.c.amount_minor)
    rows = conn.execute(
        select(*columns, *amounts, allocation.c.txn_id)
        .join_from(allocation, provider, provider.c.id == allocation.c.provider_id)
        .join(pool, pool.c.id == allocation.c.pool_id)
        .where(allocation.c.period_id == name)
        .order_by(allocation.c.pool_id, provider.c.key)
    )
    return [Allocation(*row) for row in rows]


def add_statement(conn: Connection, name: str, provider_key: str, body_json: str, *, now: datetime) -> Statement:
    """Record the next version of a provider's statement; the text of the last version again returns that one."""
    serialise_writers(conn)
    owner = provider_id(conn, provider_key)
    digest = hashlib.sha256(body_json.encode()).hexdigest()
    last = conn.execute(
        select(statement)
        .where(statement.c.period_id == name, statement.c.provider_id == owner)
        .order_by(statement.c.version.desc())
        .limit(1)
    ).one_or_none()
    if last is not None and last.sha256 == digest:
        return Statement(name, provider_key, last.version, digest, last.body_json, utc_moment(last.created_at))
    version = 1 if last is None else last.version + 1
    item = Statement(name, provider_key, version, digest, body_json, utc_moment(utc_text(now)))
    conn.execute(
        insert(statement).values(
            id=next_id(conn, statement),
            period_id=name,
            provider_id=owner,
            version=item.version,
            sha256=digest,
            body_json=body_json,
            created_at=utc_text(now),
        )
    )
    return item


def statements(conn: Connection, name: str) -> list[Statement]:
    """Return every version of every statement of a period, by provider's key and version."""
    rows = conn.execute(
        select(statement, provider.c.key)
        .join_from(statement, provider)
        .where(statement.c.period_id == name)
        .order_by(provider.c.key, statement.c.version)
    )
    return [
        Statement(row.period_id, row.key, row.version, row.sha256, row.body_json, utc_moment(row.created_at))
        for row in rows
    ]


def add_payout(
    conn: Connection, name: str, provider_key: str, currency: str, amount_minor: int, *, txn_id: int
) -> Payout:
    """Record money that is to leave, with the transaction that approved it."""
    serialise_writers(conn)
    item = Payout(next_id(conn, payout), name, provider_key, currency, amount_minor, "pending", txn_id)
    conn.execute(
        insert(payout).values(
            id=item.id,
            period_id=name,
            provider_id=provider_id(conn, provider_key),
            currency=currency,
            amount_minor=amount_minor,
            status=item.status,
            txn_id=txn_id,
        )
    )
    return item


def payouts(conn: Connection, name: str) -> list[Payout]:
    """Return the payouts of a period, by provider's key and currency."""
    rows = conn.execute(
        select(payout, provider.c.key)
        .join_from(payout, provider)
        .where(payout.c.period_id == name)
        .order_by(provider.c.key, payout.c.currency)
    )
    return [
        Payout(row.id, row.period_id, row.key, row.currency, row.amount_minor, row.status, row.txn_id) for row in rows
    ]


def balance(
    conn: Connection,
    account_key: str,
    commodity: str,
    *,
    effective: date | None = None,
    recorded: datetime | None = None,
) -> int:
    """Return an account's balance, derived from its entries; 0 for an account that has none.

    Args:
        conn: from `Ledger.read` or `Ledger.write`.
        account_key: the account.
        commodity: `CREDIT` or an ISO 4217 code.
        effective: count only what took effect on or before this day.
        recorded: count only what the ledger had recorded at or before this moment.
    """
    query = (
        select(*exact_sum(ledger_entry.c.amount))
        .join_from(ledger_entry, account, account.c.id == ledger_entry.c.account_id)
        .where(account.c.key == account_key, ledger_entry.c.commodity == commodity)
    )
    if effective is not None or recorded is not None:
        query = query.join(ledger_txn, ledger_txn.c.id == ledger_entry.c.txn_id)
    if effective is not None:
        query = query.where(ledger_txn.c.effective_on <= effective.isoformat())
    if recorded is not None:
        query = query.where(ledger_txn.c.recorded_at <= utc_text(recorded))
    high, low = conn.execute(query).one()
    return join_sum(high, low)
