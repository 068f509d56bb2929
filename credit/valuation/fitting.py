"""Makes the projections of an index: from a seed alone, or fitted to the model and its training data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from credit.valuation.batches import Progress
from credit.valuation.layers import LayerChoice, LayerShape
from credit.valuation.manifest import IndexSettings
from credit.valuation.moments import choose_sample, needs_moments, second_moments
from credit.valuation.projection import (
    LayerMoments,
    LayerProjection,
    pca_projections,
    random_projections,
    rotated_to_eigenbasis,
)
from credit.valuation.ranks import Ranks, resolve_ranks
from credit.valuation.task import AnyExample, Task

PROJECTIONS = ("random", "pca")


def make_projections(
    task: Task,
    layers: LayerChoice,
    examples: Sequence[AnyExample],
    settings: IndexSettings,
    *,
    tokens_per_batch: int | None = None,
    exclude: bool = False,
    progress: Progress | None = None,
) -> dict[str, LayerProjection]:
    """Make the projections of a model's watched layers, from a pass over a sample where they need one."""
    shapes, seed = layers.shapes, settings.seed
    rank = resolve_ranks(shapes, settings.rank, settings.ranks)
    if not needs_moments(settings):
        return random_projections(shapes, rank=rank, seed=seed)
    moments = second_moments(
        task,
        layers,
        choose_sample(examples, settings.sample),
        tokens_per_batch=tokens_per_batch,
        exclude=exclude,
        progress=(lambda done, total: progress("moments", done, total)) if progress else None,
    )
    projections = _fit(settings, shapes, rank, moments)
    return rotated_to_eigenbasis(projections, moments) if settings.curvature == "ekfac" else projections


def _fit(
    settings: IndexSettings, shapes: tuple[LayerShape, ...], rank: Ranks, moments: Mapping[str, LayerMoments]
) -> dict[str, LayerProjection]:
    if settings.projection == "pca":
        return pca_projections(shapes, moments, rank=rank, seed=settings.seed)
    return random_projections(shapes, rank=rank, seed=settings.seed)
