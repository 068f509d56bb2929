"""Ledgers for reports: outputs with given scores, posted as `credit compute` posts them, and periods closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
from sqlalchemy import Connection

from credit.accounting.credits import Policy
from credit.ledger import indexes, outputs, periods, pools, providers, score_books
from credit.ledger.accounts import AccountKind
from credit.ledger.database import Ledger
from credit.ledger.journal import Entry, Posting, post_all
from credit.ledger.score_books import SCHEMA, write_book
from credit.ledger.transaction_kinds import CreditsDetails
from credit.pipeline.close import ClosePolicy, close_period
from credit.records import CREDIT, OWN_SOURCE, Group, LoggedOutput, Provider
from tests.pipeline.scored import log_file

NOW = datetime(2026, 12, 5, 12, tzinfo=UTC)
SEPTEMBER, OCTOBER = "2026-09", "2026-10"
MODEL = "tiny"
INDEX = "ab" * 32

ADA, BELL, OWN = Group("ada", "novels"), Group("bell"), Group("own", "manuals")
ESSAYS = Group("ada", "essays")
UNATTRIBUTED = Group("house", "unattributed")
PROVIDERS = (Provider("ada", "Ada Press"), Provider("bell", "Bell & Sons"), Provider("own", "Own docs", "house"))

UNVALIDATED = ClosePolicy(unvalidated="a test", unreviewed="a test")
"""These ledgers are about reports; what a close asks of certificates has tests of its own."""

Scores = Mapping[Group, tuple[float, int]]
"""An output's effect in nats and its micro-credits by group."""


@dataclass(frozen=True)
class Valued:
    """An output and what it gave to whom."""

    name: str
    moment: datetime
    scores: Scores
    source: str = OWN_SOURCE

    @property
    def weight_micro(self) -> int:
        return sum(micro for _, micro in self.scores.values())


def at(month: int, day: int, hour: int = 12) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=UTC)


MONTH = (
    Valued("o-2", at(10, 3), {ADA: (0.5, 600_000), ESSAYS: (-0.25, 0), BELL: (0.3, 400_000), OWN: (-0.1, 0)}),
    Valued("o-1", at(10, 3, 23), {ADA: (0.1, 100_001), ESSAYS: (0.2, 199_999), BELL: (-1.5, 0), OWN: (0.7, 700_000)}),
    Valued(
        "=o",
        at(10, 20),
        {ADA: (-1.0, 0), ESSAYS: (-1.0, 0), BELL: (-1.0, 0), OWN: (0.0, 0), UNATTRIBUTED: (0.0, 1_000_000)},
    ),
    Valued("chat-1", at(10, 31), {ADA: (2.5, 2_000_000), ESSAYS: (0.0, 0), BELL: (0.0, 0), OWN: (0.0, 0)}, "openai"),
)
"""Four outputs on three days; five credits."""


def add(ledger: Ledger, known: Sequence[Provider] = PROVIDERS) -> None:
    with ledger.write() as conn:
        providers.import_providers(conn, known, now=NOW)
        indexes.register_index(conn, MODEL, INDEX, "index", "{}", now=NOW)


def value(ledger: Ledger, books: Path, items: Sequence[Valued], *, posted: Mapping[Group, int] | None = None) -> str:
    """Log outputs, value them in one score book, post their credits (or those of `posted`); return its SHA-256."""
    with ledger.write() as conn:
        ids = log(conn, items)
        scores = [
            (number, group.provider, group.collection, effect / 2, max(effect, 0.0) / 2, effect, micro)
            for number, item in zip(ids, items, strict=True)
            for group, (effect, micro) in item.scores.items()
        ]
        book = write_book(books, pl.DataFrame(scores, schema=SCHEMA, orient="row"))
        run = score_books.ensure_run(
            conn, "run", index_id=1, policy_json=Policy().to_json(), software_version="0", now=NOW
        )
        sizes = {"row_count": book.row_count, "byte_count": book.byte_count}
        score_books.register_book(conn, sha256=book.sha256, compute_run_id=run, output_ids=ids, **sizes, now=NOW)
        totals: dict[date, dict[Group, int]] = {}
        for item in items:
            of_day = totals.setdefault(item.moment.date(), {})
            for group, (_, micro) in item.scores.items():
                of_day[group] = of_day.get(group, 0) + micro
        for day, of_day in sorted(totals.items()):
            _post(conn, book.sha256, day, posted or of_day)
    return book.sha256


def close(ledger: Ledger, period: str, net_minor: int = 100_000, currency: str = "EUR") -> None:
    with ledger.write() as conn:
        pools.add_pool(conn, period, currency, gross_minor=net_minor, deductions_minor=0, reference="pool", now=NOW)
    close_period(ledger, period, UNVALIDATED, now=NOW)


def log(conn: Connection, items: Sequence[Valued]) -> list[int]:
    logged = [
        LoggedOutput(item.source, item.name, item.moment, MODEL, "text", weight_micro=item.weight_micro)
        for item in items
    ]
    log_file(conn, logged, NOW)
    pending = {
        (item.output.source, item.output.external_id): item.id
        for item in outputs.pending_outputs(conn, MODEL, 0, 10**6)
    }
    return [pending[item.source, item.name] for item in items]


def _post(conn: Connection, sha256: str, day: date, credited: Mapping[Group, int]) -> None:
    lines = [Entry(AccountKind.EARNED.key(group), CREDIT, micro) for group, micro in sorted(credited.items()) if micro]
    if lines:
        entries = (Entry(AccountKind.ISSUED.key(), CREDIT, -sum(line.amount for line in lines)), *lines)
        period = periods.open_period_for(conn, day)
        key = f"credits:{sha256}:{day}"
        post_all(conn, [Posting("credits", period, day, key, entries, details=CreditsDetails(sha256))], now=NOW)
