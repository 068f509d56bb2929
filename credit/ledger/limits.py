"""Limits on one user's outputs: how often a text counts on a day, and how many credits a user's day distributes.

Both are known only when all outputs of a day are. So `credit compute` posts each output whole, and the close takes back
what is beyond the limits. Neither the order nor the chunks of outputs matter:

- **Repeats.** Of one user's outputs of one text on one day (UTC), the first count. Outputs without a user are taken for
  one user's here: nobody can tell them apart, and a cheat would log none.
- **A user's day.** If what is left distributes more than the limit, each output counts for its part of the limit,
  rounded down. Outputs without a user have no such limit.

The part of a day that an earlier close counted is used up. The limits stand in the policy of each compute run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, func, literal_column, select

from credit.ledger.schema import compute_run, ledger_txn, output, score_book, valuation
from credit.ledger.transaction_kinds import TransactionKind
from credit.ledger.transactions import reversed_transactions

_STREAM = {"yield_per": 5000}


@dataclass(frozen=True, slots=True)
class Limits:
    """Times that a text of a user counts on a day, and micro-credits of a user's day, at most; 0 is no limit."""

    repeats: int = 0
    user_cap_micro: int = 0


@dataclass(frozen=True, slots=True)
class UserOutput:
    """A credited output, as far as limits ask; `period` is the one in which its credits were posted."""

    id: int
    source: str
    external_id: str
    occurred_at: str
    user: str
    text: str
    weight_micro: int
    period: str
    limits: Limits

    @property
    def day(self) -> str:
        """The day (UTC)."""
        return self.occurred_at[:10]


@dataclass(frozen=True, slots=True)
class LimitedOutput:
    """An output worth less than its weight: a repeat, or one of too many of its user's day."""

    output: UserOutput
    counted_micro: int
    is_repeat: bool

    @property
    def lost_micro(self) -> int:
        """Micro-credits it does not distribute."""
        return self.output.weight_micro - self.counted_micro


def limit_outputs(items: Iterable[UserOutput]) -> Iterator[LimitedOutput]:
    """Yield the outputs beyond their limits; all outputs of each user and day must be among `items`."""
    days: dict[tuple[Limits, str, str], list[UserOutput]] = {}
    for item in items:
        days.setdefault((item.limits, item.day, item.user), []).append(item)
    for (limits, _, user), own in days.items():
        # A later close finds what an earlier one has counted, and then the order in which the model answered.
        own.sort(key=lambda item: (item.period, item.occurred_at, item.source, item.external_id))
        counting = []
        seen: dict[str, int] = {}
        for item in own:
            seen[item.text] = seen.get(item.text, 0) + 1
            if limits.repeats and item.text and seen[item.text] > limits.repeats:
                yield LimitedOutput(item, 0, is_repeat=True)
            else:
                counting.append(item)
        if limits.user_cap_micro and user:
            yield from _capped(counting, limits.user_cap_micro)


