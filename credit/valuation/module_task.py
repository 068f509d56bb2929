"""A user's own `nn.Module` and loss, as a task: give the loss, get the index.

    task = ModuleTask(model, loss)
    build_index(task, samples, Path("my-index"), IndexSettings(rank=16), name="my-model")
    AttributionIndex.open(Path("my-index")).value(task, [TensorSample("q", (x, y))])

Every watched layer must keep examples apart: the first dimension of its inputs is the example, in the order of the
batch. What comes between that and the width is summed over, as the positions of a sequence are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from credit.errors import InputError, ValuationError
from credit.records import Group, Share, agreed_shares
from credit.valuation.task import LossBatch, device_of, upload

_ROUNDING = 0.05
"""Of a loss, by how much that of two samples may differ from the sum of theirs: bf16 rounds, a mean is half."""


class Loss(Protocol):
    """A user's loss."""

    def __call__(self, module: nn.Module, *tensors: Tensor) -> Tensor:
        """Run the module on a batch; return the sum over its examples of their losses, in nats: a scalar.

        Each of `tensors` is a batch (N, ...) of what the samples hold at that place. Never a mean: a mean makes an
        example's gradient depend on the others of its batch. A mean squared error times ½ is one in nats of a
        Gaussian of variance 1.
        """
        ...


class Collate(Protocol):
    """Makes batches of what samples hold; needed where their tensors differ in shape."""

    def __call__(self, samples: Sequence[TensorSample]) -> Sequence[Tensor]:
        """Return tensors (N, ...) whose first dimension follows the samples."""
        ...


class Real(Protocol):
    """Tells the positions of a batch from its padding, whose inputs are no part of what projections are fitted to."""

    def __call__(self, *tensors: Tensor) -> Tensor:
        """Return which positions (N, T) are not padding, from the batch that `Collate` has made.

        Layers that see other positions than these, such as one after a pooling, are taken to see no padding.
        """
        ...


@dataclass(frozen=True, slots=True)
class TensorSample:
    """One training example or output of a user's own model.

    Attributes:
        id: unique among the samples of an index.
        tensors: what the loss needs of it, such as inputs and a target, without a dimension for the batch.
        group: who contributed it; outputs have none, nor has a sample with `splits`.
        size: positions that it takes in a batch, of which `tokens_per_batch` is the limit.
        predicted: predictions of which its loss is the sum.
        splits: the shares of those who contributed it together.

    Raises:
        InputError: it has a group and splits, or its shares are not all of it.
    """

    id: str
    tensors: tuple[Tensor, ...]
    group: Group | None = None
    size: int = 1
    predicted: int = 1
    splits: tuple[Share, ...] = ()

    def __post_init__(self) -> None:
        if self.splits:
            if self.group is not None:
                raise InputError(f"sample {self.id} has a group and splits; give one of them")
            object.__setattr__(self, "splits", agreed_shares(self.splits))

    @property
    def shares(self) -> tuple[Share, ...]:
        """Who has which share of it, in the order of their groups; together all of it."""
        return self.splits if self.group is None else (Share(self.group),)

    def digest(self) -> bytes:
        """SHA-256 of id and tensors."""
        hasher = hashlib.sha256(self.id.encode())
        for tensor in self.tensors:
            hash_tensor(hasher.update, tensor)
        return hasher.digest()


