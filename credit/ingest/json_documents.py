"""JSON: the strict parser of one value, and files that hold a list of records or records over several lines."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import IO, NoReturn

from credit.errors import InputError
from credit.ingest.lines import LINE_LIMIT, MOST_VALUES, Line, without_bom
from credit.ingest.streams import DAMAGES, Reading

PIECE = 1 << 20
"""Bytes that are read at a time, at least."""
_HEAD = 1024
_DOCUMENT = re.compile(rb'\[\s*\{|\{[^\S\n]*\n\s*["}]')
_BETWEEN = re.compile(rb"[\s,]*")
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*("?)|[{}\[\]]', re.DOTALL)
"""A text (with its closing quote, if that has been read) or a bracket."""


def parse_json_object(raw: bytes) -> dict[str, object]:
    """Parse one JSON object from UTF-8 bytes; fractions become Decimal.

    Raises:
        InputError: with the reason; the caller adds the place.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"byte 0x{raw[error.start]:02x} at position {error.start + 1} is not UTF-8; write the file as UTF-8"
        ) from error
    if len(raw) > MOST_VALUES and raw.count(b",") > MOST_VALUES:
        raise InputError(f"the record holds more than {MOST_VALUES} values; write it as several")
    value = parse_json(text)
    if isinstance(value, list):
        raise InputError("a record must be a JSON object in one line: {...}; make lines of a list: jq -c '.[]'")
    if not isinstance(value, dict):
        raise InputError("a record must be a JSON object in one line: {...}")
    return value


def parse_json(text: str) -> object:
    """Parse any JSON value, as strictly as `parse_json_object`."""
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise InputError(f"malformed JSON: {error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise InputError("malformed JSON: nested too deeply") from error
    except (ValueError, ArithmeticError) as error:
        # The decoder's hooks and Python's own limits on the length of numbers.
        raise InputError(f"malformed JSON: {error or 'a number is out of all range'}") from error


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {twice!r} stands there twice")
    return keys


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _exact(digits: str) -> Decimal:
    try:
        return Decimal(digits)
    except ArithmeticError as error:
        raise ValueError("a number's exponent is out of all range") from error


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_float=_exact, parse_constant=_no_constant)


def is_in_lines(path: Path) -> bool:
    """Return True if a file of JSON is in lines: it begins with neither a list of objects nor an object over lines.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with closing(Reading(path).open()) as stream:
            head = without_bom(stream.read(PIECE)).lstrip()
    except DAMAGES:
        return True  # the reader of the first line reports it with its place
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return _DOCUMENT.match(head) is None


def read_documents(path: Path, reading: Reading | None = None, *, limit: int = LINE_LIMIT) -> Iterator[Line]:
    """Yield the objects of a list, or objects one after the other, each with the number of its first line.

    The reader looks at brackets and texts alone. A malformed object therefore ends where it should, and its neighbours
    are readable. Anything else comes as the rest of its line. Memory holds one object of at most `limit` bytes, and a
    piece of the file after it.

    Raises:
        InputError: the file cannot be read.
    """
    reading = reading or Reading(path)
    try:
        with closing(reading.open()) as stream:
            yield from _Objects(stream, reading, limit)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error


class _Objects:
    """The objects of a stream, cut out one by one. The next one begins at `_at` of the buffer, in line `_line`."""

    def __init__(self, stream: IO[bytes], reading: Reading, limit: int) -> None:
        self._stream, self._reading, self._limit = stream, reading, limit
        self._buffer = b""
        self._at = 0
        self._line = 1
        self._first = True
        self._ended = False
        self._damage = ""

    def __iter__(self) -> Iterator[Line]:
        in_list = False
        while True:
            self._take(self._blank())
            mark = self._buffer[self._at : self._at + 1]
            if not mark:
                break
            if (mark, in_list) in {(b"[", False), (b"]", True)}:
                in_list = not in_list
                self._take(1)
                continue
            line, size = self._line, self._object() if mark == b"{" else self._rest_of_line()
            if size is None:
                yield Line(line, self._buffer[self._at : self._at + _HEAD], self._why_open(), is_open=self._is_open())
                return
            is_open = mark != b"{" and self._ended and size == self._held()
            yield Line(line, self._take(size), is_open=is_open)
        if self._damage or self._reading.is_cut:
            yield Line(self._line, b"", self._damage or self._reading.damage(), is_open=self._is_open())
        elif in_list:
            yield Line(self._line, b"", "the file ends before its list does; write it again", is_open=True)

    def _is_open(self) -> bool:
        """Return True if the file ends here, and may be about to grow."""
        return self._ended and not self._damage

    def _why_open(self) -> str:
        if self._damage or self._reading.is_cut:
            return self._damage or self._reading.damage()
        if self._ended:
            return "the file ends before this record does; write it again"
        return f"the record is longer than {self._limit} bytes; what follows it is not read"

    def _held(self) -> int:
        return len(self._buffer) - self._at

    def _more(self) -> bool:
        """Read as much again as is held, so scanning twice stays cheap. Return False at the end."""
        if self._ended:
            return False
        try:
            piece = self._stream.read(max(PIECE, self._held()))
        except DAMAGES as error:
            self._damage, piece = self._reading.damage(error), b""
        self._ended = not piece
        self._buffer = self._buffer[self._at :] + (without_bom(piece) if self._first else piece)
        self._at, self._first = 0, False
        return not self._ended

    def _take(self, size: int) -> bytes:
        begin, self._at = self._at, self._at + size
        self._line += self._buffer.count(b"\n", begin, self._at)
        return self._buffer[begin : self._at]

    def _blank(self) -> int:
        """Return the number of bytes before the next object, bracket or other mark."""
        while True:
            found = _BETWEEN.match(self._buffer, self._at)
            size = found.end() - self._at if found else 0
            if size < self._held() or not self._more():
                return size

    def _rest_of_line(self) -> int | None:
        """Return the number of bytes in the rest of the line; None: it is too long."""
        while (end := self._buffer.find(b"\n", self._at)) < 0:
            if self._held() > self._limit:
                return None
            if not self._more():
                return self._held()
        return end - self._at

    def _object(self) -> int | None:
        """Return the number of bytes of the object here; None: it is too long, or the file ends within it."""
        depth = size = 0
        while True:
            for token in _TOKEN.finditer(self._buffer, self._at + size):
                mark = token[0][:1]
                if mark == b'"':
                    if not token[1]:  # the buffer ends within a text
                        size = token.start() - self._at
                        break
                elif mark in b"{[":
                    depth += 1
                else:
                    depth -= 1
                    if depth == 0:
                        size = token.end() - self._at
                        return size if size <= self._limit else None
            else:
                size = self._held()
            if self._held() > self._limit or not self._more():
                return None


def objects_in(record: Mapping[str, object], name: str) -> list[dict[str, object]]:
    """Return a field that is a list of objects; empty where it is missing.

    Raises:
        InputError: it is something else.
    """
    value = record.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InputError(f"`{name}` must be a list of objects")
    return value
