"""Lookalikes: outputs of different logs with the same text at almost the same time, which no id ties together."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select

from credit.ledger.schema import output
from credit.ledger.values import utc_moment, utc_text

SECONDS_APART = 5
"""Most seconds between two loggers' times of one call: one notes its start, the other perhaps its end."""


@dataclass(frozen=True, slots=True)
class _Met:
    moment: datetime
    said: tuple[int, int]
    source: str
    id: int
    is_of_file: bool


def count_lookalikes(conn: Connection, ingest_file_id: int) -> int:
    """Count the outputs of a file that may be calls of another log: the same model and text, seconds apart.

    Two calls in one log are two. Outputs are met in the order of their times; those of a few seconds are in memory.
    """
    ends = (select(end(output.c.source)).scalar_subquery() for end in (func.min, func.max))
    first, last = conn.execute(select(*ends)).one()
    if first == last:
        return 0
    times = select(func.min(output.c.occurred_at), func.max(output.c.occurred_at))
    low, high = conn.execute(times.where(output.c.ingest_file_id == ingest_file_id)).one()
    apart = timedelta(seconds=SECONDS_APART)
    columns = ("id", "source", "model_id", "completion", "ingest_file_id", "occurred_at")
    query = (
        select(*(output.c[name] for name in columns))
        .where(output.c.occurred_at >= utc_text(utc_moment(low) - apart))
        .where(output.c.occurred_at <= utc_text(utc_moment(high) + apart))
        # Purged outputs have no text to be alike in.
        .where(output.c.purge_id.is_(None))
        .where(output.c.purge_id.is_(None))
        .order_by(output.c.occurred_at, output.c.id)
    )
    near: deque[_Met] = deque()
    alike_in: dict[tuple[int, int], list[_Met]] = defaultdict(list)
    alike: set[int] = set()
    for row in conn.execute(query, execution_options={"yield_per": 1000}):
        is_of_file = row.ingest_file_id == ingest_file_id
        now = _Met(utc_moment(row.occurred_at), (row.model_id, hash(row.completion)), row.source, row.id, is_of_file)
        while near and now.moment - near[0].moment > apart:
            gone = near.popleft()
            alike_in[gone.said].remove(gone)
            if not alike_in[gone.said]:
                del alike_in[gone.said]
        for other in alike_in[now.said]:
            if other.source != now.source:
                alike.update(item.id for item in (other, now) if item.is_of_file)
        near.append(now)
        alike_in[now.said].append(now)
    return len(alike)
