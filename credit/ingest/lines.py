"""Lines of a file as bytes, plain or gzipped, in flat memory for files of any content."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO

from credit.errors import InputError

LINE_LIMIT = 64 * 1024 * 1024
"""Bytes of the longest line that is read. A longer one is a mistake and would fill the memory."""

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_HEAD = 1024


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its ending (LF or CRLF), and its 1-based number. A `problem` makes it unusable."""

    number: int
    raw: bytes
    problem: str = ""

    @property
    def content(self) -> bytes:
        """The line without a byte order mark, which some editors put at the start of a file."""
        return without_bom(self.raw) if self.number == 1 else self.raw


def without_bom(raw: bytes) -> bytes:
    """Return the beginning of a file without the byte order mark."""
    return raw.removeprefix(_BOM)


def check_file(path: Path) -> None:
    """Raise InputError unless `path` is a regular file that holds at least one byte."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name the files in it")
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file; write its content to one first")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} may not be read by this user; change its permissions, or run as its owner")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; remove it, or write it again if it should hold records")


def read_head(path: Path, size: int) -> bytes:
    """Return the first bytes of a file."""
    with path.open("rb") as file:
        return file.read(size)


def read_lines(path: Path, *, limit: int = LINE_LIMIT) -> Iterator[Line]:
    """Yield the lines of a file. Its first bytes tell gzip, not its name.

    A line longer than `limit` is never held in memory: it comes as its first bytes with a problem. A damaged gzip
    stream gives a line with a problem at its place; the lines before it are good.

    Raises:
        InputError: the file is missing, not a file, empty, or in an unsupported compression.
    """
    check_file(path)
    try:
        with closing(open_bytes(path)) as stream:
            yield from _lines(stream, limit)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading, through gzip if its first bytes say so.

    Raises:
        InputError: it is empty within its compression, or in an unsupported encoding or compression.
    """
    head = read_head(path, 4)
    if head.startswith(_ZSTD_MAGIC):
        raise InputError(f"{path} is compressed with zstd, which is not supported; decompress it, or use gzip")
    # By its first bytes: read as UTF-8, each line would be quarantined for a riddle of a reason.
    if head.startswith(_UTF16_BOMS):
        raise InputError(f"{path} is UTF-16 (as PowerShell's > writes); write it as UTF-8")
    if head.startswith(_GZIP_MAGIC):
        stream = BufferedReader(gzip.GzipFile(path, "rb"), 1 << 16)
        try:
            empty = not stream.peek(1)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            empty = False  # the reader of the first line reports it with its place
        if empty:
            stream.close()
            raise InputError(f"{path} holds an empty file, compressed; remove it, or write it again")
        return stream
    return path.open("rb")


def damaged_gzip(error: Exception) -> str:
    """Return the problem of a gzip stream that is cut or damaged."""
    return f"the gzip stream is damaged here, and what follows is lost: {error}; write the file again"


def _lines(stream: IO[bytes], limit: int) -> Iterator[Line]:
    number = 0
    while True:
        number += 1
        try:
            raw = stream.readline(limit + 1)
            if not raw:
                return
            if len(raw) > limit and not raw.endswith(b"\n"):
                # Read on to its end: the next line must start where a line starts.
                size = len(raw) + _skip_line(stream, limit)
                yield Line(number, raw[:_HEAD], f"the line is {size} bytes long; the limit is {limit}")
                continue
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            yield Line(number, b"", damaged_gzip(error))
            return
        yield Line(number, raw.removesuffix(b"\n").removesuffix(b"\r"))


def _skip_line(stream: IO[bytes], limit: int) -> int:
    """Read to the end of a line, a piece at a time, and return the number of bytes."""
    size = 0
    while piece := stream.readline(min(limit, 1 << 20)):
        size += len(piece)
        if piece.endswith(b"\n"):
            break
    return size
