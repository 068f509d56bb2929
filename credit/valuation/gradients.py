"""Projected gradients of many examples and layers at once: parts of windows, stacks of layers, sums and products.

Legend: N windows, M examples, T positions, O width of a layer's outputs, R and S ranks, D = S·R, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from credit.valuation.influence import project, projected_gradient
from credit.valuation.projection import Hashing, Side
from credit.valuation.rows import PlacedShares

Stack = tuple[tuple[str, ...], Tensor]
"""Names of L layers of one width, and a tensor for all of them: (L, ..., D)."""

PANEL_COLUMNS = {"cpu": 256, "cuda": 1024}
"""Columns of a product. Narrower panels compute less below the diagonal, wider ones are faster products."""

_LOSS_SCALE = 2.0**8
"""Factor of a loss in float16, which ends at 6e-8: a loss's gradients in the logits are at most 1, and mostly far less.

A power of two changes no digit, and with a constant an example's gradient depends on the example alone.
"""


def loss_scale(dtype: torch.dtype) -> float:
    """Return the factor of losses whose backward pass is in a dtype; gradients are divided by it in float32."""
    return _LOSS_SCALE if dtype == torch.float16 else 1.0


@dataclass(frozen=True, slots=True)
class WindowCut:
    """Cut of a batch's windows into examples: cells of positions, and the example of each cell.

    Its tensors are made once for a batch, so no layer has to wait for the device.

    Attributes:
        length: positions of a cell.
        width: positions of a window, T, padding included.
        cells: (K,) int64: the cells with an example; cell c of window n has the number n·C + c. None if all cells have
            one, in this order, each an example of its own.
        owner: (K,) int64: the example of each of these cells.
        examples: number of examples M.
    """

    length: int
    width: int
    cells: Tensor | None
    owner: Tensor
    examples: int


def cut_gradient(x: Tensor, dy: Tensor, p_out: Side, cut: WindowCut) -> Tensor:
    """Return the projected gradient of each example of cut windows.

    An example has the terms of its own positions, so the examples of a window sum to its gradient.

    Args:
        x: projected inputs (N, T, R).
        dy: output gradients (N, T, O).
        p_out: their projection to S.
        cut: the examples of the windows.

    Returns:
        (M, S, R), in float32 or better.
    """
    hashed = isinstance(p_out, Hashing)
    if not hashed:
        dy, p_out = project(dy, p_out), None
    whole = cut.width // cut.length * cut.length
    # Cells of all windows in one product. Where something is left over, that takes copies, but not of a vocabulary.
    step = cut.length if hashed and whole < cut.width else max(whole, 1)
    spans = [(low, min(low + step, whole)) for low in range(0, whole, step)]
    spans += [(whole, cut.width)] if whole < cut.width else []
    parts = [
        projected_gradient(_cells(x[:, low:high], cut.length), _cells(dy[:, low:high], cut.length), None, p_out)
        for low, high in spans
    ]
    by_window = [part.view(len(x), -1, *part.shape[1:]) for part in parts]
    by_cell = (torch.cat(by_window, 1) if len(spans) > 1 else by_window[0]).flatten(0, 1)
    if cut.cells is None:
        return by_cell
    total = by_cell.new_zeros(cut.examples, *by_cell.shape[1:])
    device = by_cell.device  # a layer's own, of a model on several
    return total.index_add_(0, cut.owner.to(device), by_cell.index_select(0, cut.cells.to(device)))


def _cells(values: Tensor, length: int) -> Tensor:
    """Cut positions into cells: (N, T, W) -> (N·C, length, W). Fewer positions than a cell's stay one cell."""
    return values if values.shape[1] <= length else values.reshape(-1, length, values.shape[2])


