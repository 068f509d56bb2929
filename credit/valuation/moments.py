"""Second moments of a model's layers over a sample of its training data: what projections are fitted to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

import torch
from torch import Tensor

from credit.errors import ValuationError
from credit.valuation.batches import (
    by_window,
    is_out_of_memory,
    not_finite,
    plan_batches,
    release_memory,
    tokens_in_batch,
)
from credit.valuation.gradients import ModelTap, Sink
from credit.valuation.gram import add_grams, mirror
from credit.valuation.layers import LayerChoice, how_to_leave_out
from credit.valuation.manifest import IndexSettings
from credit.valuation.projection import LayerMoments
from credit.valuation.rows import fold_key
from credit.valuation.task import AnyExample, Task, device_of

_ROWS = 256
"""Positions of which the squares are formed at once."""


def needs_moments(settings: IndexSettings) -> bool:
    """Whether projections are fitted to second moments, which take a pass over a sample of the data."""
    return settings.projection != "random" or settings.curvature == "ekfac"


def choose_sample(examples: Sequence[AnyExample], size: int) -> list[AnyExample]:
    """Choose examples, whole windows of them, by the hash of the windows' ids: the same for any order of the data.

    There are `size` of them at most, or one window.
    """
    windows = by_window(examples)
    chosen: list[AnyExample] = []
    for window in sorted(windows, key=lambda own: (fold_key(f"sample/{own.window.id}"), own.window.id)):
        if chosen and len(chosen) + len(window.places) > size:
            break
        chosen += [examples[place] for place in window.places]
    return chosen


def second_moments(
    task: Task,
    layers: LayerChoice,
    sample: Sequence[AnyExample],
    *,
    tokens_per_batch: int | None,
    exclude: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, LayerMoments]:
    """One forward and activation-only backward pass over the sample: A and B of every layer, padding left out.

    Moments are summed while the pass runs, so that a batch that does not fit into memory has been added in part: the
    pass then starts again, with batches of half the size. So it does without them where examples are left out whose
    inputs or gradients are not finite (`exclude`).

    Raises:
        ValuationError: a single example does not fit into memory, or is not finite and not to be left out.
    """
    longest = max((window.size for window in by_window(sample)), default=0)
    budget = tokens_in_batch(tokens_per_batch, device_of(task))
    while True:
        try:
            moments = sum_moments(task, layers, sample, budget, progress)
            if all(bool(side.isfinite().all()) for moment in moments.values() for side in (moment.a, moment.b)):
                return moments
            bad = _not_finite(task, layers, sample, budget)
            if bad and not exclude:
                raise ValuationError(f"{not_finite(sample[bad[0]], task)}, or exclude it with --non-finite exclude")
            if not bad or len(bad) == len(sample):
                raise ValuationError(f"no second moments of {task.location} are finite; try --dtype fp32")
            left_out = set(bad)
            sample = [example for position, example in enumerate(sample) if position not in left_out]
            continue
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failure = str(error).splitlines()[0]
        release_memory(device_of(task))
        if budget <= longest:
            raise ValuationError(
                f"the second moments of an example of {longest} tokens do not fit into the memory of "
                f"{device_of(task)} ({failure}); lower --max-length, or watch fewer layers with --layers"
            )
        budget //= 2


def sum_moments(
    task: Task,
    layers: LayerChoice,
    sample: Sequence[AnyExample],
    tokens_per_batch: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, LayerMoments]:
    """Make the pass of `second_moments`, whatever comes of it: nothing is split, left out or checked."""
    sums = _MomentSums(layers.heads)
    windows = [window.window for window in by_window(sample)]
    total = sum(window.size for window in windows)
    done = 0
    with ModelTap(task.module, layers.watched, sums.observe, flat=task.flat_inputs) as tap:
        for places in plan_batches([window.size for window in windows], tokens_per_batch):
            batch = task.batch([windows[place] for place in places])
            sums.real = batch.real
            tap.run(batch.loss, batch.size)
            done += sum(windows[place].size for place in places)
            if progress:
                progress(done, total)
    for name in layers.watched:
        if name not in sums.b:
            raise ValuationError(f"layer {name} took no part in the loss; {how_to_leave_out(name)}")
    return sums.means()


def _not_finite(task: Task, layers: LayerChoice, sample: Sequence[AnyExample], tokens_per_batch: int) -> list[int]:
    """Return the places of examples whose window has an input or gradient that is not finite in a watched layer."""
    totals: list[Tensor] = []

    def observe(layers: Sequence[str], x: Tensor) -> list[Sink]:
        totals.append(x.sum((1, 2)))
        return [lambda dy: totals.append(dy.sum((1, 2)))] * len(layers)

    bad: list[int] = []
    windows = by_window(sample)
    with ModelTap(task.module, layers.watched, observe, flat=task.flat_inputs) as tap:
        for places in plan_batches([window.size for window in windows], tokens_per_batch):
            batch = task.batch([windows[place].window for place in places])
            totals.clear()
            tap.run(batch.loss, batch.size)
            finite = torch.stack(totals).isfinite().all(0).tolist()
            for place, good in zip(places, finite, strict=True):
                bad += [] if good else windows[place].places
    return sorted(bad)


class _MomentSums:
    """Sums over real positions of x xᵀ and δ δᵀ, or δ² of a head, in float32 or better; and how many there were.

    Layers that see the same inputs have one sum for them.
    """

    def __init__(self, heads: Collection[str]) -> None:
        self.a: dict[str, Tensor] = {}
        self.b: dict[str, Tensor] = {}
        self.rows: dict[str, int] = {}
        self.real: Tensor | None = None
        self._heads = heads

    def observe(self, layers: Sequence[str], x: Tensor) -> list[Sink]:
        """Add the inputs of layers, and return what adds each one's output gradients."""
        padded = self.real is not None and x.shape[:2] == self.real.shape
        rows = x[self.real] if padded else x.flatten(0, 1)
        for layer in layers:
            self.rows[layer] = self.rows.get(layer, 0) + len(rows)
        for total in self._sums_of(layers, rows):
            _add_products(total, rows)
        return [partial(self._add_outputs, layer) for layer in layers]

    def _add_outputs(self, layer: str, dy: Tensor) -> None:
        rows = dy.flatten(0, 1)  # padding has no gradient, so that its δ δᵀ adds nothing
        is_head = layer in self._heads
        if layer not in self.b:
            self.b[layer] = _zeros(rows, 1 if is_head else 2)
        (_add_squares if is_head else _add_products)(self.b[layer], rows)

    def _sums_of(self, layers: Sequence[str], rows: Tensor) -> list[Tensor]:
        """Return the sums that inputs of these layers go into: one, unless they have not seen the same ones so far."""
        others = {id(total) for layer, total in self.a.items() if layer not in layers}
        sums: dict[int, Tensor] = {}
        for layer in layers:
            before = self.a.get(layer)
            key = 0 if before is None else id(before)
            if key not in sums:
                sums[key] = _zeros(rows, 2) if before is None else before.clone() if key in others else before
            self.a[layer] = sums[key]
        return list(sums.values())

    def means(self) -> dict[str, LayerMoments]:
        """Return the layers' moments, made of the sums in place: these may be the most that a build holds."""
        rows = self.rows
        for name, total in {id(total): (name, total) for name, total in self.a.items()}.values():
            mirror(total).div_(rows[name])
        for name, total in self.b.items():
            (mirror(total) if total.dim() == 2 else total).div_(rows[name])
        return {name: LayerMoments(self.a[name], self.b[name]) for name in rows}


def _zeros(rows: Tensor, dimensions: int) -> Tensor:
    """Room for sums of rows (n, W): (W,) or (W, W), in float32 or better."""
    dtype = torch.promote_types(rows.dtype, torch.float32)
    return rows.new_zeros(rows.shape[1:] * dimensions, dtype=dtype)


def _add_products(total: Tensor, rows: Tensor) -> None:
    """Add Σ r rᵀ of rows (n, W) to the upper triangle of a sum (W, W)."""
    add_grams([total], (rows if rows.is_cuda else rows.to(total.dtype))[None])


def _add_squares(total: Tensor, rows: Tensor) -> None:
    """Add Σ r² of rows (n, W), elementwise, to a sum (W,): a vocabulary's square would not fit."""
    for low in range(0, len(rows), _ROWS):  # the squares of all would be one more matrix of the logits' size
        total += rows[low : low + _ROWS].to(total.dtype).square().sum(0)
