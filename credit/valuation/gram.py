"""Sums of rowsᵀ rows, of which only the upper triangle is computed: nearly half of the work of the whole."""

from __future__ import annotations

from torch import Tensor

_PANEL = 256
"""Columns of a product. Narrower panels compute less below the diagonal, wider ones are faster products."""


def add_gram(total: Tensor, rows: Tensor) -> None:
    """Add rowsᵀ rows, of rows (N, D), to the upper triangle of `total` (D, D); see `mirror`."""
    for low in range(0, rows.shape[1], _PANEL):
        high = low + _PANEL
        total[low:high, low:].addmm_(rows[:, low:high].mT, rows[:, low:])


def mirror(total: Tensor) -> Tensor:
    """Copy the upper triangle of `total` (D, D) to the lower, in place, and return it. More may be added after it."""
    for low in range(0, len(total), _PANEL):
        high = low + _PANEL
        total[high:, low:high] = total[low:high, high:].mT
    return total
