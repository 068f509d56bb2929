"""Rows of an index: at most F for each group, each the sum of the gradients of a fold of examples.

The gradient of a shared example is added to a row of each of its groups, times the group's share.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
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
    members: NDArray[np.int64]
    new: NDArray[np.int64]

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
    def members(self) -> NDArray[np.int64]:
        """Positions of its examples, each once, in the order of their rows."""
        return _once(np.concatenate([shard.members for shard in self.shards]))

    @property
    def new(self) -> NDArray[np.int64]:
        """Positions of the examples that no earlier unit has."""
        return np.concatenate([shard.new for shard in self.shards])


def _once(positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return positions in their order, each where it comes first."""
    _, first = np.unique(positions, return_index=True)
    return positions if len(first) == len(positions) else positions[np.sort(first)]


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

    def of(self, examples: Sequence[int] | NDArray[np.int64], low: int, high: int) -> RowShares:
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

    def only(self, examples: Sequence[int] | NDArray[np.int64]) -> Destinations:
        """Return the destinations of some examples, which count from 0 then."""
        lengths = np.diff(self.first)[examples]
        first = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        slots = np.arange(first[-1]) + np.repeat(self.first[:-1][examples] - first[:-1], lengths)
        return Destinations(first, self.row[slots], self.share[slots])

    def shards(self, plan: Iterable[tuple[int, int]], most_examples: int) -> Iterator[ShardRows]:
        """Yield the rows (first row, last row + 1) of each shard in order, with their examples in the order of rows.

        Examples without a row follow, `most_examples` at a time.
        """
        owner = np.repeat(np.arange(len(self.first) - 1, dtype=np.int32), np.diff(self.first))
        nowhere = np.iinfo(np.int64).max
        # The first of its rows decides in which shard an example is new.
        lowest = np.minimum.reduceat(np.where(self.row < 0, nowhere, self.row), self.first[:-1])
        order = np.argsort(self.row, kind="stable")
        rows, owners = self.row[order], owner[order]
        number = high = 0
        for number, (low, high) in enumerate(plan, start=1):
            first, last = np.searchsorted(rows, [low, high])
            members = _once(owners[first:last].astype(np.int64))
            new = members[lowest[members] >= low]
            yield ShardRows(number - 1, low, high, members, members if len(new) == len(members) else new)
        rest = np.flatnonzero(lowest == nowhere)
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


@dataclass(frozen=True, slots=True)
class ExampleColumns:
    """Columns of N examples, from which their rows follow.

    Attributes:
        keys: (N,): `fold_key` of each id.
        tokens: (N,): predicted tokens.
        kinds: the different shares of examples.
        kind: (N,): the number of each example's shares in `kinds`.
        id_of: returns the id of an example.
    """

    keys: NDArray[np.uint64]
    tokens: NDArray[np.integer[Any]]
    kinds: Sequence[tuple[Share, ...]]
    kind: NDArray[np.integer[Any]]
    id_of: Callable[[int], str]

    @classmethod
    def of(cls, ids: Sequence[str], shares: Iterable[tuple[Share, ...]], tokens: Iterable[int]) -> Self:
        """Return the columns of examples in memory."""
        kinds: dict[tuple[Share, ...], int] = {}
        kind = np.asarray([kinds.setdefault(own, len(kinds)) for own in shares], dtype=np.int64)
        keys = np.asarray([fold_key(name) for name in ids], dtype=np.uint64)
        return cls(keys, np.asarray(list(tokens), dtype=np.int64), tuple(kinds), kind, ids.__getitem__)

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, names: Collection[str]) -> NDArray[np.bool_]:
        """Return True for each example with one of the ids."""
        found = np.isin(self.keys, np.asarray([fold_key(name) for name in names], dtype=np.uint64))
        for position in np.flatnonzero(found).tolist():
            found[position] = self.id_of(position) in names
        return found

    def repeated_id(self) -> str | None:
        """Return an id that two examples have; None if there is none."""
        order = np.argsort(self.keys, kind="stable")
        alike = np.flatnonzero(self.keys[order[1:]] == self.keys[order[:-1]])
        pairs = ((self.id_of(int(order[at])), self.id_of(int(order[at + 1]))) for at in alike)
        return next((one for one, two in pairs if one == two), None)


