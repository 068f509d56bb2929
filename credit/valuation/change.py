"""Changes of an attribution index: examples join or leave, and rows move.

A build is a change too: all its examples join an empty index.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from credit.errors import ValuationError
from credit.records import PPM
from credit.valuation.example_store import Examples, HeldExamples
from credit.valuation.examples import Member, StoredMembers, columns_of
from credit.valuation.manifest import IndexManifest, IndexSettings, Revision
from credit.valuation.rows import Destinations, RowLayout, Unit, join_shards, lay_out_rows
from credit.valuation.shards import plan_shards

UNIT_EXAMPLES = 8192
"""Most examples of a unit, unless a single row has more, or the change has more than `MOST_UNITS` such units."""

MOST_UNITS = 4096
"""Units of a large change: beyond it, units grow with the data."""

SUM_BYTES = 64 * 2**10
"""Bytes of partial sums that an example pays for: a dense Fisher makes larger units, or its files would cost more than
the gradients."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change of an index.

    Attributes:
        members: all examples of the index after the change; joining ones come last.
        changing: the joining or the leaving examples.
        data_sha256: hash of the training data after the change.
        revision: its record in the manifest; None for a build.
    """

    members: Sequence[Member]
    changing: Sequence[Member]
    data_sha256: str
    revision: Revision | None = None

    @property
    def is_build(self) -> bool:
        """True if it changes an empty index."""
        return self.revision is None

    @property
    def sign(self) -> int:
        """1 if examples join, -1 if they leave: the sign of their gradients."""
        return -1 if self.revision is not None and self.revision.action == "withdraw" else 1

    @property
    def examples(self) -> Examples:
        """Content of the joining or leaving examples, in the order of `changing`."""
        if isinstance(self.changing, StoredMembers):
            return self.changing.store
        return HeldExamples([member.example for member in self.changing if member.example is not None])

    @property
    def excluded_before(self) -> list[str]:
        """Ids of the examples that the index has excluded so far."""
        return [] if self.is_build else [member.id for member in self.members if member.is_excluded]

    def lay_out(self, rows_per_group: int | None, excluded: Collection[str]) -> RowLayout:
        """Return the rows after the change, without the examples `excluded`; see `lay_out_rows`."""
        return lay_out_rows(columns_of(self.members), rows_per_group, excluded)


@dataclass(frozen=True, slots=True)
class ChangePlan:
    """The rows of an index after a change, if the change excludes no further example.

    Attributes:
        layout: the new rows.
        moved: (R,): the new row of each old row; -1 if everything in it leaves.
        destinations: the new rows of the changing examples, which are added there or subtracted.
        units: the new rows, cut into units of shards with the changing examples of each. They follow from the data and
            the settings alone.
    """

    layout: RowLayout
    moved: NDArray[np.int64]
    destinations: Destinations
    units: tuple[Unit, ...]


def plan_change(change: Change, before: IndexManifest, folder: Path, width: int, statistic_bytes: int) -> ChangePlan:
    """Plan a change of an index.

    Args:
        change: the change.
        before: manifest of the index before the change; for a build, of an empty one.
        folder: folder of the index, for messages.
        width: numbers in a row.
        statistic_bytes: bytes of the curvature's sums.

    Raises:
        ValuationError: the change cannot be made exactly.
    """
    layout = change.lay_out(before.settings.rows_per_group, frozenset(change.excluded_before))
    moved = _moved_rows(change, layout, before, folder)
    if change.sign > 0:
        destinations = layout.destinations(len(change.members) - len(change.changing))
    else:
        destinations = _subtractions(change.changing, moved, before.settings)
    most = max(UNIT_EXAMPLES, -(-len(change.changing) // MOST_UNITS))
    stops = [group.stop for group in layout.groups]
    cuts = plan_shards(stops, width, destinations.per_row(len(layout.counts)), most)
    units = join_shards(destinations.shards(cuts, most), statistic_bytes // SUM_BYTES)
    return ChangePlan(layout, moved, destinations, tuple(units))


def _moved_rows(change: Change, layout: RowLayout, before: IndexManifest, folder: Path) -> NDArray[np.int64]:
    """Return the new row of each old one.

    Raises:
        ValuationError: a group has so few examples left that they would have rows of their own.
    """
    old_rows = before.groups[-1].stop if before.groups else 0
    moved = np.full(old_rows, -1, dtype=np.int64)
    for number, member in enumerate(change.members if old_rows else ()):
        for share, old, new in zip(member.shares, member.old_rows, layout.rows_of(number), strict=False):
            if moved[old] not in {-1, new}:
                raise ValuationError(
                    f"{share.group} would have so few examples left that each has a row of its own, but {folder} "
                    "holds their sums alone; build it again from the data that stays"
                )
            moved[old] = new
    return moved


def _subtractions(leaving: Sequence[Member], moved: NDArray[np.int64], settings: IndexSettings) -> Destinations:
    """Return the destinations of leaving examples: rows that stay, because other groups share the examples.

    Raises:
        ValuationError: such a row is not stored exactly, so nothing can be subtracted from it.
    """
    first = np.cumsum([0, *(len(member.shares) for member in leaving)], dtype=np.int64)
    row = moved[[old for member in leaving for old in member.old_rows]]
    factor = np.asarray([-share.ppm / PPM for member in leaving for share in member.shares], dtype=np.float64)
    staying = np.flatnonzero(row >= 0)
    if len(staying) and settings.rows_dtype != "fp32":
        owner = leaving[int(np.searchsorted(first, staying[0], side="right")) - 1]
        raise ValuationError(
            f"{owner.id} is shared, and its share in the rows of others cannot be taken out of {settings.rows_dtype} "
            "exactly; build the index again from the data that stays"
        )
    return Destinations(first, row, factor)
