r"""Frames as CSV for spreadsheets, JSON for programs and tables for people; the same frame gives the same text.

CSV is UTF-8, RFC 4180 (CRLF, a header row), with every digit of every number. A spreadsheet runs a cell that starts
with `=`, `+`, `-`, `@`, tab or carriage return, so a text cell that does so (after any apostrophes) gets an apostrophe
in front, the sign for text: no formula is left, and taking one apostrophe off wherever `'+[=+\-@\t\r]` matches gives
back every text exactly. Numbers are never altered, not even negative ones.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import polars as pl

from credit.accounting.statement_lines import STATEMENT_LINES
from credit.errors import InvalidRequestError
from credit.ledger.score_books import MEASURES
from credit.records import MICRO
from credit.reporting.frames import MONEY_COLUMNS
from credit.reporting.layout import Column, fitted
from credit.text import printable

Format = Literal["table", "csv", "json"]

DEFAULT_WIDTH = 120
"""Columns of characters of a table when nobody says how many there are."""

_RUNNABLE = r"^('*[=+\-@\t\r])"
_PLAIN_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_WHEN_USED = frozenset(line.name for line in STATEMENT_LINES if not line.always)
"""Columns of a table for people that are left out where they hold only zeros."""

_ALIKE = "not_told_from"
_FRACTIONS = frozenset({"share", "share_low", "share_high", "shared", "before", "repeated"})
_BELOW = "reason"
_SPARE = frozenset({"name", "influence", "support"})
"""Columns that a table goes without where there is no room: the key says who it is, and effect what is paid for."""

_HEADINGS = {"credit_micro": "credits", "output_id": "output"}


def render(frame: pl.DataFrame, format: Format, *, width: int = DEFAULT_WIDTH) -> str:  # noqa: A002 - as the option is called
    """Return a report's frame as text.

    Args:
        frame: from `credit.reporting.frames`.
        format: `table`, `csv` or `json`.
        width: characters in a line of a table.

    Raises:
        InvalidRequestError: there is no such format.
    """
    if format == "csv":
        return to_csv(frame)
    if format == "json":
        return to_json(frame)
    if format == "table":
        return to_table(frame, width=width)
    raise InvalidRequestError(f"format {format!r}: it must be one of {', '.join(get_args(Format))}")


def to_csv(frame: pl.DataFrame, *, header: bool = True) -> str:
    """Return a frame as CSV; write it in UTF-8 without translating line ends."""
    safe = [
        pl.col(name).str.replace(_RUNNABLE, "'$1")
        for name, dtype in frame.schema.items()
        if dtype == pl.String and not _is_money(frame[name])
    ]
    return frame.with_columns(safe).write_csv(include_header=header, line_terminator="\r\n")


def to_json(frame: pl.DataFrame) -> str:
    """Return a frame as a JSON list of objects, one in a line; numbers as exact as JSON is."""
    rows = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in frame.iter_rows(named=True)]
    return "[\n" + ",\n".join(rows) + "\n]\n" if rows else "[]\n"


def to_table(frame: pl.DataFrame, *, width: int = DEFAULT_WIDTH) -> str:
    """Return a frame as a table for people: credits and percent, nats to three digits, numbers to the right.

    Lines of the waterfall that no provider has are left out, so that the others fit on a screen. Why nothing is paid
    stands below a provider's line, and which shares cannot be told apart below the table.
    """
    columns = []
    for name in frame.columns:
        if name in {_ALIKE, _BELOW}:
            continue
        if name in _WHEN_USED and not any(character in "123456789" for cell in frame[name] for character in cell):
            continue
        number = frame.schema[name].is_numeric() or name in MONEY_COLUMNS
        heading = _HEADINGS.get(name, name.replace("_", " "))
        cells = [_shown(name)(value) for value in frame[name]]
        columns.append(Column(heading, cells, number, spare=name in _SPARE and "provider" in frame.columns))
    notes = [_shown(_BELOW)(value) for value in frame[_BELOW]] if _BELOW in frame.columns else []
    return fitted(columns, width, notes) + _alike_text(frame, width)


def alike_pairs(shares: Mapping[str, float], alike: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Return whose share cannot be told apart from whose, each pair once: at the larger share.

    Args:
        shares: by provider.
        alike: the keys that cannot be told from each, with spaces between.
    """
    order = sorted(shares, key=lambda key: (-shares[key], key))
    found = []
    for place, key in enumerate(order):
        others = [other for other in order[place + 1 :] if other in alike[key].split()]
        if others:
            found.append((key, others))
    return found


def _alike_text(frame: pl.DataFrame, width: int) -> str:
    if _ALIKE not in frame.columns:
        return ""
    shares, alike = (dict(frame.select("provider", name).iter_rows()) for name in ("share", _ALIKE))
    pairs = [f"{key} from {', '.join(others)}" for key, others in alike_pairs(shares, alike)]
    if not pairs:
        return ""
    text = f"Shares that cannot be told apart on these outputs: {'; '.join(pairs)}."
    return "\n" + textwrap.fill(text, width, break_on_hyphens=False, break_long_words=False) + "\n"


def credits_text(credit_micro: int) -> str:
    """Return micro-credits as credits, with all their six decimals."""
    whole, rest = divmod(abs(credit_micro), MICRO)
    return f"{'-' if credit_micro < 0 else ''}{whole:,}.{rest:06d}"


def share_text(share: float) -> str:
    """Return a fraction as percent with two decimals; what is not nothing is not shown as nothing."""
    if 0 < share < 0.00005:
        return "<0.01 %"
    return f"{100 * share:.2f} %"


def nats_text(nats: float) -> str:
    """Return nats with three significant digits, and never fewer than all digits before the point."""
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
    """Whether a column of text holds amounts: it is one of them by name, and every cell is a plain number."""
    return cells.name in MONEY_COLUMNS and all(_PLAIN_NUMBER.fullmatch(cell) for cell in cells)
