"""Credits by sums over a period, for policies that do not pay each output alone.

`credit compute` posts the credits of each output by itself, because the sums are complete only after the period. The
close adds the measures up and posts the difference as one transaction. Pools, statements and reports then read one set
of entries, and all credits together stay the weight of the outputs.
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
from credit.ledger.credits import credit_methods, posted_moves
from credit.ledger.journal import Entry, Posting, post
from credit.ledger.score_books import standing_scores
from credit.ledger.transaction_kinds import TransactionKind
from credit.ledger.values import last_day
from credit.records import CREDIT, Group


def measured_outputs(rows: pl.DataFrame, policy: Policy) -> Iterator[MeasuredOutput]:
    """Yield the outputs in the rows of a score book; the column `measure` is in nats."""
    for (name,), own in rows.group_by(["name"], maintain_order=True):
        # Nothing valued the house's row: it only holds the credits of an output without a supporting group.
        unearned = (pl.col("provider") == UNEARNED.provider) & (pl.col("collection") == UNEARNED.collection)
        valued = own.filter(~unearned)
        groups = [Group(*pair) for pair in valued.select("provider", "collection").iter_rows()]
        yield MeasuredOutput(policy, str(name), int(own["credit_micro"].sum()), groups, valued["measure"].to_list())


def moved_credits(conn: Connection, books: Path | None, period: str) -> dict[Group, int]:
    """Return the micro-credits moved to each group (or, negative, from it) by the sums of a period.

    The result is empty where every output pays alone.

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


def post_period_sums(conn: Connection, books: Path | None, period: str, now: datetime) -> None:
    """Post the move of a period's credits by its sums: the first step of its close."""
    moved = moved_credits(conn, books, period)
    if not moved:
        return
    entries = tuple(Entry(AccountKind.EARNED.key(group), CREDIT, micro) for group, micro in moved.items())
    kind = TransactionKind.PERIOD_BASIS
    post(conn, Posting(kind, period, last_day(period), kind.key(period=period), entries), now=now)


def checked_moves(conn: Connection, books: Path, period: str) -> dict[Group, int]:
    """Return the micro-credits moved by the close of a period, after computing them again.

    Raises:
        IntegrityError: the score books give other numbers.
    """
    posted, again = posted_moves(conn, period), moved_credits(conn, books, period)
    if posted != again:
        group = min(key for key in posted.keys() | again.keys() if posted.get(key) != again.get(key))
        raise IntegrityError(
            f"the close of {period} moved {posted.get(group, 0)} micro-credits to {group}; its score books give"
            f" {again.get(group, 0)}; run credit verify"
        )
    return posted
