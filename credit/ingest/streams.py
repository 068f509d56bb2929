"""Bytes of a file: hashed as they are read, plain or through gzip or zstd, to the end that it has now."""

from __future__ import annotations

import hashlib
import io
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from credit.errors import InputError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DAMAGES = (zlib.error, zstd.ZstdError, EOFError)
"""Errors of a compressed stream that is damaged."""

STILL_SECONDS = 3600
"""Seconds without a change after which a file counts as finished."""

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_PIECE = 1 << 18
_ENDED = "it ended before the end-of-stream marker was reached"


class Reading:
    """One reading of a file, and what it found.

    Attributes:
        path: the file.
        name: its name in reports.
        growing: somebody may still write it. An unfinished tail then waits for the next reading.
        may_be_empty: a file without records is no fault.
        unfinished: records at its end that wait.
        size: bytes read so far, with those of an earlier reading.
        end: bytes of its finished part; None where it cannot be gone on with, as in a compressed file.
        lines: lines of its finished part.
        is_cut: a compressed stream ends in its middle.
    """

    def __init__(self, path: Path, *, growing: bool = False, may_be_empty: bool = False, name: str = "") -> None:
        self.path, self.name, self.growing, self.may_be_empty = path, name or str(path), growing, may_be_empty
        self.unfinished = self.size = self.lines = 0
        self.end: int | None = None
        self.is_cut = False
        self._kind = ""
        self._start = 0
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The hash of the bytes read so far, in hexadecimal."""
        return self._hash.hexdigest()

    @property
    def start(self) -> int:
        """Bytes of an earlier reading, passed over by this one."""
        return self._start

    def resume(self, size: int, sha256: str, end: int, lines: int) -> bool:
        """Go on after an earlier reading, if the file still begins with the same bytes.

        Args:
            size: bytes that were read.
            sha256: their hash.
            end: bytes of the part that was finished.
            lines: its lines.
        """
        # All of it again: a log that was rotated or edited can have the old size.
        found = hashlib.sha256()
        with self.path.open("rb") as file:
            left = size
            while left and (piece := file.read(min(left, _PIECE))):
                found.update(piece)
                left -= len(piece)
        if left or found.hexdigest() != sha256:
            return False
        self._hash, self.size, self._start, self.lines = found, size, end, lines
        return True

    def open(self) -> IO[bytes]:
        """Open the file for reading, through gzip or zstd if its first bytes say so.

        Raises:
            InputError: it is in an unsupported encoding.
        """
        head = read_head(self.path, 4)
        if head.startswith(_UTF16_BOMS):
            raise InputError(f"{self.name} is UTF-16 (as PowerShell's > writes); write it as UTF-8")
        raw = _HashedFile(self.path, self._start, self)
        # By content, not by name: rotated logs are often compressed under their old name.
        if head.startswith(_GZIP_MAGIC):
            self._kind = "gzip"
            return io.BufferedReader(_Inflated(raw, _Gzip, self), _PIECE)
        if head.startswith(_ZSTD_MAGIC):
            self._kind = "zstd"
            return io.BufferedReader(_Inflated(raw, _Zstd, self), _PIECE)
        self.end = self._start
        return io.BufferedReader(raw, _PIECE)

    def hash_whole(self) -> None:
        """Hash a file for another reader of it."""
        with _HashedFile(self.path, 0, self) as file:
            while file.read(_PIECE):
                pass

    def damage(self, error: object = _ENDED) -> str:
        """Return the problem of a compressed stream that is cut or damaged."""
        return f"the {self._kind} stream is damaged here, and what follows is lost: {error}; write the file again"

    def took(self, piece: memoryview, begin: int) -> None:
        """Note bytes read from the place `begin`; each byte is hashed once."""
        new = piece[max(self.size - begin, 0) :]
        self._hash.update(new)
        self.size += len(new)


def is_still(path: Path) -> bool:
    """Return True if a file has not changed for an hour: nobody is writing it."""
    return time.time() - path.stat().st_mtime > STILL_SECONDS


def read_head(path: Path, size: int) -> bytes:
    """Return the first bytes of a file."""
    with path.open("rb") as file:
        return file.read(size)


class _HashedFile(io.RawIOBase):
    """A file that tells its reading of every byte read."""

    def __init__(self, path: Path, start: int, reading: Reading) -> None:
        self._file = path.open("rb", buffering=0)
        self._file.seek(start)
        self._at, self._reading = start, reading

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer."""
        size = self._file.readinto(buffer) or 0
        self._reading.took(memoryview(buffer)[:size], self._at)
        self._at += size
        return size

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


class _Gzip:
    """A member of a gzip stream."""

    def __init__(self) -> None:
        # 31 is 16 for gzip's header and 15 for the largest window.
        self._member = zlib.decompressobj(31)

    def read(self, given: bytes, size: int) -> tuple[bytes, bytes, bool]:
        """Return up to `size` bytes, the input that is left, and whether the member has ended."""
        found = self._member.decompress(given, size)
        ended = self._member.eof
        # Zeros may fill up a tape's block after a member.
        return found, self._member.unused_data.lstrip(b"\0") if ended else self._member.unconsumed_tail, ended


class _Zstd:
    """A frame of a zstd stream."""

    def __init__(self) -> None:
        self._frame = zstd.ZstdDecompressor()

    def read(self, given: bytes, size: int) -> tuple[bytes, bytes, bool]:
        """Return up to `size` bytes, the input that is left, and whether the frame has ended."""
        # The frame keeps input of its own until all of its output is taken.
        if not self._frame.needs_input:
            found = self._frame.decompress(b"", size)
            return found, self._frame.unused_data + given, self._frame.eof
        found = self._frame.decompress(given, size)
        return found, self._frame.unused_data, self._frame.eof


class _Inflated(io.RawIOBase):
    """The decompressed bytes of one member after the other, never more at a time than are asked for."""

    def __init__(self, raw: _HashedFile, member: Callable[[], _Gzip | _Zstd], reading: Reading) -> None:
        self._raw, self._new, self._reading = raw, member, reading
        self._member: _Gzip | _Zstd | None = None
        self._input = b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer."""
        # A member can take input and give nothing yet; to return nothing would mean the end of the file.
        while True:
            ended = False
            if not self._input:
                self._input = self._raw.read(_PIECE) or b""
                ended = not self._input
            if self._member is None:
                if ended:
                    return 0
                self._member = self._new()
            found, self._input, is_whole = self._member.read(self._input, len(buffer))
            if is_whole:
                self._member = None
            if found:
                buffer[: len(found)] = found
                return len(found)
            if ended and not is_whole:
                self._reading.is_cut = True
                return 0

    def close(self) -> None:
        """Close the file."""
        self._raw.close()
        super().close()
