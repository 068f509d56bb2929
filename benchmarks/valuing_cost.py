"""Cost of valuing outputs: against the floor, the training set's size, the number of groups, and a scan.

    python -m benchmarks.valuing_cost            # a few minutes, 3 GB of disk
    python -m benchmarks.valuing_cost --quick    # a tiny model and small stores: does it run? not a number

The floor is the forward and activation-only backward pass over the outputs. The product is what comes after the
outputs' gradients: reading the rows from disk and multiplying. Indexes hold random rows, see `synthetic`; a scan is
the same code on an index whose rows are single examples. Files were just written, so they come from the page cache.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import Clock, Table, describe, environment, floor_mode, folder_bytes, median, save_results
from benchmarks.models import HIDDEN, MODELS, save_model, words
from benchmarks.synthetic import write_index
from credit.records import LoggedOutput
from credit.valuation import AttributionIndex, LanguageModel, load_model
from credit.valuation.batches import make_batch, plan_batches
from credit.valuation.layers import choose_layers
from credit.valuation.tokens import Encoder


@dataclass(frozen=True)
class Sizes:
    """Measured model, outputs and index. A group has 32 rows."""

    model: str = "gpt2"
    rank: int = 16
    outputs: int = 32
    length: int = 256
    groups: int = 25
    examples: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    groups_measured: tuple[int, ...] = (10, 100, 1_000)
    scanned: tuple[int, ...] = (1_000, 10_000, 100_000)
    repeats: int = 3


QUICK = Sizes("gpt2-tiny", 4, 8, 32, 2, (100, 1_000), (2, 4), (100, 200), 1)
ROWS = 32


class _Valued(AttributionIndex):
    """Index with its outputs' gradients at hand: only the product is left."""

    ready: dict[str, Tensor]

    def preconditioned(self, *_args: Any, **_options: Any) -> dict[str, Tensor]:
        return self.ready


