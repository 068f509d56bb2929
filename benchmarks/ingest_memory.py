"""Peak memory of `credit ingest-outputs` on a large file: `python -m benchmarks.ingest_memory [--gigabytes 5]`.

A log of made-up calls is written and ingested into a fresh SQLite ledger by the command, in a process of its own. A
Parquet file is decoded in a child of it, whose memory counts too: once alone, and once in the sum of both, where pages
that they share count once (PSS).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from credit.ledger.database import Ledger, upgrade
from credit.ledger.indexes import register_index

NOW = datetime(2026, 12, 1, tzinfo=UTC)
MIB = 2**20
POOL = 20_000
"""Different texts, each with a number at its end: a repeated text would say nothing of compression."""


def records(form: str) -> Iterator[dict[str, object]]:
    """Yield records of some 2 kB without end."""
    draw = random.Random(1)
    words = [f"word{number}" for number in range(5000)]
    pool = [" ".join(draw.choices(words, k=200)) for _ in range(POOL)]
    number = 0
    while True:
        number += 1
        said = f"{pool[number % POOL]} {number}"
        asked = f"{pool[(7 * number) % POOL][:300]}?"
        if form == "chats":
            answer = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
            response = {"id": f"chatcmpl-{number}", "object": "chat.completion", "created": 1793525400 + number // 10}
            response |= {"model": "my-llm", "choices": [answer]}
            yield {"request": {"messages": [{"role": "user", "content": asked}]}, "response": response}
            continue
        moment = "2026-11-01T09:30:00Z"
        yield {"id": f"o{number}", "occurred_at": moment, "model": "my-llm", "prompt": asked, "completion": said}


def write(path: Path, form: str, size: int, group: int) -> int:
    """Write about `size` bytes of records (of their JSON, where they go to Parquet), and return their number."""
    count = held = 0
    if form != "parquet":
        with path.open("w") as file:
            for record in records(form):
                held += file.write(json.dumps(record) + "\n")
                count += 1
                if held >= size:
                    return count
    folder = path.with_suffix("")
    folder.mkdir()
    batch: list[dict[str, object]] = []
    for record in records(form):
        batch.append(record)
        if len(batch) == POOL:
            held += sum(len(json.dumps(item)) for item in batch)
            pl.DataFrame(batch).write_parquet(folder / f"{count:012}.parquet")
            count, batch = count + len(batch), []
            if held >= size:
                break
    pl.scan_parquet(folder / "*.parquet").sink_parquet(path, row_group_size=group)
    return count


def peaks(process: subprocess.Popen[bytes]) -> tuple[int, int, int]:
    """Wait for a process. Return the peaks in MiB of it, of the largest child, and of all together."""
    mine = childs = both = 0
    while process.poll() is None:
        try:
            held = _status(str(process.pid), "VmHWM")
            others = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            mine = max(mine, held)
            childs = max([childs, *(_status(pid, "VmHWM") for pid in others)])
            both = max(both, sum(_status(pid, "Pss", "smaps_rollup") for pid in (str(process.pid), *others)))
        except OSError:
            pass
        time.sleep(0.05)
    return mine // 1024, childs // 1024, both // 1024


def _status(pid: str, name: str, file: str = "status") -> int:
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    # A process that has just ended has no memory to tell of.
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def main() -> None:
    """Print the figures of each form."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, default=5)
    parser.add_argument("--form", action="append", choices=["own", "chats", "parquet"])
    parser.add_argument("--row-group", type=int, default=50_000, help="rows of a row group in Parquet")
    parser.add_argument("--folder", default=None, help="where there is room")
    options = parser.parse_args()
    for form in options.form or ["own", "chats", "parquet"]:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            path = Path(folder) / ("log.parquet" if form == "parquet" else "log.jsonl")
            count = write(path, form, int(options.gigabytes * 10**9), options.row_group)
            environment = {**os.environ, "CREDIT_DATABASE_URL": f"sqlite:///{folder}/credit.db"}
            environment["CREDIT_DATA_DIR"] = f"{folder}/data"
            upgrade(environment["CREDIT_DATABASE_URL"], now=NOW)
            with Ledger.open(environment["CREDIT_DATABASE_URL"]) as ledger, ledger.write() as conn:
                register_index(conn, "my-llm", "f" * 64, "indexes/my-llm", "{}", now=NOW)
            command = [sys.executable, "-m", "credit", "ingest-outputs", str(path), "--complete"]
            begin, before = time.monotonic(), os.times()
            process = subprocess.Popen(command, env=environment)
            mine, childs, both = peaks(process)
            after = os.times()
            if process.returncode:
                raise SystemExit(f"{command} ended with {process.returncode}")
            cpu = after.children_user + after.children_system - before.children_user - before.children_system
            print(f"{form:8} {path.stat().st_size / 10**9:5.2f} GB {count:9,} records: {mine} MiB, its reader {childs},"
                  f" together {both}; {cpu:.0f} CPU s, {time.monotonic() - begin:.0f} s; database"
                  f" {Path(folder, 'credit.db').stat().st_size / 10**9:.2f} GB", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
