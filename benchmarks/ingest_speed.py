"""Speed and memory of `credit ingest-outputs`: `python -m benchmarks.ingest_speed [--records N] [--url URL]`.

A log of made-up chats is ingested into a fresh ledger with an index of its model, in a process of its own; then again,
unchanged; then again with `reread`. CPU seconds are those of that process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from credit.ledger.database import Ledger, upgrade
from credit.ledger.indexes import register_index
from credit.pipeline.ingest_outputs import ingest_outputs
from credit.pipeline.workspace import Workspace

NOW = datetime(2026, 12, 1, tzinfo=UTC)


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
    told.put((time.process_time() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def main() -> None:
    """Print the figures of each format."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--length", type=int, default=500)
    parser.add_argument("--url", default="")
    parser.add_argument("--form", action="append", choices=["own", "openai"])
    options = parser.parse_args()
    for form in options.form or ["own", "openai"]:
        with tempfile.TemporaryDirectory() as folder:
            path, data = Path(folder) / "log.jsonl", Path(folder) / "data"
            with path.open("w") as file:
                file.writelines(f"{line}\n" for line in records(form, options.records, options.length))
            url = options.url or f"sqlite:///{folder}/credit.db"
            upgrade(url, now=NOW)
            with Ledger.open(url) as ledger, ledger.write() as conn:
                register_index(conn, "my-llm", "f" * 64, "indexes/my-llm", "{}", now=NOW)
            context = multiprocessing.get_context("spawn")
            for name, reread in (("first", False), ("unchanged", False), ("reread", True)):
                told = context.Queue()
                how = {"reread": reread, "told": told}
                process = context.Process(target=measure, args=(url, path, data), kwargs=how)
                process.start()
                cpu, peak = told.get()
                process.join()
                size = path.stat().st_size / 2**20
                print(f"{form:7} {name:10} {options.records / cpu:12,.0f} records/CPU s {cpu:9.3f} s {peak:6.0f} MiB"
                      f" ({size:.0f} MiB)")  # fmt: skip


if __name__ == "__main__":
    main()
