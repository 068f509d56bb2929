"""Credits that depend on a whole period: sums over it, and limits on one user's outputs.

`credit compute` posts the credits of each output by itself, because the other outputs are known only after the period.
The close adds the measures up where the policy says so, takes back the credits beyond the limits, and posts the
difference as one transaction. Pools, statements and reports then read one set of entries. All credits together are the
weight of the outputs, less the part beyond the limits: it goes back to the issued credits, and nobody gets it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl
from sqlalchemy import Connection

from credit.accounting.credits import ECHO, UNEARNED, MeasuredOutput, PeriodCredits, Policy, output_credits
from credit.errors import IntegrityError, LedgerError
from credit.ledger.accounts import AccountKind
from credit.ledger.credits import credit_methods, posted_moves
from credit.ledger.journal import Entry, Posting, post
from credit.ledger.limits import LimitedOutput, limited_outputs
from credit.ledger.score_books import standing_scores
from credit.ledger.transaction_kinds import TransactionKind
from credit.ledger.values import last_day
from credit.records import CREDIT, Group
from credit.text import counted


@dataclass(frozen=True, slots=True)
class Moves:
    """Micro-credits moved by a close.

    Attributes:
        by_group: moved to each group or, negative, from it, by sums and limits together.
        uncounted: the part of each group in what the limits take, as each output credits by itself.
        limited: the outputs beyond the limits.
    """

    by_group: Mapping[Group, int]
    uncounted: Mapping[Group, int]
    limited: Sequence[LimitedOutput]


def measured_outputs(rows: pl.DataFrame, policy: Policy) -> Iterator[tuple[int, MeasuredOutput]]:
    """Yield the id and the measures of each output in a score book; the column `measure` is in nats."""
    for (number, name), own in rows.group_by(["output_id", "name"], maintain_order=True):
        # Nothing valued the house's rows: they only hold credits that no group earned.
        valued = own.filter(~is_of(UNEARNED) & ~is_of(ECHO))
        groups = [Group(*pair) for pair in valued.select("provider", "collection").iter_rows()]
        weight, echo = (int(rows["credit_micro"].sum()) for rows in (own, own.filter(is_of(ECHO))))
        yield int(str(number)), MeasuredOutput(policy, str(name), weight, groups, valued["measure"].to_list(), echo)


def is_of(group: Group) -> pl.Expr:
    """Return the condition for rows of a group in a score book."""
    return (pl.col("provider") == group.provider) & (pl.col("collection") == group.collection)


def moved_credits(conn: Connection, books: Path | None, period: str) -> Moves:
    """Return the micro-credits moved by the close of a period; mostly none.

    Raises:
        LedgerError: the score books are needed and not at hand.
        IntegrityError: a score book is missing or changed.
    """
    # A month without such a policy or limit, the usual case, opens no score book.
    sums = any(Policy.from_json(method.policy_json).needs_period for method in credit_methods(conn, period))
    limited = limited_outputs(conn, period)
    if not sums and not limited:
        return Moves({}, {}, ())
    if books is None:
        why = "follow sums over the period" if sums else f"are without {counted(len(limited), 'output')} beyond limits"
        raise LedgerError(f"the credits of {period} {why}, which needs its score books")
    together, moved, uncounted = PeriodCredits(period), dict[Group, int](), dict[Group, int]()
    for book, whole in standing_scores(conn, books, period):
        policy = Policy.from_json(book.policy_json)
        rows = whole if policy.needs_period else whole.filter(pl.col("output_id").is_in([*limited]))
        _add(moved, rows, -1)
        for number, item in measured_outputs(rows.with_columns(pl.col(policy.measure).alias("measure")), policy):
            own = limited.get(number)
            together.add(item if own is None else item.counted(own.counted_micro))
            if own is not None:
                _add_uncounted(uncounted, item, own.counted_micro)
    for group, micro in together.totals().items():
        moved[group] = moved.get(group, 0) + micro
    return Moves(_without_zeros(moved), _without_zeros(uncounted), tuple(limited.values()))


def _add(sums: dict[Group, int], rows: pl.DataFrame, sign: int) -> None:
    for key, collection, micro in rows.select("provider", "collection", "credit_micro").iter_rows():
        group = Group(key, collection)
        sums[group] = sums.get(group, 0) + sign * micro


def _add_uncounted(sums: dict[Group, int], item: MeasuredOutput, counted_micro: int) -> None:
    for part, sign in ((item, 1), (item.counted(counted_micro), -1)):
        for group, micro in output_credits(
            part.weight_micro, part.groups, part.measures, tie_key=part.name, echo_micro=part.echo_micro
        ):
            sums[group] = sums.get(group, 0) + sign * micro


def _without_zeros(sums: Mapping[Group, int]) -> dict[Group, int]:
    return {group: micro for group, micro in sorted(sums.items()) if micro}


def post_moves(conn: Connection, books: Path | None, period: str, now: datetime) -> Moves:
    """Post the move of a period's credits, and return it: the first step of its close."""
    moves = moved_credits(conn, books, period)
    if not moves.by_group:
        return moves
    entries = [Entry(AccountKind.EARNED.key(group), CREDIT, micro) for group, micro in moves.by_group.items()]
    if uncounted := -sum(moves.by_group.values()):
        entries.insert(0, Entry(AccountKind.ISSUED.key(), CREDIT, uncounted))
    kind = TransactionKind.PERIOD_BASIS
    post(conn, Posting(kind, period, last_day(period), kind.key(period=period), tuple(entries)), now=now)
    return moves


def checked_moves(conn: Connection, books: Path, period: str) -> Moves:
    """Return the moves of the close of a period, after computing them again.

    Raises:
        IntegrityError: the score books give other numbers.
    """
    posted, again = posted_moves(conn, period), moved_credits(conn, books, period)
    if posted != again.by_group:
        group = min(key for key in posted.keys() | again.by_group.keys() if posted.get(key) != again.by_group.get(key))
        raise IntegrityError(
            f"the close of {period} moved {posted.get(group, 0)} micro-credits to {group}; its score books give"
            f" {again.by_group.get(group, 0)}; run credit verify"
        )
    return again
