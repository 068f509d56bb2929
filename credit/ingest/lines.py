"""Lines of a file as bytes, plain or compressed, in flat memory for files of any content."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from credit.errors import InputError
from credit.ingest.streams import DAMAGES, Reading

LINE_LIMIT = 64 * 1024 * 1024
"""Bytes of the longest line that is read. A longer one is a mistake and would fill the memory."""

MOST_VALUES = 2_000_000
"""Most commas in a record of JSON or CSV: each value takes some 100 bytes of memory, however short it is."""

_BOM = b"\xef\xbb\xbf"
_HEAD = 1024


@dataclass(slots=True)  # one for each line of a log: a frozen one takes as long to make as the line to read
class Line:
    """A line without its ending (LF or CRLF), and its 1-based number. A `problem` makes it unusable.

    `is_open`: the file ends before the line does, and may be about to grow. `size`: its bytes, with the ending.
    """

    number: int
    raw: bytes
    problem: str = ""
    is_open: bool = field(default=False, compare=False)
    size: int = field(default=0, compare=False)

    @property
    def content(self) -> bytes:
        """The line without a byte order mark, which some editors put at the start of a file."""
        return without_bom(self.raw) if self.number == 1 else self.raw


def without_bom(raw: bytes) -> bytes:
    """Return the beginning of a file without the byte order mark."""
    return raw.removeprefix(_BOM)


def check_file(path: Path, *, may_be_empty: bool = False) -> None:
    """Raise InputError unless `path` is a regular file that holds at least one byte."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name the files in it")
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file; write its content to one first")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} may not be read by this user; change its permissions, or run as its owner")
    if path.stat().st_size == 0 and not may_be_empty:
        raise InputError(f"{path} is empty; remove it, or write it again if it should hold records")


def read_lines(path: Path, reading: Reading | None = None, *, limit: int = LINE_LIMIT) -> Iterator[Line]:
    """Yield the lines of a file. Its first bytes tell gzip and zstd, not its name.

    A line longer than `limit` is never held in memory: it comes as its first bytes with a problem. A damaged compressed
    stream gives a line with a problem at its place; the lines before it are good.

    Raises:
        InputError: the file is missing, not a file, empty unless it may be, or in an unsupported encoding.
    """
    reading = reading or Reading(path)
    check_file(path, may_be_empty=reading.may_be_empty)
    try:
        with closing(reading.open()) as stream:
            yield from _lines(stream, reading, limit)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _lines(stream: IO[bytes], reading: Reading, limit: int) -> Iterator[Line]:
    number = reading.lines
    while True:
        number += 1
        try:
            raw = stream.readline(limit + 1)
            if len(raw) > limit and not raw.endswith(b"\n"):
                size = len(raw) + _skip_line(stream, limit)
                problem = f"the line is {size} bytes long; the limit is {limit}"
                yield Line(number, raw[:_HEAD], problem, size=size)
                continue
        except DAMAGES as error:
            yield Line(number, b"", reading.damage(error))
            return
        if not raw.endswith(b"\n"):
            if raw or reading.is_cut:
                problem = reading.damage() if reading.is_cut else ""
                yield Line(number, raw.removesuffix(b"\r"), problem, is_open=True, size=len(raw))
            return
        yield Line(number, raw.removesuffix(b"\n").removesuffix(b"\r"), size=len(raw))


def _skip_line(stream: IO[bytes], limit: int) -> int:
    """Read to the end of a line, a piece at a time, and return the number of bytes."""
    size = 0
    while piece := stream.readline(min(limit, 1 << 20)):
        size += len(piece)
        if piece.endswith(b"\n"):
            break
    return size
