"""One system at work on a task, in a process of its own: prints what it took, as JSON, and leaves its scores.

    python -m benchmarks.rivals.run SYSTEM --task DIR --rank 16 --curvature none --repeats 3

`floor` is a system too: the floor alone, for its memory.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import Clock, floor_mode, folder_bytes, next_token_loss, peak_bytes
from benchmarks.rivals.task import System, Task, batches, watched_layers

SYSTEMS = {
    "credit": ("benchmarks.rivals.ours", "Ours"),
    "bergson": ("benchmarks.rivals.with_bergson", "Bergson"),
    "bergson-frozen": ("benchmarks.rivals.with_bergson", "BergsonFrozen"),
    "dattri-llm": ("benchmarks.rivals.with_dattri", "Dattri"),
    "logix": ("benchmarks.rivals.with_logix", "Logix"),
    "kronfluence": ("benchmarks.rivals.with_kronfluence", "Kronfluence"),
}


class Floor:
    """Forward and activation-only backward passes over the training sequences."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.model = task.load()
        self.watched = watched_layers(self.model)

    def __call__(self) -> None:
        """Go through all training sequences."""
        with floor_mode(self.model, self.watched):
            for batch in batches(self.task.train, self.task.batch):
                next_token_loss(self.model, batch).backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=("floor", *SYSTEMS))
    parser.add_argument("--task", type=Path, required=True)
    parser.add_argument("--rank", type=int)
    parser.add_argument("--curvature", choices=("none", "fisher", "ekfac"), default="none")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scan", type=int, action="append", default=[], help="also search stores of so many examples")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = Task(options.task, options.rank, options.curvature, options.batch)
    floor = Floor(task)
    floor()
    if options.system == "floor":
        print(json.dumps({"peak": peak_bytes()}))
        return
    module, name = SYSTEMS[options.system]
    system: Any = getattr(importlib.import_module(module), name)(task)
    result = measure(system, floor, task, options.system, options.repeats)
    store = task.folder / f"store-{options.system}-{task.rank}-{task.curvature}"
    result["scans"] = []
    for examples in options.scan:
        opening, searching = system.scan(store, examples)
        result["scans"].append({"examples": examples, "open": asdict(opening), "search": asdict(searching)})
    print(json.dumps(result))


def measure(system: System, floor: Floor, task: Task, name: str, repeats: int) -> dict[str, Any]:
    """Alternate between the floor and building; then open once, and value twice: the second time is warm."""
    times: dict[str, list[Clock]] = {"floor": [], "build": [], "after": [], "open": [], "value": []}
    store = task.folder / f"store-{name}-{task.rank}-{task.curvature}"
    for repeat in range(repeats):
        clock = Clock()
        with clock.running():
            floor()
        times["floor"].append(clock)
        shutil.rmtree(store, ignore_errors=True)
        clock = Clock()
        with clock.running():
            after = system.build(store)
        times["after"].append(after)
        times["build"].append(clock)
        print(f"{name}: repeat {repeat + 1} of {repeats}", flush=True)
    stored = folder_bytes(store)
    built_peak = peak_bytes()
    clock = Clock()
    with clock.running():
        system.open(store)
    times["open"].append(clock)
    for _ in range(2):
        clock = Clock()
        with clock.running():
            scores = system.value()
        times["value"].append(clock)
    np.save(task.folder / f"scores-{name}-{task.rank}-{task.curvature}.npy", scores)
    return {
        **{step: [asdict(clock) for clock in clocks] for step, clocks in times.items()},
        "stored": stored, "peak": built_peak, "peak_after_valuing": peak_bytes(), "notes": system.notes(),
    }  # fmt: skip


if __name__ == "__main__":
    main()
