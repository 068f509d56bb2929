"""Sums of rowsᵀ rows, of which only the upper triangle is computed: nearly half of the work of the whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

_PANEL = {"cpu": 256, "cuda": 1024}
"""Columns of a product. Narrower panels compute less below the diagonal, wider ones are faster products."""


def add_grams(totals: Sequence[Tensor], rows: Tensor) -> None:
    """Add rowsᵀ rows, of rows (L, N, D), to the upper triangles of L totals (D, D) in float32 or better; see `mirror`.

    On a GPU products of float32 rows are right to about 2⁻¹⁶ of |rows|ᵀ |rows|, and sums of them to float32.
    """
    for total, left, right in zip(totals, *_factors(rows), strict=True):
        for low, high in _panels(total):
            panel = total[low:high, low:]
            if left.dtype == total.dtype:
                panel.addmm_(left[:, low:high].mT, right[:, low:])
            else:
                torch.addmm(panel, left[:, low:high].mT, right[:, low:], out_dtype=total.dtype, out=panel)


def _factors(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return what is multiplied, of which the products of a GPU's matrix units are summed in float32.

    Products of two bf16 numbers are exact in float32. A float32 number is the sum of two of them and of less than 2⁻¹⁶
    of it, so that three products are as good as one, at a fraction of the time.
    """
    if not rows.is_cuda or rows.dtype != torch.float32:
        return rows, rows
    high = rows.bfloat16()
    low = (rows - high).bfloat16()
    return torch.cat([high, high, low], 1), torch.cat([high, low, high], 1)


def mirror(total: Tensor) -> Tensor:
    """Copy the upper triangle of `total` (D, D) to the lower, in place, and return it. More may be added after it."""
    for low, high in _panels(total):
        total[high:, low:high] = total[low:high, high:].mT
    return total


def _panels(total: Tensor) -> Iterator[tuple[int, int]]:
    """Yield the first column of each panel, and the one after its last."""
    width = _PANEL.get(total.device.type, _PANEL["cpu"])
    for low in range(0, len(total), width):
        yield low, low + width
