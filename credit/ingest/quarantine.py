"""Quarantine: one file for each input with its bad records and the reasons, and a summary for the report."""

from __future__ import annotations

import base64
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from credit.records import Quarantined
from credit.storage import create_file, is_left_over, make_folder, name_beside, rename_whole

_DIGITS = 16
"""Digits of the input's hash in the name of its quarantine file."""
_SHOWN = 5
_TRACKED = 200
"""Reasons counted one by one. Memory stays flat even where every record has its own."""


class QuarantineSummary:
    """The quarantined records in a few lines: the first one of each of the most frequent reasons."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._untracked = 0

    def add(self, item: Quarantined) -> None:
        """Count a record by its reason."""
        if item.error not in self._first and len(self._first) == _TRACKED:
            self._untracked += 1
            return
        self._first.setdefault(item.error, str(item))
        self._counts[item.error] += 1

    def lines(self) -> tuple[str, ...]:
        """Return a line for each of the most frequent reasons, in the order of the records, and one for the rest."""
        shown = {error for error, _ in self._counts.most_common(_SHOWN)}  # of equal counts, the earliest
        lines = []
        for error, first in self._first.items():
            if error in shown:
                likewise = self._counts[error] - 1
                lines.append(f"{first} (and {likewise} more like it)" if likewise else first)
        others = self._counts.total() - sum(self._counts[error] for error in shown) + self._untracked
        return (*lines, *([f"and {others} more, for other reasons"] if others else []))


class QuarantineFile:
    """Quarantined records of one input, written as JSON Lines when the block ends without an error.

    Each line is `{"file", "line", "error", "raw"}`, with `raw_base64` in place of `raw` where the bytes are not UTF-8:
    the input can be put together again byte for byte. The file is whole or absent; with no quarantined record there
    is none, and one of an earlier run is removed.

    Records of earlier runs over inputs of this name are known by file, line, reason and bytes. A log that has grown
    is another input with its own file; an earlier file whose records are all in the new one is removed. Memory: about
    100 bytes for each record, new or old.

    Attributes:
        path: place of the file, when the block has ended.
        count: quarantined records.
        before: those that an earlier run had quarantined for the same reason.

    Example:
        with QuarantineFile(folder, Path("outputs.jsonl"), lambda: reading.sha256) as quarantine:
            quarantine.add(item)

    Args:
        folder: the folder of such files.
        source: the input.
        sha256: returns the hash of the input; called when the block ends, because inputs are hashed as they are read.
    """

    def __init__(self, folder: Path, source: Path, sha256: Callable[[], str]) -> None:
        self._source, self._sha256 = source, sha256
        self.path = folder / quarantine_name(source, "0" * 64)
        self.count = self.before = 0
        self._beside = name_beside(self.path)
        self._file: IO[bytes] | None = None
        self._earlier: dict[Path, set[bytes]] = {}
        self._found: set[bytes] = set()

    def add(self, item: Quarantined) -> bool:
        """Quarantine a record. Return True if that is new: no earlier run did so for this reason."""
        if self._file is None:
            make_folder(self.path.parent)
            self._earlier = {path: set(_identities(path)) for path in _files_of_name(self.path)}
            self._file = create_file(self._beside)
        line = quarantine_line(item)
        identity = _identity(line)
        self._file.write(line)
        self._found.add(identity)
        self.count += 1
        known = any(identity in earlier for earlier in self._earlier.values())
        self.before += known
        return not known

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.path = self.path.with_name(quarantine_name(self._source, self._sha256()))
        if self._file is None:
            if kind is None:
                self.path.unlink(missing_ok=True)
            return
        try:
            with self._file as file:
                file.flush()
                os.fsync(file.fileno())
        except OSError as failure:  # the system's error for a write names no file
            failure.filename = str(self.path)
            self._beside.unlink()
            raise
        if kind is None:
            rename_whole(self._beside, self.path)
            for path, earlier in self._earlier.items():
                if path != self.path and earlier <= self._found:
                    path.unlink(missing_ok=True)
        else:
            self._beside.unlink()


def quarantined_files(folder: Path) -> list[Path]:
    """Return the quarantine files in a folder, also those that a killed run left half written."""
    if not folder.is_dir():
        return []
    pattern = re.compile(rf".+\.[0-9a-f]{{{_DIGITS}}}\.jsonl")
    return sorted(path for path in folder.iterdir() if pattern.fullmatch(path.name) or is_left_over(path.name))


def quarantine_name(source: Path, sha256: str) -> str:
    """Return the name of the file for an input: always the same for the same content, another for another."""
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', source.name).lstrip('.')[:100]}.{sha256[:_DIGITS]}.jsonl"


def quarantine_line(item: Quarantined) -> bytes:
    """Return the line of a quarantine file, with its newline."""
    line: dict[str, str | int] = {"file": item.place.file, "line": item.place.line, "error": item.error}
    try:
        line["raw"] = item.raw.decode()
    except UnicodeDecodeError:
        line["raw_base64"] = base64.b64encode(item.raw).decode()
    # ASCII on purpose: names of files and pieces of records may hold lone surrogates, which UTF-8 cannot.
    return json.dumps(line).encode() + b"\n"


def _files_of_name(path: Path) -> list[Path]:
    """Return the quarantine files of all inputs with the name of the one of `path`, itself included."""
    end = len(".jsonl") + _DIGITS + 1
    pattern = re.compile(re.escape(path.name[:-end]) + rf"\.[0-9a-f]{{{_DIGITS}}}\.jsonl")
    return sorted(found for found in path.parent.iterdir() if pattern.fullmatch(found.name))


def _identities(path: Path) -> Iterator[bytes]:
    """Yield the identities of the records in a quarantine file."""
    with path.open("rb") as file:
        yield from map(_identity, file)


def _identity(line: bytes) -> bytes:
    """Return the hash of a line: the same when a record is quarantined again for the same reason."""
    return blake2b(line, digest_size=16).digest()
