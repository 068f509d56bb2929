"""Closes a period: pools are divided by credits, payouts decided, statements written, and the period frozen."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from sqlalchemy import Connection

from credit.accounting.allocation import Share, allocate
from credit.accounting.statement import PoolShare, StatementInput, statement_json
from credit.accounting.waterfall import Waterfall, settle
from credit.errors import InvalidRequestError, LedgerError
from credit.ledger.accounts import payable, payout_account, pool_account
from credit.ledger.catalog import providers
from credit.ledger.engine import Ledger
from credit.ledger.journal import Entry, Posting, chain_head, post_all
from credit.ledger.outputs import pending_count
from credit.ledger.periods import (
    NewAllocation,
    Pool,
    add_allocations,
    add_payout,
    add_statement,
    close_lock,
    credit_totals,
    following,
    mark_closed,
    pools,
    unclosed_before,
)
from credit.ledger.queries import books_of_period, credits_by_group, payable_balances
from credit.ledger.terms import terms_on
from credit.records import HOUSE, Provider, Terms, is_period


@dataclass(frozen=True, slots=True)
class CloseSettings:
    """How to close. `leave_pending` credits outputs that are not valued yet in a later period."""

    leave_pending: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class CloseReport:
    """What a close did, or would do: the shares of each pool, and every provider's waterfall."""

    period: str
    shares: tuple[tuple[Pool, tuple[Share, ...]], ...]
    waterfalls: tuple[Waterfall, ...]
    statements: int
    left_pending: int
    dry_run: bool


class _UndoError(Exception):
    """Carries a dry run's report out of the transaction that it undoes."""

    def __init__(self, report: CloseReport) -> None:
        self.report = report


def close_period(ledger: Ledger, period: str, settings: CloseSettings, *, now: datetime | None = None) -> CloseReport:
    """Close a period, in one transaction: all of it happens, or nothing.

    Raises:
        InvalidRequestError: `period` is not a month YYYY-MM.
        PeriodClosedError: it is closed already.
        LedgerError: it is not over, an earlier period is open, outputs are not valued yet, or there is no pool.
    """
    moment = now or datetime.now(UTC)
    if not is_period(period):
        raise InvalidRequestError(f"{period!r} is not a period; a period is a month, written YYYY-MM")
    if moment.date() < date.fromisoformat(f"{following(period)}-01"):
        raise LedgerError(f"period {period} is not over; it can be closed from {following(period)}-01 (UTC) on")
    try:
        with ledger.write() as conn:
            return _close(conn, period, settings, moment)
    except _UndoError as undo:
        return undo.report


def _close(conn: Connection, period: str, settings: CloseSettings, now: datetime) -> CloseReport:
    close_lock(conn, period)
    earlier = unclosed_before(conn, period)
    if earlier:
        raise LedgerError(f"period {earlier[0]} is still open; close it first: credit close {earlier[0]}")
    pending = pending_count(conn, period)
    if pending and not settings.leave_pending:
        raise LedgerError(
            f"{pending} outputs of {period} are not valued yet; run credit compute, "
            "or credit them in a later period with --leave-pending"
        )
    money = pools(conn, period)
    credited = credit_totals(conn, period)
    if not money and any(credited.values()):
        raise LedgerError(
            f"period {period} has credits but no pool; add one: credit pool add {period} AMOUNT CURRENCY "
            "(an amount of 0 if there is nothing to distribute)"
        )
    known = {provider.key: provider for provider in providers(conn)}
    opening = payable_balances(conn)
    shares = tuple((pool, tuple(allocate(period, pool.net_minor, credited))) for pool in money)
    _post_allocations(conn, period, shares, known, now)
    waterfalls = tuple(_settle(conn, period, shares, known, opening))
    _post_payouts(conn, period, waterfalls, now)
    written = _write_statements(conn, period, known, shares, waterfalls, now)
    mark_closed(conn, period, policy_json=json.dumps({"leave_pending": settings.leave_pending}), now=now)
    report = CloseReport(period, shares, waterfalls, written, pending, settings.dry_run)
    if settings.dry_run:
        raise _UndoError(report)  # rolls back everything above
    return report


