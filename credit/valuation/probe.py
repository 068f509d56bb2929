"""A short probe before long work: the seconds and the memory of a batch on this machine."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import torch
from torch import Tensor

from credit.storage import nearest_folder
from credit.valuation.batches import WindowExamples, by_window, is_out_of_memory, make_cut, release_memory
from credit.valuation.curvature import BLOCK_ROWS, make_curvature, make_statistic
from credit.valuation.example_store import Examples
from credit.valuation.hooks import GradientTap
from credit.valuation.layers import LayerChoice, LayerShape
from credit.valuation.manifest import IndexSettings
from credit.valuation.moments import sum_moments
from credit.valuation.placement import OffloadedWeights, Reference
from credit.valuation.projection import (
    LayerProjection,
    LayerRank,
    Side,
    SideSpec,
    projected_widths,
    resolve_ranks,
    vocabulary_hashing,
)
from credit.valuation.task import AnyExample, Task, device_of

_BUDGET_SECONDS = 2.0
"""After this no further batch is begun."""
_SHARE = 20
"""A probe goes through a twentieth of the data at most, or a single example."""
_GROWTH = 4
_STORED = 1 << 25
"""Most bytes written to time a disk."""
_SIDE = 512
"""Width of the matrix decomposed to time it; the time grows with the cube of the width."""


@dataclass(frozen=True, slots=True)
class WorkLeft:
    """Remaining work of a build or a change.

    Attributes:
        fitting: tokens of the sample to fit projections to.
        passes: tokens of all gradient passes together.
        summed: examples to add to the curvature's sums.
        weighed: examples to weigh by the curvature.
        stored: bytes of the index to write.
    """

    fitting: int
    passes: int
    summed: int
    weighed: int
    stored: int = 0


@dataclass(frozen=True, slots=True)
class Probe:
    """Cost of a build or a change on this machine.

    Attributes:
        gradient: seconds for a token of a gradient pass.
        moment: seconds for a token of the sample to fit projections to.
        summing: seconds to add an example's gradient to the curvature.
        weighing: seconds to weigh an example by the curvature.
        once: seconds to fit projections to moments and to factorise the curvature, each done once.
        batch_bytes: memory that a full batch keeps for the backward pass.
    """

    gradient: float
    moment: float
    summing: float
    weighing: float
    once: float
    batch_bytes: int

    def seconds(self, work: WorkLeft) -> float:
        """Return the seconds for the remaining work."""
        return (
            self.moment * work.fitting
            + self.gradient * work.passes
            + self.summing * work.summed
            + self.weighing * work.weighed
            + self.once
        )


def probe(
    task: Task,
    layers: LayerChoice,
    examples: Examples,
    settings: IndexSettings,
    *,
    tokens_per_batch: int,
    fitted: bool = False,
) -> Probe:
    """Time a batch or two of a build, and its other costs in small; keep nothing.

    Batches grow from one example until a full one has run twice, two seconds are spent, or a twentieth of the data has
    been gone through. The time of slower batches is estimated from smaller ones.

    Args:
        task: the model.
        layers: its watched layers.
        examples: the examples of the work.
        settings: settings of the index.
        tokens_per_batch: padded tokens in a batch, at most.
        fitted: True if the projections are made already.

    Raises:
        ValuationError: a watched layer takes no part in the loss, or a single example does not fit into memory.
    """
    ranks = resolve_ranks(layers.shapes, settings.rank, settings.ranks)
    device = device_of(task)
    stand_ins = stand_in_projections(layers, ranks, keeps_identities=not settings.fits_projections)
    with GradientTap(task.module, layers.watched, stand_ins, flat=task.flat_inputs) as tap:
        cost = probe_gradients(task, tap, examples, tokens_per_batch)
    widths = list(projected_widths(ranks).values())
    sampled = [window.window for window in cost.tried] if settings.fits_projections and not fitted else []
    return Probe(
        gradient=cost.seconds,
        moment=_moment_seconds(task, layers, sampled, tokens_per_batch) if sampled else 0.0,
        summing=_summing_seconds(settings, widths, device),
        weighing=_weighing_seconds(settings, widths, device),
        once=_fitting_seconds(layers, settings, device, fitted) + _factorising_seconds(settings, widths, device),
        batch_bytes=cost.batch_bytes,
    )


@dataclass(frozen=True, slots=True)
class GradientCost:
    """Cost of gradient passes on this machine.

    Attributes:
        seconds: of a token.
        batch_bytes: memory that a full batch keeps for the backward pass.
        tried: the largest batch that was tried.
    """

    seconds: float
    batch_bytes: int
    tried: Sequence[WindowExamples]


def probe_gradients(task: Task, tap: GradientTap, examples: Examples, tokens_per_batch: int) -> GradientCost:
    """Time the gradients of a batch or two of some examples, in an open tap.

    Raises:
        ValuationError: a watched layer takes no part in the loss, or a single example does not fit into memory.
    """
    tried_examples, device = _typical(examples, tokens_per_batch), device_of(task)
    typical = by_window(tried_examples)

    def gradients(batch: Sequence[WindowExamples], counting: AbstractContextManager[object] | None = None) -> None:
        made = task.batch([window.window for window in batch])

        def loss() -> Tensor:
            with counting or nullcontext():
                return made.loss()

        tap.collect(loss, made.size, make_cut(batch, tried_examples, device), made.positions)

    saved = _SavedBytes(task, tap.offloaded)
    gradients(typical[:1], saved)
    seconds, tried = _seconds_per_token(gradients, typical, device)
    full = max(tokens_per_batch, int(examples.window_sizes.max())) / typical[0].size
    everything = int(examples.window_sizes.sum()) / typical[0].size
    return GradientCost(seconds, round(saved.bytes * min(full, everything)), tried)


def _typical(examples: Examples, tokens_per_batch: int) -> list[AnyExample]:
    """Return the examples of a batch of windows of typical length: the median over all tokens, and shorter ones."""
    order = np.argsort(examples.window_sizes, kind="stable")
    passed = np.cumsum(examples.window_sizes[order])
    total = int(passed[-1])
    middle = int(np.searchsorted(passed, total / 2))
    size = int(examples.window_sizes[order[middle]])
    count = max(1, min(tokens_per_batch // size, total // size // _SHARE))
    return examples.of_windows(order[max(0, middle - count + 1) : middle + 1][::-1].tolist())


def _seconds_per_token(
    run: Callable[[Sequence[WindowExamples]], None], typical: Sequence[WindowExamples], device: torch.device
) -> tuple[float, Sequence[WindowExamples]]:
    """Time growing batches; return the seconds for a token of the last one to fit into memory, and this batch."""
    count, rate, tried = 1, 0.0, typical[:1]
    spent = 0.0
    for _ in range(20):
        batch = typical[:count]
        failed = False
        try:
            seconds = timed(partial(run, batch), device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or count == 1:
                raise
            failed = True
        if failed:
            release_memory(device)
            break
        last_size = len(tried)
        rate, tried, spent = seconds / sum(window.size for window in batch), batch, spent + seconds
        if spent > _BUDGET_SECONDS or (count == len(typical) and last_size == count):
            break
        count = min(_GROWTH * count, len(typical))
    return rate, tried


def _moment_seconds(task: Task, layers: LayerChoice, batch: Sequence[AnyExample], tokens_per_batch: int) -> float:
    """Return the seconds for a token of the pass over the sample."""
    tokens = sum(example.size for example in batch)
    return timed(lambda: sum_moments(task, layers, batch, tokens_per_batch), device_of(task)) / tokens


def _summing_seconds(settings: IndexSettings, widths: Sequence[int], device: torch.device) -> float:
    """Return the seconds to add an example to the curvature, from one block of the widest layer."""
    if settings.curvature != "fisher":
        return 0.0  # the others add squares or nothing, which costs little beside the pass
    statistic = make_statistic("fisher")
    block = {"widest": torch.ones(BLOCK_ROWS, max(widths), device=device)}
    statistic.add(block)  # makes room for the sums
    return timed(lambda: statistic.add(block), device) / BLOCK_ROWS * _relative(widths, 2)


def _weighing_seconds(settings: IndexSettings, widths: Sequence[int], device: torch.device) -> float:
    """Return the seconds to weigh an example by the curvature, from one block of the widest layer."""
    if not settings.weighs_by_curvature or settings.curvature != "fisher":
        return 0.0
    width = max(widths)
    curvature = make_curvature("fisher", {"widest": torch.eye(width, device=device)}, 1, settings.damping)
    block = torch.ones(BLOCK_ROWS, width, device=device)
    return timed(lambda: curvature.precondition("widest", block), device) / BLOCK_ROWS * _relative(widths, 2)


def _fitting_seconds(layers: LayerChoice, settings: IndexSettings, device: torch.device, fitted: bool) -> float:
    """Return the seconds to diagonalise all second moments, from one matrix."""
    if fitted or settings.projection == "random":
        return 0.0
    sides = [width for shape in layers.shapes for width in shape.dense_widths]
    return _cubic(torch.linalg.eigh, sides, device)


def _factorising_seconds(settings: IndexSettings, widths: Sequence[int], device: torch.device) -> float:
    """Return the seconds to factorise the curvature of all layers, from one matrix."""
    return _cubic(torch.linalg.cholesky, widths, device) if settings.curvature == "fisher" else 0.0


def _cubic(decompose: Callable[[Tensor], object], widths: Sequence[int], device: torch.device) -> float:
    side = min(_SIDE, max(widths))
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(side, side, generator=generator, dtype=torch.float64).to(device)
    matrix = rows @ rows.mT + side * torch.eye(side, dtype=torch.float64, device=device)
    decompose(matrix)
    return timed(lambda: decompose(matrix), device) * sum((width / side) ** 3 for width in widths)


def _relative(widths: Sequence[int], power: int) -> float:
    """Return the cost of all layers in units of the widest one's."""
    return float(sum((width / max(widths)) ** power for width in widths))


