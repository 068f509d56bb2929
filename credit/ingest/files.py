"""Files of any supported kind as one stream of rows: JSON, CSV, Parquet, data sets saved to disk."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import polars as pl

from credit.errors import InputError
from credit.ingest.json_documents import is_in_lines, parse_json_object, read_documents
from credit.ingest.lines import LINE_LIMIT, MOST_VALUES, Line, check_file, read_lines
from credit.ingest.parquet_footer import MAGIC
from credit.ingest.streams import Reading, read_head
from credit.ingest.table_process import ARROW, PARQUET
from credit.ingest.tables import LongRow, TableFile, saved_shards
from credit.records import CallIdentity, Place, Quarantined
from credit.text import counted, printable

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Parsed(NamedTuple, Generic[T_co]):
    """A record with its place and its bytes in the file, so a later step can still quarantine it."""

    record: T_co
    place: Place
    raw: bytes

    def quarantined(self, error: str, identity: CallIdentity | None = None) -> Quarantined:
        """Return the record as a quarantined one, with the reason and, for a span, which one it is."""
        return Quarantined(self.place, error, self.raw, identity)


@dataclass(frozen=True, slots=True)
class ReadResult(Generic[T_co]):
    """A small file, read whole: good records, quarantined ones, and notices in words."""

    records: tuple[T_co, ...]
    quarantined: tuple[Quarantined, ...] = ()
    notices: tuple[str, ...] = ()


def notices_of_ignored(ignored: Counter[str]) -> tuple[str, ...]:
    """Name the fields that nothing reads: a misspelt `weigth` must not vanish in silence."""
    names = sorted(ignored)
    lines = [
        f"field `{printable(name[:_SHOWN_NAME])}` is not used (in {counted(ignored[name], 'record')})"
        for name in names[:_SHOWN_FIELDS]
    ]
    more = len(names) - len(lines)
    return (*lines, *([f"{counted(more, 'other field')} not used"] if more else []))


Row = Parsed[dict[str, object]]

_SHOWN_FIELDS, _SHOWN_NAME = 20, 80
"""Fields that are named, and characters of a name: a record can have 300 000 keys."""

COMPRESSED = (".gz", ".zst")
"""Endings of the names of compressed files; their first bytes tell which they are."""
_KINDS = (".jsonl", ".ndjson", ".json", ".log", ".csv", ".tsv", ".parquet")
_ENDINGS = tuple(kind + ending for kind in _KINDS for ending in ("", *COMPRESSED))
"""Names of files in a folder that can be logs."""


def read_rows(
    path: Path, known: Collection[str], ignored: Counter[str], reading: Reading | None = None
) -> Iterator[Row | Quarantined]:
    """Yield the rows of a file or saved data set of any supported kind.

    Args:
        path: JSON (in lines, as a list, or one record after the other) or CSV, plain or gzipped; Parquet; or a folder
            written by `save_to_disk` of Hugging Face `datasets`.
        known: fields that the caller uses. Other columns of Parquet and Arrow files are left unread; rows of JSON and
            CSV come with all their fields.
        ignored: gets the counts of the columns left unread, by name.
        reading: what this reading is to find; an unfinished tail of a file that may grow is counted there.

    Raises:
        InputError: the input as a whole cannot be used.
    """
    empty = True
    reading = reading or Reading(path)
    for row in _rows(path, known, ignored, reading):
        empty = False
        yield row
    if empty and not reading.may_be_empty:
        raise InputError(f"{path} holds no records; remove it, or write it again if it should hold some")


def _rows(path: Path, known: Collection[str], ignored: Counter[str], reading: Reading) -> Iterator[Row | Quarantined]:
    if path.is_dir():
        yield from _saved_dataset(path, known, ignored)
        return
    check_file(path, may_be_empty=reading.may_be_empty)
    if path.stat().st_size == 0:
        return
    if read_head(path, 4) == MAGIC:
        before = path.stat()
        reading.hash_whole()
        if reading.growing and not _has_footer(path):
            reading.unfinished = 1
            return
        yield from _table(path, PARQUET, reading.name, known, ignored)
        after = path.stat()
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise InputError(f"{path} changed while it was read; run this again")
        return
    name = path.name.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    if name.endswith((".csv", ".tsv")):
        yield from read_csv(path, reading)
        reading.end = None  # a later reading needs the header again
    elif reading.growing and read_head(path, 3).strip() in {b"{", b"["} and path.stat().st_size <= 3:
        reading.unfinished = 1
    else:
        yield from _json(path, reading)


def _has_footer(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-len(MAGIC), 2)
        return file.read() == MAGIC


def check_input(path: Path, *, may_be_empty: bool = False) -> None:
    """Raise InputError for an input that is unusable at first sight."""
    if path.is_dir():
        saved_shards(path)
    else:
        check_file(path, may_be_empty=may_be_empty)


def expand_inputs(arguments: Iterable[Path]) -> tuple[list[Path], tuple[str, ...]]:
    """Return the files that arguments name, each once: files, folders with all files below them, and patterns.

    Args:
        arguments: as typed. A pattern, such as `logs/**/*.jsonl`, is one that the shell left alone.

    Returns:
        The files, those of a folder or pattern by name; and notices of files passed over.

    Raises:
        InputError: a folder or pattern has no file that can be a log.
    """
    files: dict[Path, None] = {}
    other: Counter[str] = Counter()
    for argument in arguments:
        if argument.is_dir():
            found = sorted(path for path in argument.rglob("*") if path.is_file() and not _is_hidden(path, argument))
        elif any(mark in str(argument) for mark in "*?[") and not argument.exists():
            names = glob(str(argument), recursive=True)  # noqa: PTH207 - pathlib's needs a folder to begin in
            found = sorted(path for path in map(Path, names) if path.is_file())
        else:
            files[argument] = None
            continue
        readable = [path for path in found if path.name.lower().endswith(_ENDINGS)]
        other[str(argument)] = len(found) - len(readable)
        if not readable:
            raise InputError(f"{argument} has no file that can be a log: {', '.join(_KINDS)}, plain, .gz or .zst")
        files.update(dict.fromkeys(readable))
    passed = (f"{counted(count, 'file')} of {name} passed over, by the name" for name, count in other.items() if count)
    return list(files), tuple(passed)


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _json(path: Path, reading: Reading) -> Iterator[Row | Quarantined]:
    if not is_in_lines(path):
        yield from _documents(path, reading)
        return
    for line in read_lines(path, reading):
        row = _json_row(line, reading)
        if line.is_open and reading.growing and not isinstance(row, Parsed):
            # An object that closes is whole, newline or not: no byte after it can change it. Anything else may grow.
            reading.unfinished += bool(line.content.strip() or line.problem)
            return
        if row is not None:
            yield row
        if reading.end is not None:
            reading.end, reading.lines = reading.end + line.size, line.number - line.is_open


def _documents(path: Path, reading: Reading) -> Iterator[Row | Quarantined]:
    for line in read_documents(path, reading):
        if line.is_open and reading.growing:
            reading.unfinished += 1
        elif row := _json_row(line, reading, in_lines=False):
            yield row
    reading.end = None


def _json_row(line: Line, reading: Reading, *, in_lines: bool = True) -> Row | Quarantined | None:
    """Return the record of a line; None: it is blank."""
    place = Place(reading.name, line.number)
    if line.problem and not (line.is_open and reading.growing):
        return Quarantined(place, line.problem, line.raw)
    content = line.content.strip()
    if not content:
        return None
    if in_lines and content in {b"{", b"["}:
        return Quarantined(place, "a record must be a JSON object in one line; write it by jq -c", line.raw)
    try:
        return Parsed(parse_json_object(line.content), place, line.raw)
    except InputError as error:
        return Quarantined(place, str(error), line.raw)


def read_csv(
    path: Path, reading: Reading | None = None, *, required: Collection[str] = ()
) -> Iterator[Row | Quarantined]:
    """Yield the rows of a CSV file (RFC 4180: header first, commas), without their empty cells.

    The place of a row is the line on which it begins. The header is line 1; cells may hold line breaks.

    Raises:
        InputError: the file cannot be used, or a required column is missing.
    """
    # The module's limit for a cell is 128 KiB, too little for a long answer; the line reader keeps memory bounded.
    csv.field_size_limit(LINE_LIMIT)
    reading = reading or Reading(path)
    lines = _LineFeed(read_lines(path, reading, limit=LINE_LIMIT))
    reader = csv.reader(lines, strict=True)
    header = _header(path, reader, lines, reading)
    if header is None:
        return
    if missing := [name for name in required if name not in header]:
        raise InputError(f"{path}:1: the column {' and '.join(missing)} is missing; found {', '.join(header)[:500]}")
    while True:
        lines.taken.clear()
        cells, problem = [], ""
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            problem = f"malformed CSV: {error}"
        raw = b"\n".join(lines.taken)
        if lines.is_open and reading.growing:
            reading.unfinished = 1
            return
        if not raw.strip() and not lines.problem:
            continue
        place = Place(reading.name, lines.begin)
        problem = lines.problem or problem or _misfit(cells, header)
        if problem:
            lines.problem = ""
            yield Quarantined(place, problem, raw)
        else:
            yield Parsed({name: cell for name, cell in zip(header, cells, strict=True) if cell}, place, raw)


def _misfit(cells: Sequence[str], header: Sequence[str]) -> str:
    if len(cells) == len(header):
        return ""
    return f"the row has {len(cells)} cells, but the header has {len(header)}"


def read_table(
    path: Path, columns: Collection[str], read_row: Callable[[Row], T], *, required: Collection[str], holds: str
) -> ReadResult[Parsed[T]]:
    """Read a small CSV file whole.

    Args:
        path: the file.
        columns: those in use; notices name all others.
        read_row: turns a row into a record; raises InputError for a bad one, which is quarantined.
        required: columns without which the file is refused.
        holds: what its rows are, in words, for a file without any.

    Raises:
        InputError: the file as a whole cannot be used.
    """
    good: list[Parsed[T]] = []
    bad: list[Quarantined] = []
    ignored: Counter[str] = Counter()
    for row in read_csv(path, required=required):
        if isinstance(row, Quarantined):
            bad.append(row)
            continue
        ignored.update(row.record.keys() - set(columns))
        try:
            good.append(Parsed(read_row(row), row.place, row.raw))
        except InputError as error:
            bad.append(row.quarantined(str(error)))
    if not good and not bad:
        raise InputError(f"{path} holds no {holds}")
    return ReadResult(tuple(good), tuple(bad), notices_of_ignored(ignored))


class _LineFeed:
    """Lines for the csv module, as text. Remembers the first line and the bytes of the row that it reads.

    `is_open`: the file ended within the row, by what it says so far: without a newline, or within quotes.
    """

    def __init__(self, lines: Iterator[Line]) -> None:
        self.begin = 0
        self.is_open = False
        self.taken: list[bytes] = []
        self.problem = ""
        self._lines = lines

    def __iter__(self) -> Iterator[str]:
        size = commas = 0
        for line in self._lines:
            if not self.taken:
                self.begin, size, commas = line.number, 0, 0
            size += len(line.raw)
            self.taken.append(line.raw)
            if size > LINE_LIMIT:
                raise csv.Error(f"a row is longer than {LINE_LIMIT} bytes (an open quote?); the rest is not read")
            if commas > MOST_VALUES:
                raise csv.Error(f"a row holds more than {MOST_VALUES} commas (an open quote?); the rest is not read")
            more = line.raw.count(b",")
            commas += more
            problem = line.problem or (f"the line holds more than {MOST_VALUES} commas" if more > MOST_VALUES else "")
            try:
                # A quote in an over-long line, of which only the head is here, must not swallow the lines after it.
                text = "" if problem else line.content.decode()
            except UnicodeDecodeError as error:
                problem = f"byte 0x{line.content[error.start]:02x} is not UTF-8; write the file as UTF-8"
                text = line.content.decode(errors="surrogateescape")
            self.problem = self.problem or problem
            self.is_open = line.is_open
            yield text + "\n"
        self.is_open = bool(self.taken)


def _header(path: Path, reader: Iterator[list[str]], lines: _LineFeed, reading: Reading) -> list[str] | None:
    """Return the names of the columns; None: they may not be all there yet."""
    problem, header = "", []
    try:
        header = next(reader)
    except StopIteration:
        raise InputError(f"{path} is empty; a CSV file starts with the names of its columns") from None
    except csv.Error as error:
        problem = f"{path}:1: malformed CSV: {error}"
    if lines.is_open and reading.growing:
        reading.unfinished = 1
        return None
    if problem:
        raise InputError(problem)
    if lines.problem:
        raise InputError(f"{path}:1: {lines.problem}")
    if not header or not all(header) or len(set(header)) < len(header):
        raise InputError(f"{path}:1: every column needs a name, and no name twice: {', '.join(header)[:500]}")
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and mark in header[0]:
            raise InputError(f"{path}:1: the columns are separated by {name}; save the file with commas")
    return header


def _saved_dataset(folder: Path, known: Collection[str], ignored: Counter[str]) -> Iterator[Row | Quarantined]:
    for path in saved_shards(folder):
        yield from _table(path, ARROW, str(path), known, ignored)


def _table(
    path: Path, kind: str, name: str, known: Collection[str], ignored: Counter[str]
) -> Iterator[Row | Quarantined]:
    """Yield the rows of a Parquet file or Arrow stream."""
    with TableFile(path, kind, known) as table:
        columns = [column for column in table.names if column in known]
        if not columns:
            raise InputError(f"{path} has none of the columns that are read; found {', '.join(table.names)[:500]}")
        height = 0
        for piece in table.pieces():
            if isinstance(piece, LongRow):
                height += 1
                yield Quarantined(Place(name, height), piece.problem, b"")
            else:
                yield from _frame_rows(name, piece, height)
                height += piece.height
    ignored.update({column: height for column in table.names if height and column not in columns})


def _frame_rows(name: str, frame: pl.DataFrame, before: int) -> Iterator[Row]:
    for number, row in enumerate(frame.iter_rows(named=True), before + 1):
        raw = json.dumps(row, ensure_ascii=False, default=str).encode()
        yield Parsed({column: cell for column, cell in row.items() if cell is not None}, Place(name, number), raw)
