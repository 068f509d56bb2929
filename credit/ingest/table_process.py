"""Child process to decode a Parquet or Arrow file of others, in memory limited by the system.

Few bytes can stand for many: every row repeats one long text of a dictionary, or is null, or begins as the row before.
Sizes in the file may be lies. So a process without the ledger decodes it, slice by slice, and measures each slice; the
system limits its memory (on Linux). If it dies, its parent says why.

The parent is `tables`. It gets messages: a letter, the number of bytes, the bytes.
"""

from __future__ import annotations

import io
import json
import signal
import struct
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import IO

import polars as pl

from credit.errors import InputError
from credit.ingest.lines import LINE_LIMIT
from credit.ingest.parquet_footer import RowGroup, row_groups

MESSAGE = struct.Struct(">cQ")
MIB = 1 << 20
PARQUET, ARROW = "Parquet file", "Arrow stream"
SMALLER = "write it with fewer rows in a group"
NO_MEMORY = 77
"""Exit code of a process that Python gets no memory for."""
SLICE_SECONDS = 600
"""Time for one slice, at most. Without memory for its own report, a library can also wait for itself for ever."""
EXPANSION = 1000
"""Most bytes that records may take in memory for each byte of their file, once they are beyond the limit of memory."""

_DECODED, _SENT = 16 * MIB, 4 * MIB
"""Bytes of records that are decoded at a time, and sent at a time."""
_MOST_ROWS, _FIRST_ROWS = 65_536, 1024
_ROW, _CELL = 512, 64
"""Bytes of a row and of a value as objects of Python, beside the text: small rows of a few values take as much."""
_NO_MORE = ("llocate memory", "os error 11", "os error 12")
"""Signs of errors for want of memory: a refused allocation, and a thread without a stack."""
_CONTINUES = b"\xff\xff\xff\xff"
_SCHEMA, _RECORDS = 1, 3
"""Types of messages of an Arrow stream."""


class Told(Enum):
    """Kinds of messages."""

    COLUMNS = b"c"
    AT = b"a"
    FRAME = b"f"
    LONG_ROW = b"l"
    DAMAGE = b"d"
    OVER_LIMIT = b"o"
    END = b"z"


class OverLimitError(Exception):
    """Records beyond the limit of memory."""


