"""bergson: what its own build, hessian and query commands do, in one process, with batches as large as everybody's.

Its command line refuses batches of more tokens than the model's longest sequence; its functions do not.
"""

# ruff: noqa: D102  # what the methods do is said once, by `task.System`
from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bergson.collection import collect_gradients
from bergson.collector.collector import CollectorComputer
from bergson.collector.gradient_collectors import TraceCollector
from bergson.config import IndexConfig, PreprocessConfig
from bergson.data import allocate_batches
from bergson.hessians.autocorrelation import AutocorrelationCollector
from bergson.query.attributor import Attributor
from bergson.utils.worker_utils import create_processor, setup_model_and_peft
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.measure import Clock, next_token_loss
from benchmarks.rivals.task import Task, batches


class _GramOnly(AutocorrelationCollector):
    """Its dense Hessian without the eigendecomposition at the end, whose cost does not grow with the data."""

    def teardown(self) -> None:
        torch.save(self.processor.hessians, Path(self.path) / "hessians.pth")


class Bergson:
    """A gradient store of every example; with curvature `fisher`, a second pass for its autocorrelation Hessian."""

    freeze = False

    def __init__(self, task: Task) -> None:
        self.task = task
        self.config = IndexConfig(
            run_path="unset", model=str(task.model), projection_dim=task.rank or 0, precision="fp32",
            token_batch_size=task.batch * task.train.shape[1],
        )  # fmt: skip
        self.model, self.targets = setup_model_and_peft(self.config)
        if self.freeze:
            self.model.requires_grad_(False)
            # It wants to find something trainable: the last parameter, a bias of the norm before the head, costs least.
            list(self.model.parameters())[-1].requires_grad_(True)
            self.model.enable_input_require_grads()
        self.attributor: Attributor | None = None
        self.queries: dict[str, Tensor] = {}

    def build(self, folder: Path) -> Clock:
        self.config.run_path = str(folder)
        self.config.partial_run_path.mkdir(parents=True)
        train = self.task.train
        data = Dataset.from_dict({"input_ids": train.tolist(), "length": [train.shape[1]] * len(train)})
        planned = allocate_batches(data["length"][:], self.config.token_batch_size)
        processor = create_processor(self.model, self.config, self.targets)
        collect_gradients(
            self.model, data, processor, self.config, batches=planned, target_modules=self.targets,
            preprocess_cfg=PreprocessConfig(),
        )  # fmt: skip
        if self.task.curvature == "fisher":
            processor = create_processor(self.model, self.config, self.targets)
            collector = _GramOnly(
                model=self.model.base_model, data=data, processor=processor, target_modules=self.targets,
                path=str(self.config.partial_run_path),
            )  # fmt: skip
            CollectorComputer(
                self.model, data, collector=collector, batches=planned, cfg=self.config
            ).run_with_collector_hooks()
        shutil.move(self.config.partial_run_path, folder)
        return Clock()

    def open(self, folder: Path) -> None:
        self.attributor = Attributor(folder)

    def value(self) -> NDArray[Any]:
        assert self.attributor is not None
        found = []
        for tokens in batches(self.task.outputs, self.task.batch):
            collector = TraceCollector(
                model=self.model.base_model, processor=self.attributor.processor, target_modules=self.targets,
                device="cpu", dtype=torch.float32,
            )  # fmt: skip
            with collector:
                next_token_loss(self.model, tokens).backward()
            self.model.zero_grad()
            # One call of a hook holds all sequences of the batch.
            found.append({name: torch.cat(parts) for name, parts in collector.mod_grads.items()})
        self.queries = {name: torch.cat([part[name] for part in found]) for name in found[0]}
        scores, order = self.attributor.search(self.queries, None)
        return np.take_along_axis(scores.numpy(), np.argsort(order.numpy(), axis=1), axis=1)

    def notes(self) -> str:
        curved = "; its Hessian takes a second pass, and is timed without its eigendecomposition"
        return "the embedding stays trainable, as its own loader leaves it" + (
            curved if self.task.curvature == "fisher" else ""
        )

    def scan(self, store: Path, examples: int) -> tuple[Clock, Clock]:
        """Open a store of so many examples, and search it for the outputs valued last: what each step took."""
        folder = store.with_name(f"{store.name}-{examples}")
        _repeat_store(store, folder, examples)
        opening, searching = Clock(), Clock()
        with opening.running():
            attributor = Attributor(folder)
        attributor.search(self.queries, 10)
        with searching.running():
            attributor.search(self.queries, 10)
        shutil.rmtree(folder)
        return opening, searching


class BergsonFrozen(Bergson):
    """The same with the embedding frozen by hand, which spares it the gradient of the (tied) output head."""

    freeze = True

    def notes(self) -> str:
        return "embedding frozen by hand, which no option of its offers"


def _repeat_store(source: Path, folder: Path, examples: int) -> None:
    """Write a store of so many examples in bergson's format: the rows of `source` again and again."""
    info = json.loads((source / "info.json").read_text())
    width = sum(info["grad_sizes"].values())
    rows = np.memmap(source / "gradients.bin", dtype=np.float32, mode="r").reshape(-1, width)
    folder.mkdir()
    with (folder / "gradients.bin").open("wb") as file:
        for low in range(0, examples, len(rows)):
            file.write(rows[: min(len(rows), examples - low)].tobytes())
    for name in ("processor_config.yaml", "normalizers.pth", "hessians.pth", "hessians_eigen.pth"):
        if (source / name).is_file():
            shutil.copy(source / name, folder / name)
    (folder / "info.json").write_text(json.dumps(info | {"num_items": examples, "num_grads": examples}))
