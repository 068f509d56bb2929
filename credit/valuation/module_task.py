"""Task of a user's own `nn.Module` and loss.

    task = ModuleTask(model, loss)
    build_index(task, samples, Path("my-index"), IndexSettings(rank=16), name="my-model")
    AttributionIndex.open(Path("my-index")).value(task, [TensorSample("q", (x, y))])

Every watched layer must keep examples apart: the first dimension of its inputs is the example, in the order of the
batch. Dimensions between that one and the width are positions, as in a sequence: gradients are summed over them.
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
"""Relative difference allowed between the loss of two samples and the sum of theirs: bf16 rounds, a mean is half."""


class Loss(Protocol):
    """A user's loss."""

    def __call__(self, module: nn.Module, *tensors: Tensor) -> Tensor:
        """Run the module on a batch; return the sum over its examples of their losses, in nats: a scalar.

        Each of `tensors` is a batch (N, ...) of the samples' tensors at that place. Never a mean: with a mean an
        example's gradient depends on the others of its batch. Half the squared error is in nats, those of a Gaussian
        of variance 1.
        """
        ...


class Collate(Protocol):
    """Batching of samples whose tensors differ in shape."""

    def __call__(self, samples: Sequence[TensorSample]) -> Sequence[Tensor]:
        """Return tensors (N, ...), with the samples in their order as the first dimension."""
        ...


class Real(Protocol):
    """Mask of a batch's padding, to keep it out of the moments behind fitted projections."""

    def __call__(self, *tensors: Tensor) -> Tensor:
        """Return True for each position but padding, (N, T), from the tensors of a collated batch.

        A layer with other positions than these, such as one after a pooling, counts as without padding.
        """
        ...


@dataclass(frozen=True, slots=True)
class TensorSample:
    """One training example or output of a user's own model.

    Attributes:
        id: unique among the samples of an index.
        tensors: the arguments of the loss, such as inputs and a target, without a dimension for the batch.
        group: the contributing group; None for outputs, and for a sample with `splits`.
        size: number of its positions in a batch, which `tokens_per_batch` limits.
        predicted: number of predictions in the sum of its loss.
        splits: shares of several groups that contributed it together.

    Raises:
        InputError: it has a group and splits, or its shares do not add up to the whole.
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
        """Shares of the contributing groups, in the order of the groups; together the whole sample."""
        return self.splits if self.group is None else (Share(self.group),)

    def digest(self) -> bytes:
        """Return the SHA-256 of id and tensors."""
        hasher = hashlib.sha256(self.id.encode())
        for tensor in self.tensors:
            hash_tensor(hasher.update, tensor)
        return hasher.digest()


@dataclass(frozen=True, slots=True)
class ModuleTask:
    """Task of a user's own module and loss.

    Its identity is the class of the module and the hash of its weights and buffers when the task is made. Make another
    task after they have changed. The code of module and loss is not part of the identity: after a change of the code,
    build another index.

    Attributes:
        module: the model, on its device, of one dtype. Its `nn.Linear` layers can be watched.
        loss: the loss, see `Loss`.
        collate: makes batches, see `Collate`; stacks tensors by default.
        real: mask of padding, see `Real`; needed if `collate` pads and projections are fitted (pca, ekfac).
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
    context_length: ClassVar[int] = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "model_sha256", hash_module(self.module))

    @property
    def location(self) -> str:
        """Name of the model: its class."""
        return f"{type(self.module).__module__}.{type(self.module).__qualname__}"

    def encoder(self, max_length: int, template_date: str = "") -> _AsTheyAre:
        """Return the encoder, which takes samples as they are."""
        del max_length, template_date  # a sample is not cut, and is no chat
        return _AsTheyAre()

    def batch(self, examples: Sequence[TensorSample]) -> LossBatch:
        """Put samples together on the model's device.

        Raises:
            ValuationError: the loss of the task's first two samples together is not the sum of theirs.
        """
        # Once a task, at its first batch of two: four forward passes without gradients.
        if len(examples) > 1 and not self._loss_is_sum:
            self._check_loss(*examples[:2])
            object.__setattr__(self, "_loss_is_sum", True)
        tensors = self._tensors(examples)
        real = None if self.real is None else self.real(*tensors)
        return LossBatch(len(examples), lambda: self.loss(self.module, *tensors), real)

    def _tensors(self, samples: Sequence[TensorSample]) -> list[Tensor]:
        return [upload(tensor, device_of(self)) for tensor in self.collate(samples)]

    def _check_loss(self, first: TensorSample, second: TensorSample) -> None:
        """Refuse a mean, torch's default, and any other loss with examples that depend on each other.

        Influence would silently be that of other losses, different in every batch. A loss with random numbers passes
        unchecked.
        """
        with _evaluating(self.module), torch.no_grad():
            pairs = ((first, second), (first, second), (first,), (second,))
            losses = [self.loss(self.module, *self._tensors(samples)) for samples in pairs]
        if any(loss.dim() for loss in losses):
            return  # no scalar: refused at the backward pass
        both, again, one, other = (float(loss) for loss in losses)
        if both == again and abs(both - one - other) > _ROUNDING * max(abs(one) + abs(other), abs(both)):
            raise ValuationError(
                f"the loss of samples {first.id} and {second.id} together is {both:.6g}, not the sum of theirs, "
                f"{one:.6g} + {other:.6g}: an example's gradient would depend on its batch; sum over the examples "
                "(reduction='sum')"
            )


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Context with a module and all its parts in evaluation mode."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


class _AsTheyAre:
    """Encoder of samples, which are examples already."""

    def training(self, record: TensorSample) -> Iterator[TensorSample]:
        if not record.shares:
            raise InputError(
                f"sample {record.id} has no group; say who contributed it: TensorSample(id, tensors, group)"
            )
        yield record

    def cut(self, sample: TensorSample, length: int) -> list[TensorSample]:
        del length  # only its layers know the positions of a sample
        return [sample]

    def output(self, output: TensorSample, echo: int = 0) -> list[TensorSample]:
        del echo  # a sample has no prompt
        return [output]


def stacked(samples: Sequence[TensorSample]) -> list[Tensor]:
    """Return the stacked tensors of samples, (N, ...) each.

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
    """Return the SHA-256 over a module's class, weights and buffers."""
    hasher = hashlib.sha256(f"{type(module).__module__}.{type(module).__qualname__}".encode())
    for name, tensor in sorted(module.state_dict().items()):
        hasher.update(f"\0{name}".encode())
        hash_tensor(hasher.update, tensor)
    return hasher.hexdigest()


def hash_tensor(update: Callable[[bytes], None], tensor: Tensor) -> None:
    """Feed dtype, shape and content of a tensor to a hash."""
    update(f"\0{tensor.dtype}{tuple(tensor.shape)}\0".encode())
    update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
