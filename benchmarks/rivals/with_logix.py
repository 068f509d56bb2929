"""LogIX: its LoRA compression, logs on disk, and with curvature `fisher` the covariance of the logged gradients."""

# ruff: noqa: D102  # what the methods do is said once, by `task.System`
from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml
from logix import LogIX
from logix.config import LoRAConfig
from numpy.typing import NDArray
from torch import nn

from benchmarks.measure import Clock, next_token_loss
from benchmarks.rivals.task import Task, batches, with_linears


class Logix:
    """A log of every example's gradient, scored by inner products with all of it."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.run: LogIX | None = None
        self.model = nn.Module()

    def build(self, folder: Path) -> Clock:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        config = folder / "setup.yaml"
        # Its buffer is flushed after so many numbers: no more than a gigabyte is held.
        config.write_text(yaml.safe_dump({"root_dir": str(folder), "logging": {"flush_threshold": 250_000_000}}))
        self.model = with_linears(self.task.load())
        self.run = LogIX("bench", str(config))
        self.run.watch(self.model, type_filter=[nn.Linear], name_filter=["attn.", "mlp."])
        if self.task.rank is not None:
            self.run.add_lora(lora_config=LoRAConfig(init="random", rank=self.task.rank))
        covariance = ["covariance"] if self.task.curvature == "fisher" else []
        self.run.setup({"grad": ["log", *covariance]})
        self.run.save(True)
        for number, batch in enumerate(batches(self.task.train, self.task.batch)):
            ids = [f"{number:06d}/{row:03d}" for row in range(len(batch))]
            with self.run(data_id=ids):
                next_token_loss(self.model, batch).backward()
            self.model.zero_grad()
        after = Clock()
        with after.running():
            self.run.finalize()
        return after

    def open(self, folder: Path) -> None:
        assert self.run is not None
        self.run.eval()
        self.run.setup({"grad": ["log"]})
        self.run.log_dataset = self.run.log_dataloader = None
        self.loader = self.run.build_log_dataloader(batch_size=64)

    def value(self) -> NDArray[Any]:
        assert self.run is not None
        (tokens,) = batches(self.task.outputs, len(self.task.outputs))
        with self.run(data_id=[f"q{row}" for row in range(len(tokens))]):
            next_token_loss(self.model, tokens).backward()
        self.model.zero_grad()
        curved = self.task.curvature == "fisher"
        result = self.run.compute_influence_all(
            self.run.get_log(), self.loader, precondition=curved, hessian="raw" if curved else "auto"
        )
        order = sorted(range(len(result["tgt_ids"])), key=lambda i: result["tgt_ids"][i])
        return result["influence"][:, order].numpy()

    def notes(self) -> str:
        return "Conv1D layers replaced by nn.Linear, which is all it watches; loading them is timed, and is small"
