"""Curvature of the training loss in each layer's projected weights: what is summed over examples, and its inverse.

none    no curvature: influence is the plain product of gradients
fisher  M = mean of vec(G) vec(G)ᵀ, dense
ekfac   M is diagonal, the mean of G² elementwise, in the Kronecker eigenbasis: projections are rotated to it
        (George et al. 2018, arXiv:1806.03884)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from credit.errors import ValuationError
from credit.valuation.gram import add_grams, mirror
from credit.valuation.stacked import Gradients

CURVATURES = ("none", "fisher", "ekfac")

BLOCK_ROWS = 256
"""Gradients gathered before they are multiplied: one product of 256 rows costs far less than 256 of one row."""


class Statistic(Protocol):
    """A sum over training examples from which a curvature is made."""

    def add(self, gradients: Mapping[str, Tensor]) -> None:
        """Add the gradients of a batch of examples: for each layer (N, D)."""
        ...

    def flush(self) -> None:
        """Add at once what waits until there is enough of it. So sums do not depend on when they are asked for."""
        ...

    def sums(self) -> dict[str, Tensor]:
        """Return the sums of every layer over all that was added."""
        ...

    def restore(self, sums: Mapping[str, Tensor]) -> None:
        """Continue from sums that were stored."""
        ...


class Curvature(Protocol):
    """What turns an output's gradient g into (M + λI)⁻¹ g, layer by layer."""

    def precondition(self, name: str, gradients: Tensor) -> Tensor:
        """Gradients (N, D) of a layer -> preconditioned gradients (N, D)."""
        ...


def make_statistic(curvature: str) -> Statistic:
    """Return the empty sum that a curvature needs."""
    if curvature == "none":
        return NoStatistic()
    return FisherSum() if curvature == "fisher" else SquareSum()


def make_curvature(curvature: str, sums: Mapping[str, Tensor], examples: int, damping: float) -> Curvature:
    """Make a curvature from the sums over `examples` examples; λ = damping × the mean eigenvalue of each layer.

    Raises:
        ValuationError: a layer had no gradient, or its factorisation failed; never a silent fallback.
    """
    if curvature == "none":
        return NoCurvature()
    if damping <= 0:
        raise ValuationError(f"damping {damping} is not positive; the Fisher of few examples has no inverse")
    if curvature == "fisher":
        return DenseFisher({name: _cholesky(name, total / examples, damping) for name, total in sums.items()})
    return EkFac({name: _damped(name, total / examples, damping) for name, total in sums.items()})


class NoStatistic:
    """Nothing is summed."""

    def add(self, gradients: Mapping[str, Tensor]) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""

    def sums(self) -> dict[str, Tensor]:
        """Return nothing."""
        return {}

    def restore(self, sums: Mapping[str, Tensor]) -> None:
        """Do nothing."""


class SquareSum:
    """Sums G² elementwise for each layer (D,), in float64: the corrected eigenvalues of EK-FAC."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, gradients: Mapping[str, Tensor]) -> None:
        """Add gradients: for each layer (N, D)."""
        for names, stack in Gradients.of(gradients).stacks:
            for name, squares in zip(names, stack.square().sum(1, dtype=torch.float64), strict=True):
                before = self._sums.get(name)
                self._sums[name] = squares if before is None else before + squares

    def flush(self) -> None:
        """Do nothing: nothing waits."""

    def sums(self) -> dict[str, Tensor]:
        """Return Σ G² (D,) of every layer."""
        return dict(self._sums)

    def restore(self, sums: Mapping[str, Tensor]) -> None:
        """Continue from sums that were stored."""
        self._sums = dict(sums)


class FisherSum:
    """Sums vec(G) vec(G)ᵀ (D, D) for each layer, in blocks, in the dtype of the gradients (fp32 or fp64)."""

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

    def restore(self, sums: Mapping[str, Tensor]) -> None:
        """Continue from sums that were stored."""
        self._sums = dict(sums)
        self._blocks, self._pending = {}, 0

    def flush(self) -> None:
        """Multiply the gradients that were gathered."""
        for names, blocks in self._blocks.items():
            rows = torch.cat(blocks, 1)
            for name in names:
                if name not in self._sums:
                    self._sums[name] = rows.new_zeros(rows.shape[2], rows.shape[2])
            add_grams([self._sums[name] for name in names], rows)
        self._blocks, self._pending = {}, 0


class NoCurvature:
    """The identity."""

    def precondition(self, name: str, gradients: Tensor) -> Tensor:
        """Return the gradients as they are."""
        return gradients


class EkFac:
    """1 / (M + λ), elementwise, in the Kronecker eigenbasis."""

    def __init__(self, damped: Mapping[str, Tensor]) -> None:
        self._damped = damped

    def precondition(self, name: str, gradients: Tensor) -> Tensor:
        """Gradients (N, D) -> g / (M + λ) (N, D)."""
        return gradients / self._damped[name].to(gradients.dtype)


class DenseFisher:
    """(M + λI)⁻¹ by lower Cholesky factors of M + λI."""

    def __init__(self, factors: Mapping[str, Tensor]) -> None:
        self._factors = factors

    def precondition(self, name: str, gradients: Tensor) -> Tensor:
        """Gradients (N, D) -> (M + λI)⁻¹ g (N, D)."""
        factor = self._factors[name]
        return torch.cholesky_solve(gradients.to(factor.dtype).mT, factor).mT

    def tensors(self) -> dict[str, Tensor]:
        """Return the factors by layer."""
        return dict(self._factors)


def _damped(name: str, mean: Tensor, damping: float) -> Tensor:
    """M + λ of a diagonal M (D,)."""
    return mean + damping * _scale(name, mean)


def _cholesky(name: str, mean: Tensor, damping: float) -> Tensor:
    damped = mean.double()
    damped.diagonal().add_(damping * _scale(name, mean.diagonal()))
    factor, info = torch.linalg.cholesky_ex(damped)
    if int(info) != 0:
        raise ValuationError(
            f"layer {name}: the curvature with damping {damping} is not positive definite; use a larger --damping"
        )
    lower: Tensor = factor.to(mean.dtype)
    return lower


def _scale(name: str, diagonal: Tensor) -> float:
    """Return the mean eigenvalue of a layer's curvature, from its diagonal."""
    scale = float(diagonal.double().mean())
    if not 0 < scale < float("inf"):
        raise ValuationError(
            f"layer {name}: no training example has a finite gradient there other than zero; leave it out of the index "
            "with --layers"
        )
    return scale
