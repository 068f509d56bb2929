"""Opening an index and valuing the first output: time, memory and bytes read, each case in a process of its own.

A cron job pays this every hour. The index holds random rows, see `synthetic`; its files were just written, so they
come from the page cache: a cold disk adds the time to read as many bytes.

    python -m benchmarks.opening             # 1 000 groups of 32 rows; with a dense Fisher of rank 64, 100 groups
    python -m benchmarks.opening --quick     # a tiny model and few groups: does it run? not a number
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import Clock, Table, alone, describe, environment, folder_bytes, peak_bytes, save_results
from benchmarks.models import MODELS, save_model, words
from benchmarks.synthetic import write_index
from credit.records import LoggedOutput
from credit.valuation import AttributionIndex, load_model

ROWS = 32


@dataclass(frozen=True)
class Case:
    """An index to open."""

    rank: int
    groups: int
    curvature: str
    dtype: str
    examples: int


CASES = (
    Case(16, 1_000, "fisher", "fp32", 1_000_000),
    Case(16, 1_000, "fisher", "int8", 1_000_000),
    Case(64, 100, "fisher", "bf16", 100_000),
)
QUICK = (Case(4, 3, "fisher", "fp32", 1_000),)


def run_alone(folder: Path) -> None:
    """Load the model, open, value one output twice; print clocks and memory."""
    model = load_model(folder / "model", dtype="fp32", device="cpu")
    output = LoggedOutput("bench", "0", datetime(2026, 1, 1, tzinfo=UTC), "bench", words(range(1, 257)))
    figures: dict[str, Any] = {"model_peak": peak_bytes()}
    clock = Clock()
    with clock.running():
        index = AttributionIndex.open(folder / "index")
    figures |= {"open": asdict(clock), "open_peak": peak_bytes()}
    for step in ("first", "second"):
        clock = Clock()
        with clock.running():
            index.value(model, [output])
        figures |= {step: asdict(clock), f"{step}_peak": peak_bytes()}
    print(json.dumps(figures))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.alone:
        run_alone(options.alone)
        return
    shape = MODELS["gpt2-tiny" if options.quick else "gpt2"]
    where, rows = environment(), []
    print(f"{describe(where)}\n{shape.title}; one output of 256 tokens")
    table = Table(
        "rank, groups of 32 rows, rows in", "on disk MB", "open, CPU s (wall s)", "first output", "further output",
        "peak GiB (before opening)",
    )  # fmt: skip
    for case in QUICK if options.quick else CASES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            save_model(shape, folder / "model")
            model = load_model(folder / "model", dtype="fp32", device="cpu")
            write_index(
                folder / "index", model, rank=case.rank, groups=case.groups, rows=ROWS, examples=case.examples,
                curvature=case.curvature, dtype=case.dtype,
            )  # fmt: skip
            del model
            figures = alone("benchmarks.opening", name) | asdict(case)
            figures["stored"] = folder_bytes(folder / "index")
        rows.append(figures)
        times = [f"{figures[step]['cpu']:.2f} ({figures[step]['wall']:.2f})" for step in ("open", "first", "second")]
        peak = f"{figures['second_peak'] / 2**30:.2f} ({figures['model_peak'] / 2**30:.2f})"
        stored = f"{figures['stored'] / 1e6:,.0f}"
        table.row(f"{case.rank}, {case.groups:,}, {case.dtype}", stored, *times, peak)
    if options.save:
        print(save_results("opening", {"rows": rows}, where))


if __name__ == "__main__":
    main()
