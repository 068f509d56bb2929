"""Memory and time of valuing against outputs at a time and groups, each case in a process of its own.

The index holds random rows, see `synthetic`; the model is tiny, so that rows and groups take what there is to see.

    python -m benchmarks.valuing_memory             # up to 10 000 groups of 32 rows, and 4 096 outputs at a time
    python -m benchmarks.valuing_memory --quick     # few of both: does it run? not a number
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Clock, Table, alone, describe, environment, peak_bytes, save_results
from benchmarks.models import MODELS, save_model, words
from benchmarks.synthetic import write_index
from credit.records import LoggedOutput
from credit.valuation import AttributionIndex, load_model
from credit.valuation.valuing_cost import needs_of

ROWS, RANK, TOKENS = 32, 4, 12
CASES = ((256, 10), (256, 1_000), (4_096, 1_000), (256, 10_000), (1_024, 10_000))
QUICK = ((4, 2), (8, 5))


def run_alone(folder: Path, count: int) -> None:
    """Value some outputs together; print clock and memory."""
    model = load_model(folder / "model", dtype="fp32", device="cpu")
    index = AttributionIndex.open(folder / "index")
    texts, moment = np.random.default_rng(0).integers(0, 300, (count, TOKENS)), datetime(2026, 1, 1, tzinfo=UTC)
    outputs = [LoggedOutput("bench", str(n), moment, "bench", words(text)) for n, text in enumerate(texts.tolist())]
    index.value(model, outputs[:1])  # code, curvature and the first shard come into memory
    before, clock = peak_bytes(), Clock()
    with clock.running():
        index.value(model, outputs)
    figures = {"grown": peak_bytes() - before, "announced": needs_of(index).memory_bytes(count)}
    print(json.dumps(figures | asdict(clock)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    parser.add_argument("--alone", nargs=2, metavar=("FOLDER", "OUTPUTS"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.alone:
        run_alone(Path(options.alone[0]), int(options.alone[1]))
        return
    where, rows = environment(), []
    print(f"{describe(where)}\ngroups of {ROWS} rows in fp32, outputs of {TOKENS} tokens, a tiny model")
    table = Table("outputs at a time", "groups", "CPU ms an output", "peak grew by, MB", "announced, MB")
    for count, groups in QUICK if options.quick else CASES:
        with tempfile.TemporaryDirectory() as name:
            save_model(MODELS["gpt2-tiny"], Path(name) / "model")
            model = load_model(Path(name) / "model", dtype="fp32", device="cpu")
            write_index(
                Path(name) / "index", model, rank=RANK, groups=groups, rows=ROWS, examples=groups * ROWS,
                curvature="fisher",
            )  # fmt: skip
            figures = alone("benchmarks.valuing_memory", name, str(count)) | {"outputs": count, "groups": groups}
        rows.append(figures)
        memory = [f"{figures[key] / 1e6:,.0f}" for key in ("grown", "announced")]
        table.row(f"{count:,}", f"{groups:,}", f"{1000 * figures['cpu'] / count:.1f}", *memory)
    if options.save:
        print(save_results("valuing-memory", {"rows": rows}, where))


if __name__ == "__main__":
    main()
