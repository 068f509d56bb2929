"""Curvature: the empirical Fisher of the training examples in each layer's projected weights, and its inverse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from credit.errors import ValuationError

_BLOCK_ROWS = 256
"""Gradients gathered before they are multiplied: one product of 256 rows costs far less than 256 of one row."""


class Curvature(Protocol):
    """What turns an output's gradient g into (M + λI)⁻¹ g, layer by layer."""

    def precondition(self, name: str, gradients: Tensor) -> Tensor:
        """Gradients (N, D) of a layer -> preconditioned gradients (N, D)."""
        ...


class FisherAccumulator:
    """Sums vec(G) vec(G)ᵀ over examples for each layer, in blocks, in the dtype of the gradients (fp32 or fp64)."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._blocks: dict[str, list[Tensor]] = {}
        self._pending = 0

    def add(self, gradients: Mapping[str, Tensor]) -> None:
        """Add gradients: for each layer (N, D)."""
        for name, rows in gradients.items():
            self._blocks.setdefault(name, []).append(rows)
        self._pending += next(iter(gradients.values())).shape[0]
        if self._pending >= _BLOCK_ROWS:
            self._flush()

    def sums(self) -> dict[str, Tensor]:
        """Return Σ vec(G) vec(G)ᵀ (D, D) of every layer."""
        self._flush()
        return self._sums

    def restore(self, sums: Mapping[str, Tensor]) -> None:
        """Continue from sums that were stored."""
        self._sums = dict(sums)
        self._blocks, self._pending = {}, 0

    def _flush(self) -> None:
        for name, blocks in self._blocks.items():
            rows = torch.cat(blocks)
            total = self._sums.get(name)
            if total is None:
                total = self._sums[name] = rows.new_zeros(rows.shape[1], rows.shape[1])
            _add_gram(total, rows)
        self._blocks, self._pending = {}, 0


def _add_gram(total: Tensor, rows: Tensor, panel: int = 1024) -> None:
    """Add rowsᵀ rows (D, D) to `total`, computing only the panels on and above the diagonal."""
    width = rows.shape[1]
    for low in range(0, width, panel):
        high = min(low + panel, width)
        product = rows[:, low:high].mT @ rows[:, low:]
        total[low:high, low:] += product
        if high < width:
            total[high:, low:high] += product[:, high - low :].mT


class DenseFisher:
    """(M_l + λ_l I)⁻¹ by Cholesky factors, with λ_l = damping · tr(M_l)/dim (DESIGN: relative damping)."""

    def __init__(self, factors: Mapping[str, Tensor]) -> None:
        self._factors = factors

    @classmethod
    def factorise(cls, sums: Mapping[str, Tensor], examples: int, damping: float) -> DenseFisher:
        """Factorise the mean of the sums over `examples` examples. damping > 0 is relative to the mean eigenvalue.

        Raises:
            ValuationError: a layer had no gradient, or its factorisation failed; never a silent fallback.
        """
        return cls({name: _cholesky(name, total / examples, damping) for name, total in sums.items()})

    def precondition(self, name: str, gradients: Tensor) -> Tensor:
        """Gradients (N, D) -> (M + λI)⁻¹ g (N, D)."""
        factor = self._factors[name]
        return torch.cholesky_solve(gradients.to(factor.dtype).mT, factor).mT

    def tensors(self) -> dict[str, Tensor]:
        """Return the lower Cholesky factors by layer."""
        return dict(self._factors)


def _cholesky(name: str, mean: Tensor, damping: float) -> Tensor:
    if damping <= 0:
        raise ValuationError(f"damping {damping} is not positive; the Fisher of few examples has no inverse")
    scale = float(mean.diagonal().double().mean())
    if not scale > 0:
        raise ValuationError(f"layer {name}: no training example has a finite gradient there other than zero")
    damped = mean.double()
    damped.diagonal().add_(damping * scale)
    factor, info = torch.linalg.cholesky_ex(damped)
    if int(info) != 0:
        raise ValuationError(
            f"layer {name}: the curvature with damping {damping} is not positive definite; use a larger --damping"
        )
    lower: Tensor = factor.to(mean.dtype)
    return lower
