r"""Reports as text: CSV for spreadsheets, JSON for programs, and tables for people that fit the width of a screen.

CSV is UTF-8, RFC 4180 (CRLF, a header row), with every digit of every number. A spreadsheet runs a cell that starts
with `=`, `+`, `-`, `@`, tab or carriage return. Such a text cell (also after apostrophes) gets an apostrophe in front,
the sign for text. To read the text back exactly, take one apostrophe off wherever `'+[=+\-@\t\r]` matches. Numbers
are never altered, not even negative ones.

A table that is too wide for its lines is set closer first. Then it drops its spare columns, from the left, as many as
it must, and names them. If that is not enough, every row becomes a paragraph with a line for each column. No cell is
ever cut or broken across columns.
"""

from __future__ import annotations

import io
import json
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import polars as pl
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.padding import PaddingDimensions
from rich.table import Table
from rich.text import Text

from credit.accounting.amounts import format_amount, money_text, parse_amount
from credit.accounting.statement_lines import STATEMENT_LINES
from credit.errors import InvalidRequestError
from credit.ledger.score_books import MEASURES
from credit.records import MICRO
from credit.reporting.frames import MONEY_COLUMNS
from credit.text import counted, printable

Format = Literal["table", "csv", "json"]

DEFAULT_WIDTH = 120
"""Characters in a line of a table, where nobody says how many."""

_RUNNABLE = r"^('*[=+\-@\t\r])"
_PLAIN_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_WHEN_USED = frozenset(line.name for line in STATEMENT_LINES if not line.always)
"""Columns that a table leaves out where they hold only zeros."""

_AMOUNTS = frozenset({*MONEY_COLUMNS, "debit", "credit", "closing", "gross", "paid", "withheld", "advances"})
"""Columns of amounts: those of payouts, of books, and of a year."""

_RANK = ("rank_low", "rank_high")
_FRACTIONS = frozenset({"share", "share_low", "share_high", "shared", "before", "repeated"})
_BELOW = "reason"
_SPARE = frozenset({"name", "influence", "support"})
"""Columns that a table drops where there is no room: the key names the provider, and effect is what is paid for."""

_HEADINGS = {"credit_micro": "credits", "output_id": "output"}

_UNBOUNDED = 100_000
_WIDE: PaddingDimensions = (0, 1)
_CLOSE: PaddingDimensions = (0, 1, 0, 0)
"""Paddings of a cell, as rich reads them: three spaces between columns, or two."""

