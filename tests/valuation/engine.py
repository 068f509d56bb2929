"""What the engine makes of a few examples, to be held against the oracle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from credit.valuation.batches import gradient_batches
from credit.valuation.gradients import Gradients
from credit.valuation.hooks import GradientTap
from credit.valuation.task import AnyExample, Task


def example_gradients(task: Task, tap: GradientTap, examples: Sequence[AnyExample]) -> Gradients:
    """Projected gradients of examples, in one batch and in their order: for each layer (N, S·R)."""
    ((positions, gradients),) = gradient_batches(task, tap, examples, 10**9)
    return gradients.map(lambda stack: stack[:, np.argsort(positions)])
