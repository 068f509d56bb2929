"""What the engine makes of a few examples, to be held against the oracle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from credit.valuation.batches import gradient_batches
from credit.valuation.example_store import HeldExamples
from credit.valuation.gradients import Gradients
from credit.valuation.hooks import GradientTap
from credit.valuation.layers import LayerChoice
from credit.valuation.manifest import IndexSettings
from credit.valuation.moments import choose_sample, fit_projections, second_moments
from credit.valuation.projection import LayerProjection
from credit.valuation.task import AnyExample, Task


def example_gradients(task: Task, tap: GradientTap, examples: Sequence[AnyExample]) -> Gradients:
    """Projected gradients of examples, in one batch and in their order: for each layer (N, S·R)."""
    ((positions, gradients),) = gradient_batches(task, tap, examples, 10**9)
    return gradients.map(lambda stack: stack[:, np.argsort(positions)])


def fitted(
    task: Task, layers: LayerChoice, examples: Sequence[AnyExample], settings: IndexSettings
) -> dict[str, LayerProjection]:
    """Projections of an index of some examples, from one unit of its sample."""
    if not settings.fits_projections:
        return fit_projections(layers, settings)
    sample = choose_sample(HeldExamples(examples), settings.sample)
    return fit_projections(layers, settings, second_moments(task, layers, sample, tokens_per_batch=500).means())
