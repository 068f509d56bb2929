"""What all systems are given: a model folder, training sequences and outputs, and how to take a GPT-2 apart.

Needs torch, transformers and numpy alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from benchmarks.measure import Clock


@dataclass(frozen=True)
class Task:
    """A comparison's inputs, as `side_by_side` wrote them.

    `rank` None is no projection. `curvature` is `none`, `fisher` or `ekfac`. A batch holds `batch` sequences.
    """

    folder: Path
    rank: int | None
    curvature: str
    batch: int

    @property
    def model(self) -> Path:
        """Folder of the model."""
        return self.folder / "model"

    @property
    def train(self) -> NDArray[np.int32]:
        """(N, T) token ids."""
        return np.load(self.folder / "train.npy")

    @property
    def outputs(self) -> NDArray[np.int32]:
        """(Q, T) token ids; all but the first are predicted."""
        return np.load(self.folder / "outputs.npy")

    def load(self) -> nn.Module:
        """The model, in float32."""
        model: nn.Module = AutoModelForCausalLM.from_pretrained(
            self.model, dtype=torch.float32, trust_remote_code=False
        )
        return model.eval()


class System(Protocol):
    """An attribution library at work on a task."""

    def __init__(self, task: Task) -> None:
        """Load the model; not timed."""
        ...

    def build(self, folder: Path) -> Clock:
        """Go through the training sequences and leave in `folder` whatever valuing needs.

        Returns the part of it that comes after the last sequence and does not grow with their number.
        """
        ...

    def open(self, folder: Path) -> None:
        """Make what `build` left ready to value outputs."""
        ...

    def value(self) -> NDArray[Any]:
        """Influence of every training example on every output: (Q, N)."""
        ...

    def notes(self) -> str:
        """What is to be known about its settings."""
        ...


def watched_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The linear layers of the blocks: what every system watches here. The output head is left out."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and not name.endswith("lm_head")
    }


def with_linears(model: nn.Module) -> nn.Module:
    """Put an nn.Linear with the same weights in the place of each Conv1D, for libraries that know no other."""
    for name, module in list(model.named_modules()):
        if isinstance(module, Conv1D):
            linear = nn.Linear(module.nx, module.nf)
            linear.weight.data.copy_(module.weight.data.T)
            linear.bias.data.copy_(module.bias.data)
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, linear)
    return model


def batches(tokens: NDArray[np.int32], size: int) -> Iterator[Tensor]:
    """Batches of sequences, as int64."""
    for low in range(0, len(tokens), size):
        yield torch.from_numpy(tokens[low : low + size].astype(np.int64))
