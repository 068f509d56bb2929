"""Cost of engines: valuing outputs by workers against valuing them in this process, and empty tasks.

    python -m benchmarks.engines            # about ten minutes on two cores
    python -m benchmarks.engines --quick    # a tiny model, and no Ray: does it run? not a number

Each engine runs in a process of its own, which has imported nothing of it, and values the same outputs in the same
chunks. CPU seconds are those of that process and of its workers, from their start to their end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Table, describe, environment, save_results
from benchmarks.models import MODELS, save_model, words
from benchmarks.synthetic import write_index
from credit.accounting.credits import Policy
from credit.engines import EngineChoice
from credit.ledger.indexes import RegisteredIndex
from credit.pipeline.valuing import Valued, Valuing
from credit.records import LoggedOutput
from credit.valuation import AttributionIndex, load_model


@dataclass(frozen=True)
class Sizes:
    """Model, chunks of outputs, and empty tasks."""

    model: str = "gpt2"
    rank: int = 16
    chunks: int = 8
    outputs: int = 8
    length: int = 256
    groups: int = 25
    empty: int = 2_000


QUICK = Sizes("gpt2-tiny", 4, 3, 2, 32, 2, 20)
Outputs = Sequence[LoggedOutput]


@dataclass(frozen=True)
class Clocked:
    """Job that values outputs and tells the digest of the values, and the worker's CPU seconds since its start."""

    job: Valuing

    def open(self) -> Callable[[Outputs], tuple[str, int, float]]:
        """Open the index and load its model."""
        value = self.job.open()
        return lambda outputs: (_digest(value(outputs)), os.getpid(), time.process_time())


@dataclass(frozen=True)
class Empty:
    """Job of tasks without work."""

    def open(self) -> Callable[[int], int]:
        """Return a function that costs nothing."""
        return abs


def _digest(valued: Valued) -> str:
    assert valued.valuation is not None
    numbers = [valued.valuation.influence, valued.valuation.support]
    return hashlib.sha256(b"".join(each.numpy().tobytes() for each in numbers)).hexdigest()


def prepare(folder: Path, sizes: Sizes) -> None:
    """Write a model, an index, and the job with its chunks of outputs."""
    vocabulary = save_model(MODELS[sizes.model], folder / "model")
    model = load_model(folder / "model", dtype="fp32", device="cpu")
    write_index(folder / "index", model, rank=sizes.rank, groups=sizes.groups, rows=32, examples=100_000)
    fingerprint = AttributionIndex.open(folder / "index").manifest.fingerprint
    index = RegisteredIndex(1, "bench", fingerprint, str(folder / "index"), "", datetime.now(UTC))
    random = np.random.default_rng(0)
    tokens = random.integers(0, vocabulary, (sizes.chunks, sizes.outputs, sizes.length))
    when = datetime(2026, 1, 1, tzinfo=UTC)
    chunks = [
        [LoggedOutput("bench", f"{at}-{n}", when, "bench", words(row)) for n, row in enumerate(chunk)]
        for at, chunk in enumerate(tokens)
    ]
    (folder / "work").write_bytes(pickle.dumps((Clocked(Valuing(index, Policy(), device="cpu")), chunks, sizes.empty)))


def run(folder: Path, choice: EngineChoice) -> dict[str, Any]:
    """Value all chunks by an engine, then do empty tasks; return seconds, and the digest of all values."""
    job, chunks, empty = pickle.loads((folder / "work").read_bytes())
    engine, began = choice.engine(on_gpu=False), time.perf_counter()
    with engine.start(job, len(chunks)) as workers:
        found = list(workers.in_order(chunks))
    wall = time.perf_counter() - began
    with engine.start(Empty()) as idle:
        next(idle.in_order([0]))
        began = time.perf_counter()
        assert len(list(idle.in_order(range(empty)))) == empty
        each = (time.perf_counter() - began) / empty
    own, children = time.process_time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    actors = {pid: cpu for _, pid, cpu in found if pid != os.getpid()} if choice.name == "ray" else {}
    cpu = own + children.ru_utime + children.ru_stime + sum(actors.values())
    digest = hashlib.sha256("".join(digest for digest, _, _ in found).encode()).hexdigest()
    return {"cpu": cpu, "wall": wall, "empty": each, "digest": digest}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each engine and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--run", nargs=2, metavar=("FOLDER", "CHOICE"), help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.run:
        print(json.dumps(run(Path(asked.run[0]), EngineChoice(**json.loads(asked.run[1])))))
        return
    sizes, where = QUICK if asked.quick else Sizes(), environment()
    choices = [EngineChoice(), EngineChoice("local", 1), EngineChoice("local", 2)]
    if find_spec("ray") and not asked.quick:
        choices += [EngineChoice("ray", count, "local") for count in (1, 2)]
    print(describe(where))
    table = Table("engine", "workers", "CPU s", "of this process's", "wall s", "empty task, ms")
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), sizes)
        for choice in choices:
            said = {"name": choice.name, "workers": choice.workers, "address": choice.address}
            command = [sys.executable, "-m", "benchmarks.engines", "--run", folder, json.dumps(said)]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found = json.loads(printed.splitlines()[-1])
            results.append(said | found)
            share = found["cpu"] / results[0]["cpu"]
            cells = (f"{found['cpu']:.1f}", f"{share:.3f}", f"{found['wall']:.1f}", f"{1000 * found['empty']:.2f}")
            table.row(choice.name or "this process", str(choice.workers or 1), *cells)
    same = len({result["digest"] for result in results}) == 1
    print("all values are the same to the byte" if same else "VALUES DIFFER between engines")
    if not asked.quick:
        save_results("engines", {"sizes": asdict(sizes), "engines": results}, where)


if __name__ == "__main__":
    main()
