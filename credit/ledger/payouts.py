"""Money that a close decides to pay; what becomes of it is in `credit.ledger.payments`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, func, select

from credit.ledger.catalog import provider_id
from credit.ledger.engine import serialise_writers
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


def add_payout(
    conn: Connection, name: str, provider_key: str, currency: str, amount_minor: int, *, txn_id: int
) -> Payout:
    """Record money that is to leave, with the transaction that approved it."""
    serialise_writers(conn)
    item = Payout(next_id(conn, payout), name, provider_key, currency, amount_minor, "pending", txn_id)
    row = {"id": item.id, "period_id": name, "provider_id": provider_id(conn, provider_key), "currency": currency}
    add_rows(conn, payout, [{**row, "amount_minor": amount_minor, "status": item.status, "txn_id": txn_id}])
    return item


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
