"""Providers from a CSV file: who can be credited, and on what minimum."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from credit.errors import InputError
from credit.ingest.fields import InputModel, ProviderKey, ProviderName, validate
from credit.ingest.files import Parsed, ReadResult, Row, read_table
from credit.records import HOUSE, Provider

_REQUIRED = ("key", "name")
_KNOWN = {"key", "name", "kind", "currency", "minimum_payout"}
_CURRENCY = re.compile(r"[A-Z]{3}")
_AMOUNT = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,6})?")


@dataclass(frozen=True, slots=True)
class ProviderRow:
    """A row of a providers file.

    `minimum_payout` is in units of `currency`, and never without one. Accounting checks its digits.
    """

    provider: Provider
    currency: str | None = None
    minimum_payout: Decimal | None = None


def _free_key(key: str) -> str:
    if key == HOUSE:
        raise ValueError(f"{HOUSE!r} is reserved for what nobody earned; give own data another key and kind house")
    return key


def _currency(code: str) -> str:
    if not _CURRENCY.fullmatch(code):
        raise ValueError(f"{code[:20]!r} is not an ISO 4217 code, like EUR")
    return code


def _amount(text: str) -> str:
    if not _AMOUNT.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not an amount of at least 0, like 50.00")
    return text


class _ProviderFields(InputModel):
    key: Annotated[ProviderKey, AfterValidator(_free_key)]
    name: ProviderName
    kind: Literal["provider", "house"] = "provider"
    currency: Annotated[str, AfterValidator(_currency)] | None = None
    minimum_payout: Annotated[str, AfterValidator(_amount)] | None = None


def read_providers(path: Path) -> ReadResult[Parsed[ProviderRow]]:
    """Read a CSV file with the columns key and name, and optionally kind, currency and minimum_payout.

    Quarantined are rows with a bad or reserved key, a key of an earlier row, an empty name, an unknown kind, or a
    minimum payout without its currency. Notices list unused columns.

    Raises:
        InputError: the file as a whole cannot be used, or a required column is missing.
    """
    lines: dict[str, int] = {}

    def read_row(row: Row) -> ProviderRow:
        fields = validate(_ProviderFields, row.record)
        if fields.key in lines:
            raise InputError(f"`key` {fields.key} was given before, in line {lines[fields.key]}")
        if fields.minimum_payout is not None and fields.currency is None:
            raise InputError("`minimum_payout` is given without its `currency`")
        lines[fields.key] = row.place.line
        minimum = None if fields.minimum_payout is None else Decimal(fields.minimum_payout)
        return ProviderRow(Provider(fields.key, fields.name, fields.kind), fields.currency, minimum)

    holds = "providers; each needs a row with its key and name"
    return read_table(path, _KNOWN, read_row, required=_REQUIRED, holds=holds)
