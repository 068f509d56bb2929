"""Outputs with given measures, credited by a policy as `credit compute` credits them, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from sqlalchemy import Connection

from credit.accounting.credits import Policy, output_credits
from credit.ledger import admission, indexes, outputs
from credit.ledger.database import Ledger
from credit.ledger.score_books import SCHEMA, write_book
from credit.pipeline import compute
from credit.records import MICRO, OWN_SOURCE, Group, LoggedOutput
from tests.ledger.samples import pseudonym
from tests.pipeline.books_of_account import NOW

MODEL = "tiny"
INDEX = "ab" * 32

Measures = Mapping[Group, tuple[float, float]]
"""Influence and support of every group, in nats."""


@dataclass(frozen=True)
class Scored:
    """An output and what was measured of it; `user` and `text` are digits of pseudonyms."""

    name: str
    moment: datetime
    measures: Measures
    weight_micro: int = MICRO
    user: str = ""
    text: str = ""
    echo_micro: int = 0


def at(month: int, day: int) -> datetime:
    return datetime(2026, month, day, 12, tzinfo=UTC)


def credit_outputs(
    ledger: Ledger,
    books: Path,
    items: Sequence[Scored],
    policy: Policy | None = None,
    volume: float = 0.0,
    now: datetime = NOW,
) -> str:
    """Log outputs, write their score book and post their credits; return the book's SHA-256."""
    log_outputs(ledger, items, now)
    return post_scores(ledger, books, items, policy or Policy(), volume, now)


def log_outputs(ledger: Ledger, items: Sequence[Scored], now: datetime = NOW) -> None:
    """Log outputs that wait to be valued."""
    with ledger.write() as conn:
        indexes.register_index(conn, MODEL, INDEX, "index", "{}", now=now)
        log_file(conn, [_output(item) for item in items], now)


def post_scores(
    ledger: Ledger, books: Path, items: Sequence[Scored], paid_by: Policy, volume: float = 0.0, now: datetime = NOW
) -> str:
    """Write the score book of outputs that are logged and not valued, and post their credits."""
    with ledger.write() as conn:
        index = indexes.register_index(conn, MODEL, INDEX, "index", "{}", now=now)
        pending = {item.output.external_id: item for item in outputs.pending_outputs(conn, MODEL, 0, 10**6)}
        chunk = [pending[item.name] for item in items]
        scores = [
            score
            for stored, item in zip(chunk, items, strict=True)
            for score in _scores(stored.id, item, paid_by, volume)
        ]
        frame = pl.DataFrame(scores, schema=SCHEMA, orient="row")
        book = write_book(books, frame)
        compute.post_scores(conn, index, paid_by, book, chunk, frame, now)
    return book.sha256


def _scores(number: int, item: Scored, policy: Policy, volume: float) -> list[tuple[Any, ...]]:
    groups = list(item.measures)
    rows = [
        (influence, support, policy.alpha * influence + policy.beta * support + policy.gamma * volume)
        for influence, support in item.measures.values()
    ]
    place = ("influence", "support", "effect").index(policy.measure)
    paid = [row[place] for row in rows]
    credited = output_credits(item.weight_micro, groups, paid, tie_key=item.name, echo_micro=item.echo_micro)
    measured = [*rows, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)]
    return [
        (number, group.provider, group.collection, *measured[position], micro)
        for position, (group, micro) in enumerate(credited)
    ]


def _output(item: Scored) -> LoggedOutput:
    user, text = (pseudonym(digit) if digit else "" for digit in (item.user, item.text))
    return LoggedOutput(
        OWN_SOURCE, item.name, item.moment, MODEL, "text", weight_micro=item.weight_micro, user=user, text=text
    )


def log_file(conn: Connection, logged: Sequence[LoggedOutput], now: datetime) -> None:
    """Log outputs as those of one file."""
    file_id = admission.start_file(conn)
    admission.add_outputs(conn, logged, file_id)
    counts = {"accepted": len(logged), "duplicates": 0, "quarantined": 0}
    admission.record_file(conn, file_id, sha256="c" * 64, name="log", format="own", **counts, now=now)
