"""Overview of a ledger: its contents, and the commands that come next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from credit.ledger.clock import notice_of_lead
from credit.ledger.journal import chain_head
from credit.ledger.outputs import pending_count
from credit.ledger.payee_accounts import RedFlag, payer_ibans, red_flags
from credit.ledger.payouts import PayoutStatus, payable_payouts, payout_counts
from credit.ledger.periods import Period, periods
from credit.ledger.pools import Pool, standing_pools
from credit.ledger.schema import attribution_index, model, output, provider, score_book
from credit.ledger.unvalued import unvalued_outputs
from credit.ledger.values import last_day
from credit.pipeline.reviews import MissingReview, missing_reviews
from credit.records import HOUSE, WAITING_DAYS


@dataclass(frozen=True, slots=True)
class Status:
    """Contents of the ledger in numbers; the house is no provider, `outputs` counts by month of occurrence."""

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
    """A period, its pools except those taken back, and the number of its payouts by status."""

    period: Period
    pools: tuple[Pool, ...]
    payouts: Mapping[PayoutStatus, int]


@dataclass(frozen=True, slots=True)
class Overview:
    """Contents of a ledger, and the next commands.

    `clock` says by how much the ledger's clock is ahead, if it is. `red_flags` would hold payouts back, and
    `missing_reviews` the close of an open period.
    """

    status: Status
    periods: tuple[PeriodOverview, ...]
    next_steps: tuple[str, ...]
    clock: str
    red_flags: tuple[RedFlag, ...]
    missing_reviews: tuple[MissingReview, ...]


def overview(conn: Connection, *, now: datetime, waiting_days: int = WAITING_DAYS) -> Overview:
    """Return the contents of a ledger and the next commands; a month before `now` is over.

    `waiting_days` is how long a changed account waits for its first payment.
    """
    found = status(conn)
    counts = payout_counts(conn)
    known = tuple(
        PeriodOverview(item, tuple(standing_pools(conn, item.id)), counts.get(item.id, {})) for item in found.periods
    )
    steps = tuple(_next_steps(conn, found, known, now))
    missing = [one for item in found.periods if item.status == "open" for one in missing_reviews(conn, item.id)]
    return Overview(
        status=found,
        periods=known,
        next_steps=steps,
        clock=notice_of_lead(conn, now),
        red_flags=_red_flags(conn, known, now, waiting_days),
        missing_reviews=tuple(dict.fromkeys(missing)),
    )


def _red_flags(
    conn: Connection, periods: tuple[PeriodOverview, ...], now: datetime, waiting_days: int
) -> tuple[RedFlag, ...]:
    """Return the red flags that hold back payouts ready to leave."""
    waiting = [item.period.id for item in periods if item.payouts.get("pending") or item.payouts.get("failed")]
    payouts = [item for name in waiting for retry in (False, True) for item in payable_payouts(conn, name, retry=retry)]
    payees = {item.provider for item in payouts}
    found = red_flags(conn, payees, payer_ibans=payer_ibans(conn), waiting_days=waiting_days, now=now) if payees else {}
    return tuple(flag for flags in found.values() for flag in flags if flag.holds)


def status(conn: Connection) -> Status:
    """Count the contents of the ledger."""
    month = func.substr(output.c.occurred_at, 1, 7)
    by_month = conn.execute(select(month, func.count()).group_by(month).order_by(month))
    seq, head = chain_head(conn)
    tables = (provider, model, attribution_index, score_book)
    counts = [int(conn.execute(select(func.count()).select_from(table)).scalar_one()) for table in tables]
    houses = int(conn.execute(select(func.count()).where(provider.c.key == HOUSE)).scalar_one())
    return Status(
        providers=counts[0] - houses,
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
    if not found.providers:
        yield "credit providers import FILE"
    if not found.indexes:
        yield "credit index MODEL DATA... --out DIR"
    elif not found.outputs:
        yield "credit ingest-outputs FILE..."
    if found.pending:
        yield "credit compute"
    over = next((item for item in periods if item.period.status == "open"), None)
    if over is not None and last_day(over.period.id) < now.date():
        yield from _steps_to_close(conn, found, over)
    for item in periods:
        name = item.period.id
        if item.payouts.get("pending"):
            yield f"credit export {name} --out DIR"
            yield from _exports(conn, name, retry=False)
        if item.payouts.get("failed"):
            yield from _exports(conn, name, retry=True)
        if item.payouts.get("exported"):
            yield f"credit pay confirm FILE, with the bank's results of {name}"


def _steps_to_close(conn: Connection, found: Status, over: PeriodOverview) -> Iterator[str]:
    name = over.period.id
    if not over.pools and found.outputs.get(name):  # a month without outputs closes without a pool
        yield f"credit pool add {name} AMOUNT CURRENCY"
        return
    yield from (item.command for item in missing_reviews(conn, name))
    yield f"credit close {name} --dry-run"


def _exports(conn: Connection, period: str, *, retry: bool) -> Iterator[str]:
    """Yield a command for each currency of the payouts that can leave; a single currency needs no name."""
    command = f"credit pay export {period}{' --retry' if retry else ''}"
    currencies = sorted({item.currency for item in payable_payouts(conn, period, retry=retry)})
    for currency in currencies:
        yield f"{command} --currency {currency} --out FILE" if len(currencies) > 1 else f"{command} --out FILE"
