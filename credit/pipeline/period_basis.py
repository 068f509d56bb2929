"""Moves a period's credits to where its sums put them, for policies that do not pay each output alone.

`credit compute` posts what every output distributes by itself, whatever the policy: what a period sums to is known only
when it is over. Its close adds the measures up and posts the difference as one transaction, so that whatever reads
credits after it (pools, statements, reports) reads one set of entries, and the sum stays what the outputs weighed.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import polars as pl
from sqlalchemy import Connection

from credit.accounting.credits import UNEARNED, MeasuredOutput, PeriodCredits, Policy
from credit.errors import IntegrityError, LedgerError
from credit.ledger.accounts import AccountKind
from credit.ledger.credits import credit_methods
from credit.ledger.journal import Entry, Posting, journal_lines, post
from credit.ledger.periods import last_day
from credit.ledger.schema import account, ledger_entry, ledger_txn, provider
from credit.ledger.score_books import standing_scores
from credit.ledger.transaction_kinds import TransactionKind
from credit.records import CREDIT, Group


def measured_outputs(rows: pl.DataFrame, policy: Policy) -> Iterator[MeasuredOutput]:
    """Yield the outputs of a book's rows, by what their column `measure` says in nats."""
    for (name,), own in rows.group_by(["name"], maintain_order=True):
        # What nobody earned is no group that was valued: it is what is left when no group has a positive measure.
        unearned = (pl.col("provider") == UNEARNED.provider) & (pl.col("collection") == UNEARNED.collection)
        valued = own.filter(~unearned)
        groups = [Group(*pair) for pair in valued.select("provider", "collection").iter_rows()]
        yield MeasuredOutput(policy, str(name), int(own["credit_micro"].sum()), groups, valued["measure"].to_list())


def moved_credits(conn: Connection, books: Path | None, period: str) -> dict[Group, int]:
    """Return what the sums of a period move, in micro-credits by group; nothing where every output pays alone.

    Raises:
        LedgerError: the score books are needed and not at hand.
        IntegrityError: a score book is missing or changed.
    """
    if not any(Policy.from_json(method.policy_json).needs_period for method in credit_methods(conn, period)):
        return {}
    if books is None:
        raise LedgerError(f"the credits of {period} follow sums over the period, which needs its score books")
    together = PeriodCredits(period)
    moved: dict[Group, int] = {}
    for book, rows in standing_scores(conn, books, period):
        policy = Policy.from_json(book.policy_json)
        if not policy.needs_period:
            continue
        for key, collection, micro in rows.select("provider", "collection", "credit_micro").iter_rows():
            group = Group(key, collection)
            moved[group] = moved.get(group, 0) - micro
        for item in measured_outputs(rows.with_columns(pl.col(policy.measure).alias("measure")), policy):
            together.add(item)
    for group, micro in together.totals().items():
        moved[group] = moved.get(group, 0) + micro
    return {group: micro for group, micro in sorted(moved.items()) if micro}


def post_pooling(conn: Connection, books: Path | None, period: str, now: datetime) -> None:
    """Move a period's credits to where its sums put them, as the first step of its close."""
    moved = moved_credits(conn, books, period)
    if not moved:
        return
    entries = tuple(Entry(AccountKind.EARNED.key(group), CREDIT, micro) for group, micro in moved.items())
    kind = TransactionKind.POOLING
    post(conn, Posting(kind, period, last_day(period), kind.key(period=period), entries), now=now)


def pooled_entries(conn: Connection, period: str) -> dict[Group, int]:
    """Return what the close of a period moved, in micro-credits by group."""
    query = (
        journal_lines(provider.c.key, account.c.collection, ledger_entry.c.amount, owners=True)
        .where(ledger_txn.c.period_id == period, ledger_txn.c.kind == TransactionKind.POOLING)
        .where(account.c.kind == AccountKind.EARNED)
        .order_by(provider.c.key, account.c.collection)
    )
    return {Group(key, collection): amount for key, collection, amount in conn.execute(query)}


def checked_pooling(conn: Connection, books: Path, period: str) -> dict[Group, int]:
    """Return what the close of a closed period moved, after computing it again.

    Raises:
        IntegrityError: the score books give something else.
    """
    posted, again = pooled_entries(conn, period), moved_credits(conn, books, period)
    if posted != again:
        group = min(key for key in posted.keys() | again.keys() if posted.get(key) != again.get(key))
        raise IntegrityError(
            f"the close of {period} moved {posted.get(group, 0)} micro-credits to {group}; its score books give"
            f" {again.get(group, 0)}; run credit verify"
        )
    return posted
