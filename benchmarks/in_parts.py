"""Memory and time of a batch's gradients where a model's weights are on disk, against the whole model in memory.

A random Llama of 1.3 GB in float32 (24 layers, d=1024), saved in bf16, one batch of 2 x 128 tokens, each case in a
process of its own. The peak is that of anonymous memory while the batch runs, sampled: pages of the model's files that
the system caches do not count. "kept by autograd" is the same without `OffloadedWeights`.

    python -m benchmarks.in_parts
    python -m benchmarks.in_parts --quick       # does it run? not a number
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from credit.valuation import load_model
from credit.valuation.batches import make_batch
from credit.valuation.hooks import GradientTap
from credit.valuation.layers import choose_layers
from credit.valuation.placement import OffloadedWeights
from credit.valuation.projection import random_projections
from credit.valuation.tokens import Window
from tests.models import tiny_tokenizer

CASES = (
    ("the head", "in memory"),
    ("the head", "on disk"),
    ("all layers", "in memory"),
    ("all layers", "on disk, kept by autograd"),
    ("all layers", "on disk"),
)


def save(folder: Path, *, quick: bool) -> None:
    """Save a random Llama."""
    torch.manual_seed(0)
    width, layers = (32, 2) if quick else (1024, 24)
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=8,
    )
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


def anonymous_bytes() -> int:
    """Return the process's memory that no file stands behind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def run(folder: Path, watched: str, place: str) -> None:
    """Run one case and print its figures as JSON."""
    torch.set_num_threads(1)
    if "kept" in place:
        OffloadedWeights.saving = lambda _self: nullcontext()  # type: ignore[method-assign]
    model = load_model(folder, dtype="fp32", device="cpu" if place == "in memory" else '{"": "disk"}')
    layers = choose_layers(model.module, () if watched == "the head" else ("*",))
    torch.manual_seed(1)
    windows = [Window(str(i), torch.randint(300, (128,)).numpy().astype("int32"), 1) for i in range(2)]
    batch = make_batch(windows)
    peak, done = [0], threading.Event()

    def sample() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], anonymous_bytes())

    with GradientTap(model.module, layers.watched, random_projections(layers.shapes, rank=16, seed=0)) as tap:
        before, cpu, wall = anonymous_bytes(), time.process_time(), time.perf_counter()
        thread = threading.Thread(target=sample)
        thread.start()
        total = sum(float(rows.double().sum()) for rows in tap.collect(lambda: model.loss(batch), 2).values())
        done.set()
        thread.join()
    figures = {"peak": peak[0], "before": before, "cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    print(json.dumps(figures | {"sum": total}))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--case", nargs=3, metavar=("FOLDER", "WATCHED", "PLACE"), help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.case:
        run(Path(chosen.case[0]), *chosen.case[1:])
        return
    with tempfile.TemporaryDirectory() as place:
        save(Path(place), quick=chosen.quick)
        print("| watched | weights | peak memory | CPU s | sum of the gradients |\n|---|---|---|---|---|")
        for case in CASES:
            line = [sys.executable, "-m", "benchmarks.in_parts", "--case", place, *case]
            done = subprocess.run(line, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            peak = f"{found['peak'] / 2**20:.0f} MiB"
            print(f"| {case[0]} | {case[1]} | {peak} | {found['cpu']:.1f} | {found['sum']!r} |")


if __name__ == "__main__":
    main()
