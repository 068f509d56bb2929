"""Second moments of a model's layers over a sample of its training data: what projections are fitted to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from credit.errors import ValuationError
from credit.valuation.batching import plan_batches
from credit.valuation.gradients import ModelTap, Sink
from credit.valuation.gram import add_grams, mirror
from credit.valuation.layers import LayerChoice, how_to_leave_out
from credit.valuation.manifest import IndexSettings
from credit.valuation.passes import is_out_of_memory, not_finite, release_memory, tokens_in_batch
from credit.valuation.projection import LayerMoments
from credit.valuation.readings import readings
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
    windows = readings(examples)
    chosen: list[AnyExample] = []
    for reading in sorted(windows, key=lambda r: (fold_key(f"sample/{r.window.id}"), r.window.id)):
        if chosen and len(chosen) + len(reading.places) > size:
            break
        chosen += [examples[place] for place in reading.places]
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
    longest = max((reading.window.size for reading in readings(sample)), default=0)
    budget = tokens_in_batch(tokens_per_batch, device_of(task))
    while True:
        try:
            moments = sum_moments(task, layers, sample, budget, progress)
            if all(bool(side.isfinite().all()) for moment in moments.values() for side in (moment.a, moment.b)):
                return moments
            bad = _not_finite(task, layers, sample, budget)
            if bad and not exclude:
                raise ValuationError(f"{not_finite(sample[bad[0]], task)}, or leave it out with --non-finite exclude")
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
    windows = [reading.window for reading in readings(sample)]
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
    return {name: sums.means(name, len(sample)) for name in layers.watched}


def _not_finite(task: Task, layers: LayerChoice, sample: Sequence[AnyExample], tokens_per_batch: int) -> list[int]:
    """Return the places of examples whose window has an input or gradient that is not finite in a watched layer."""
    totals: list[Tensor] = []

    def observe(_name: str, x: Tensor) -> Sink:
        totals.append(x.sum((1, 2)))
        return lambda dy: totals.append(dy.sum((1, 2)))

    bad: list[int] = []
    windows = readings(sample)
    with ModelTap(task.module, layers.watched, observe, flat=task.flat_inputs) as tap:
        for places in plan_batches([reading.window.size for reading in windows], tokens_per_batch):
            batch = task.batch([windows[place].window for place in places])
            totals.clear()
            tap.run(batch.loss, batch.size)
            finite = torch.stack(totals).isfinite().all(0).tolist()
            for place, good in zip(places, finite, strict=True):
                bad += [] if good else windows[place].places
    return sorted(bad)


class _MomentSums:
    """Sums over real positions of x xᵀ and δ δᵀ, or δ² of a head, in float32 or better; and how many there were."""

    def __init__(self, heads: Collection[str]) -> None:
        self.a: dict[str, Tensor] = {}
        self.b: dict[str, Tensor] = {}
        self.rows: dict[str, int] = {}
        self.real: Tensor | None = None
        self._heads = heads

    def observe(self, name: str, x: Tensor) -> Sink:
        padded = self.real is not None and x.shape[:2] == self.real.shape
        rows = x[self.real] if padded else x.flatten(0, 1)
        self.rows[name] = self.rows.get(name, 0) + len(rows)
        _add_products(self.a, name, rows)
        # Padding has no gradient, so that its δ δᵀ adds nothing.
        add = _add_squares if name in self._heads else _add_products
        return lambda dy: add(self.b, name, dy.flatten(0, 1))

    def means(self, name: str, examples: int) -> LayerMoments:
        """Return a layer's moments; its sums are gone then: those of all layers may be the most that a build holds."""
        rows = self.rows[name]
        a, b = (mirror(side) if side.dim() == 2 else side for side in (self.a.pop(name), self.b.pop(name)))
        return LayerMoments(a.div_(rows), b.div_(rows), rows / examples)


def _add_products(sums: dict[str, Tensor], name: str, rows: Tensor) -> None:
    """Add Σ r rᵀ of rows (n, W) to the upper triangle of a sum (W, W)."""
    dtype = torch.promote_types(rows.dtype, torch.float32)
    if name not in sums:
        sums[name] = rows.new_zeros(rows.shape[1], rows.shape[1], dtype=dtype)
    add_grams([sums[name]], (rows if rows.is_cuda else rows.to(dtype))[None])


def _add_squares(sums: dict[str, Tensor], name: str, rows: Tensor) -> None:
    """Add Σ r² of rows (n, W), elementwise, to a sum (W,): a vocabulary's square would not fit."""
    dtype = torch.promote_types(rows.dtype, torch.float32)
    if name not in sums:
        sums[name] = torch.zeros(rows.shape[1], dtype=dtype, device=rows.device)
    for low in range(0, len(rows), _ROWS):  # the squares of all would be one more matrix of the logits' size
        sums[name] += rows[low : low + _ROWS].to(dtype).square().sum(0)
