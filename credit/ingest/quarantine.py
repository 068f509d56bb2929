"""Where records go that could not be used: a file beside the report, whole or absent."""

from __future__ import annotations

import base64
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from credit.records import Quarantined
from credit.storage import rename_whole

_DIGITS = 16
"""Of the input's hash, in the name of its quarantine file."""
_SHOWN = 5
_TRACKED = 200
"""Reasons that are told apart, so that memory stays flat where every record has one of its own."""


class Problems:
    """What was set aside, in a few lines: the first record with each of the most frequent reasons."""

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
        """Return the most frequent reasons in the order in which they were met, and what they do not cover."""
        shown = {error for error, _ in self._counts.most_common(_SHOWN)}  # of equals those that came first
        lines = []
        for error, first in self._first.items():
            if error in shown:
                likewise = self._counts[error] - 1
                lines.append(f"{first} (and {likewise} more like it)" if likewise else first)
        others = self._counts.total() - sum(self._counts[error] for error in shown) + self._untracked
        return (*lines, *([f"and {others} more, for other reasons"] if others else []))


class QuarantineFile:
    """Collects the quarantined records of one input and writes them as JSON Lines.

    Each line is `{"file", "line", "error", "raw"}`, with `raw_base64` in place of `raw` where the bytes are not
    UTF-8, so that the input can be put together again byte for byte. The file is written beside its place,
    synced and renamed when the block is left without an error; when nothing was quarantined there is no file,
    also none from an earlier run.

    What earlier runs set aside of inputs of this name is known by file, line, reason and bytes. A log that has grown
    since is another input, with a file of its own; an earlier one that holds nothing else is removed. Memory: about
    100 bytes for every record that was, or is, set aside.

    Attributes:
        path: where the file will be.
        count: records set aside.
        before: those of them that an earlier run had set aside, for the same reason.

    Example:
        with QuarantineFile(folder, Path("outputs.jsonl"), sha256_file(path)) as quarantine:
            quarantine.add(item)
    """

    def __init__(self, folder: Path, source: Path, sha256: str) -> None:
        self.path = folder / quarantine_name(source, sha256)
        self.count = self.before = 0
        self._beside = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        self._file: IO[bytes] | None = None
        self._earlier: dict[Path, set[bytes]] = {}
        self._found: set[bytes] = set()

    def add(self, item: Quarantined) -> bool:
        """Set one record aside; return whether that is new: no earlier run did so, for this reason."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._earlier = {path: set(_identities(path)) for path in _files_of_name(self.path)}
            self._file = self._beside.open("wb")
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
        if self._file is None:
            if kind is None:
                self.path.unlink(missing_ok=True)
            return
        with self._file as file:
            file.flush()
            os.fsync(file.fileno())
        if kind is None:
            rename_whole(self._beside, self.path)
            for path, earlier in self._earlier.items():
                if path != self.path and earlier <= self._found:
                    path.unlink(missing_ok=True)
        else:
            self._beside.unlink()


def quarantine_name(source: Path, sha256: str) -> str:
    """Return the file name for an input: the same input always gets the same, another content another."""
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', source.name).lstrip('.')[:100]}.{sha256[:_DIGITS]}.jsonl"


def quarantine_line(item: Quarantined) -> bytes:
    """Return the line of a quarantine file, with its newline."""
    line: dict[str, str | int] = {"file": item.place.file, "line": item.place.line, "error": item.error}
    try:
        line["raw"] = item.raw.decode()
    except UnicodeDecodeError:
        line["raw_base64"] = base64.b64encode(item.raw).decode()
    # ASCII on purpose: names of files and pieces of records may hold what UTF-8 cannot (lone surrogates).
    return json.dumps(line).encode() + b"\n"


def _files_of_name(path: Path) -> list[Path]:
    """Return the quarantine files of inputs that have the same name as that of `path`, itself included."""
    end = len(".jsonl") + _DIGITS + 1
    pattern = re.compile(re.escape(path.name[:-end]) + rf"\.[0-9a-f]{{{_DIGITS}}}\.jsonl")
    return sorted(found for found in path.parent.iterdir() if pattern.fullmatch(found.name))


def _identities(path: Path) -> Iterator[bytes]:
    """Yield the identities of the records in a quarantine file."""
    with path.open("rb") as file:
        yield from map(_identity, file)


def _identity(line: bytes) -> bytes:
    """Return what is the same when a record is set aside again for the same reason: its line in the file, hashed."""
    return blake2b(line, digest_size=16).digest()
