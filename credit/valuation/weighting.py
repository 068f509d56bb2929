"""Weights of training examples, which tame those whose gradients are out of scale.

none     every example counts as it is
unit     an example's gradient is divided by its norm ‖g‖, over all watched layers together
relatif  by the root of its self-influence √(gᵀ (M + λI)⁻¹ g)
         (the loss-relative RelatIF of Barshan et al. 2020, arXiv:2003.11630)

With either, an example that pulls on every output because its loss is large counts no more than one that pulls on few.
What an example is divided by is called its size here. Influence is multiplied by the mean size of all examples, so that
it stays in nats: those that an example of mean size would have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from credit.valuation.curvature import Curvature, NoCurvature
from credit.valuation.stacked import Gradients

WEIGHTINGS = ("none", "unit", "relatif")


def needs_curvature(weighting: str, curvature: str) -> bool:
    """Whether sizes can be taken only when the curvature of all training data is known."""
    return weighting == "relatif" and curvature != "none"


@dataclass(frozen=True, slots=True)
class Weighting:
    """What examples are divided by. `curvature` is asked only by `relatif`."""

    name: str
    curvature: Curvature = field(default_factory=NoCurvature)

    def sizes(self, gradients: Mapping[str, Tensor]) -> Tensor | None:
        """Size of each example: gradients (N, D) of every layer -> (N,) float64, or None where all count alike."""
        if self.name == "none":
            return None
        squares: Tensor | None = None
        for layer, rows in gradients.items():
            other = self.curvature.precondition(layer, rows) if self.name == "relatif" else rows
            part = (rows * other).sum(1, dtype=torch.float64)
            squares = part if squares is None else squares + part
        return None if squares is None else squares.clamp(min=0).sqrt()


def weighted(gradients: Gradients, sizes: Tensor | None) -> Gradients:
    """Divide the gradients of N examples by their sizes (N,); see `divided`."""
    return gradients if sizes is None else gradients.map(lambda stack: divided(stack, sizes))


def divided(rows: Tensor, sizes: Tensor | None) -> Tensor:
    """Divide what is of N examples (..., N, D) by their sizes (N,); a gradient of zero stays zero."""
    if sizes is None:
        return rows
    return rows * torch.where(sizes > 0, 1 / sizes, 0.0).to(rows.dtype)[:, None]
