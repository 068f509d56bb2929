"""Projections of a model, drawn from a seed or fitted to the second moments of its layers on a sample of its data.

Legend: N windows, T positions, n of them real (no padding), I and O widths of a layer's inputs and outputs, W either.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Self

import numpy as np
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
from credit.valuation.example_store import Examples
from credit.valuation.experts import Routing
from credit.valuation.gradients import add_grams, mirror
from credit.valuation.hooks import ModelTap, Sink
from credit.valuation.layers import LayerChoice, experts_of, how_to_leave_out
from credit.valuation.manifest import IndexSettings
from credit.valuation.projection import (
    LayerMoments,
    LayerProjection,
    pca_projections,
    random_projections,
    resolve_ranks,
    rotated_to_eigenbasis,
)
from credit.valuation.task import AnyExample, Task, device_of

_SQUARED_AT_ONCE = 256
"""Positions of a head's outputs: the squares of all would be one more matrix of the logits' size."""

_INPUTS, _OUTPUTS, _POSITIONS = "x|", "d|", "n|"
"""Starts of the names of stored sums: of layers' inputs, of a layer's output gradients, of its positions."""
_JOINT = "\n"
"""Between the names of layers that share their inputs. No module's name has a line break."""


def fit_projections(
    layers: LayerChoice, settings: IndexSettings, moments: Mapping[str, LayerMoments] | None = None
) -> dict[str, LayerProjection]:
    """Make the projections of a model's watched layers, from the moments of a sample if the settings fit them."""
    shapes, seed = layers.shapes, settings.seed
    rank = resolve_ranks(shapes, settings.rank, settings.ranks)
    if moments is None:
        return random_projections(shapes, rank=rank, seed=seed)
    if settings.projection == "pca":
        projections = pca_projections(shapes, moments, rank=rank, seed=seed)
    else:
        projections = random_projections(shapes, rank=rank, seed=seed)
    if settings.curvature == "ekfac":
        return rotated_to_eigenbasis(projections, moments, experts_of(shapes))
    return projections


def choose_sample(examples: Examples, size: int) -> list[AnyExample]:
    """Choose at most `size` examples, in whole windows, or one window. The order of the data does not matter."""
    # By a hash of the id, not by a draw: the same sample for any order of the data.
    order = np.argsort(examples.window_keys("sample/"), kind="stable")
    within = int(np.searchsorted(np.cumsum(examples.window_counts[order]), size, side="right"))
    return examples.of_windows(order[: max(1, within)].tolist())


def sample_units(sample: Sequence[AnyExample], least: int) -> list[list[AnyExample]]:
    """Cut a sample into units of `least` examples or a few more, between windows."""
    units: list[list[AnyExample]] = []
    for window in by_window(sample):
        if not units or len(units[-1]) >= least:
            units.append([])
        units[-1] += [sample[place] for place in window.places]
    return units


def second_moments(
    task: Task,
    layers: LayerChoice,
    sample: Sequence[AnyExample],
    *,
    tokens_per_batch: int | None,
    exclude: bool = False,
    progress: Callable[[int], None] | None = None,
) -> MomentSums:
    """Return the sums of second moments of every layer's inputs and output gradients over a sample, without padding.

    A batch too large for memory has been summed in part, so the pass starts again with batches of half the size. It
    also starts again without excluded examples.

    Args:
        task: the model.
        layers: its watched layers.
        sample: the examples.
        tokens_per_batch: padded positions in a batch, at most; None for the device's default.
        exclude: go on without examples with non-finite inputs or gradients. If there are no others, the sums are empty.
        progress: called with the positions of each batch.

    Raises:
        ValuationError: a single example does not fit into memory, or is not finite and `exclude` is False.
    """
    longest = max((window.size for window in by_window(sample)), default=0)
    budget = tokens_in_batch(tokens_per_batch, device_of(task))
    while sample:
        try:
            sums = sum_moments(task, layers, sample, budget, progress)
            if sums.are_finite():
                return sums
            bad = _not_finite(task, layers, sample, budget)
            if bad and not exclude:
                raise ValuationError(f"{not_finite(sample[bad[0]], task)}, or exclude it with --non-finite exclude")
            if not bad:
                raise ValuationError(no_moments(task))
            excluded = set(bad)
            sample = [example for position, example in enumerate(sample) if position not in excluded]
            continue
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failure = str(error).splitlines()[0]
        # Outside the handler: the error's frames hold the tensors of the pass.
        release_memory(device_of(task))
        if budget <= longest:
            raise ValuationError(
                f"the second moments of an example of {longest} tokens do not fit into the memory of "
                f"{device_of(task)} ({failure}); lower --max-length, or watch fewer layers with --layers"
            )
        budget //= 2
    return MomentSums(layers.heads)


