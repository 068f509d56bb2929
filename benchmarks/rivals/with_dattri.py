"""dattri-LLM: per-example gradients projected as they are captured, kept on disk, scored from there."""

# ruff: noqa: D102  # what the methods do is said once, by `task.System`
from __future__ import annotations

from pathlib import Path
from typing import Any

from dattri_llm import (
    AttributionArguments,
    GradientStorageManager,
    HookManager,
    HookManagerConfig,
    OffloadCallback,
    TracInAttributor,
)
from dattri_llm.utils.hashing import hash_batch
from numpy.typing import NDArray

from benchmarks.measure import Clock, next_token_loss
from benchmarks.rivals.task import Task, batches, watched_layers


class Dattri:
    """A cache of every example's gradient (`logra`, double-sided), scored by inner products."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.model = task.load()
        self.model.requires_grad_(False)
        self.model.enable_input_require_grads()  # gradients flow, and none of a weight is formed
        self.folder = Path()
        self.round = 0

    def build(self, folder: Path) -> Clock:
        self._capture(folder / "train", self.task.train)
        return Clock()

    def open(self, folder: Path) -> None:
        self.folder = folder

    def value(self) -> NDArray[Any]:
        self.round += 1
        outputs = self.folder / f"outputs-{self.round}"
        self._capture(outputs, self.task.outputs)
        attributor = TracInAttributor(AttributionArguments(output_dir=str(self.folder / "scores")))
        score = attributor.attribute_from_cache(str(self.folder / "train"), str(outputs))
        return score.query(self._hashes(self.task.train), self._hashes(self.task.outputs)).T.numpy()

    def notes(self) -> str:
        return "capture_style auto, one record for a batch, embedding frozen"

    def _capture(self, folder: Path, tokens: NDArray[Any]) -> None:
        projection = None
        if self.task.rank is not None:
            projection = {
                "__default__": {
                    "style": "logra", "proj_dim": self.task.rank, "proj_max_batch_size": 64, "proj_type": "rademacher",
                }
            }  # fmt: skip
        manager = HookManager(
            self.model,
            config=HookManagerConfig(
                hook_types=dict.fromkeys(watched_layers(self.model), "linear_io"),
                projection_kwargs=projection,
                capture_style="auto",
                include_frozen=True,
            ),
            callbacks=[OffloadCallback(1, GradientStorageManager(str(folder)))],
        )
        try:
            with manager.collect():
                for batch in batches(tokens, self.task.batch):
                    next_token_loss(self.model, batch).backward()
        finally:
            manager.remove()

    def _hashes(self, tokens: NDArray[Any]) -> list[str]:
        found: list[str] = []
        for batch in batches(tokens, self.task.batch):
            found += hash_batch({"input_ids": batch, "use_cache": False}, len(batch))
        return found
