"""Curvature of the training loss in each layer's projected weights: sums over examples, their damped inverse, weights.

none    no curvature: influence is the plain product of gradients
fisher  M = mean of vec(G) vec(G)ᵀ, dense
ekfac   M is diagonal, the mean of G² elementwise, in the Kronecker eigenbasis: projections are rotated to it
        (George et al. 2018, arXiv:1806.03884)

A weighting divides a training example's gradient g by its size. An example with a large loss pulls on every output;
with a weighting it counts no more than one that pulls on few:

none     no division
unit     the norm ‖g‖ over all watched layers together
relatif  the root of its self-influence √(gᵀ (M + λI)⁻¹ g)
         (the loss-relative RelatIF of Barshan et al. 2020, arXiv:2003.11630)

Influence is multiplied by the mean size of all examples: it stays in nats, those of an example of mean size.

Legend: N examples, D = S·R numbers in a layer's projected gradient, L layers of one width.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from credit.errors import ValuationError
from credit.valuation.gradients import Gradients, add_grams, mirror
from credit.valuation.influence import precondition

CURVATURES = ("none", "fisher", "ekfac")
WEIGHTINGS = ("none", "unit", "relatif")

BLOCK_ROWS = 256
"""Gradients in one product of the dense Fisher: it costs far less than 256 products of one gradient."""


class Statistic(Protocol):
    """Sum over training examples, from which a curvature is made."""

    def add(self, gradients: Mapping[str, Tensor]) -> None:
        """Add the gradients of a batch of examples: for each layer (N, D)."""
        ...

    def flush(self) -> None:
        """Add waiting gradients now. Called at fixed places, so sums do not depend on when they are read."""
        ...

    def sums(self) -> dict[str, Tensor]:
        """Return the sum of every layer over all added gradients."""
        ...


def make_statistic(curvature: str) -> Statistic:
    """Return the empty sum for a curvature."""
    if curvature == "none":
        return NoStatistic()
    return FisherSum() if curvature == "fisher" else SquareSum()


def statistic_bytes(curvature: str, widths: Iterable[int]) -> int:
    """Return the bytes of the sums for layers of D numbers in a projected gradient, in a model of at most fp32."""
    if curvature == "none":
        return 0
    return 4 * sum(width**2 for width in widths) if curvature == "fisher" else 8 * sum(widths)


class NoStatistic:
    """No sum."""

    def add(self, gradients: Mapping[str, Tensor]) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""

    def sums(self) -> dict[str, Tensor]:
        """Return nothing."""
        return {}


class SquareSum:
    """Sum of G² elementwise for each layer (D,), in float64: the corrected eigenvalues of EK-FAC."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, gradients: Mapping[str, Tensor]) -> None:
        """Add gradients: for each layer (N, D)."""
        for names, stack in Gradients.of(gradients).stacks:
            # In float64: a sum over millions of examples swallows the squares of one in float32.
            for name, squares in zip(names, stack.square().sum(1, dtype=torch.float64), strict=True):
                before = self._sums.get(name)
                self._sums[name] = squares if before is None else before + squares

    def flush(self) -> None:
        """Do nothing: no gradient waits."""

    def sums(self) -> dict[str, Tensor]:
        """Return Σ G² (D,) of every layer."""
        return dict(self._sums)


