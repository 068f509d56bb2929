"""Rows of an index: at most F for each group, each the sum of the gradients of a fold of examples.

The gradient of a shared example is added to a row of each of its groups, times the group's share.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from credit.errors import ValuationError
from credit.records import PPM, Group, Share
from credit.valuation.task import upload
from credit.valuation.tokens import window_of


@dataclass(frozen=True, slots=True)
class GroupLayout:
    """A group's rows in the index, and their content.

    Attributes:
        group: the group.
        start: its first row.
        stop: its last row + 1.
        examples: number of examples with a share of the group.
        examples_ppm: the sum of these shares, in parts per million of an example.
        tokens_ppm: the sum of its shares of their predicted tokens, in parts per million of a token.
    """

    group: Group
    start: int
    stop: int
    examples: int
    examples_ppm: int
    tokens_ppm: int


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Content of each of R rows: `examples` (R,) int64, the sums `mass` (R,) of their shares, and sums of `squares`."""

    examples: NDArray[np.int64]
    mass: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def unshared(cls, examples: NDArray[np.int64]) -> Self:
        """Return the counts of rows with `examples` (R,), none of them shared."""
        return cls(examples, examples.astype(np.float64), examples.astype(np.float64))

    def __len__(self) -> int:
        return len(self.examples)

    def tensors(self) -> dict[str, Tensor]:
        """Return the counts as stored tensors."""
        arrays = {"counts": self.examples, "mass": self.mass, "squares": self.squares}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


@dataclass(frozen=True, slots=True)
class RowShares:
    """Shares of a batch's examples, and their rows: `share[k]` of example `of[k]` goes to `row[k]`."""

    of: NDArray[np.int64]
    row: NDArray[np.int64]
    share: NDArray[np.float64]

    @classmethod
    def whole(cls, row: NDArray[np.int64]) -> Self:
        """Return the shares of a batch of unshared examples, with a row for each."""
        return cls(np.arange(len(row)), row, np.ones(len(row)))

    def on(self, device: torch.device, examples: int) -> PlacedShares:
        """Return the shares of a batch of `examples` examples on a device: once, for all layers."""

        def there(values: NDArray[Any]) -> Tensor:
            return upload(torch.from_numpy(values), device)

        if device.type == "cuda":
            # Rows that occur once need no mixing: each then gets one addend, in any order.
            rows, slots = np.unique(self.row, return_inverse=True)
            if len(rows) < len(self.row):
                mixing = np.zeros((len(rows), examples))
                np.add.at(mixing, (slots, self.of), self.share)
                return PlacedShares(there(rows), mixing=there(mixing))
        if len(self.of) == examples and (self.share == 1).all() and (self.of == np.arange(examples)).all():
            return PlacedShares(there(self.row))  # nothing shared, as a rule: then no gradient is copied
        return PlacedShares(there(self.row), there(self.of), there(self.share))


@dataclass(frozen=True, slots=True)
class PlacedShares:
    """Shares of a batch's examples on a device.

    Example `of[k]` (None: example k) times `share[k]` is added to `row[k]`, one after the other. A GPU would add in the
    order in which its threads arrive, and no two builds would agree to the last bit. There the product with `mixing`
    (n, N) first sums the shares for each of n rows.
    """

    row: Tensor
    of: Tensor | None = None
    share: Tensor | None = None
    mixing: Tensor | None = None

    def add(self, sums: Tensor, values: Tensor) -> None:
        """Add values (..., N, D) of the batch's examples to rows (..., height, D), each times its share."""
        if self.mixing is not None:
            values = self.mixing.to(values.dtype) @ values
        elif self.of is not None and self.share is not None:
            values = values.index_select(-2, self.of) * self.share.to(values.dtype)[:, None]
        sums.index_add_(-2, self.row, values.to(sums.dtype))


@dataclass(frozen=True, slots=True)
class ShardRows:
    """A shard's rows, `low` to `high`, and the examples with a share in them.

    Attributes:
        number: number of the shard.
        low: the first row.
        high: the last row + 1. Without rows, `low`: its examples have no share in any row, but count in the curvature.
        members: positions of the examples.
        new: positions of the examples that no earlier shard has; sums that count an example once add them here.
    """

    number: int
    low: int
    high: int
    members: list[int]
    new: list[int]

    @property
    def file(self) -> str:
        """File of the rows."""
        return f"rows-{self.number:05d}.safetensors"