_INDENT = "    "


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its heading and cells, as text; a `spare` one is dropped where there is no room."""

    heading: str
    cells: Sequence[str]
    is_number: bool = False
    spare: bool = False


def render(
    frame: pl.DataFrame,
    format: Format,  # noqa: A002 - as the option is called
    *,
    width: int = DEFAULT_WIDTH,
    most: int | None = None,
) -> str:
    """Return a report's frame as text.

    Args:
        frame: from `credit.reporting.frames`.
        format: `table`, `csv` or `json`.
        width: characters in a line of a table.
        most: rows of a table, as `to_table` chooses them; None: all.

    Raises:
        InvalidRequestError: there is no such format.
    """
    if format == "csv":
        return to_csv(frame)
    if format == "json":
        return to_json(frame)
    if format == "table":
        return to_table(frame, width=width, most=most)
    raise InvalidRequestError(f"format {format!r}: it must be one of {', '.join(get_args(Format))}")


def to_csv(frame: pl.DataFrame) -> str:
    """Return a frame as CSV; write it in UTF-8 without translating line ends."""
    # A spreadsheet runs a cell that starts so. An amount is spared: `-5.00` starts so too.
    safe = [
        pl.col(name).str.replace(_RUNNABLE, "'$1")
        for name, dtype in frame.schema.items()
        if dtype == pl.String and not _is_money(frame[name])
    ]
    return frame.with_columns(safe).write_csv(line_terminator="\r\n")


def to_json(frame: pl.DataFrame) -> str:
    """Return a frame as a JSON list of objects, one in a line; numbers as exact as JSON is."""
    rows = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in frame.iter_rows(named=True)]
    return "[\n" + ",\n".join(rows) + "\n]\n" if rows else "[]\n"


def to_table(frame: pl.DataFrame, *, width: int = DEFAULT_WIDTH, most: int | None = None) -> str:
    """Return a frame as a table for people: credits and percent, nats to three digits, numbers aligned right.

    Statement lines that are zero for every provider are left out. The reason why nothing is paid stands below a
    provider's line. Totals of payouts stand below the table.

    Args:
        frame: from `credit.reporting.frames`.
        width: characters in a line.
        most: rows; of a larger frame, those that matter most. None: all.
    """
    frame, rest = _most_important(frame, most)
    columns = []
    for name in frame.columns:
        if name in {*_RANK, _BELOW}:
            continue
        if name in _WHEN_USED and not any(character in "123456789" for cell in frame[name] for character in cell):
            continue
        number = frame.schema[name].is_numeric() or name in _AMOUNTS
        heading = _HEADINGS.get(name, name.replace("_", " "))
        cells = [_shown(name)(value) for value in frame[name]]
        columns.append(Column(heading, cells, number, spare=name in _SPARE and "provider" in frame.columns))
    if set(_RANK) <= set(frame.columns):
        columns.append(Column("rank", [rank_text(*places) for places in frame.select(_RANK).iter_rows()]))
    notes = [_shown(_BELOW)(value) for value in frame[_BELOW]] if _BELOW in frame.columns else []
    return fitted(columns, width, notes) + _rest_text(rest, width) + _totals_text(pl.concat([frame, rest]), width)


def trend_table(frame: pl.DataFrame, *, width: int = DEFAULT_WIDTH, most: int | None = None) -> str:
    """Return the frame of `trends` for people: a line for each provider, and a column for its share in each month.

    Of more than `most` providers, those with most credits in all. Below stand all credits of each month. Where the
    months do not fit, the first are left out.
    """
    months = frame["period"].unique().sort().to_list()
    one = frame.unique(["period", "provider"], keep="first", maintain_order=True)
    credits_of = one.group_by("provider").agg(pl.col("credit_micro").sum()).sort("credit_micro", descending=True)
    shown = sorted(credits_of["provider"].head(most).to_list() if most else credits_of["provider"].to_list())
    share = {
        (period, provider): part for period, provider, part in one.select("period", "provider", "share").iter_rows()
    }
    total = dict(one.group_by("period").agg(pl.col("credit_micro").sum()).iter_rows())
    columns = [Column("provider", [*shown, "all credits"])]
    for month in months:
        cells = [share_text(share[month, key]) if (month, key) in share else "-" for key in shown]
        columns.append(Column(month, [*cells, credits_text(total[month])], is_number=True, spare=True))
    left = credits_of.height - len(shown)
    rest = f"... and {counted(left, 'provider')} more; --out FILE or --format csv gives all\n" if left else ""
    return fitted(columns, width) + rest


def fitted(columns: Sequence[Column], width: int, notes: Sequence[str] = ()) -> str:
    """Return columns as a table with at most `width` characters in a line, as far as words allow.

    Args:
        columns: the columns, all of one length.
        width: characters in a line.
        notes: a text for each row, wrapped below it; an empty one takes no line.
    """
    spare = [column for column in columns if column.spare]
    fewer = [[column for column in columns if column not in spare[:count]] for count in range(1, len(spare) + 1)]
    for some, padding in ((columns, _WIDE), (columns, _CLOSE), *((kept, _CLOSE) for kept in fewer)):
        lines = _table(some, padding)
        if max(map(cell_len, lines)) <= width:
            left_out = [column.heading for column in columns if column not in some]
            text = "\n".join(_with_notes(lines, notes, width)) + "\n"
            said = _wrapped(f"Not shown at this width: {', '.join(left_out)}.", width, _INDENT, "")
            return text + ("\n" + "\n".join(said) + "\n" if left_out else "")
    return "\n".join(_paragraphs(columns, notes, width)) + "\n"


def total_text(currency: str, payable_minor: Sequence[int], carried_minor: int) -> str:
    """Return the totals of a period in one currency: payable to a number of providers, and carried forward."""
    paid = [minor for minor in payable_minor if minor]
    payable = f"{money_text(sum(paid), currency)} payable to {counted(len(paid), 'provider')}"
    return f"{payable}, {format_amount(carried_minor, currency)} carried forward"


def rank_text(low: int | None, high: int | None) -> str:
    """Return the places that a share can have among all: one, or the first and last."""
    if low is None or high is None:
        return ""
    return str(low) if low == high else f"{low} to {high}"


def credits_text(credit_micro: int) -> str:
    """Return micro-credits as credits with six decimals."""
    whole, rest = divmod(abs(credit_micro), MICRO)
    return f"{'-' if credit_micro < 0 else ''}{whole:,}.{rest:06d}"


def share_text(share: float) -> str:
    """Return a fraction as percent with two decimals; a share above zero never shows as zero."""
    # Rounded, a provider who earned something would read that it earned nothing.
    if 0 < share < 0.00005:
        return "<0.01 %"
    return f"{100 * share:.2f} %"


def nats_text(nats: float) -> str:
    """Return nats with three significant digits, or with all digits before the point if they are more."""
    if nats == 0:
        return "0"
    exponent = math.floor(math.log10(abs(nats)))
    return f"{nats:.2e}" if exponent < -5 else f"{nats:,.{max(0, 2 - exponent)}f}"


def _shown(column: str) -> Callable[[Any], str]:
    if column == "credit_micro":
        return credits_text
    if column in _FRACTIONS:
        return lambda value: "-" if value is None else share_text(value)
    if column in MEASURES:
        return nats_text
    if column in {"outputs", "records"}:
        return "{:,}".format
    return lambda value: printable(str(value))


def _is_money(cells: pl.Series) -> bool:
    """Return True for a column of amounts: it has the name of one, and every cell is a plain number or empty."""
    return cells.name in _AMOUNTS and all(not cell or _PLAIN_NUMBER.fullmatch(cell) for cell in cells)


def _most_important(frame: pl.DataFrame, most: int | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows of a frame that a table shows, and the others; all of a frame that is small stay in order.

    Of attribution, those with most credits come first. Of payouts, those with a reason why nothing is paid, then the
    largest.
    """
    if most is None or frame.height <= most:
        return frame, frame.clear()
    if "payable" in frame.columns:
        order = [pl.col("reason") == "", -pl.col("payable").cast(pl.Float64)]
        frame = frame.sort(order, maintain_order=True)
    elif "credit_micro" in frame.columns:
        frame = frame.sort("credit_micro", descending=True, maintain_order=True)
    return frame.head(most), frame.slice(most)