class FisherSum:
    """Sum of vec(G) vec(G)ᵀ (D, D) for each layer, by blocks of gradients, in their dtype (fp32 or fp64)."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._blocks: dict[tuple[str, ...], list[Tensor]] = {}
        self._pending = 0

    def add(self, gradients: Mapping[str, Tensor]) -> None:
        """Add gradients: for each layer (N, D)."""
        stacked = Gradients.of(gradients)
        for names, stack in stacked.stacks:
            self._blocks.setdefault(names, []).append(stack)
        self._pending += stacked.examples
        if self._pending >= BLOCK_ROWS:
            self.flush()

    def sums(self) -> dict[str, Tensor]:
        """Return Σ vec(G) vec(G)ᵀ (D, D) of every layer."""
        self.flush()
        return {name: mirror(total) for name, total in self._sums.items()}

    def flush(self) -> None:
        """Multiply and add the waiting gradients."""
        for names, blocks in self._blocks.items():
            rows = torch.cat(blocks, 1)
            for name in names:
                if name not in self._sums:
                    self._sums[name] = rows.new_zeros(rows.shape[2], rows.shape[2])
            add_grams([self._sums[name] for name in names], rows)
        self._blocks, self._pending = {}, 0


@dataclass(frozen=True, slots=True)
class Curvature:
    """Damped curvature of every layer; the identity without factors.

    Attributes:
        factors: for each layer the lower Cholesky factor (D, D) of M + λI, or M + λ (D,) of a diagonal M.
    """

    factors: Mapping[str, Tensor] = field(default_factory=dict)

    def precondition(self, layer: str, gradients: Tensor) -> Tensor:
        """Return (M + λI)⁻¹ g for gradients of a layer: (N, D) -> (N, D)."""
        return precondition(gradients, self.factors[layer]) if self.factors else gradients


def make_curvature(
    curvature: str, sums: Mapping[str, Tensor], examples: int, damping: float, experts: Collection[str] = ()
) -> Curvature:
    """Return the curvature of the sums over `examples` examples; λ = damping × the mean eigenvalue of each layer.

    A layer among `experts` that no example reached has rows of zeros. Nothing is divided by its curvature then but
    products with zero, and it has the identity.

    Raises:
        ValuationError: a layer had no gradient, or M + λI has no factor. There is no fallback: a score without its
            curvature would be a guess.
    """
    if curvature == "none":
        return Curvature()
    if damping <= 0:
        raise ValuationError(f"damping {damping} is not positive; the Fisher of few examples has no inverse")
    # Relative to each layer: the gradients of layers differ by orders of magnitude, and no one λ suits all.
    factor = _cholesky if curvature == "fisher" else _damped

    def of_layer(name: str, total: Tensor) -> Tensor:
        if name in experts and not total.any():
            return torch.ones_like(total) if total.dim() == 1 else torch.eye(*total.shape).to(total)
        return factor(name, total / examples, damping)

    return Curvature({name: of_layer(name, total) for name, total in sums.items()})


def _damped(name: str, mean: Tensor, damping: float) -> Tensor:
    """Return M + λ of a diagonal M (D,)."""
    return mean + damping * _mean_eigenvalue(name, mean)


def _cholesky(name: str, mean: Tensor, damping: float) -> Tensor:
    """Return the lower Cholesky factor of M + λI for a dense M (D, D), factorised in float64."""
    damped = mean.double()  # with little damping, float32 loses the small eigenvalues
    damped.diagonal().add_(damping * _mean_eigenvalue(name, mean.diagonal()))
    factor, info = torch.linalg.cholesky_ex(damped)
    if int(info) != 0:
        raise ValuationError(
            f"layer {name}: the curvature with damping {damping} is not positive definite; use a larger --damping"
        )
    lower: Tensor = factor.to(mean.dtype)
    return lower


def _mean_eigenvalue(name: str, diagonal: Tensor) -> float:
    """Return the mean eigenvalue of a layer's curvature, which is the mean of its diagonal."""
    scale = float(diagonal.double().mean())
    if not 0 < scale < float("inf"):
        raise ValuationError(
            f"layer {name}: no training example has a finite gradient there other than zero; leave it out of the index "
            "with --layers"
        )
    return scale


@dataclass(frozen=True, slots=True)
class Weighting:
    """Weighting of training examples by name. Only `relatif` uses the curvature."""

    name: str
    curvature: Curvature = field(default_factory=Curvature)

    def sizes(self, gradients: Mapping[str, Tensor]) -> Tensor | None:
        """Return the size of each example: gradients (N, D) of every layer -> (N,) float64. None if all count alike."""
        if self.name == "none":
            return None
        squares: Tensor | None = None
        for layer, rows in gradients.items():
            other = self.curvature.precondition(layer, rows) if self.name == "relatif" else rows
            # Layers are blocks of the curvature: self-influences of an example add up.
            part = (rows * other).sum(1, dtype=torch.float64)
            squares = part if squares is None else squares + part
        # Rounding can make the self-influence of a tiny gradient negative.
        return None if squares is None else squares.clamp(min=0).sqrt()


def weighted(gradients: Gradients, sizes: Tensor | None) -> Gradients:
    """Divide the gradients of N examples by their sizes (N,); see `divided`."""
    return gradients if sizes is None else gradients.map(lambda stack: divided(stack, sizes))


def divided(rows: Tensor, sizes: Tensor | None) -> Tensor:
    """Divide rows (..., N, D) of N examples by their sizes (N,). A gradient of zero stays zero."""
    if sizes is None:
        return rows
    return rows * torch.where(sizes > 0, 1 / sizes, 0.0).to(rows.dtype)[:, None]
