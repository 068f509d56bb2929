"""Speed and memory of building an index, against the floor of every method of its kind.

The floor is the forward pass and the activation-only backward pass of the same loss on the same batches, with frozen
weights, down to the output of the lowest watched layer: no projection, no gradients of weights, no sums. Batches
alternate between the floor and every kind of index in one process, so that other load on the machine hits all alike.
CPU seconds are the measure on a shared machine, wall seconds on a GPU. Peak memory is that of processes of their own.

    python -m benchmarks.index_speed                                  # the table of the GPT-2 shape
    python -m benchmarks.index_speed --model smollm2 --curvature fisher --rank 16
    python -m benchmarks.index_speed --quick                          # does it run? not a number
    python -m benchmarks.index_speed --device cuda --model llama-1b --dtype bf16 --length 2048

Model FLOP utilisation counts what the floor computes and nothing else: for each token 2 FLOPs for every weight of a
linear layer, the output head among them, in the forward pass and as many in the backward pass (gradients of
activations, none of weights), and for each layer's attention 4·T·d forward and 8·T·d backward, T being the sequence
length and d the width of all heads together, as if every token saw all others. An index of the head alone has no
backward pass, and none is counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.measure import Clock, Table, alone, describe, environment, floor_mode, median, peak_bytes, save_results
from benchmarks.models import HIDDEN, MODELS, make_model
from credit.valuation.batches import gradient_batches, make_batch
from credit.valuation.curvature import BLOCK_ROWS, make_statistic
from credit.valuation.gradients import RowSums
from credit.valuation.hooks import GradientTap
from credit.valuation.language_model import DTYPES, LanguageModel
from credit.valuation.layers import LayerChoice, choose_layers
from credit.valuation.manifest import IndexSettings
from credit.valuation.moments import fit_projections, second_moments
from credit.valuation.projection import LayerProjection
from credit.valuation.requirements import moment_bytes
from credit.valuation.rows import RowShares
from credit.valuation.tokens import Window, cut_window

ROWS = 32
"""Rows of the index."""

DEFAULT_LENGTH = 256
FLOOR = "floor"
CURVATURES = ("head", "fisher", "ekfac")


@dataclass(frozen=True)
class Kind:
    """A kind of index; `head` is the default, the head alone.

    All others watch every layer but the head, as other libraries do. `example_length` None cuts no window.
    """

    rank: int
    curvature: str
    example_length: int | None = 256

    @property
    def settings(self) -> IndexSettings:
        """Settings of the index."""
        if self.curvature == "head":
            return IndexSettings(rank=self.rank, example_length=self.example_length)
        return IndexSettings(
            rank=self.rank, projection="random", curvature=self.curvature, damping=0.1, layers=HIDDEN,
            example_length=self.example_length,
        )  # fmt: skip

    def __str__(self) -> str:
        cut = "" if self.example_length == 256 else f" in examples of {self.example_length or 'any length'}"
        return f"{self.curvature} r{self.rank}{cut}"


@dataclass(frozen=True)
class Work:
    """Model, device and batches of one repeat."""

    model: str
    device: str
    dtype: str
    length: int
    examples_per_batch: int
    batches: int

    @property
    def tokens_per_batch(self) -> int:
        """Tokens of a batch."""
        return self.examples_per_batch * self.length

    @property
    def tokens(self) -> int:
        """Tokens of a repeat."""
        return self.batches * self.tokens_per_batch

    @property
    def on_gpu(self) -> bool:
        """True on a GPU."""
        return self.device.startswith("cuda")


class Bench:
    """A model, its batches, and the floor."""

    def __init__(self, work: Work) -> None:
        self.work = work
        weights = _smollm2_weights() if work.model == "smollm2" else None
        self.random_weights = weights is None
        module = make_model(MODELS[work.model], work.device, DTYPES[work.dtype], weights)
        self.model = LanguageModel(Path(work.model), module, None, "", "")
        self.layers: LayerChoice = choose_layers(module, HIDDEN)
        self.rng = np.random.default_rng(0)

    def windows(self, batches: int = 1) -> list[Window]:
        """Return windows of random tokens: their content changes no step of the work."""
        size = (batches * self.work.examples_per_batch, self.work.length)
        tokens = self.rng.integers(0, int(self.model.module.config.vocab_size), size, dtype=np.int32)
        return [Window(f"{self.rng.integers(2**62)}", row, 1) for row in tokens]

    def floor(self, windows: list[Window]) -> None:
        """Run forward and activation-only backward passes over windows, batch by batch."""
        size = self.work.examples_per_batch
        with floor_mode(self.model.module, self.layers.watched):
            for low in range(0, len(windows), size):
                self.model.loss(make_batch(windows[low : low + size]).to(self.model.device)).backward()

    def moments(self, windows: list[Window]) -> None:
        """Make the extra pass over a sample for PCA and EK-FAC."""
        second_moments(self.model, self.layers, windows, tokens_per_batch=self.work.tokens_per_batch)

    def projections(self, kind: Kind) -> dict[str, LayerProjection]:
        """Return the projections of an index, fitted to one batch if at all: their values change no cost."""
        layers = choose_layers(self.model.module, kind.settings.layers)
        if not kind.settings.fits_projections:
            return fit_projections(layers, kind.settings)
        sums = second_moments(self.model, layers, self.windows(), tokens_per_batch=10**9)
        return fit_projections(layers, kind.settings, sums.means())


class IndexWork:
    """Work of a build on its batches, without writing shards."""

    def __init__(self, bench: Bench, kind: Kind) -> None:
        self.bench, self.kind = bench, kind
        self.layers = choose_layers(bench.model.module, kind.settings.layers)
        self.tap = GradientTap(bench.model.module, self.layers.watched, bench.projections(kind))
        self.statistic = make_statistic(kind.settings.curvature)
        self.sums = RowSums(ROWS)

    def __call__(self, windows: list[Window]) -> None:
        """Add windows, cut into examples and batches as a build cuts them."""
        model, length = self.bench.model, self.kind.settings.example_length
        examples = windows if length is None else [part for window in windows for part in cut_window(window, length)]
        with self.tap as tap:
            for of, gradients in gradient_batches(model, tap, examples, self.bench.work.tokens_per_batch):
                row = self.bench.rng.integers(0, ROWS, len(of))
                self.sums.add(gradients, RowShares.whole(row).on(model.device, len(of)))
                self.statistic.add(gradients)

    def state_bytes(self) -> int:
        """Return the bytes of a build's state: the curvature's sums, or the second moments that precede them.

        Second moments are the Kronecker factors of EK-FAC, and the data of fitted projections.
        """
        sums = sum(tensor.nbytes for tensor in self.statistic.sums().values())
        if not self.kind.settings.fits_projections:
            return sums
        return max(sums, moment_bytes(self.layers.shapes))


def _smollm2_weights() -> Path | None:
    try:
        from tests.smollm2 import smollm2

        return smollm2()
    except (ImportError, RuntimeError) as error:
        print(f"SmolLM2's weights cannot be had ({error}): random weights of its shape")
        return None


def measure(bench: Bench, kinds: list[Kind], repeats: int) -> dict[str, list[Clock]]:
    """Return the clocks of each repeat of the floor and of every kind of index, batches alternating between them.

    On a GPU, repeats alternate instead: a clock waits for the GPU to stop, and a build does not wait after every batch.
    """
    sides: dict[str, Callable[[list[Window]], None]] = {FLOOR: bench.floor}
    indexes = {str(kind): IndexWork(bench, kind) for kind in kinds}
    sides |= indexes
    if any(kind.curvature == "ekfac" for kind in kinds):
        sides["moments"] = bench.moments
    warm = bench.windows()
    for run in sides.values():
        run(warm)
    batches, at_once = bench.work.batches, bench.work.batches if bench.work.on_gpu else 1
    for index in indexes.values():
        index.statistic.sums()
    clocks: dict[str, list[Clock]] = {name: [] for name in sides}
    for _ in range(repeats):
        repeat = {name: Clock() for name in sides}
        for number in range(0, batches, at_once):
            windows = bench.windows(at_once)
            order = list(sides)
            for name in order[number % len(order) :] + order[: number % len(order)]:
                with repeat[name].running():
                    sides[name](windows)
        for name, index in indexes.items():
            with repeat[name].running():
                index.statistic.flush()
        for name, clock in repeat.items():
            clocks[name].append(clock)
    return clocks


def useful_flops(module: nn.Module, length: int, *, backward: bool) -> float:
    """Return the FLOPs of the floor for one token, or of its forward pass alone, counted as said above."""
    config = module.config
    linear = sum(layer.weight.numel() for layer in choose_layers(module, ("*",)).watched.values())
    heads = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = 4.0 * length * heads * config.num_attention_heads * config.num_hidden_layers
    return 4.0 * linear + 3 * attention if backward else 2.0 * linear + attention


def peak_of(work: Work, kind: Kind | None) -> dict[str, float]:
    """Return the peak memory of an index, or of the floor (None), measured in a process of its own."""
    task = json.dumps({"work": asdict(work), "kind": kind and asdict(kind)})
    return alone("benchmarks.index_speed", task)


def run_alone(work: Work, kind: Kind | None) -> None:
    """Measure one side in this process; print its peak memory and the bytes of the curvature's state."""
    bench = Bench(work)
    run: Callable[[list[Window]], None] = bench.floor if kind is None else IndexWork(bench, kind)
    run(bench.windows())
    # The curvature's sums come into being with the first block of examples; later passes run beside them.
    state = run.state_bytes() if isinstance(run, IndexWork) else 0
    run(bench.windows(max(2, BLOCK_ROWS * 256 // work.tokens_per_batch) if work.on_gpu else 1))
    peak = torch.cuda.max_memory_allocated() if work.on_gpu else peak_bytes()
    print(json.dumps({"peak": peak, "state": state}))


def report(
    bench: Bench, clocks: dict[str, list[Clock]], peaks: dict[str, dict[str, float]], peak_tflops: float
) -> list[dict[str, Any]]:
    """Print and return the rows of the table. Ratios are medians over repeats of ratios within a repeat."""
    work, floor = bench.work, clocks[FLOOR]
    print(f"{MODELS[work.model].title}, {work.dtype}, batches of {work.examples_per_batch} x {work.length}, ", end="")
    print(f"{len(floor)} repeats of {work.tokens:,} tokens" + (", random weights" if bench.random_weights else ""))
    table = Table(
        "index", "floor, tokens/CPU s (wall s)", "index, tokens/CPU s (wall s)", "of floor: CPU (range)", "wall", "MFU",
        "peak GiB", "of floor's + state",
    )  # fmt: skip
    rows = []
    for name, taken in clocks.items():
        if name == FLOOR:
            continue
        row: dict[str, Any] = {"index": name, "mfu": None, "memory_ratio": None}
        for unit in ("cpu", "wall"):
            ratios = [getattr(f, unit) / getattr(t, unit) for f, t in zip(floor, taken, strict=True)]
            row |= {f"of_floor_{unit}": statistics.median(ratios), f"of_floor_{unit}_all": ratios}
            row[f"floor_tokens_per_{unit}_s"] = work.tokens / getattr(median(floor), unit)
            row[f"tokens_per_{unit}_s"] = work.tokens / getattr(median(taken), unit)
        if peak_tflops:
            flops = useful_flops(bench.model.module, work.length, backward=not name.startswith("head"))
            row["mfu"] = flops * row["tokens_per_wall_s"] / (peak_tflops * 1e12)
        if name in peaks:
            peak, state, floor_peak = peaks[name]["peak"], peaks[name]["state"], peaks[FLOOR]["peak"]
            row |= {"peak_bytes": peak, "state_bytes": state, "floor_peak_bytes": floor_peak}
            row["memory_ratio"] = peak / (floor_peak + state)
        rows.append(row)
        table.row(*cells(row))
    return rows


def cells(row: dict[str, Any]) -> list[str]:
    """A row of the printed table."""
    speeds = [f"{row[f'{s}_per_cpu_s']:,.0f} ({row[f'{s}_per_wall_s']:,.0f})" for s in ("floor_tokens", "tokens")]
    spread = row["of_floor_cpu_all"]
    ratio = f"{row['of_floor_cpu']:.3f} ({min(spread):.3f} to {max(spread):.3f})"
    mfu = "n/a" if row["mfu"] is None else f"{row['mfu']:.3f}"
    memory = ["n/a", "n/a"]
    if row["memory_ratio"] is not None:
        memory = [f"{row['peak_bytes'] / 2**30:.2f}", f"{row['memory_ratio']:.2f}"]
    return [row["index"], *speeds, ratio, f"{row['of_floor_wall']:.3f}", mfu, *memory]


def profile(bench: Bench, kind: Kind) -> None:
    """Print where the time of an index goes: on a GPU by its kernels, beside those of the floor."""
    on_gpu = bench.work.on_gpu
    index = IndexWork(bench, kind)
    sides: dict[str, Callable[[list[Window]], None]] = ({FLOOR: bench.floor} if on_gpu else {}) | {str(kind): index}
    for name, run in sides.items():
        run(bench.windows())
        with torch.profiler.profile(record_shapes=not on_gpu) as seen:
            run(bench.windows(bench.work.batches))
            if run is index:
                index.statistic.flush()
        by = "self_device_time_total" if on_gpu else "self_cpu_time_total"
        shown = seen.key_averages(group_by_input_shape=not on_gpu)
        print(name, shown.table(sort_by=by, row_limit=25, max_name_column_width=70), sep="\n")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=tuple(MODELS), default="gpt2")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32")
    parser.add_argument("--rank", type=int, action="append", help="may be repeated; default 16 and 64")
    parser.add_argument("--curvature", choices=CURVATURES, action="append", help="default: all")
    parser.add_argument("--length", type=int, default=DEFAULT_LENGTH, help="tokens of a window")
    parser.add_argument(
        "--example-length", type=int, action="append",
        help="predicted tokens of an example at most, 0 cuts no window; may be repeated; default 256",
    )  # fmt: skip
    parser.add_argument("--tokens-per-batch", type=int, default=4096)
    parser.add_argument("--batches", type=int, default=16, help="of one repeat; 16 make one block of the dense Fisher")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="threads that wait for each other count as CPU time")
    parser.add_argument("--peak-tflops", type=float, default=0.0, help="of the device in this dtype, for MFU: H100 989")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/ (always, on a GPU)")
    parser.add_argument("--quick", action="store_true", help="a tiny model, one repeat: a smoke test, not a number")
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory, which takes processes")
    parser.add_argument("--profile", action="store_true", help="print where the time goes instead")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.quick:
        options.model, options.batches, options.repeats = "gpt2-tiny", 2, 1
        options.length, options.tokens_per_batch, options.rank = 32, 128, options.rank or [8]
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    if options.alone:
        task = json.loads(options.alone)
        run_alone(Work(**task["work"]), task["kind"] and Kind(**task["kind"]))
        return
    work = Work(
        options.model, options.device, options.dtype, options.length,
        max(1, options.tokens_per_batch // options.length), options.batches,
    )  # fmt: skip
    lengths = [length or None for length in options.example_length or [256]]
    kinds = [Kind(*of) for of in product(options.rank or [16, 64], options.curvature or CURVATURES, lengths)]
    where = environment(options.device)
    print(describe(where), flush=True)
    if options.profile:
        bench = Bench(work)
        for kind in kinds:
            profile(bench, kind)
        return
    # Before this process takes memory itself, which on a GPU the others would lack.
    peaks = {} if options.no_memory else {str(kind or FLOOR): peak_of(work, kind) for kind in (None, *kinds)}
    bench = Bench(work)
    rows = report(bench, measure(bench, kinds, options.repeats), peaks, options.peak_tflops)
    where["load"] = f"{where['load']} before, {environment()['load']} after"
    if options.save or options.device.startswith("cuda"):
        length = "" if work.length == DEFAULT_LENGTH else f"-{work.length}"
        print(save_results(f"index-speed-{options.model}{length}", {"work": asdict(work), "rows": rows}, where))


if __name__ == "__main__":
    main()
