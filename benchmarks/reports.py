"""Reports at many providers: seconds and bytes of a page, a site, and the export of a closed month.

python -m benchmarks.reports                       # 300 and 3 000 providers, SQLite
python -m benchmarks.reports --providers 30        # does it run? not a number
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.measure import Clock, Table, describe, environment, folder_bytes
from credit.accounting.credits import Policy, output_credits
from credit.ledger import admission, indexes, outputs, pools
from credit.ledger.database import Ledger, upgrade
from credit.ledger.providers import import_providers
from credit.ledger.score_books import SCHEMA, write_book
from credit.pipeline.close import ClosePolicy, close_period
from credit.pipeline.compute import post_scores
from credit.records import Group, LoggedOutput, Provider
from credit.reporting.export import export_period
from credit.reporting.pages import attribution_page
from credit.reporting.site import write_site

NOW = datetime(2026, 11, 5, tzinfo=UTC)
PERIOD, OUTPUTS = "2026-10", 40


def fill(ledger: Ledger, books: Path, count: int) -> None:
    """Value outputs that credit every provider, and add a pool."""
    groups = [Group(f"p{number:05d}", "all") for number in range(count)]
    with ledger.write() as conn:
        import_providers(conn, [Provider(group.provider, f"Provider {group.provider}") for group in groups], now=NOW)
        index = indexes.register_index(conn, "m", "f" * 64, "index", "{}", now=NOW)
        file_id = admission.start_file(conn)
        items = [
            LoggedOutput("log", f"o{n}", datetime(2026, 10, 1 + n % 31, tzinfo=UTC), "m", f"answer {n}")
            for n in range(OUTPUTS)
        ]
        admission.add_outputs(conn, items, file_id)
        counts = {"accepted": OUTPUTS, "duplicates": 0, "quarantined": 0}
        admission.record_file(conn, file_id, sha256="0" * 64, name="log", format="own", **counts, now=NOW)
        stored = outputs.pending_outputs(conn, "m", 0, OUTPUTS)
        rows = []
        for item in stored:
            effects = [1.0 + (number * 7919 + item.id) % 97 for number in range(count)]
            credited = output_credits(10**6, groups, effects, tie_key=item.output.name)
            rows += [
                (item.id, group.provider, group.collection, effect / 2, effect / 2, effect, micro)
                for effect, (group, micro) in zip(effects, credited, strict=True)
            ]
        scores = pl.DataFrame(rows, schema=SCHEMA, orient="row")
        post_scores(conn, index, Policy(), write_book(books, scores), stored, scores, NOW)
        pools.add_pool(conn, PERIOD, "EUR", 123_456_789, 0, reference="main", now=NOW)


def timed(work: Callable[[], Any]) -> tuple[Clock, Any]:
    """Run once; return its clock and its result."""
    clock = Clock()
    with clock.running():
        result = work()
    return clock, result


def measure(count: int, table: Table) -> None:
    """Measure all reports of a month with so many providers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url, books = f"sqlite:///{folder}/credit.db", folder / "books"
        upgrade(url)
        with Ledger.open(url) as ledger:
            fill(ledger, books, count)
            policy = ClosePolicy(unvalidated="measured", unreviewed="measured")
            clock, _ = timed(lambda: close_period(ledger, PERIOD, policy, books=books, now=NOW))
            table.row(f"{count:,}", "close", f"{clock.wall:.1f}", f"{clock.cpu:.1f}", "")
            with ledger.read() as conn:
                clock, page = timed(lambda: attribution_page(conn, books, PERIOD, "provider"))
                table.row("", "page", f"{clock.wall:.1f}", f"{clock.cpu:.1f}", f"{len(page.encode()) / 1e3:,.0f}")
                clock, pages = timed(lambda: write_site(conn, books, folder / "site"))
            size = folder_bytes(folder / "site") / 1e3
            table.row("", f"site, {len(pages):,} pages", f"{clock.wall:.1f}", f"{clock.cpu:.1f}", f"{size:,.0f}")
            clock, _ = timed(lambda: export_period(ledger, books, PERIOD, folder / "out", unsigned=True, now=NOW))
            size = folder_bytes(folder / "out") / 1e3
            table.row("", "export, unsigned", f"{clock.wall:.1f}", f"{clock.cpu:.1f}", f"{size:,.0f}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure reports at some numbers of providers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--providers", type=int, nargs="+", default=[300, 3_000])
    options = parser.parse_args(arguments)
    print(f"{describe(environment())}\na month of {OUTPUTS} outputs, each of which credits every provider")
    table = Table("providers", "report", "s", "CPU s", "kB")
    for count in options.providers:
        measure(count, table)


if __name__ == "__main__":
    main()
