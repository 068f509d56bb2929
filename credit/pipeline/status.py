"""What there is in a ledger, and which commands come next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from credit.ledger.payouts import PayoutStatus, payable_payouts, payout_counts
from credit.ledger.periods import Period, last_day
from credit.ledger.pools import Pool, standing_pools
from credit.ledger.queries import Status, status


@dataclass(frozen=True, slots=True)
class PeriodOverview:
    """A period with its pools, without those that were taken back, and its payouts counted by what became of them."""

    period: Period
    pools: tuple[Pool, ...]
    payouts: Mapping[PayoutStatus, int]


@dataclass(frozen=True, slots=True)
class Overview:
    """What there is, and the commands that bring it on."""

    status: Status
    periods: tuple[PeriodOverview, ...]
    next_steps: tuple[str, ...]


def overview(conn: Connection, *, now: datetime) -> Overview:
    """Return what a ledger holds and what is to be done; `now` decides which months are over."""
    found = status(conn)
    counts = payout_counts(conn)
    periods = tuple(
        PeriodOverview(item, tuple(standing_pools(conn, item.id)), counts.get(item.id, {})) for item in found.periods
    )
    return Overview(found, periods, tuple(_next_steps(conn, found, periods, now)))


def _next_steps(conn: Connection, found: Status, periods: tuple[PeriodOverview, ...], now: datetime) -> Iterator[str]:
    if found.providers == 1:  # the house, which every ledger has
        yield "credit providers import FILE"
    if not found.indexes:
        yield "credit index MODEL DATA... --out DIR"
    elif not found.outputs:
        yield "credit ingest-outputs FILE..."
    if found.pending:
        yield "credit compute"
    over = next((item for item in periods if item.period.status == "open"), None)
    if over is not None and last_day(over.period.id) < now.date():
        name = over.period.id
        paid = over.pools or not found.outputs.get(name)  # a month without outputs closes without a pool
        yield f"credit close {name} --dry-run" if paid else f"credit pool add {name} AMOUNT CURRENCY"
    for item in periods:
        name = item.period.id
        if item.payouts.get("pending"):
            yield from _exports(conn, name, retry=False)
        if item.payouts.get("failed"):
            yield from _exports(conn, name, retry=True)
        if item.payouts.get("exported"):
            yield f"credit pay confirm FILE, of what the bank says of {name}"


def _exports(conn: Connection, period: str, *, retry: bool) -> Iterator[str]:
    """Yield what exports the payouts that can leave: a file has one currency, named where there are several."""
    command = f"credit pay export {period}{' --retry' if retry else ''}"
    currencies = sorted({item.currency for item in payable_payouts(conn, period, retry=retry)})
    for currency in currencies:
        yield f"{command} --currency {currency} --out FILE" if len(currencies) > 1 else f"{command} --out FILE"
