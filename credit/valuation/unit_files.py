"""Finished units on disk, and the merge of their partial sums in a fixed order.

A unit is done once its record is there: the record names every file of the unit with its digest. An interrupted pass
goes on with the units that have none, whoever did the others, and in which order.

Sums of floats depend on the order of additions. Partial sums are merged from the first unit on, one after the other, so
the result is the same for any number of workers and any interruption.
"""

from __future__ import annotations

import json
import re
import shutil
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from credit.errors import MismatchError
from credit.storage import is_left_over, parse_object, sha256_file, write_whole
from credit.valuation.shards import StoredTensors, save_tensors

WORK_FOLDER = "build"
"""Folder inside an index with the finished units of an unfinished build, in a folder for its inputs."""

TOKENS_FOLDER = "tokens"
"""Folder inside an index with the tokens of its data, until it is finished."""

WAITING_BYTES = 256 * 2**20
"""Partial sums that wait on disk until they are merged: to write a merged one for each unit would take longer."""

_MOST_WAITING = 64
"""Units that wait to be merged."""

_CPU = torch.device("cpu")
_RECORD = re.compile(r"([a-z]+)-\d+-\d+\.json")


@dataclass(frozen=True, slots=True)
class UnitRecord:
    """Record of a finished unit, or of consecutive ones with merged sums.

    Attributes:
        first: number of the first unit.
        stop: number of the last unit + 1.
        sums: SHA-256 of the file of partial sums.
        shards: written files of rows, with their SHA-256.
        excluded: ids of the units' examples that were left out, because their gradients are not finite.
        sizes: sum of the sizes of the units' examples, see `curvature.Weighting`.
        build: identity of everything that decides the units of this pass.
    """

    first: int
    stop: int
    build: str
    sums: str
    shards: Mapping[str, str]
    excluded: tuple[str, ...] = ()
    sizes: float = 0.0

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read a record; None if it is damaged."""
        try:
            body = parse_object(path.read_bytes())
            return cls(**(body | {"excluded": tuple(body["excluded"])}))
        except (ValueError, TypeError, KeyError):
            return None


@dataclass(frozen=True, slots=True)
class UnitFolder:
    """Finished units of one pass over the data.

    Attributes:
        folder: folder of the records and the partial sums.
        phase: name of the pass, with which the names of its files begin.
        index: folder of the index, with the shards.
        build: identity of everything that decides the units of this pass. Units of another one do not count.
    """

    folder: Path
    phase: str
    index: Path
    build: str

    def sums(self, record: UnitRecord, device: torch.device = _CPU) -> StoredTensors:
        """Return the partial sums of a record, to be read one at a time."""
        return StoredTensors(self._sums_file(record), device)

    def _sums_file(self, record: UnitRecord) -> Path:
        return self._path(record.first, record.stop, "safetensors")

    def _path(self, first: int, stop: int, suffix: str) -> Path:
        return self.folder / f"{self.phase}-{first:05d}-{stop:05d}.{suffix}"

    def keep(
        self,
        units: range,
        sums: Mapping[str, Tensor],
        *,
        shards: Mapping[str, str],
        excluded: Sequence[str] = (),
        sizes: float = 0.0,
    ) -> UnitRecord:
        """Write the partial sums of consecutive units, then their record: from now on they are done."""
        digest = save_tensors(self._path(units.start, units.stop, "safetensors"), sums)
        record = UnitRecord(units.start, units.stop, self.build, digest, shards, tuple(excluded), sizes)
        write_whole(self._path(units.start, units.stop, "json"), json.dumps(asdict(record)).encode())
        return record

    def records(self) -> list[UnitRecord]:
        """Return the records of all finished units in order. A damaged or incomplete unit counts as not done."""
        if not self.folder.is_dir():
            return []
        found: list[UnitRecord] = []
        for path in self.folder.iterdir():
            if (match := _RECORD.fullmatch(path.name)) and match[1] == self.phase:
                record = UnitRecord.read(path)
                if record and self._path(record.first, record.stop, "json") == path and self._is_whole(record):
                    found.append(record)
        chosen: list[UnitRecord] = []
        # A merge deletes its parts last: the longer of two records counts.
        for record in sorted(found, key=lambda record: (record.first, -record.stop)):
            if not chosen or record.first >= chosen[-1].stop:
                chosen.append(record)
        return chosen

    def _is_whole(self, record: UnitRecord) -> bool:
        """Return True if all files of a unit are there. A shard is compared with its digest at its first use."""
        if record.build != self.build:
            return False
        sums = self._sums_file(record)
        there = sums.is_file() and all((self.index / name).is_file() for name in record.shards)
        return there and sha256_file(sums) == record.sums

    def problem(self, unit: int) -> str | None:
        """Say in words why a unit does not count; None if all of its files are as they were written."""
        path = self._path(unit, unit + 1, "json")
        if not path.is_file():
            return "is missing"
        record = UnitRecord.read(path)
        if record is None:
            return f"is damaged: {path.name}"
        if record.build != self.build:
            return f"is of another build: {path.name}"
        shards = {self.index / name: digest for name, digest in record.shards.items()}
        for file, digest in {self._sums_file(record): record.sums, **shards}.items():
            if not file.is_file():
                return f"lacks {file.name}"
            if sha256_file(file) != digest:
                return f"is damaged: {file.name}"
        return None

    def merge(self, records: Sequence[UnitRecord], least_bytes: int = 0) -> list[UnitRecord]:
        """Merge the first units, as far as none is missing, once sums of `least_bytes` or of many units wait for it.

        Args:
            records: the records of all finished units, in order.
            least_bytes: bytes of waiting sums that are worth a merge.

        Returns:
            The records from now on.
        """
        chain = list(records[:1])
        for record in records[1:]:
            if record.first != chain[-1].stop:
                break
            chain.append(record)
        waiting = sum(self._sums_file(record).stat().st_size for record in chain[1:])
        few = waiting < least_bytes and len(chain) < _MOST_WAITING
        if len(chain) < 2 or chain[0].first or few:
            return list(records)
        merged = self.keep(
            range(chain[-1].stop),
            add_up([self.sums(record) for record in chain]),
            shards={name: digest for record in chain for name, digest in record.shards.items()},
            excluded=list(dict.fromkeys(name for record in chain for name in record.excluded)),
            # Not by sum(), which compensates: its result would depend on the number of merges.
            sizes=reduce(float.__add__, [record.sizes for record in chain]),
        )
        for record in chain:
            self.forget(record)
        return [merged, *records[len(chain) :]]

    def forget(self, record: UnitRecord) -> None:
        """Delete a unit's record and its partial sums: it is not done any more."""
        self._path(record.first, record.stop, "json").unlink()
        self._sums_file(record).unlink()

    def delete_leftovers(self, records: Sequence[UnitRecord]) -> None:
        """Delete what an interrupted run wrote for units without a record."""
        ranges = [(record.first, record.stop) for record in records]
        counts = {self._path(*own, suffix).name for own in ranges for suffix in ("json", "safetensors")}
        for path in self.folder.iterdir():
            if is_left_over(path.name) or (path.name.startswith(f"{self.phase}-") and path.name not in counts):
                path.unlink()


