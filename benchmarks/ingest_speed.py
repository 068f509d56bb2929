"""Speed and memory of `credit ingest-outputs`: `python -m benchmarks.ingest_speed [--records N] [--engine postgresql]`.

A log of made-up chats is ingested into a fresh ledger with an index of its model, in a process of its own; then again,
unchanged; then again with `reread`. CPU seconds are those of that process, and on PostgreSQL also those of the server.
The floor is the database alone: the same rows into another fresh ledger, with its keys and triggers, by its driver.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import psycopg

from benchmarks.ledger_speed import databases
from credit.ledger.database import Ledger, upgrade
from credit.ledger.indexes import register_index
from credit.pipeline.ingest_outputs import ingest_outputs
from credit.pipeline.workspace import Workspace

NOW = datetime(2026, 12, 1, tzinfo=UTC)
_TICKS = os.sysconf("SC_CLK_TCK")
_AT_ONCE = 50  # rows in a statement for SQLite


def records(form: str, count: int, length: int) -> Iterator[str]:
    """Yield lines of a log."""
    for number in range(count):
        text = f"Answer {number}: " + "the harbour lay still, " * (length // 23)
        asked = [{"role": "user", "content": f"How lay the harbour on day {number}?"}]
        if form == "own":
            record = {"id": f"o{number}", "occurred_at": "2026-11-01T09:30:00Z", "model": "my-llm", "messages": asked}
            yield json.dumps(record | {"completion": text})
            continue
        answer = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        response = {"id": f"chatcmpl-{number}", "object": "chat.completion", "created": 1793525400 + number}
        response |= {"model": "my-llm", "choices": [answer]}
        yield json.dumps({"request": {"messages": asked}, "response": response})


Told = multiprocessing.Queue  # of CPU seconds and MiB


def measure(url: str, path: Path, data: Path, *, reread: bool, told: Told) -> None:
    """Ingest a file and tell CPU seconds and the peak of memory in MiB."""
    begin = time.process_time()
    ingest_outputs(Workspace(url, data), path, complete=True, reread=reread)
    cpu = time.process_time() - begin
    # Not getrusage's: that begins with what the parent held.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    told.put((cpu, int(peak.split()[1]) / 1024))


def server_seconds(url: str) -> float:
    """Return the CPU seconds of PostgreSQL's processes so far, those that have ended included; 0 for SQLite."""
    if not url.startswith("postgresql"):
        return 0.0
    with psycopg.connect(url) as conn:
        folder = conn.execute("SHOW data_directory").fetchone()
    server = Path(str(folder and folder[0]), "postmaster.pid").read_text().split()[0]
    ticks = 0
    for place in Path("/proc").glob("[0-9]*"):
        try:
            cells = (place / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if place.name == server:
            ticks += sum(map(int, cells[11:15]))
        elif cells[1] == server:
            ticks += sum(map(int, cells[11:13]))
    return ticks / _TICKS


def fresh(url: str) -> str:
    """Make a ledger with an index of the log's model."""
    upgrade(url, now=NOW)
    with Ledger.open(url) as ledger, ledger.write() as conn:
        register_index(conn, "my-llm", "f" * 64, "indexes/my-llm", "{}", now=NOW)
    return url


def floor(filled: Path, empty: Path) -> float:
    """Return the CPU seconds of SQLite for the rows of a log alone."""
    source = sqlite3.connect(filled)
    tables = ("output", "call_identity", "ingest_file")
    rows = {table: source.execute(f"SELECT * FROM {table} ORDER BY id").fetchall() for table in tables}
    conn = sqlite3.connect(empty, isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "cache_size = -65536"):
        conn.execute(f"PRAGMA {pragma}")
    begin = time.process_time()
    conn.execute("BEGIN IMMEDIATE")
    for table, all_rows in rows.items():
        for start in range(0, len(all_rows), _AT_ONCE):
            some = all_rows[start : start + _AT_ONCE]
            one = f"({', '.join('?' * len(some[0]))})"
            conn.execute(f"INSERT INTO {table} VALUES {', '.join([one] * len(some))}", [*chain.from_iterable(some)])
    conn.execute("COMMIT")
    return time.process_time() - begin


def run(form: str, engine: str, options: argparse.Namespace) -> None:
    """Print the figures of one format on one engine."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, databases(engine) as urls:
        path, data, url = Path(folder) / "log.jsonl", Path(folder) / "data", fresh(next(urls))
        with path.open("w") as file:
            file.writelines(f"{line}\n" for line in records(form, options.records, options.length))
        size = path.stat().st_size / 2**20
        for name, reread in (("first", False), ("unchanged", False), ("reread", True)):
            told, before = context.Queue(), server_seconds(url)
            process = context.Process(target=measure, args=(url, path, data), kwargs={"reread": reread, "told": told})
            process.start()
            cpu, peak = told.get()
            process.join()
            server = server_seconds(url) - before
            print(f"{engine:10} {form:7} {name:10} {options.records / cpu:12,.0f} records/CPU s {cpu:9.3f} s"
                  f" {server:9.3f} s of the server {peak:6.0f} MiB ({size:.0f} MiB)", flush=True)  # fmt: skip
        if engine == "sqlite":
            files = [Path(item.removeprefix("sqlite:///")) for item in (url, fresh(next(urls)))]
            cpu = floor(*files)
            print(f"{engine:10} {form:7} {'floor':10} {options.records / cpu:12,.0f} records/CPU s {cpu:9.3f} s")


def main() -> None:
    """Print the figures of each format."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--length", type=int, default=500)
    parser.add_argument("--engine", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--form", action="append", choices=["own", "openai"])
    options = parser.parse_args()
    for form in options.form or ["own", "openai"]:
        run(form, options.engine, options)


if __name__ == "__main__":
    main()