def _post_allocations(
    conn: Connection,
    period: str,
    shares: Sequence[tuple[Pool, Sequence[Share]]],
    known: Mapping[str, Provider],
    now: datetime,
) -> None:
    for pool, parts in shares:
        owed: dict[str, int] = {}
        for part in parts:
            # What own or public-domain data earned is the house's money, whichever key it is listed under.
            key = HOUSE if known[part.provider].kind == "house" else part.provider
            owed[key] = owed.get(key, 0) + part.amount_minor
        lines = [Entry(payable(key), pool.currency, amount) for key, amount in sorted(owed.items()) if amount]
        txn_id = None
        if lines:
            posting = Posting(
                kind="allocation",
                period=period,
                effective_on=_last_day(period),
                idempotency_key=f"allocation:{period}:{pool.currency}:{pool.reference}",
                entries=(Entry(pool_account(period), pool.currency, -pool.net_minor), *lines),
                details={"pool": pool.reference},
            )
            txn_id = post_all(conn, [posting], now=now)[0].txn_id
        add_allocations(
            conn,
            period,
            [
                NewAllocation(
                    pool.id, part.provider, part.credit_micro, part.total_credit_micro, part.amount_minor, txn_id
                )
                for part in parts
            ],
        )


def _settle(
    conn: Connection,
    period: str,
    shares: Sequence[tuple[Pool, Sequence[Share]]],
    known: Mapping[str, Provider],
    opening: Mapping[tuple[str, str], int],
) -> Iterator[Waterfall]:
    """Yield the waterfall of every provider and currency with a balance or earnings; the house keeps its own."""
    earned: dict[tuple[str, str], int] = {}
    for pool, parts in shares:
        for part in parts:
            key = (part.provider, pool.currency)
            earned[key] = earned.get(key, 0) + part.amount_minor
    terms = terms_on(conn, _last_day(period))
    for key in sorted(earned.keys() | opening.keys()):
        provider, currency = key
        if known[provider].kind == "house":
            continue
        yield settle(
            provider,
            currency,
            opening_minor=opening.get(key, 0),
            earned_minor=earned.get(key, 0),
            minimum_payout_minor=terms.get(key, Terms()).minimum_payout_minor,
        )


def _post_payouts(conn: Connection, period: str, waterfalls: Sequence[Waterfall], now: datetime) -> None:
    paid = [fall for fall in waterfalls if fall.payable_minor]
    postings = [
        Posting(
            kind="payout",
            period=period,
            effective_on=_last_day(period),
            idempotency_key=f"payout:{period}:{fall.provider}:{fall.currency}",
            entries=(
                Entry(payable(fall.provider), fall.currency, -fall.payable_minor),
                Entry(payout_account(fall.provider), fall.currency, fall.payable_minor),
            ),
        )
        for fall in paid
    ]
    for fall, posted in zip(paid, post_all(conn, postings, now=now), strict=True):
        add_payout(conn, period, fall.provider, fall.currency, fall.payable_minor, txn_id=posted.txn_id)


def _write_statements(
    conn: Connection,
    period: str,
    known: Mapping[str, Provider],
    shares: Sequence[tuple[Pool, Sequence[Share]]],
    waterfalls: Sequence[Waterfall],
    now: datetime,
) -> int:
    collections: dict[str, dict[str, int]] = {}
    for group, micro in credits_by_group(conn, period).items():
        collections.setdefault(group.provider, {})[group.collection] = micro
    falls: dict[str, list[Waterfall]] = {}
    for fall in waterfalls:
        falls.setdefault(fall.provider, []).append(fall)
    pool_shares: dict[str, list[PoolShare]] = {}
    for pool, parts in shares:
        for part in parts:
            share = PoolShare(pool.reference, pool.currency, pool.net_minor, part.amount_minor)
            pool_shares.setdefault(part.provider, []).append(share)
    total = sum(sum(parts.values()) for parts in collections.values())
    books = books_of_period(conn, period)
    _, head = chain_head(conn)
    told = [key for key in sorted(collections.keys() | falls.keys()) if known[key].kind == "provider"]
    for key in told:
        facts = StatementInput(
            provider=key,
            name=known[key].name,
            period=period,
            collections=collections.get(key, {}),
            total_credit_micro=total,
            shares=pool_shares.get(key, ()),
            waterfalls=falls.get(key, ()),
            policies=tuple({book.policy_json for book in books}),
            indexes=tuple({book.index_fingerprint for book in books}),
            chain_head=head,
        )
        add_statement(conn, period, key, statement_json(facts), now=now)
    return len(told)


def _last_day(period: str) -> date:
    return date.fromordinal(date.fromisoformat(f"{following(period)}-01").toordinal() - 1)
