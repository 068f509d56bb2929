"""Where every example's gradient goes: at most F rows per group, each the sum of a fold of examples."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from credit.errors import ValuationError
from credit.records import Group


@dataclass(frozen=True, slots=True)
class GroupLayout:
    """A group's rows in the index: `start` to `stop`, with its counts of examples and predicted tokens."""

    group: Group
    start: int
    stop: int
    examples: int
    tokens: int


@dataclass(frozen=True, slots=True)
class RowLayout:
    """The rows of an index. `row_of` (N,) gives each example's row; `counts` (R,) the examples in each row."""

    groups: tuple[GroupLayout, ...]
    row_of: NDArray[np.int64]
    counts: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Unit:
    """A shard's worth of consecutive rows, `low` to `high`, and the examples that belong into them."""

    number: int
    low: int
    high: int
    members: list[int]

    @property
    def shard(self) -> str:
        """The file of its rows."""
        return f"rows-{self.number:05d}.safetensors"


def fold_key(example_id: str) -> int:
    """Hash of an example's id, from which its fold follows: uniform on 64 bits, the same everywhere."""
    return int.from_bytes(hashlib.sha256(example_id.encode()).digest()[:8], "big")


def lay_out_rows(
    ids: Sequence[str],
    groups: Sequence[Group],
    tokens: Sequence[int],
    rows_per_group: int | None,
    excluded: Collection[str] = (),
) -> RowLayout:
    """Assign each example a row.

    A group of at most `rows_per_group` examples keeps each in a row of its own. A larger one is folded: an
    example's fold is its hash modulo `rows_per_group`, which depends on nothing but its own id, so that adding or
    withdrawing other examples never moves it, and workers need not know of each other. None keeps all apart.

    Examples in `excluded` have no row (-1). They count where it is decided whether their group is folded, so that
    leaving one out, which a gradient decides, moves no other.

    Raises:
        ValuationError: the spread of a group could not be estimated from its folds.
    """
    if rows_per_group is not None and rows_per_group < 2:
        raise ValuationError("rows per group must be at least 2: the spread of a group is estimated from its rows")
    members: dict[Group, list[int]] = {}
    for position, group in enumerate(groups):
        members.setdefault(group, []).append(position)
    row_of = np.full(len(ids), -1, dtype=np.int64)
    counts: list[int] = []
    layouts = []
    for group in sorted(members):
        keys = {position: fold_key(ids[position]) for position in members[group]}
        folded = rows_per_group is not None and len(keys) > rows_per_group
        if folded:
            assert rows_per_group is not None  # noqa: S101  # for the type checker: `folded` says so
            keys = {position: key % rows_per_group for position, key in keys.items()}
        rows: dict[tuple[int, int], list[int]] = {}
        kept = {position: key for position, key in keys.items() if ids[position] not in excluded}
        for position, key in kept.items():
            rows.setdefault((key, 0 if folded else position), []).append(position)
        if folded and len(rows) == 1:
            raise ValuationError(f"all {len(kept)} examples of {group} fell into one fold; use more rows per group")
        start = len(counts)
        for row in sorted(rows):
            row_of[rows[row]] = len(counts)
            counts.append(len(rows[row]))
        total = sum(tokens[position] for position in kept)
        if kept:
            layouts.append(GroupLayout(group, start, len(counts), len(kept), total))
    return RowLayout(tuple(layouts), row_of, np.asarray(counts, dtype=np.int64))
