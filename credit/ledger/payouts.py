"""Money that a close decides to pay; what becomes of it is in `credit.ledger.payments`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, func, select

from credit.ledger.database import serialise_writers
from credit.ledger.schema import next_id, payout, provider
from credit.ledger.seals import add_rows

PayoutStatus = Literal["pending", "exported", "paid", "failed"]


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


@dataclass(frozen=True, slots=True)
class NewPayout:
    """Money that is to leave for a provider, in minor units, with the transaction that approved it."""

    provider: str
    currency: str
    amount_minor: int
    txn_id: int


def add_payouts(conn: Connection, name: str, items: Sequence[NewPayout]) -> None:
    """Record money that a period's close decided to pay."""
    serialise_writers(conn)
    owners = {key: number for key, number in conn.execute(select(provider.c.key, provider.c.id))}
    first = next_id(conn, payout)
    rows = [
        {
            "id": first + offset,
            "period_id": name,
            "provider_id": owners[item.provider],
            "currency": item.currency,
            "amount_minor": item.amount_minor,
            "status": "pending",
            "txn_id": item.txn_id,
        }
        for offset, item in enumerate(items)
    ]
    add_rows(conn, payout, rows)


def payout_counts(conn: Connection) -> dict[str, dict[PayoutStatus, int]]:
    """Return how many payouts of every period are pending, exported, paid and failed."""
    found: dict[str, dict[PayoutStatus, int]] = {}
    columns = (payout.c.period_id, payout.c.status)
    for name, status, count in conn.execute(select(*columns, func.count()).group_by(*columns).order_by(*columns)):
        found.setdefault(name, {})[status] = count
    return found


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