class Bench:
    """A model, logged outputs, their gradients, and indexes as they are wanted."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self.folder, self.sizes = folder, sizes
        vocabulary = save_model(MODELS[sizes.model], folder / "model")
        self.model: LanguageModel = load_model(folder / "model", dtype="fp32", device="cpu")
        tokens = np.random.default_rng(0).integers(0, vocabulary, (sizes.outputs, sizes.length))
        self.outputs = [
            LoggedOutput("bench", str(number), datetime(2026, 1, 1, tzinfo=UTC), "bench", words(row))
            for number, row in enumerate(tokens)
        ]
        self.ready: dict[str, Tensor] = {}

    def index(self, groups: int, rows: int, examples: int) -> Path:
        """An index of so many groups, rows in each and examples in all, written when it is first wanted."""
        path = self.folder / f"index-{groups}-{rows}-{examples}"
        if not path.exists():
            write_index(
                path, self.model, rank=self.sizes.rank, groups=groups, rows=rows, examples=examples, curvature="fisher"
            )
        return path

    def floor(self) -> None:
        """Forward and activation-only backward passes over the outputs."""
        encoder = Encoder(self.model.tokenizer, self.model.max_length)
        examples = [example for output in self.outputs for example in encoder.output(output)]
        with floor_mode(self.model.module, choose_layers(self.model.module, HIDDEN).watched):
            for positions in plan_batches([len(example.tokens) for example in examples], 4096):
                self.model.loss(make_batch([examples[p] for p in positions])).backward()

    def product(self, path: Path) -> Callable[[], Tensor]:
        """Return the cost of valuing outputs with their gradients at hand."""
        index = _Valued.open(path)
        if not self.ready:
            self.ready = AttributionIndex.open(path).preconditioned(self.model, self.outputs)
        index.ready = self.ready
        return lambda: index.row_influence(self.model, self.outputs)


def timed(work: Callable[[], Any], repeats: int) -> Clock:
    """Return the median of some repeats, after an uncounted one."""
    work()
    clocks = []
    for _ in range(repeats):
        clock = Clock()
        with clock.running():
            work()
        clocks.append(clock)
    return median(clocks)


def against_floor(bench: Bench) -> dict[str, Any]:
    """Tokens a second of `AttributionIndex.value`, and of the floor over the same outputs, in turn."""
    sizes = bench.sizes
    index = AttributionIndex.open(bench.index(sizes.groups, ROWS, sizes.examples[-1]))
    sides = {"floor": bench.floor, "value": lambda: index.value(bench.model, bench.outputs)}
    clocks: dict[str, list[Clock]] = {"floor": [], "value": []}
    for _ in range(sizes.repeats + 1):
        for name, work in sides.items():
            clock = Clock()
            with clock.running():
                work()
            clocks[name].append(clock)
    floor, value = (median(clocks[name][1:]) for name in sides)
    tokens = sizes.outputs * sizes.length
    figures = {
        "tokens": tokens, "floor_tokens_per_cpu_s": tokens / floor.cpu, "value_tokens_per_cpu_s": tokens / value.cpu,
        "value_tokens_per_wall_s": tokens / value.wall, "of_floor": floor.cpu / value.cpu,
    }  # fmt: skip
    print(f"{sizes.outputs} outputs of {sizes.length} tokens, {sizes.groups} groups of {ROWS} rows, dense Fisher")
    table = Table("floor, tokens/CPU s", "value, tokens/CPU s (wall s)", "of floor")
    speeds = [
        figures[f"{name}_s"] for name in ("floor_tokens_per_cpu", "value_tokens_per_cpu", "value_tokens_per_wall")
    ]
    table.row(f"{speeds[0]:,.0f}", f"{speeds[1]:,.0f} ({speeds[2]:,.0f})", f"{figures['of_floor']:.2f}")
    return figures


def against_examples(bench: Bench) -> list[dict[str, Any]]:
    """The product at fixed groups and rows, for more and more training examples."""
    sizes, found = bench.sizes, []
    print(f"\n{sizes.groups} groups of {ROWS} rows")
    table = Table("training examples", "product, CPU ms an output")
    for examples in sizes.examples:
        spent = timed(bench.product(bench.index(sizes.groups, ROWS, examples)), sizes.repeats)
        found.append({"examples": examples, "product_cpu_ms": 1e3 * spent.cpu / sizes.outputs})
        table.row(f"{examples:,}", f"{found[-1]['product_cpu_ms']:.3f}")
    return found


def against_groups(bench: Bench) -> list[dict[str, Any]]:
    """The product for more and more groups, beside one bare matrix product a layer over rows in memory."""
    sizes, found = bench.sizes, []
    print()
    table = Table("groups", "rows", "product, CPU ms an output", "bare matrix products", "ratio")
    for groups in sizes.groups_measured:
        rows = groups * ROWS
        spent = timed(bench.product(bench.index(groups, ROWS, rows)), sizes.repeats)
        held = {name: torch.randn(rows, ready.shape[1]) for name, ready in bench.ready.items()}
        bare = timed(lambda held=held: [bench.ready[name] @ held[name].mT for name in held], sizes.repeats)
        per_output = [1e3 * clock.cpu / sizes.outputs for clock in (spent, bare)]
        found.append({"groups": groups, "product_cpu_ms": per_output[0], "bare_cpu_ms": per_output[1]})
        table.row(f"{groups:,}", f"{rows:,}", *(f"{ms:.3f}" for ms in per_output), f"{spent.cpu / bare.cpu:.2f}")
    return found


def against_scan(bench: Bench) -> list[dict[str, Any]]:
    """The same data as an index of folded rows and as one with a row for every example."""
    sizes, found = bench.sizes, []
    folded_path = bench.index(sizes.groups, ROWS, sizes.examples[-1])
    folded, folded_bytes = timed(bench.product(folded_path), sizes.repeats), folder_bytes(folded_path)
    print(f"\nfolded, any number of examples: {1e3 * folded.cpu / sizes.outputs:.3f} CPU ms an output, ", end="")
    print(f"{folded_bytes / 1e6:,.1f} MB (of which the listing of {sizes.examples[-1]:,} examples is most)")
    table = Table("training examples", "scan, CPU ms an output", "stored MB", "scan / folded")
    for examples in sizes.scanned:
        path = bench.index(1, examples, examples)
        spent = timed(bench.product(path), sizes.repeats)
        figures = {
            "examples": examples, "scan_cpu_ms": 1e3 * spent.cpu / sizes.outputs, "stored_bytes": folder_bytes(path),
            "ratio": spent.cpu / folded.cpu,
        }  # fmt: skip
        found.append(figures)
        cells = (f"{figures['scan_cpu_ms']:.2f}", f"{figures['stored_bytes'] / 1e6:,.0f}", f"{figures['ratio']:.1f}")
        table.row(f"{examples:,}", *cells)
    each = (found[-1]["scan_cpu_ms"] - found[0]["scan_cpu_ms"]) / (sizes.scanned[-1] - sizes.scanned[0])
    million = 1e6 * each * sizes.outputs / (1e3 * folded.cpu)
    print(f"extrapolated, not measured: at 1,000,000 examples a scan costs {million:,.0f} times the folded product")
    return [*found, {"extrapolated_ratio_at_a_million": million}]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    sizes = QUICK if options.quick else Sizes()
    where = environment()
    print(f"{describe(where)}\n{MODELS[sizes.model].title}, rank {sizes.rank}, fp32 rows", flush=True)
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), sizes)
        body = {
            "against_floor": against_floor(bench),
            "against_examples": against_examples(bench),
            "against_groups": against_groups(bench),
            "against_scan": against_scan(bench),
        }
    if options.save:
        print(save_results("valuing-cost", body, where))


if __name__ == "__main__":
    main()
