"""Small files, most of them Parquet, that stand for much more, made by hand where no library would write them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import polars as pl

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LONG = 2_000_000
"""Bytes of a long text."""

_I32, _I64, _TEXT, _LIST, _STRUCT = 5, 6, 8, 9, 12
_ZSTD, _PLAIN, _DELTA_BYTE_ARRAY, _RLE_DICTIONARY = 6, 0, 7, 8


def dictionary(path: Path) -> None:
    """A long text, once, which each of 1100 rows repeats: 2.2 GB."""
    rows = 1100
    text = LONG.to_bytes(4, "little") + b"x" * LONG
    first = b"\1" + _varint(rows << 1) + b"\0"  # one bit for a number; a run of rows of the number 0
    packed = zstd.compress(first)
    write_page(path, packed, rows=rows, unpacked=len(first), encoding=_RLE_DICTIONARY, codec=_ZSTD, dictionary=text)


def nulls(path: Path) -> None:
    """Runs of nulls: 2 million rows."""
    pl.select(text=pl.repeat(None, 2_000_000, dtype=pl.String)).write_parquet(path)


def nested(path: Path) -> None:
    """One row with a list of 80 times the same text of 1 MB."""
    pl.DataFrame({"messages": [_repeated("x" * 1_000_000, 80)]}).write_parquet(path)


def nested_nulls(path: Path) -> None:
    """A list of 50 million nulls, in two rows."""
    values = pl.repeat(None, 50_000_000, dtype=pl.Int8, eager=True)
    pl.DataFrame({"messages": [values, values[:3]]}).write_parquet(path)


def huge_cell(path: Path) -> None:
    """A text of 70 MB between two short ones."""
    pl.DataFrame({"text": ["a", "x" * 70_000_000, "b"]}).write_parquet(path)


def zeros(path: Path) -> None:
    """A page of 200 MB that compresses to 6 kB: one text."""
    size, packer = 200_000_000, zstd.ZstdCompressor()
    pieces = [packer.compress(size.to_bytes(4, "little")), *(packer.compress(bytes(1_000_000)) for _ in range(200))]
    write_page(path, b"".join([*pieces, packer.flush()]), rows=1, unpacked=size + 4, encoding=_PLAIN, codec=_ZSTD)


def repeated_beginnings(path: Path) -> None:
    """Texts that each repeat the one before, by the encoding DELTA_BYTE_ARRAY: 1024 times 2 MB from one."""
    rows = 1025
    same_as_before = _deltas([0, *[LONG] * (rows - 1)])
    page = same_as_before + _deltas([LONG, *[0] * (rows - 1)]) + b"x" * LONG
    write_page(path, page, rows=rows, unpacked=len(page), encoding=_DELTA_BYTE_ARRAY)


def lying_rows(path: Path) -> None:
    """A footer with 8191 rows where there are 1000."""
    pl.DataFrame({"text": [f"text {number}" for number in range(1000)]}).write_parquet(path)
    path.write_bytes(path.read_bytes().replace(_varint(2 * 1000), _varint(2 * 8191)))


def lying_sizes(path: Path) -> None:
    """A page that says 2 GB of its 100 bytes, which are not packed."""
    page = (96).to_bytes(4, "little") + b"x" * 96
    write_page(path, page, rows=1, unpacked=2_000_000_000, encoding=_PLAIN)


def many_rows(path: Path) -> None:
    """A page that says 2 billion rows of its one."""
    page = (1).to_bytes(4, "little") + b"x"
    write_page(path, page, rows=2_000_000_000, unpacked=len(page), encoding=_PLAIN)


def arrow_zeros(path: Path) -> None:
    """An Arrow stream with a batch of 100 MB, compressed."""
    text = pl.Series("text", ["x" * 100_000_000])
    text.to_frame().write_ipc_stream(path, compression="zstd", compat_level=pl.CompatLevel.oldest())


def line(path: Path) -> None:
    """A line of 300 MB in JSON Lines, compressed to 10 kB."""
    packer = zstd.ZstdCompressor()
    path.write_bytes(b"".join([*(packer.compress(bytes(1_000_000)) for _ in range(300)), packer.flush()]))


BOMBS: dict[str, Callable[[Path], None]] = {
    "dictionary": dictionary,
    "nested": nested,
    "nested_nulls": nested_nulls,
    "huge_cell": huge_cell,
    "zeros": zeros,
    "repeated_beginnings": repeated_beginnings,
    "lying_rows": lying_rows,
    "lying_sizes": lying_sizes,
    "many_rows": many_rows,
}


def write_page(
    path: Path, page: bytes, *, rows: int, unpacked: int, encoding: int, codec: int = 0, dictionary: bytes = b""
) -> None:
    """Write a file with one column of texts, one row group and one page, and perhaps a dictionary of one text."""
    before = b""
    if dictionary:
        packed = zstd.compress(dictionary)
        sizes = [(2, _I32, len(dictionary)), (3, _I32, len(packed))]
        before = _struct([(1, _I32, 2), *sizes, (7, _STRUCT, [(1, _I32, 1), (2, _I32, _PLAIN)])]) + packed
    about_page = [(1, _I32, rows), (2, _I32, encoding), (3, _I32, 3), (4, _I32, 3)]
    head = _struct([(1, _I32, 0), (2, _I32, unpacked), (3, _I32, len(page)), (5, _STRUCT, about_page)])
    column = [(1, _I32, 6), (2, _LIST, (_I32, [encoding])), (3, _LIST, (_TEXT, [b"text"])), (4, _I32, codec),
              (5, _I64, rows), (6, _I64, unpacked), (7, _I64, len(before + head + page)),
              (9, _I64, 4 + len(before)), *([(11, _I64, 4)] if dictionary else [])]  # fmt: skip
    chunk = [(2, _I64, 4), (3, _STRUCT, column)]
    group = [(1, _LIST, (_STRUCT, [chunk])), (2, _I64, unpacked), (3, _I64, rows)]
    root = [(4, _TEXT, b"schema"), (5, _I32, 1)]
    texts = [(1, _I32, 6), (3, _I32, 0), (4, _TEXT, b"text"), (6, _I32, 0)]
    schema = (2, _LIST, (_STRUCT, [root, texts]))
    footer = _struct([(1, _I32, 1), schema, (3, _I64, rows), (4, _LIST, (_STRUCT, [group]))])
    path.write_bytes(b"PAR1" + before + head + page + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def _repeated(text: str, times: int) -> pl.Series:
    return pl.Series([text]).gather(pl.zeros(times, dtype=pl.UInt32, eager=True))  # polars keeps the text once


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def _zigzag(value: int) -> bytes:
    return _varint(value << 1 if value >= 0 else -value * 2 - 1)


def _struct(fields: Iterable[tuple[int, int, object]]) -> bytes:
    """Return a structure of Thrift's compact protocol."""
    found, before = b"", 0
    for number, kind, value in fields:
        found += bytes([number - before << 4 | kind]) + _value(kind, value)
        before = number
    return found + b"\0"


def _value(kind: int, value: object) -> bytes:
    if kind in {_I32, _I64}:
        return _zigzag(value)
    if kind == _TEXT:
        return _varint(len(value)) + value
    if kind == _STRUCT:
        return _struct(value)
    inner, values = value
    return bytes([len(values) << 4 | inner]) + b"".join(_value(inner, item) for item in values)


def _deltas(values: list[int]) -> bytes:
    """Return numbers in the encoding DELTA_BINARY_PACKED, in blocks of 128."""
    found = _varint(128) + _varint(4) + _varint(len(values)) + _zigzag(values[0])
    steps = [after - before for before, after in pairwise(values)]
    for begin in range(0, len(steps), 128):
        block = steps[begin : begin + 128]
        least = min(block)
        width = max(step - least for step in block).bit_length()
        bits = sum(step - least << width * place for place, step in enumerate(block))
        found += _zigzag(least) + bytes([width] * 4) + bits.to_bytes(128 * width // 8, "little")
    return found


def save(folder: Path, make: Callable[[Path], None]) -> None:
    """Write a data set in the layout of `save_to_disk`, of one shard."""
    folder.mkdir()
    make(folder / "data.arrow")
    (folder / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