def stand_in_projections(
    layers: LayerChoice, ranks: Mapping[str, LayerRank], *, keeps_identities: bool
) -> dict[str, LayerProjection]:
    """Return projections of the right shapes; other values cost the same."""

    def rows(rank: int, width: int) -> Tensor | None:
        return None if keeps_identities and rank == width else torch.full((rank, width), width**-0.5)

    def p_out(shape: LayerShape, rank: int) -> Side:
        if shape.is_head:
            return vocabulary_hashing(SideSpec(shape.out_width, rank, seed=0))
        return rows(rank, shape.out_width)

    return {
        shape.name: LayerProjection(
            rows(ranks[shape.name].inputs, shape.in_width), p_out(shape, ranks[shape.name].outputs)
        )
        for shape in layers.shapes
    }


def storing_seconds(folder: Path, size: int, device: torch.device) -> float:
    """Return the seconds to store `size` bytes of a device in a folder's files, with checksums, from a part of them.

    The file for it has no name and is gone at once. If it cannot be written, the time is 0: the build will report the
    error.
    """
    place = nearest_folder(folder)
    part = min(_STORED, size // _SHARE)
    values = torch.randint(256, (part,), dtype=torch.uint8, device=device)

    def store() -> None:
        content = values.cpu().numpy().data
        with TemporaryFile(dir=place) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        hashlib.sha256(content)

    try:
        return timed(store, device) * size / part if part else 0.0
    except OSError:
        return 0.0


def timed(run: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of a call, on a GPU until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


class _SavedBytes:
    """Context that counts the bytes autograd keeps for the backward pass.

    Twice the largest tensor kept (such as the logarithms of a cross-entropy) is added, for its gradient and the one
    before it. A language model's own loss takes less: the logits, while their gradient is made.
    """

    def __init__(self, task: Task, offloaded: OffloadedWeights) -> None:
        self._offloaded = offloaded
        self._known = {parameter.untyped_storage().data_ptr() for parameter in task.module.parameters()}
        self._sizes: dict[int, int] = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._count, offloaded.unpack)

    @property
    def bytes(self) -> int:
        """Bytes for the passes inside."""
        return sum(self._sizes.values()) + 2 * max(self._sizes.values(), default=0)

    def _count(self, tensor: Tensor) -> Tensor | Reference:
        storage, kept = tensor.untyped_storage(), self._offloaded.pack(tensor)
        if kept is tensor and storage.data_ptr() not in self._known:
            self._sizes[storage.data_ptr()] = storage.nbytes()
        return kept

    def __enter__(self) -> _SavedBytes:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)