def no_moments(task: Task) -> str:
    """Return the message about a sample without finite moments, with a remedy."""
    return f"no second moments of {task.location} are finite; try --dtype fp32"


def sum_moments(
    task: Task,
    layers: LayerChoice,
    sample: Sequence[AnyExample],
    tokens_per_batch: int,
    progress: Callable[[int], None] | None = None,
) -> MomentSums:
    """Make one pass of `second_moments`, without splitting batches, excluding examples or checking the sums."""
    sums = MomentSums(layers.heads)
    windows = [window.window for window in by_window(sample)]
    with ModelTap(task.module, layers.watched, sums.observe, flat=task.flat_inputs) as tap:
        for places in plan_batches([window.size for window in windows], tokens_per_batch):
            batch = task.batch([windows[place] for place in places])
            sums.real = batch.real
            tap.run(batch.loss, batch.size, batch.positions)
            if progress:
                progress(sum(windows[place].size for place in places))
    for name in layers.watched:
        if name not in sums.b:
            raise ValuationError(f"layer {name} took no part in the loss; {how_to_leave_out(name)}")
    return sums


def _not_finite(task: Task, layers: LayerChoice, sample: Sequence[AnyExample], tokens_per_batch: int) -> list[int]:
    """Return the places of examples in windows with a non-finite input or gradient in a watched layer."""
    totals: list[Tensor] = []

    def observe(layers: Sequence[str], x: Tensor, routing: Routing | None) -> list[Sink]:
        def add(values: Tensor) -> None:
            totals.append((routing.spread(values) if routing else values).sum((1, 2)).to(device_of(task)))

        add(x)
        return [add] * len(layers)

    bad: list[int] = []
    windows = by_window(sample)
    with ModelTap(task.module, layers.watched, observe, flat=task.flat_inputs) as tap:
        for places in plan_batches([window.size for window in windows], tokens_per_batch):
            batch = task.batch([windows[place].window for place in places])
            totals.clear()
            tap.run(batch.loss, batch.size, batch.positions)
            finite = torch.stack(totals).isfinite().all(0).tolist()
            for place, good in zip(places, finite, strict=True):
                bad += [] if good else windows[place].places
    return sorted(bad)


