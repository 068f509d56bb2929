"""Exchange rates from a CSV file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from credit.ingest.fields import FilledText, InputModel, validate
from credit.ingest.files import Parsed, ReadResult, Row, read_table

_COLUMNS = ("day", "base", "quote", "rate", "source")


@dataclass(frozen=True, slots=True)
class RateRow:
    """A row of a file of rates. Accounting checks the currencies and the rate."""

    on: date
    base: str
    quote: str
    rate: str
    source: str


def _day(text: str) -> str:
    if len(text) != 10:
        raise ValueError(f"{text[:20]!r} is not a day, like 2026-01-30")
    try:
        date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a day, like 2026-01-30") from None
    return text


class _RateFields(InputModel):
    day: Annotated[str, AfterValidator(_day)]
    base: str
    quote: str
    rate: str
    source: FilledText


def read_rates(path: Path) -> ReadResult[Parsed[RateRow]]:
    """Read a CSV file with the columns day, base, quote, rate and source; quarantine incomplete rows.

    Raises:
        InputError: the file as a whole cannot be used, or a column is missing.
    """
    holds = "rates; each needs a row with day, base, quote, rate and source"
    return read_table(path, _COLUMNS, _read_row, required=_COLUMNS, holds=holds)


def _read_row(row: Row) -> RateRow:
    fields = validate(_RateFields, row.record)
    return RateRow(date.fromisoformat(fields.day), fields.base, fields.quote, fields.rate, fields.source)
