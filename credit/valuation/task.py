"""The one seam between a model and the method: what the engine asks of whatever was trained.

`LanguageModel` answers it for causal language models, `ModuleTask` for any other `nn.Module`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from credit.records import Share


class Tagged(Protocol):
    """A record of training data: whatever the task's encoder can read, and the groups that contributed it."""

    @property
    def shares(self) -> tuple[Share, ...]:
        """Who contributed which share of it, in the order of their groups; together all of it."""
        ...


class AnyExample(Protocol):
    """One training example or output, as a task's encoder makes them.

    What is read in one pass, a window, is an example, or is cut into several (see `segments`).
    """

    @property
    def id(self) -> str:
        """Unique among the examples of an index."""
        ...

    @property
    def size(self) -> int:
        """Positions that it takes in a batch, such as tokens: batches are planned by them."""
        ...

    @property
    def predicted(self) -> int:
        """Predictions of which its loss is the sum: for a language model its predicted tokens."""
        ...

    def digest(self) -> bytes:
        """SHA-256 of its id and content."""
        ...


class ExampleEncoder(Protocol):
    """Turns records and outputs into examples."""

    def training(self, record: Any) -> Iterable[Any]:
        """Yield the windows of a training record: what is read in one pass each."""
        ...

    def cut(self, window: Any, length: int) -> Iterable[Any]:
        """Return the examples of a window, of `length` predictions at most; or the window, if it is not to be cut."""
        ...

    def output(self, output: Any) -> Sequence[Any]:
        """Return the windows of an output, whose loss is the sum of theirs."""
        ...


@dataclass(frozen=True, slots=True)
class LossBatch:
    """Windows made ready for one forward and backward pass.

    Attributes:
        size: number of windows N; the first dimension of every watched layer's input.
        loss: runs the model; returns the sum over the windows of their losses, in nats. Never a mean: a mean makes
            a window's gradient depend on the others of its batch.
        real: (N, T) which positions are not padding; None where all are.
    """

    size: int
    loss: Callable[[], Tensor]
    real: Tensor | None = None


class Task(Protocol):
    """A model and its loss, as the engine sees them.

    Attributes:
        module: the model; its weights are not changed.
        model_sha256: identity of the weights.
        tokenizer_sha256: identity of what turns records into examples.
        flat_inputs: whether layers may see inputs (N, I), without positions. Not so for sequence models, where a
            first dimension that happens to be N may be routed tokens, whose examples cannot be told apart.
    """

    @property
    def module(self) -> nn.Module: ...  # noqa: D102  # described above, as are the next three
    @property
    def model_sha256(self) -> str: ...  # noqa: D102
    @property
    def tokenizer_sha256(self) -> str: ...  # noqa: D102
    @property
    def flat_inputs(self) -> bool: ...  # noqa: D102

    @property
    def location(self) -> str:
        """Where the model is: its folder, or what it is called."""
        ...

    @property
    def max_length(self) -> int:
        """Longest example, in positions, that the model takes."""
        ...

    def encoder(self, max_length: int) -> ExampleEncoder:
        """Return what turns records and outputs into windows of at most `max_length` positions."""
        ...

    def batch(self, examples: Sequence[Any]) -> LossBatch:
        """Make a batch of windows ready, on the model's device."""
        ...


def device_of(task: Task) -> torch.device:
    """Device of a task's parameters."""
    return next(task.module.parameters()).device


def upload(values: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the host to a device. On a GPU, launched work goes on meanwhile."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def short_digest(example: AnyExample) -> str:
    """First 64 bits of an example's digest, as hexadecimal: what an index keeps of its content."""
    return example.digest()[:8].hex()