class MomentSums:
    """Sums over real positions of x xᵀ and δ δᵀ, or δ² of a head, in float32 or better, with the number of positions.

    Layers with the same inputs share one sum.
    """

    def __init__(self, heads: Collection[str] = ()) -> None:
        self.a: dict[str, Tensor] = {}
        self.b: dict[str, Tensor] = {}
        self.rows: dict[str, int] = {}
        self.real: Tensor | None = None
        self._heads = heads

    def observe(self, layers: Sequence[str], x: Tensor, routing: Routing | None) -> list[Sink]:
        """Add the inputs of layers, and return the sink of each one's output gradients."""
        # Padding has inputs as any token has; counted, it would bend the fit towards itself.
        real = None if self.real is None else self.real.to(x.device)
        if real is not None and routing:
            rows = x[real.flatten()[routing.places]]
        elif real is not None and x.shape[:2] == real.shape:
            rows = x[real]
        else:
            rows = x.flatten(0, -2)
        for layer in layers:
            self.rows[layer] = self.rows.get(layer, 0) + len(rows)
        for total in self._sums_of(layers, rows):
            _add_products(total, rows)
        return [partial(self._add_outputs, layer) for layer in layers]

    def _add_outputs(self, layer: str, dy: Tensor) -> None:
        rows = dy.flatten(0, -2)  # padding has no gradient: its δ δᵀ adds nothing
        is_head = layer in self._heads
        if layer not in self.b:
            self.b[layer] = _zeros(rows, 1 if is_head else 2)
        (_add_squares if is_head else _add_products)(self.b[layer], rows)

    def _sums_of(self, layers: Sequence[str], rows: Tensor) -> list[Tensor]:
        """Return the sums for these layers' inputs: one, if they have had the same inputs so far."""
        others = {id(total) for layer, total in self.a.items() if layer not in layers}
        sums: dict[int, Tensor] = {}
        for layer in layers:
            before = self.a.get(layer)
            key = 0 if before is None else id(before)
            if key not in sums:
                sums[key] = _zeros(rows, 2) if before is None else before.clone() if key in others else before
            self.a[layer] = sums[key]
        return list(sums.values())

    def are_finite(self) -> bool:
        """Return True if no sum holds a NaN or an infinity."""
        return all(bool(total.isfinite().all()) for total in (*self.a.values(), *self.b.values()))

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums as stored tensors, which can be added to those of other samples by name."""
        shared: dict[int, list[str]] = {}
        for layer, total in self.a.items():
            shared.setdefault(id(total), []).append(layer)
        inputs = {_INPUTS + _JOINT.join(names): self.a[names[0]] for names in shared.values()}
        outputs = {_OUTPUTS + layer: total for layer, total in self.b.items()}
        return inputs | outputs | {_POSITIONS + layer: torch.tensor([count]) for layer, count in self.rows.items()}

    @classmethod
    def restored(cls, stored: Mapping[str, Tensor]) -> Self:
        """Return the sums in stored tensors."""
        sums = cls()
        for key in stored:
            kind, names = key[: len(_INPUTS)], key[len(_INPUTS) :].split(_JOINT)
            value = stored[key]
            for name in names:
                if kind == _POSITIONS:
                    sums.rows[name] = int(value)
                else:
                    # A layer can have shared its inputs with others in one sample, but not in the next.
                    own = sums.a if kind == _INPUTS else sums.b
                    own[name] = own[name] + value if name in own else value
        return sums

    def means(self) -> dict[str, LayerMoments]:
        """Turn the sums into moments, in place: they may be the largest thing in a build's memory."""
        rows = self.rows
        # Layers can share a sum of inputs: each is divided once.
        for name, total in {id(total): (name, total) for name, total in self.a.items()}.values():
            mirror(total).div_(max(1, rows[name]))  # the sample may reach an expert with no token
        for name, total in self.b.items():
            (mirror(total) if total.dim() == 2 else total).div_(max(1, rows[name]))
        return {name: LayerMoments(self.a[name], self.b[name]) for name in rows}


def _zeros(rows: Tensor, dimensions: int) -> Tensor:
    """Return zeros for sums of rows (n, W): (W,) or (W, W), in float32 or better."""
    dtype = torch.promote_types(rows.dtype, torch.float32)
    return rows.new_zeros(rows.shape[1:] * dimensions, dtype=dtype)


def _add_products(total: Tensor, rows: Tensor) -> None:
    """Add Σ r rᵀ of rows (n, W) to the upper triangle of a sum (W, W)."""
    add_grams([total], (rows if rows.is_cuda else rows.to(total.dtype))[None])


def _add_squares(total: Tensor, rows: Tensor) -> None:
    """Add Σ r² of rows (n, W), elementwise, to a sum (W,)."""
    for low in range(0, len(rows), _SQUARED_AT_ONCE):
        total += rows[low : low + _SQUARED_AT_ONCE].to(total.dtype).square().sum(0)
