"""Footer of a Parquet file: its row groups, with rows and sizes as the file says.

polars does not tell them. The footer is a structure of Thrift's compact protocol; the numbers of its fields are those
of `parquet.thrift` in apache/parquet-format. Whoever wrote the file chose the sizes: only a plan may rest on them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from credit.errors import InputError

MAGIC = b"PAR1"
_TAIL = 8
"""Bytes at the end of a file: the size of the footer, then the magic."""

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_INTEGERS = (4, 5, 6)
_META_DATA, _PATH, _UNPACKED, _PACKED = 3, 3, 6, 7  # of a ColumnChunk, and of its ColumnMetaData
_COLUMNS, _ROWS = 1, 3  # of a RowGroup
_ALL_ROWS, _ROW_GROUPS = 3, 4  # of the FileMetaData


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows of a group, and the bytes of some of its columns in the file and when unpacked."""

    rows: int
    packed: int
    unpacked: int

    def with_next(self, other: RowGroup) -> RowGroup:
        """Return this group and the next one as one."""
        return RowGroup(self.rows + other.rows, self.packed + other.packed, self.unpacked + other.unpacked)


def row_groups(path: Path, columns: Collection[str]) -> list[RowGroup]:
    """Return the row groups of a file, with the sizes of these columns.

    Raises:
        InputError: the footer cannot be read, or contradicts itself; the caller adds the file.
    """
    try:
        footer = _Thrift(_footer(path)).struct()
        found = [_row_group(group, columns) for group in _structs(footer.get(_ROW_GROUPS, []))]
        rows = _whole(footer.get(_ALL_ROWS))
    except (IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"its footer is damaged ({error})") from error
    if sum(group.rows for group in found) != rows:
        raise InputError(f"its footer says {rows} rows, and its row groups have {sum(group.rows for group in found)}")
    return found


def _footer(path: Path) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - _TAIL, 0))
        tail = file.read()
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != MAGIC or length > size - _TAIL:
            raise ValueError("it does not end as one")
        file.seek(size - _TAIL - length)
        return file.read(length)


def _row_group(group: dict[int, object], columns: Collection[str]) -> RowGroup:
    packed = unpacked = 0
    for chunk in _structs(group[_COLUMNS]):
        (about,) = _structs([chunk[_META_DATA]])
        path = about[_PATH]
        if isinstance(path, list) and path and isinstance(path[0], bytes) and path[0].decode() in columns:
            packed, unpacked = packed + _whole(about[_PACKED]), unpacked + _whole(about[_UNPACKED])
    return RowGroup(_whole(group[_ROWS]), packed, unpacked)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"{value!r} is no count")
    return value


def _structs(value: object) -> Iterator[dict[int, object]]:
    if not isinstance(value, list):
        raise TypeError("a list is missing")
    for item in value:
        if not isinstance(item, dict):
            raise TypeError("a list holds no structures")
        yield item


class _Thrift:
    """Reader of Thrift's compact protocol: structures as values by field number, texts as bytes."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def struct(self) -> dict[int, object]:
        """Read a structure."""
        fields: dict[int, object] = {}
        number = 0
        while (head := self._byte()) != 0:
            kind, step = head & 15, head >> 4
            number = number + step if step else self._signed()
            fields[number] = kind == _TRUE if kind in {_TRUE, _FALSE} else self._value(kind)
        return fields

    def _value(self, kind: int) -> object:
        if kind in {_TRUE, _FALSE, _BYTE}:  # a truth value in a list takes a byte too
            return self._byte()
        if kind in _INTEGERS:
            return self._signed()
        if kind in {_DOUBLE, _BINARY}:
            return self._bytes(8 if kind == _DOUBLE else self._varint())
        if kind in {_LIST, _SET}:
            head = self._byte()
            size = head >> 4 if head >> 4 < 15 else self._varint()
            return [self._value(head & 15) for _ in range(size)]
        if kind == _MAP:
            size = self._varint()
            kinds = self._byte() if size else 0
            return [(self._value(kinds >> 4), self._value(kinds & 15)) for _ in range(size)]
        if kind == _STRUCT:
            return self.struct()
        raise ValueError(f"there is no type {kind}")

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        if len(found) < size:
            raise ValueError("it ends within a text")
        self._at += size
        return found

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a number is too long")
        return value | byte << shift

    def _signed(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
