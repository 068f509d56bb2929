"""How fast an index is built, against the floor that no method of its kind can beat.

The floor is the forward pass and the activation-only backward pass of the same loss on the same batches, with frozen
weights, down to the output of the lowest watched layer: no projection, no gradients of weights, no sums. Batches
alternate between floor and index in one process, so that what else the machine does strikes both. CPU seconds are
the measure on a shared machine; wall seconds are given beside them.

    python -m benchmarks.index_speed [--quick] [--only gpt2|smollm2] [--rank 16|64] [--repeats N] [--profile]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from credit.valuation.batching import make_batch
from credit.valuation.build import example_gradients
from credit.valuation.curvature import make_statistic
from credit.valuation.gradients import GradientTap
from credit.valuation.layers import choose_layers
from credit.valuation.model import LanguageModel
from credit.valuation.projection import random_projections
from credit.valuation.tokens import Example
from tests.smollm2 import cached_smollm2

LENGTH = 256
"""Tokens of an example."""


@dataclass(frozen=True)
class Shape:
    """A model to measure, the rank to measure it at, and the work of one repeat."""

    name: str
    make: Callable[[], nn.Module]
    rank: int
    batches: int
    examples_per_batch: int
    rows: int = 32


@dataclass
class Clock:
    """CPU and wall seconds of one repeat."""

    cpu: float = 0.0
    wall: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time that the block takes."""
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.cpu += time.process_time() - cpu
        self.wall += time.perf_counter() - wall


@dataclass
class Result:
    """Repeats of floor and index over the same tokens."""

    tokens: int
    floor: list[Clock] = field(default_factory=list)
    index: list[Clock] = field(default_factory=list)

    def row(self, shape: Shape) -> str:
        """A line of the table."""
        speed = {
            side: [
                statistics.median(self.tokens / getattr(clock, unit) for clock in clocks) for unit in ("cpu", "wall")
            ]
            for side, clocks in (("floor", self.floor), ("index", self.index))
        }
        ratio = {
            unit: statistics.median(
                getattr(f, unit) / getattr(i, unit) for f, i in zip(self.floor, self.index, strict=True)
            )
            for unit in ("cpu", "wall")
        }
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        cells = [*(f"{speed[side][0]:,.0f} ({speed[side][1]:,.0f})" for side in ("floor", "index"))]
        cells += [f"{ratio['cpu']:.3f}", f"{ratio['wall']:.3f}", f"{peak:.2f}"]
        return f"| {shape.name} | {shape.rank} | " + " | ".join(cells) + " |"


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_layer=6, n_embd=384, n_head=6, vocab_size=50257, n_positions=LENGTH))


def smollm2() -> nn.Module:
    folder = cached_smollm2()
    if folder is not None:
        model: nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return model
    print("SmolLM2 is not in the cache: random weights of its shape")
    shape = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=8192, tie_word_embeddings=True, rope_theta=100000.0,
    )  # fmt: skip
    return LlamaForCausalLM(shape)


_GPT2 = "GPT-2, 6 layers, d=384, vocabulary 50257"
SHAPES = (
    Shape(_GPT2, gpt2, rank=16, batches=4, examples_per_batch=16),
    Shape(_GPT2, gpt2, rank=64, batches=16, examples_per_batch=16),  # 256 examples: one product of the dense Fisher
    Shape("SmolLM2-135M", smollm2, rank=16, batches=4, examples_per_batch=8),
)


@contextmanager
def floor_mode(model: nn.Module, watched: dict[str, nn.Module]) -> Iterator[None]:
    """Frozen weights; the graph begins at the outputs of the watched layers that nothing watched lies below."""

    def begin(_module: nn.Module, args: tuple[Any, ...], y: Tensor) -> Tensor | None:
        return None if args[0].requires_grad else y.detach().requires_grad_()

    model.eval().requires_grad_(False)
    handles = [module.register_forward_hook(begin) for module in watched.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def measure(shape: Shape, repeats: int, profile: bool) -> Result:
    """Alternate batches between floor and index."""
    model = LanguageModel(Path(shape.name), shape.make(), None, "", "")
    layers = choose_layers(model.module, lm_head=False)
    watched = dict(layers.watched)
    projections = random_projections(layers.shapes, rank=shape.rank, seed=0)
    sums: dict[str, Tensor] = {}
    fisher = make_statistic("fisher")
    rng = np.random.default_rng(0)
    vocabulary = int(model.module.config.vocab_size)

    def run_floor(examples: list[Example]) -> None:
        with floor_mode(model.module, watched):
            model.loss(make_batch(examples)).backward()

    def run_index(examples: list[Example]) -> None:
        """What a build does with a batch."""
        with GradientTap(model.module, watched, projections) as tap:
            gradients = example_gradients(model, tap, examples)
        target = torch.from_numpy(rng.integers(0, shape.rows, len(examples)))
        for name, rows in gradients.items():
            if name not in sums:
                sums[name] = rows.new_zeros(shape.rows, rows.shape[1])
            sums[name].index_add_(0, target, rows)
        fisher.add(gradients)

    def batch() -> list[Example]:
        tokens = rng.integers(0, vocabulary, (shape.examples_per_batch, LENGTH), dtype=np.int32)
        return [Example(str(number), row, 1) for number, row in enumerate(tokens)]

    warm = batch()
    run_floor(warm)
    run_index(warm)
    fisher.sums()
    result = Result(shape.batches * shape.examples_per_batch * LENGTH)
    for _ in range(repeats):
        floor, index = Clock(), Clock()
        for number in range(shape.batches):
            examples = batch()
            for side in (0, 1) if number % 2 else (1, 0):
                with (floor, index)[side].running():
                    (run_floor, run_index)[side](examples)
        with index.running():
            fisher.sums()
        result.floor.append(floor)
        result.index.append(index)
    if profile:
        with torch.profiler.profile(record_shapes=True) as seen:
            for _ in range(4):
                run_index(batch())
            fisher.sums()
        print(seen.key_averages(group_by_input_shape=True).table(sort_by="self_cpu_time_total", row_limit=25))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one repeat of a few batches: a smoke test, not a number")
    parser.add_argument("--only", choices=("gpt2", "smollm2"))
    parser.add_argument("--rank", type=int, choices=(16, 64))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="threads waiting for each other count as CPU time")
    parser.add_argument("--profile", action="store_true", help="also print where the index's time goes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, float32, CPU, ", end="")
    print(f"{options.threads} of {os.cpu_count()} cores, sequences of {LENGTH} tokens")
    print("| model | rank | floor, tokens per CPU s (wall) | index, tokens per CPU s (wall) | ratio CPU | wall | GiB |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for chosen in SHAPES:
        if (options.only and chosen.make.__name__ != options.only) or options.rank not in {None, chosen.rank}:
            continue
        shape = replace(chosen, batches=2, examples_per_batch=4) if options.quick else chosen
        result = measure(shape, 1 if options.quick else options.repeats, options.profile)
        print(result.row(shape), flush=True)


if __name__ == "__main__":
    main()
