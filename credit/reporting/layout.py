"""Tables for people that fit into the width of a screen, whatever that is.

A table that is too wide is first set closer, then goes without its dispensable columns, from the left on as far as it
must, and names them; and where that is not enough, every row becomes a paragraph with a line for each column. No cell
is ever cut or broken across columns.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.padding import PaddingDimensions
from rich.table import Table
from rich.text import Text

_UNBOUNDED = 100_000
_WIDE: PaddingDimensions = (0, 1)
_CLOSE: PaddingDimensions = (0, 1, 0, 0)
"""Paddings of a cell, as rich reads them: three spaces between columns, or two."""

_INDENT = "    "


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its heading and cells, as text; `spare` may be left out where there is no room."""

    heading: str
    cells: Sequence[str]
    is_number: bool = False
    spare: bool = False


def fitted(columns: Sequence[Column], width: int, notes: Sequence[str] = ()) -> str:
    """Return columns as a table of at most `width` characters a line, as far as words allow.

    Args:
        columns: the columns, all with as many cells.
        width: characters in a line.
        notes: for each row a text that stands below it, wrapped, or nothing where it is empty.
    """
    spare = [column for column in columns if column.spare]
    fewer = [[column for column in columns if column not in spare[:count]] for count in range(1, len(spare) + 1)]
    for some, padding in ((columns, _WIDE), (columns, _CLOSE), *((kept, _CLOSE) for kept in fewer)):
        lines = _table(some, padding)
        if max(map(cell_len, lines)) <= width:
            left_out = [column.heading for column in columns if column not in some]
            text = "\n".join(_with_notes(lines, notes, width)) + "\n"
            return text + (f"\nNot shown at this width: {', '.join(left_out)}.\n" if left_out else "")
    return "\n".join(_paragraphs(columns, notes, width)) + "\n"


def _table(columns: Sequence[Column], padding: PaddingDimensions) -> list[str]:
    """Return the lines of a table: headings, a rule, and one line for each row."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="", padding=padding)
    for column in columns:
        heading = column.heading.replace(" ", "\n")
        table.add_column(heading, justify="right" if column.is_number else "left", no_wrap=True, vertical="bottom")
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell) for cell in row))
    text = io.StringIO()
    console = Console(file=text, width=_UNBOUNDED, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(table)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    return [line for line in lines if line]


def _with_notes(lines: Sequence[str], notes: Sequence[str], width: int) -> Iterator[str]:
    head = len(lines) - len(notes) if notes else len(lines)
    yield from lines[:head]
    for line, note in zip(lines[head:], notes, strict=True):
        yield line
        yield from _wrapped(note, width, _INDENT)


def _paragraphs(columns: Sequence[Column], notes: Sequence[str], width: int) -> Iterator[str]:
    label = max(len(column.heading) for column in columns)
    for number, row in enumerate(zip(*(column.cells for column in columns), strict=True)):
        if number:
            yield ""
        for column, cell in zip(columns, row, strict=True):
            start = f"{column.heading:<{label}}  "
            yield from _wrapped(cell, width, " " * len(start), start) or [start.rstrip()]
        if notes:
            yield from _wrapped(notes[number], width, _INDENT)


def _wrapped(text: str, width: int, indent: str, start: str | None = None) -> list[str]:
    first = indent if start is None else start
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False)
