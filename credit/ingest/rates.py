"""Rates of exchange from a CSV file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from credit.errors import InputError
from credit.ingest.fields import FilledText, InputModel, validate
from credit.ingest.files import Parsed, ReadResult, notices_of_ignored, read_csv
from credit.records import Quarantined

_REQUIRED = ("day", "base", "quote", "rate", "source")


@dataclass(frozen=True, slots=True)
class RateRow:
    """A row of a file of rates; what is a currency, and what a rate, is for accounting to say."""

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


class _Fields(InputModel):
    day: Annotated[str, AfterValidator(_day)]
    base: str
    quote: str
    rate: str
    source: FilledText


def read_rates(path: Path) -> ReadResult[Parsed[RateRow]]:
    """Read a CSV file with the columns day, base, quote, rate and source; rows without them are quarantined.

    Raises:
        InputError: the file as a whole cannot be used, or a column is missing.
    """
    good: list[Parsed[RateRow]] = []
    bad: list[Quarantined] = []
    ignored: Counter[str] = Counter()
    for row in read_csv(path, required=_REQUIRED):
        if isinstance(row, Quarantined):
            bad.append(row)
            continue
        ignored.update(row.record.keys() - set(_REQUIRED))
        try:
            fields = validate(_Fields, row.record)
        except InputError as error:
            bad.append(row.refuse(str(error)))
            continue
        item = RateRow(date.fromisoformat(fields.day), fields.base, fields.quote, fields.rate, fields.source)
        good.append(Parsed(item, row.place, row.raw))
    if not good and not bad:
        raise InputError(f"{path} holds no rates; each needs a row with day, base, quote, rate and source")
    return ReadResult(tuple(good), tuple(bad), notices_of_ignored(ignored))