class Gradients(Mapping[str, Tensor]):
    """Projected gradients of M examples, (M, D) for each layer, with layers of one width side by side.

    A large model has hundreds of layers and a handful of widths. On small projected gradients a GPU works no longer
    than it takes to launch the operation, so one operation serves all layers of a width.

    Attributes:
        stacks: gradients of layers of one width, (L, M, D).
    """

    def __init__(self, stacks: Sequence[Stack], order: Sequence[str]) -> None:
        self.stacks = tuple(stacks)
        found = {name: rows for names, stack in stacks for name, rows in zip(names, stack.unbind(), strict=True)}
        self._layers = {name: found[name] for name in order}

    @classmethod
    def of(cls, layers: Mapping[str, Tensor]) -> Gradients:
        """Stack the gradients (M, D) of layers. A layer alone with its width is not copied."""
        if isinstance(layers, Gradients):
            return layers
        by_width: dict[int, list[str]] = {}
        for name, rows in layers.items():
            by_width.setdefault(rows.shape[1], []).append(name)
        stacks = [
            (tuple(names), torch.stack([layers[name] for name in names]) if names[1:] else layers[names[0]][None])
            for names in by_width.values()
        ]
        return cls(stacks, list(layers))

    def __getitem__(self, name: str) -> Tensor:
        return self._layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    @property
    def examples(self) -> int:
        """Number of examples M."""
        return self.stacks[0][1].shape[1]

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to every stack: (L, M, D) -> (L, M', D)."""
        return type(self)([(names, change(stack)) for names, stack in self.stacks], list(self._layers))

    def rows(self, chosen: Sequence[int]) -> Self:
        """Return the gradients of the examples `chosen`, in ascending order."""
        if len(chosen) == self.examples:
            return self
        places = torch.tensor(list(chosen))
        return self.map(lambda stack: stack.index_select(1, places.to(stack.device)))

    def finite(self) -> Tensor:
        """Return for each example if its gradient is finite in all layers: (M,) bool."""
        # One NaN or infinity spoils the sum, which is cheaper than a look at each number.
        return torch.stack([stack.sum((0, 2)) for _, stack in self.stacks]).sum(0).isfinite()


class RowSums:
    """Rows as sums of examples' gradients: (height, D) for each layer.

    Args:
        height: number of rows.
    """

    def __init__(self, height: int) -> None:
        self._height = height
        self._stacks: dict[tuple[str, ...], Tensor] = {}
        self.layers: dict[str, Tensor] = {}

    def add(self, gradients: Gradients, shares: PlacedShares) -> None:
        """Add the gradients of a batch's examples to their rows, each times its share."""
        for names, stack in gradients.stacks:
            if names not in self._stacks:
                self._stacks[names] = total = stack.new_zeros(len(names), self._height, stack.shape[2])
                for name, rows in zip(names, total.unbind(), strict=True):
                    # From now on the layer's rows are a view of the stack; `add_layer` may have begun them.
                    if name in self.layers:
                        rows.copy_(self.layers[name])
                    self.layers[name] = rows
            shares.add(self._stacks[names], stack)

    def add_layer(self, name: str, values: Tensor, shares: PlacedShares) -> None:
        """Add values (M, D) of one layer to their rows, each times its share."""
        if name not in self.layers:
            self.layers[name] = values.new_zeros(self._height, values.shape[1])
        shares.add(self.layers[name], values)


def add_grams(totals: Sequence[Tensor], rows: Tensor) -> None:
    """Add rowsᵀ rows to the upper triangle of each layer's total; see `mirror`.

    The upper triangle alone takes little more than half of the work. On a GPU, products of float32 rows are right to
    about 2⁻¹⁶ of |rows|ᵀ |rows|, and their sums to float32.

    Args:
        totals: of each of L layers (D, D), in float32 or better.
        rows: (L, M, D).
    """
    for total, left, right in zip(totals, *_factors(rows), strict=True):
        for low, high in _panels(total):
            panel = total[low:high, low:]
            if left.dtype == total.dtype:
                panel.addmm_(left[:, low:high].mT, right[:, low:])
            else:
                torch.addmm(panel, left[:, low:high].mT, right[:, low:], out_dtype=total.dtype, out=panel)


def _factors(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return both factors of the product: on a GPU bf16 matrices, whose products its matrix units sum in float32.

    A float32 number is the sum of two bf16 numbers, but for 2⁻¹⁶ of it. Products of two bf16 numbers are exact in
    float32. So three products are as good as one, at a fraction of the time.
    """
    if not rows.is_cuda or rows.dtype != torch.float32:
        return rows, rows
    high = rows.bfloat16()
    low = (rows - high).bfloat16()
    return torch.cat([high, high, low], 1), torch.cat([high, low, high], 1)


def mirror(total: Tensor) -> Tensor:
    """Copy the upper triangle of `total` (D, D) to the lower, in place, and return it. More may be added afterwards."""
    for low, high in _panels(total):
        total[high:, low:high] = total[low:high, high:].mT
    return total


def _panels(total: Tensor) -> Iterator[tuple[int, int]]:
    """Yield the first column of each panel, and the one after its last."""
    width = PANEL_COLUMNS.get(total.device.type, PANEL_COLUMNS["cpu"])
    for low in range(0, len(total), width):
        yield low, low + width
