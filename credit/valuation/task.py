"""Seam between a model and the method: `Task`, with its records, windows, examples and losses.

`LanguageModel` is the task of a causal language model, `ModuleTask` that of any other `nn.Module`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from credit.records import Share
from credit.valuation.placement import main_device


class Tagged(Protocol):
    """A record of training data, in any form that the task's encoder reads, with its groups."""

    @property
    def shares(self) -> tuple[Share, ...]:
        """Shares of the contributing groups, in the order of the groups; together the whole record."""
        ...


class AnyExample(Protocol):
    """One training example, or one window of an output, made by a task's encoder.

    A model reads a window in one pass. A window is an example itself, or is cut into several (`tokens.Segment`).
    """

    @property
    def id(self) -> str:
        """Unique among the examples of an index."""
        ...

    @property
    def size(self) -> int:
        """Number of its positions in a batch, such as tokens."""
        ...

    @property
    def predicted(self) -> int:
        """Number of predictions in the sum of its loss: for a language model its predicted tokens."""
        ...

    def digest(self) -> bytes:
        """Return the SHA-256 of its id and content."""
        ...


class ExampleEncoder(Protocol):
    """Encoder of records and outputs."""

    def training(self, record: Any) -> Iterable[Any]:
        """Yield the windows of a training record."""
        ...

    def cut(self, window: Any, length: int) -> Iterable[Any]:
        """Return the examples of a window, each of at most `length` predictions; or the window itself."""
        ...

    def output(self, output: Any, echo: int = 0) -> Sequence[Any]:
        """Return the windows of an output. Its loss is the sum of their losses, without tokens that are echo."""
        ...


@dataclass(frozen=True, slots=True)
class LossBatch:
    """Windows, ready for one forward and backward pass.

    Attributes:
        size: number of windows N, the first dimension of every watched layer's input.
        loss: runs the model and returns the sum over the windows of their losses, in nats. Never a mean: with a mean a
            window's gradient depends on the other windows of its batch.
        real: True for each position but padding, (N, T); None if there is no padding.
    """

    size: int
    loss: Callable[[], Tensor]
    real: Tensor | None = None

    @property
    def positions(self) -> int | None:
        """Positions T of a window, padding included; None if the batch does not tell."""
        return None if self.real is None else self.real.shape[1]


class Task(Protocol):
    """A model and its loss, as the engine sees them.

    Attributes:
        module: the model. The engine changes no weight.
        model_sha256: identity of the weights.
        tokenizer_sha256: identity of the encoder.
        flat_inputs: True if layers may have inputs (N, I), without positions. False for sequence models: there a first
            dimension of N may be N routed tokens, and nothing tells their examples apart.
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
        """Folder of the model, or its name."""
        ...

    @property
    def max_length(self) -> int:
        """Longest window of training data unless told otherwise, in positions."""
        ...

    @property
    def context_length(self) -> int:
        """Positions that the model reads at once, at most. An output is read with all of them."""
        ...

    def encoder(self, max_length: int, template_date: str = ...) -> ExampleEncoder:
        """Return an encoder with windows of at most `max_length` positions, and a date for chat templates."""
        ...

    def batch(self, examples: Sequence[Any]) -> LossBatch:
        """Return a batch of windows, ready on the model's device."""
        ...


def device_of(task: Task) -> torch.device:
    """Return the device of a task's batches and losses, where the gradients of all layers meet."""
    return main_device(task.module)


def upload(values: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the host to a device. On a GPU, launched work goes on meanwhile."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def short_digest(example: AnyExample) -> str:
    """Return the first 64 bits of an example's digest in hexadecimal, as an index lists it."""
    return example.digest()[:8].hex()