def lay_out_rows(examples: ExampleColumns, rows_per_group: int | None, excluded: Collection[str] = ()) -> RowLayout:
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
    groups = sorted({share.group for own in examples.kinds for share in own})
    first, group_of, ppm = _shares(examples, groups)
    owner = np.repeat(np.arange(len(examples), dtype=np.int32), np.diff(first))
    gone = examples.find(excluded) if excluded else None
    row_of = np.full(len(ppm), -1, dtype=np.int64)
    order = np.argsort(group_of, kind="stable")
    stops = np.cumsum(np.bincount(group_of, minlength=len(groups)))
    layouts: list[GroupLayout] = []
    rows = 0
    for group, low, high in zip(groups, [0, *stops.tolist()], stops.tolist(), strict=False):
        slots = order[low:high]
        kept = slots if gone is None else slots[~gone[owner[slots]]]
        if not len(kept):
            continue
        folded = rows_per_group is not None and len(slots) > rows_per_group
        own = _rows_of_group(examples, owner[kept], rows_per_group if folded else None)
        number = int(own.max()) + 1
        if folded and number == 1:
            raise ValuationError(f"all {len(kept)} examples of {group} fell into one fold; use more rows per group")
        row_of[kept] = rows + own
        tokens = examples.tokens[owner[kept]].astype(np.int64) @ ppm[kept]
        layouts.append(GroupLayout(group, rows, rows + number, len(kept), int(ppm[kept].sum()), int(tokens)))
        rows += number
    return RowLayout(tuple(layouts), _counts(row_of, ppm, rows), first, row_of, ppm)


def _shares(
    examples: ExampleColumns, groups: Sequence[Group]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """Return the first share of each example (N + 1,), and group and ppm of each share (P,)."""
    number = {group: at for at, group in enumerate(groups)}
    lengths = np.asarray([len(own) for own in examples.kinds], dtype=np.int64)
    group = np.asarray([number[share.group] for own in examples.kinds for share in own], dtype=np.int32)
    ppm = np.asarray([share.ppm for own in examples.kinds for share in own], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    first = np.concatenate([[0], np.cumsum(lengths[examples.kind])]).astype(np.int64)
    if (lengths == 1).all():
        return first, group[examples.kind], ppm[examples.kind]
    within = np.arange(first[-1]) - np.repeat(first[:-1], lengths[examples.kind])
    slots = np.repeat(starts[examples.kind], lengths[examples.kind]) + within
    return first, group[slots], ppm[slots]


def _rows_of_group(examples: ExampleColumns, members: NDArray[np.integer[Any]], folds: int | None) -> NDArray[np.int64]:
    """Return the row in its group of each member: its fold, or one of its own, both in the order of hashes.

    Single examples come in the order of their windows' hashes. So the examples of one window lie together, mostly in
    one shard, and the window is read once for them.
    """
    if folds is not None:
        return np.unique(examples.keys[members] % np.uint64(folds), return_inverse=True)[1].astype(np.int64)
    names = [examples.id_of(position) for position in members.tolist()]
    keys = [(fold_key(window_of(name)), name) for name in names]
    row = np.empty(len(members), dtype=np.int64)
    row[sorted(range(len(keys)), key=keys.__getitem__)] = np.arange(len(members))
    return row


def _counts(row_of: NDArray[np.int64], ppm: NDArray[np.int64], rows: int) -> RowCounts:
    """Count the content of each row. Sums are of integers: no order of examples changes them."""
    inside = row_of >= 0
    row, share = row_of[inside], ppm[inside]
    examples = np.bincount(row, minlength=rows)
    mass = np.bincount(row, share, rows) / PPM
    squares = np.bincount(row[share == PPM], minlength=rows).astype(np.float64)
    if (part := share != PPM).any():
        # In integers of any size: the square of a share has twelve digits.
        total = [int(whole) * PPM**2 for whole in squares]
        for at, value in zip(row[part].tolist(), share[part].tolist(), strict=True):
            total[at] += value * value
        squares = np.asarray([value / PPM**2 for value in total])
    return RowCounts(examples, mass, squares)
