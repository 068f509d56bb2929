"""Gradients and sums of layers of one width side by side: one operation for all of them instead of one for each.

A large model has hundreds of layers and a handful of widths. What is done to their small projected gradients takes a
GPU no longer than being told to do it, and a host longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

from credit.valuation.rows import PlacedShares

Stack = tuple[tuple[str, ...], Tensor]
"""Names of L layers of one width, and what is of them, (L, ..., D)."""


class Gradients(Mapping[str, Tensor]):
    """Projected gradients of N examples: for each layer (N, D).

    Attributes:
        stacks: of layers of one width, (L, N, D).
    """

    def __init__(self, stacks: Sequence[Stack], order: Sequence[str]) -> None:
        self.stacks = tuple(stacks)
        found = {name: rows for names, stack in stacks for name, rows in zip(names, stack.unbind(), strict=True)}
        self._layers = {name: found[name] for name in order}

    @classmethod
    def of(cls, layers: Mapping[str, Tensor]) -> Gradients:
        """Stack the gradients (N, D) of layers; those of a layer that is alone with its width are not copied."""
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
        """Number of examples N."""
        return self.stacks[0][1].shape[1]

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to every stack: (L, N, D) -> (L, N', D)."""
        return type(self)([(names, change(stack)) for names, stack in self.stacks], list(self._layers))

    def rows(self, chosen: Sequence[int]) -> Self:
        """Return the gradients of the examples `chosen`, in ascending order."""
        if len(chosen) == self.examples:
            return self
        places = torch.tensor(list(chosen))
        return self.map(lambda stack: stack.index_select(1, places.to(stack.device)))

    def finite(self) -> Tensor:
        """Whether each example's gradient is finite in all layers: (N,) bool."""
        return torch.stack([stack.sum((0, 2)) for _, stack in self.stacks]).sum(0).isfinite()


class RowSums:
    """Rows that examples are summed into: for each layer (height, D).

    Args:
        height: number of rows.
    """

    def __init__(self, height: int) -> None:
        self._height = height
        self._stacks: dict[tuple[str, ...], Tensor] = {}
        self.layers: dict[str, Tensor] = {}

    def add(self, gradients: Gradients, shares: PlacedShares) -> None:
        """Add the gradients of a batch's examples, each times its share in a row."""
        for names, stack in gradients.stacks:
            if names not in self._stacks:
                self._stacks[names] = total = stack.new_zeros(len(names), self._height, stack.shape[2])
                for name, rows in zip(names, total.unbind(), strict=True):
                    if name in self.layers:
                        rows.copy_(self.layers[name])
                    self.layers[name] = rows
            shares.add(self._stacks[names], stack)

    def add_layer(self, name: str, values: Tensor, shares: PlacedShares) -> None:
        """Add values (N, D) of one layer."""
        if name not in self.layers:
            self.layers[name] = values.new_zeros(self._height, values.shape[1])
        shares.add(self.layers[name], values)