class TableReader:
    """Reader of one file, with a message for all it finds.

    Args:
        path: the file.
        known: columns to read, as far as the file has them.
        limit: bytes of memory.
        out: gets the messages.
    """

    def __init__(self, path: Path, known: frozenset[str], limit: int, out: IO[bytes]) -> None:
        self._path, self._known, self._limit, self._out = path, known, limit, out
        self._held = 0

    def read(self, kind: str) -> None:
        """Read the file, and tell the end or an error."""
        try:
            if kind == PARQUET:
                self._parquet()
            else:
                self._arrow()
        except OverLimitError as error:
            self._tell(Told.OVER_LIMIT, str(error).encode())
        except MemoryError:
            raise
        except BaseException as error:  # a panic of polars is no Exception
            if any(sign in str(error) for sign in _NO_MORE):
                raise MemoryError from error
            self._tell(Told.DAMAGE, str(error).encode(errors="replace"))
        else:
            self._tell(Told.END)

    def _parquet(self) -> None:
        columns = self._used(list(pl.read_parquet_schema(self._path)))
        if not columns:
            return
        groups = row_groups(self._path, columns)
        table = pl.scan_parquet(self._path).select(columns)
        begin, rows = 0, 0
        for name, group in _stretches(groups):
            if group.packed > self._limit:
                raise OverLimitError(f"{name} takes {_size(group.packed)} in the file; {SMALLER}")
            end = begin + group.rows
            rows = min(rows or _FIRST_ROWS, max(_DECODED * group.rows // max(group.unpacked, 1), 1))
            while begin < end:
                rows = min(rows, end - begin)
                self._at(f"{name}, from row {begin + 1}")
                frame = table.slice(begin, rows).collect()
                if frame.height != rows:
                    raise InputError(f"{name} ends after {begin + frame.height} rows")
                size = self._send(frame)
                begin += rows
                rows = min(_MOST_ROWS, 4 * rows, max(_DECODED * rows // max(size, 1), 1))

    def _arrow(self) -> None:
        with self._path.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(0)
            before = b""  # the schema and the dictionaries, which each batch of records needs
            columns: list[str] = []
            batch = 0
            while message := _message(file, end):
                kind, size, head = message
                if size + len(before) > self._limit:
                    raise OverLimitError(f"record batch {batch + 1} takes {_size(size)}; {SMALLER}")
                body = file.read(size)
                if kind != _RECORDS:
                    before += head + body
                    if kind == _SCHEMA:
                        columns = self._used(pl.read_ipc_stream(io.BytesIO(before), n_rows=0).columns)
                    continue
                if not columns:
                    return
                batch += 1
                self._at(f"record batch {batch} ({_size(size)})")
                self._send(pl.read_ipc_stream(io.BytesIO(before + head + body), columns=columns))

    def _used(self, names: list[str]) -> list[str]:
        self._tell(Told.COLUMNS, json.dumps(names).encode())
        return [name for name in names if name in self._known]

    def _at(self, place: str) -> None:
        """Tell where the reader is, and give it time until it tells the next thing."""
        self._tell(Told.AT, place.encode())
        _die_after(SLICE_SECONDS)

    def _send(self, frame: pl.DataFrame) -> int:
        """Send rows in pieces of a bounded size, and return the size of all as objects of Python."""
        size = _ROW * frame.height + sum(map(_weight, frame.iter_columns()))
        if frame.height > 1 and size > _SENT:
            half = frame.height // 2
            return self._send(frame[:half]) + self._send(frame[half:])
        self._held += size
        most = max(self._limit, EXPANSION * self._path.stat().st_size)
        if self._held > most:
            raise OverLimitError(f"holds more than {_size(most)} of records, {EXPANSION} times its own size")
        if size > LINE_LIMIT:
            self._tell(Told.LONG_ROW, str(size).encode())
        elif frame.height:
            written = io.BytesIO()
            frame.write_ipc_stream(written)
            self._tell(Told.FRAME, written.getbuffer())
        return size

    def _tell(self, kind: Told, content: bytes | memoryview = b"") -> None:
        _die_after(0)  # the parent may take what time it likes
        self._out.write(MESSAGE.pack(kind.value, len(content)))
        self._out.write(content)
        self._out.flush()


def _die_after(seconds: int) -> None:
    """Let the system end this process after some time; 0: never."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _size(size: int) -> str:
    return f"{size / MIB:.1f} MiB"


def _stretches(groups: list[RowGroup]) -> Iterator[tuple[str, RowGroup]]:
    """Yield the row groups with their names, small ones together: each slice costs a look at the footer."""
    held, first = None, 1
    for number, group in enumerate(groups, 1):
        both = held.with_next(group) if held else group
        if held and max(both.packed, both.unpacked) > _DECODED:
            yield _name(first, number - 1, held), held
            held, first = group, number
        else:
            held = both
    if held:
        yield _name(first, len(groups), held), held


def _name(first: int, last: int, group: RowGroup) -> str:
    numbers = f"row group {first}" if first == last else f"row groups {first} to {last}"
    return f"{numbers} ({group.rows} rows, {_size(group.unpacked)} by the footer)"


def _message(file: IO[bytes], end: int) -> tuple[int, int, bytes] | None:
    """Read the head of a message of an Arrow stream: its type, the size of its body, and its bytes; None: the end.

    The format is Arrow's "encapsulated message": a size, and a flatbuffer with the fields version, type, header and
    size of the body.
    """
    start = file.read(4)
    if len(start) < 4:
        raise InputError("it ends without the mark of its end")
    if start == _CONTINUES:
        start += file.read(4)
    size = int.from_bytes(start[-4:], "little")
    if size == 0:
        return None
    if size > end - file.tell():
        raise InputError("it ends within a message")
    head = file.read(size)
    table = int.from_bytes(head[:4], "little")
    fields = table - int.from_bytes(head[table : table + 4], "little", signed=True)

    def field(number: int, width: int) -> int:
        place = fields + 4 + 2 * number
        offset = int.from_bytes(head[place : place + 2], "little")
        known = 4 + 2 * number < int.from_bytes(head[fields : fields + 2], "little") and offset
        return int.from_bytes(head[table + offset : table + offset + width], "little") if known else 0

    body = field(3, 8)
    if body > end - file.tell():
        raise InputError("it ends within a message")
    return field(1, 1), body, start + head


def _weight(values: pl.Series) -> int:
    """Return the bytes of values as objects of Python, as far as texts and numbers of values tell.

    polars keeps a repeated text once, and a list of nulls as a count. As objects each takes its own place.
    """
    kind = values.dtype
    size = _CELL * len(values)
    if isinstance(kind, (pl.Categorical, pl.Enum)):
        values, kind = values.cast(pl.String), pl.String()
    if isinstance(kind, pl.String):
        return size + int(values.str.len_bytes().sum())
    if isinstance(kind, pl.Binary):
        return size + int(values.bin.size().sum())
    if isinstance(kind, (pl.List, pl.Array)):
        return size + _weight(values.explode(empty_as_null=False, keep_nulls=False))
    if isinstance(kind, pl.Struct):
        return size + sum(map(_weight, values.struct.unnest().iter_columns()))
    return size


def limit_memory(limit: int) -> None:
    """Let this process take `limit` bytes more than it has; the system refuses it more. Only Linux can."""
    if sys.platform == "linux":
        import resource

        data = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = data + limit if most == resource.RLIM_INFINITY else min(data + limit, most)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, wanted))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a process that dies of a bomb leaves no copy of it


def main() -> None:
    """Read the file of the command line."""
    path, kind, limit, known = sys.argv[1:]
    _die_after(SLICE_SECONDS)
    limit_memory(int(limit))
    try:
        TableReader(Path(path), frozenset(json.loads(known)), int(limit), sys.stdout.buffer).read(kind)
    except MemoryError:
        sys.exit(NO_MEMORY)
