"""Memory of a build against the number of examples: short texts, a tiny model, each case in a process of its own.

What a build keeps of each example is the growth of its peak memory over that of a small build.

    python -m benchmarks.build_memory             # 10 000, 100 000 and 1 000 000 examples
    python -m benchmarks.build_memory --quick     # 300 and 1 000: does it run? not a number
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import Clock, Table, alone, describe, environment, folder_bytes, peak_bytes, save_results
from benchmarks.models import MODELS, save_model, words
from credit.records import Group, TrainingRecord
from credit.valuation import IndexSettings, build_index, load_model
from credit.valuation.examples import TrainingData, encode_training

TOKENS = 12
GROUPS = 20
CASES, QUICK = (10_000, 100_000, 1_000_000), (300, 1_000)


def short_texts(count: int) -> Iterator[TrainingRecord]:
    """Yield records of a dozen random tokens, one at a time."""
    rng = np.random.default_rng(0)
    for number in range(count):
        tokens = rng.integers(0, 300, TOKENS).tolist()
        yield TrainingRecord(f"record-{number:08d}", Group(f"p{number % GROUPS:02d}", "all"), words(tokens))


def run_alone(folder: Path, count: int) -> None:
    """Tokenise all texts, then build an index of them; print clocks and memory."""
    model = load_model(folder / "model", dtype="fp32", device="cpu")
    settings = IndexSettings(rank=4, sample=256)
    build_index(model, short_texts(300), folder / "warm-up", settings, name="bench")  # code comes into memory
    figures: dict[str, Any] = {"examples": count, "before": peak_bytes()}
    clock = Clock()
    with clock.running():
        data = encode_training(short_texts(count), model.encoder(64), 256, folder=folder)
    figures |= {"tokenise": asdict(clock), "tokenised": peak_bytes()}
    data.keep(folder / "tokens", {})
    clock = Clock()
    with clock.running():
        TrainingData.open(folder / "tokens")
    figures |= {"open": asdict(clock), "kept_bytes": folder_bytes(folder / "tokens")}
    del data
    clock = Clock()
    with clock.running():
        build_index(model, short_texts(count), folder / "index", settings, name="bench")
    figures |= {"build": asdict(clock), "built": peak_bytes()}
    print(json.dumps(figures))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all cases, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    parser.add_argument("--alone", nargs=2, metavar=("FOLDER", "EXAMPLES"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.alone:
        run_alone(Path(options.alone[0]), int(options.alone[1]))
        return
    where, rows = environment(), []
    print(f"{describe(where)}\ntexts of {TOKENS} tokens, {GROUPS} providers, a tiny model")
    table = Table(
        "examples", "tokenised, bytes each", "CPU s", "kept and opened, CPU s", "on disk, bytes each",
        "built, bytes each", "CPU s", "peak MB (before)",
    )  # fmt: skip
    for count in QUICK if options.quick else CASES:
        with tempfile.TemporaryDirectory() as name:
            save_model(MODELS["gpt2-tiny"], Path(name) / "model")
            figures = alone("benchmarks.build_memory", name, str(count))
        rows.append(figures)
        each = [f"{(figures[step] - figures['before']) / count:,.0f}" for step in ("tokenised", "built")]
        cpu = [f"{figures[step]['cpu']:.1f}" for step in ("tokenise", "build")]
        peak = f"{figures['built'] / 1e6:,.0f} ({figures['before'] / 1e6:,.0f})"
        kept = [f"{figures['open']['cpu']:.2f}", f"{figures['kept_bytes'] / count:,.0f}"]
        table.row(f"{count:,}", each[0], cpu[0], *kept, each[1], cpu[1], peak)
    if options.save:
        print(save_results("build-memory", {"rows": rows}, where))


if __name__ == "__main__":
    main()