def _capped(own: list[UserOutput], left_micro: int) -> Iterator[LimitedOutput]:
    """Yield the outputs of one user and day that share the rest of the limit, period by period."""
    for period in sorted({item.period for item in own}):
        found = [item for item in own if item.period == period]
        total = sum(item.weight_micro for item in found)
        if total <= left_micro:
            left_micro -= total
            continue
        for item in found:
            yield LimitedOutput(item, item.weight_micro * left_micro // total, is_repeat=False)
        left_micro = 0


def limited_outputs(
    conn: Connection, period: str, changes: Mapping[str, Any] | None = None
) -> dict[int, LimitedOutput]:
    """Return the outputs of a period beyond their limits, by id.

    Args:
        conn: from `Ledger.read` or `Ledger.write`.
        period: the period `YYYY-MM`.
        changes: other limits for this period, by name of the field.
    """
    periods = _periods_of_days(conn, period)
    runs = _limits_of_runs(conn, changes or {})
    days = sorted(day for (_, day), name in periods.items() if name == period)
    if not days or not runs:
        return {}
    among = _credited(days[0], days[-1], runs)
    texts, users = _suspects(conn, among, runs)
    if not texts and not users:
        return {}
    suspects = []
    for row in _rows(conn, among):
        *said, book, run = row
        posted_in = periods.get((book, row.occurred_at[:10]))  # none: reversed, or posted in a later period
        if posted_in is not None and (row.text in texts or row.user in users):
            said += [posted_in, runs[run]]
            suspects.append(UserOutput(*said))
    return {item.output.id: item for item in limit_outputs(suspects) if item.output.period == period}


def _periods_of_days(conn: Connection, period: str) -> dict[tuple[str, str], str]:
    """Return the period of each score book and day with standing credits in this period or before."""
    undone = reversed_transactions(conn)
    query = select(ledger_txn.c.id, ledger_txn.c.idempotency_key, ledger_txn.c.effective_on, ledger_txn.c.period_id)
    kind = TransactionKind.CREDITS
    rows = conn.execute(query.where(ledger_txn.c.kind == kind, ledger_txn.c.period_id <= period))
    before = len(kind.key(score_book="", day="")) - 1
    return {(key[before : before + 64], day): name for number, key, day, name in rows if number not in undone}


def _limits_of_runs(conn: Connection, changes: Mapping[str, Any]) -> dict[int, Limits]:
    """Return the limits of each compute run that has any."""
    found = {}
    for number, policy_json in conn.execute(select(compute_run.c.id, compute_run.c.policy_json)):
        said = {**json.loads(policy_json), **changes}
        limits = Limits(int(said.get("repeats", 0)), int(said.get("user_cap_micro", 0)))
        if limits != Limits():
            found[number] = limits
    return found


# No bound parameters: PostgreSQL would not see that the grouped expression is the selected one.
_DAY = func.substr(output.c.occurred_at, literal_column("1"), literal_column("10"))
_USER = func.coalesce(output.c.user_hmac, literal_column("''"))
_TEXT = func.coalesce(output.c.text_hmac, literal_column("''"))


def _credited(first: str, last: str, runs: Mapping[int, Limits]) -> Select[Any]:
    """Select from the valued outputs with a weight of some days, and of runs with limits."""
    return (
        select(output.c.id)
        .join_from(output, valuation, valuation.c.output_id == output.c.id)
        .join(score_book, score_book.c.id == valuation.c.score_book_id)
        .where(output.c.occurred_at >= first, output.c.occurred_at < last + "U", output.c.weight_micro > 0)
        .where(score_book.c.compute_run_id.in_(runs))
    )


def _suspects(conn: Connection, among: Select[Any], runs: Mapping[int, Limits]) -> tuple[set[str], set[str]]:
    """Return texts that one user has too often on a day, and users with too much on a day, by the smallest limits.

    The database finds these few among many outputs.
    """
    texts, users = set[str](), set[str]()
    times = [limits.repeats for limits in runs.values() if limits.repeats]
    if times:
        groups = among.with_only_columns(_TEXT).where(output.c.text_hmac.is_not(None)).group_by(_TEXT, _USER, _DAY)
        texts = set(conn.execute(groups.having(func.count() > min(times))).scalars())
    caps = [limits.user_cap_micro for limits in runs.values() if limits.user_cap_micro]
    if caps:
        # A sum of doubles: SQLite's sum of integers fails beyond 64 bits, and who is near the limit is looked at below.
        total = func.sum(output.c.weight_micro * literal_column("1.0"))
        groups = among.with_only_columns(_USER).where(output.c.user_hmac.is_not(None)).group_by(_USER, _DAY)
        users = set(conn.execute(groups.having(total > min(caps) * (1 - 1e-9))).scalars())
    return texts, users


def _rows(conn: Connection, among: Select[Any]) -> Iterator[Any]:
    """Yield the fields of each `UserOutput` up to its weight, then its score book and its run."""
    of_output = (output.c.id, output.c.source, output.c.external_id, output.c.occurred_at)
    of_user = (_USER.label("user"), _TEXT.label("text"), output.c.weight_micro)
    query = among.with_only_columns(*of_output, *of_user, score_book.c.sha256, score_book.c.compute_run_id)
    return iter(conn.execute(query, execution_options=_STREAM))
