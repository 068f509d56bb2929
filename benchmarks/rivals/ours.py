"""This project, by its public interface: build_index, AttributionIndex.open, row_influence."""

# ruff: noqa: D102  # what the methods do is said once, by `task.System`
from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Clock
from benchmarks.models import HIDDEN, words
from benchmarks.rivals.task import Task
from credit.records import Group, LoggedOutput, TrainingRecord
from credit.valuation import AttributionIndex, IndexSettings, build_index, load_model

GROUP = Group("all", "all")
FULL = 10**6
"""More than any width: no projection."""


class Ours:
    """An index with a row for each example, so that its numbers can be compared with theirs one by one."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.model = load_model(task.model, dtype="fp32", device="cpu")
        self.index: AttributionIndex | None = None

    def build(self, folder: Path) -> Clock:
        settings = IndexSettings(
            rank=self.task.rank or FULL,
            projection="random",
            curvature=self.task.curvature,
            damping=0.1,
            layers=HIDDEN,
            rows_per_group=None,
        )
        records = [TrainingRecord(f"{number:06d}", GROUP, words(row)) for number, row in enumerate(self.task.train)]
        size = self.task.batch * self.task.train.shape[1]
        last = [0.0, 0.0]

        def progress(_phase: str, _done: int, _total: int) -> None:
            last[:] = time.process_time(), time.perf_counter()

        build_index(self.model, records, folder, settings, name="bench", tokens_per_batch=size, progress=progress)
        return Clock(time.process_time() - last[0], time.perf_counter() - last[1])

    def open(self, folder: Path) -> None:
        self.index = AttributionIndex.open(folder)

    def value(self) -> NDArray[Any]:
        assert self.index is not None
        outputs = [
            LoggedOutput("bench", f"{number}", datetime(2026, 1, 1, tzinfo=UTC), "bench", words(row))
            for number, row in enumerate(self.task.outputs)
        ]
        size = self.task.batch * self.task.outputs.shape[1]
        values = self.index.row_influence(self.model, outputs, tokens_per_batch=size).numpy()
        names = _names(self.index)
        return values[:, np.argsort(names)]

    def notes(self) -> str:
        return "tokenising, checksums, factorising and writing included"


def _names(index: AttributionIndex) -> list[str]:
    """Ids of the examples in the order of their rows."""
    from credit.valuation.examples import EXAMPLES_FILE, read_listing

    return [example.id for example in read_listing(index.path(EXAMPLES_FILE))]
