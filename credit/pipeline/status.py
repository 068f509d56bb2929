"""What there is in a ledger, and which commands come next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from credit.ledger.journal import chain_head
from credit.ledger.outputs import pending_count
from credit.ledger.payouts import PayoutStatus, payable_payouts, payout_counts
from credit.ledger.periods import Period, last_day, periods
from credit.ledger.pools import Pool, standing_pools
from credit.ledger.schema import attribution_index, model, output, provider, score_book
from credit.ledger.unvalued import unvalued_outputs


@dataclass(frozen=True, slots=True)
class Status:
    """What there is in the ledger, in numbers. `outputs` counts by the month of occurrence."""

    providers: int
    models: int
    indexes: int
    outputs: dict[str, int]
    pending: int
    unvalued: int
    books: int
    transactions: int
    chain_head: str
    periods: tuple[Period, ...]


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
    known = tuple(
        PeriodOverview(item, tuple(standing_pools(conn, item.id)), counts.get(item.id, {})) for item in found.periods
    )
    return Overview(found, known, tuple(_next_steps(conn, found, known, now)))


def status(conn: Connection) -> Status:
    """Count what there is."""
    month = func.substr(output.c.occurred_at, 1, 7)
    by_month = conn.execute(select(month, func.count()).group_by(month).order_by(month))
    seq, head = chain_head(conn)
    tables = (provider, model, attribution_index, score_book)
    counts = [int(conn.execute(select(func.count()).select_from(table)).scalar_one()) for table in tables]
    return Status(
        providers=counts[0],
        models=counts[1],
        indexes=counts[2],
        outputs={name: count for name, count in by_month},
        pending=pending_count(conn),
        unvalued=len(unvalued_outputs(conn)),
        books=counts[3],
        transactions=seq,
        chain_head=head,
        periods=tuple(periods(conn)),
    )


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