def _rest_text(rest: pl.DataFrame, width: int) -> str:
    """Say how much a table leaves out, and where all of it is."""
    if rest.is_empty():
        return ""
    part = f" with {credits_text(int(rest['credit_micro'].sum()))} credits" if "credit_micro" in rest.columns else ""
    text = f"... and {counted(rest.height, 'row')} more{part}; --out FILE or --format csv gives all"
    return "\n".join(_wrapped(text, width, _INDENT, "")) + "\n"


def _totals_text(frame: pl.DataFrame, width: int) -> str:
    """Return the totals of payouts, a line for each currency; nothing for a frame of something else."""
    if not {"currency", "payable", "carried_forward"} <= set(frame.columns) or frame.is_empty():
        return ""
    lines = []
    for currency in frame["currency"].unique().sort():
        own = frame.filter(pl.col("currency") == currency)
        payable, carried = (
            [parse_amount(cell, currency, allow_negative=True) for cell in own[name]]
            for name in ("payable", "carried_forward")
        )
        lines += _wrapped(total_text(currency, payable, sum(carried)), width, _INDENT, "")
    return "\n" + "\n".join(lines) + "\n"


def _table(columns: Sequence[Column], padding: PaddingDimensions) -> list[str]:
    """Return the lines of a table: headings, a rule, and one line for each row."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="", padding=padding)
    for column in columns:
        # A word a line: columns are then as narrow as their numbers.
        heading = column.heading.replace(" ", "\n")
        table.add_column(heading, justify="right" if column.is_number else "left", no_wrap=True, vertical="bottom")
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell) for cell in row))
    text = io.StringIO()
    # rich would cut cells at its own width; `fitted` decides what to drop.
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