def is_done(unit: int, records: Sequence[UnitRecord]) -> bool:
    """Return True if one of the records, in order, is that of a unit."""
    at = bisect_right(records, unit, key=lambda record: record.first)
    return at > 0 and unit < records[at - 1].stop


def add_up(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Add tensors of the same name, in the order of the parts. A part may lack some."""
    names = [frozenset(part) for part in parts]
    sums: dict[str, Tensor] = {}
    # A layer after the other: all sums may be as large as all factors.
    for name in dict.fromkeys(name for part in parts for name in part):
        for part, its in zip(parts, names, strict=True):
            if name in its:
                sums[name] = sums[name] + part[name] if name in sums else part[name]
    return sums


def work_folder(index: Path, identity: str) -> Path:
    """Return the folder for the units of a build of these inputs.

    Raises:
        MismatchError: an unfinished build of other inputs is there.
    """
    folder = index / WORK_FOLDER / identity[:16]
    if folder.parent.is_dir() and any(path != folder for path in folder.parent.iterdir()):
        raise MismatchError(
            f"{index} holds an unfinished index of another model, other data or other settings; "
            "choose another --out or delete it"
        )
    return folder


def delete_work(index: Path) -> None:
    """Delete the units of a build, and the tokens of its data: it is finished, or given up."""
    for name in (WORK_FOLDER, TOKENS_FOLDER):
        if (folder := index / name).is_dir():
            shutil.rmtree(folder)