@dataclass(frozen=True, slots=True)
class ModuleTask:
    """A user's own module and loss, the `Task` of whatever it was trained on.

    The model is known by its class and the hash of its weights and buffers as they are when the task is made: make
    another task when they have changed. The code of module and loss is not part of it; a change there needs another
    index.

    Attributes:
        module: the model, on its device, of one dtype. Layers that are `nn.Linear` can be watched.
        loss: see `Loss`.
        collate: see `Collate`; by default tensors are stacked.
        real: see `Real`; needed where `collate` pads and projections are fitted (pca, ekfac).
    """

    module: nn.Module
    loss: Loss
    collate: Collate = field(default_factory=lambda: stacked)
    real: Real | None = None
    model_sha256: str = field(init=False)
    _loss_is_sum: bool = field(init=False, default=False, repr=False, compare=False)
    tokenizer_sha256: ClassVar[str] = hashlib.sha256(b"tensors").hexdigest()
    flat_inputs: ClassVar[bool] = True
    max_length: ClassVar[int] = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "model_sha256", hash_module(self.module))

    @property
    def location(self) -> str:
        """What the model is called: its class."""
        return f"{type(self.module).__module__}.{type(self.module).__qualname__}"

    def encoder(self, max_length: int) -> _AsTheyAre:
        """Return an encoder that takes samples as they are."""
        del max_length  # a sample is not cut
        return _AsTheyAre()

    def batch(self, examples: Sequence[TensorSample]) -> LossBatch:
        """Put samples together on the model's device.

        Raises:
            ValuationError: the loss of the first two that come together is not the sum of theirs.
        """
        if len(examples) > 1 and not self._loss_is_sum:
            self._check_loss(*examples[:2])
            object.__setattr__(self, "_loss_is_sum", True)
        tensors = self._tensors(examples)
        real = None if self.real is None else self.real(*tensors)
        return LossBatch(len(examples), lambda: self.loss(self.module, *tensors), real)

    def _tensors(self, samples: Sequence[TensorSample]) -> list[Tensor]:
        return [upload(tensor, device_of(self)) for tensor in self.collate(samples)]

    def _check_loss(self, first: TensorSample, second: TensorSample) -> None:
        """Refuse a loss that is a mean, torch's default, or in which examples depend on each other in another way.

        Influence would silently be that of other losses, which change with the batch. A loss that draws random numbers
        cannot be checked so.
        """
        with _evaluating(self.module), torch.no_grad():
            pairs = ((first, second), (first, second), (first,), (second,))
            losses = [self.loss(self.module, *self._tensors(samples)) for samples in pairs]
        if any(loss.dim() for loss in losses):
            return  # no sum at all, which is refused where it is differentiated
        both, again, one, other = (float(loss) for loss in losses)
        if both == again and abs(both - one - other) > _ROUNDING * max(abs(one) + abs(other), abs(both)):
            raise ValuationError(
                f"the loss of samples {first.id} and {second.id} together is {both:.6g}, not the sum of theirs, "
                f"{one:.6g} + {other:.6g}: an example's gradient would depend on its batch; sum over the examples "
                "(reduction='sum')"
            )


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Context in which a module and all in it are in evaluation mode."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


class _AsTheyAre:
    """Samples are examples already."""

    def training(self, record: TensorSample) -> Iterator[TensorSample]:
        if not record.shares:
            raise InputError(
                f"sample {record.id} has no group; say who contributed it: TensorSample(id, tensors, group)"
            )
        yield record

    def cut(self, sample: TensorSample, length: int) -> list[TensorSample]:
        del length  # positions of a sample are whatever its layers take them for
        return [sample]

    def output(self, output: TensorSample) -> list[TensorSample]:
        return [output]


def stacked(samples: Sequence[TensorSample]) -> list[Tensor]:
    """Stack the tensors of samples: (N, ...) of each.

    Raises:
        InputError: they differ in number or shape.
    """
    shapes = [tuple(tuple(tensor.shape) for tensor in sample.tensors) for sample in samples]
    for sample, shape in zip(samples, shapes, strict=True):
        if shape != shapes[0]:
            raise InputError(
                f"samples {samples[0].id} and {sample.id} hold tensors of shapes {shapes[0]} and {shape}, which cannot "
                "be stacked; give ModuleTask a collate"
            )
    return [torch.stack(column) for column in zip(*(sample.tensors for sample in samples), strict=True)]


def hash_module(module: nn.Module) -> str:
    """SHA-256 over a module's class, weights and buffers."""
    hasher = hashlib.sha256(f"{type(module).__module__}.{type(module).__qualname__}".encode())
    for name, tensor in sorted(module.state_dict().items()):
        hasher.update(f"\0{name}".encode())
        hash_tensor(hasher.update, tensor)
    return hasher.hexdigest()


def hash_tensor(update: Callable[[bytes], None], tensor: Tensor) -> None:
    """Feed dtype, shape and content of a tensor to a hash."""
    update(f"\0{tensor.dtype}{tuple(tensor.shape)}\0".encode())
    update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