@dataclass(frozen=True, slots=True)
class Unit:
    """Consecutive shards that are filled together: rows and curvature depend on the unit's examples alone."""

    number: int
    shards: tuple[ShardRows, ...]

    @property
    def members(self) -> list[int]:
        """Positions of its examples, each once, in the order of their rows."""
        return list(dict.fromkeys(position for shard in self.shards for position in shard.members))

    @property
    def new(self) -> list[int]:
        """Positions of the examples that no earlier unit has."""
        return [position for shard in self.shards for position in shard.new]


@dataclass(frozen=True, slots=True)
class Destinations:
    """The rows of the P shares of N examples.

    Attributes:
        first: (N + 1,): the shares of example i are `first[i]` to `first[i + 1]`, in the order of its groups.
        row: (P,): the row of each share; -1 for no row.
        share: (P,): the factor of the example's gradient in the row; negative to subtract it.
    """

    first: NDArray[np.int64]
    row: NDArray[np.int64]
    share: NDArray[np.float64]

    def of(self, examples: Sequence[int], low: int, high: int) -> RowShares:
        """Return the shares of a batch of examples in the rows from `low` to `high`, which count from 0."""
        starts, stops = self.first[:-1][examples], self.first[1:][examples]
        lengths = stops - starts
        of = np.repeat(np.arange(len(lengths)), lengths)
        slots = np.arange(len(of)) + np.repeat(starts - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
        row = self.row[slots]
        inside = (row >= low) & (row < high)
        return RowShares(of[inside], row[inside] - low, self.share[slots[inside]])

    def per_row(self, rows: int) -> NDArray[np.int64]:
        """Return the number of shares in each of the first rows: (rows,)."""
        return np.bincount(self.row[self.row >= 0], minlength=rows)

    def only(self, examples: Sequence[int]) -> Destinations:
        """Return the destinations of some examples, which count from 0 then."""
        lengths = np.diff(self.first)[examples]
        first = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        slots = np.arange(first[-1]) + np.repeat(self.first[:-1][examples] - first[:-1], lengths)
        return Destinations(first, self.row[slots], self.share[slots])

    def shards(self, plan: Iterable[tuple[int, int]], most_examples: int) -> Iterator[ShardRows]:
        """Yield the rows (first row, last row + 1) of each shard in order, with their examples in the order of rows.

        Examples without a row follow, `most_examples` at a time.
        """
        owner = np.repeat(np.arange(len(self.first) - 1), np.diff(self.first))
        nowhere = np.iinfo(np.int64).max
        # The first of its rows decides in which shard an example is new.
        lowest = np.minimum.reduceat(np.where(self.row < 0, nowhere, self.row), self.first[:-1])
        order = np.argsort(self.row, kind="stable")
        rows, owners = self.row[order], owner[order]
        number = high = 0
        for number, (low, high) in enumerate(plan, start=1):
            first, last = np.searchsorted(rows, [low, high])
            members = list(dict.fromkeys(owners[first:last].tolist()))
            new = [position for position in members if lowest[position] >= low]
            yield ShardRows(number - 1, low, high, members, new)
        rest: list[int] = np.flatnonzero(lowest == nowhere).tolist()
        for at in range(0, len(rest), most_examples):
            part = rest[at : at + most_examples]
            yield ShardRows(number, high, high, part, part)
            number += 1


def join_shards(shards: Iterable[ShardRows], least_examples: int) -> Iterator[Unit]:
    """Yield units of consecutive shards, each with `least_examples` new examples or a few more; the last with fewer."""
    number = examples = 0
    joined: list[ShardRows] = []
    for shard in shards:
        joined.append(shard)
        examples += len(shard.new)
        if examples >= least_examples:
            yield Unit(number, tuple(joined))
            number, examples, joined = number + 1, 0, []
    if joined:
        yield Unit(number, tuple(joined))


@dataclass(frozen=True, slots=True)
class RowLayout:
    """The rows of an index, and the P shares of its N examples.

    Attributes:
        groups: groups with their rows, in the order of their names.
        counts: the content of each row.
        first: (N + 1,): the shares of example i are `first[i]` to `first[i + 1]`, in the order of its groups.
        row_of: (P,): the row of each share; -1 where the example is excluded.
        ppm: (P,): each share, in parts per million of its example.
    """

    groups: tuple[GroupLayout, ...]
    counts: RowCounts
    first: NDArray[np.int64]
    row_of: NDArray[np.int64]
    ppm: NDArray[np.int64]

    def rows_of(self, example: int) -> NDArray[np.int64]:
        """Return the rows of an example's shares."""
        return self.row_of[self.first[example] : self.first[example + 1]]

    def destinations(self, start: int = 0) -> Destinations:
        """Return the destinations of the examples from number `start` on."""
        slot = self.first[start]
        return Destinations(self.first[start:] - slot, self.row_of[slot:], self.ppm[slot:] / PPM)


def fold_key(example_id: str) -> int:
    """Return the hash of an example's id, from which its fold follows: 64 uniform bits, the same on every machine."""
    return int.from_bytes(hashlib.sha256(example_id.encode()).digest()[:8], "big")


def lay_out_rows(
    ids: Sequence[str],
    shares: Sequence[tuple[Share, ...]],
    tokens: Sequence[int],
    rows_per_group: int | None,
    excluded: Collection[str] = (),
) -> RowLayout:
    """Assign each example a row in each of its groups.

    A group of at most `rows_per_group` examples has a row for each of them; None does this for every group. A larger
    group is folded: an example's fold is its hash modulo `rows_per_group`. The hash depends on the example's own id
    alone. So adding or withdrawing other examples never moves it, and workers need not know of each other.

    Examples in `excluded` have no row (-1), but count in the size of their group: excluding one moves no other.

    Raises:
        ValuationError: the spread of a group could not be estimated from its folds.
    """
    if rows_per_group is not None and rows_per_group < 2:
        raise ValuationError("rows per group must be at least 2: the spread of a group is estimated from its rows")
    first = np.cumsum([0, *map(len, shares)], dtype=np.int64)
    ppm = np.asarray([share.ppm for own in shares for share in own], dtype=np.int64)
    members: dict[Group, list[tuple[int, int]]] = {}  # of each group: its examples, with their slot among all shares
    for position, own_shares in enumerate(shares):
        for slot, share in enumerate(own_shares, start=int(first[position])):
            members.setdefault(share.group, []).append((position, slot))
    row_of = np.full(len(ppm), -1, dtype=np.int64)
    rows: list[list[int]] = []
    layouts = []
    for group in sorted(members):
        kept = [(position, slot) for position, slot in members[group] if ids[position] not in excluded]
        if not kept:
            continue
        folded = rows_per_group is not None and len(members[group]) > rows_per_group
        own = _rows_of_group(ids, kept, rows_per_group if folded else None)
        if folded and len(own) == 1:
            raise ValuationError(f"all {len(kept)} examples of {group} fell into one fold; use more rows per group")
        start = len(rows)
        for row, slots in enumerate(own, start=start):
            row_of[slots] = row
        rows += own
        in_all = sum(int(ppm[slot]) for _, slot in kept)
        tokens_in_all = sum(tokens[position] * int(ppm[slot]) for position, slot in kept)
        layouts.append(GroupLayout(group, start, len(rows), len(kept), in_all, tokens_in_all))
    return RowLayout(tuple(layouts), _counts(rows, ppm), first, row_of, ppm)


def _rows_of_group(ids: Sequence[str], members: Sequence[tuple[int, int]], folds: int | None) -> list[list[int]]:
    """Put the shares of a group into rows, a row for each fold or for each example, in the order of hashes.

    Single examples come in the order of their windows' hashes. So the examples of one window lie together, mostly in
    one shard, and the window is read once for them.
    """
    if folds is None:
        order = sorted(members, key=lambda member: (fold_key(window_of(ids[member[0]])), ids[member[0]]))
        return [[slot] for _, slot in order]
    rows: dict[int, list[int]] = {}
    for position, slot in members:
        rows.setdefault(fold_key(ids[position]) % folds, []).append(slot)
    return [rows[key] for key in sorted(rows)]


def _counts(rows: Sequence[Sequence[int]], ppm: NDArray[np.int64]) -> RowCounts:
    """Count the content of each row. Sums are of integers: no order of examples changes them."""
    own = [[int(ppm[slot]) for slot in row] for row in rows]
    return RowCounts(
        np.asarray([len(row) for row in rows], dtype=np.int64),
        np.asarray([sum(row) / PPM for row in own], dtype=np.float64),
        np.asarray([sum(share * share for share in row) / PPM**2 for row in own], dtype=np.float64),
    )
