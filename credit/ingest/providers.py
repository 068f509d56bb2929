"""Providers from a CSV file: who can be credited, and on what minimum."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from credit.errors import InputError
from credit.ingest.fields import InputModel, Name, ProviderKey, validate
from credit.ingest.files import Parsed, ReadResult, Row, notices_of_ignored, read_csv
from credit.records import HOUSE, Provider, Quarantined

_REQUIRED = ("key", "name")
_KNOWN = {"key", "name", "kind", "currency", "minimum_payout"}
_CURRENCY = re.compile(r"[A-Z]{3}")
_AMOUNT = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,6})?")


@dataclass(frozen=True, slots=True)
class ProviderRow:
    """A row of a providers file.

    `minimum_payout` is in units of `currency` (never given without one); how many digits the currency has is for
    accounting to check.
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


class _Fields(InputModel):
    key: Annotated[ProviderKey, AfterValidator(_free_key)]
    name: Name
    kind: Literal["provider", "house"] = "provider"
    currency: Annotated[str, AfterValidator(_currency)] | None = None
    minimum_payout: Annotated[str, AfterValidator(_amount)] | None = None


def read_providers(path: Path) -> ReadResult[Parsed[ProviderRow]]:
    """Read a CSV file with the columns key and name, and optionally kind, currency and minimum_payout.

    Rows that cannot be used are quarantined: a bad or reserved key, a key that an earlier row has, an empty name,
    an unknown kind, a minimum payout without its currency. Columns that are not used are listed in the notices.

    Raises:
        InputError: the file as a whole cannot be used, or a required column is missing.
    """
    good: dict[str, Parsed[ProviderRow]] = {}
    bad: list[Quarantined] = []
    ignored: Counter[str] = Counter()
    for row in read_csv(path, required=_REQUIRED):
        if isinstance(row, Quarantined):
            bad.append(row)
            continue
        ignored.update(row.record.keys() - _KNOWN)
        try:
            provider = _provider_row(row, good)
        except InputError as error:
            bad.append(row.refuse(str(error)))
            continue
        good[provider.provider.key] = Parsed(provider, row.place, row.raw)
    if not good and not bad:
        raise InputError(f"{path} holds no providers; each needs a row with its key and name")
    return ReadResult(tuple(good.values()), tuple(bad), notices_of_ignored(ignored))


def _provider_row(row: Row, before: dict[str, Parsed[ProviderRow]]) -> ProviderRow:
    fields = validate(_Fields, row.record)
    if fields.key in before:
        raise InputError(f"`key` {fields.key} was given before, in line {before[fields.key].place.line}")
    if fields.minimum_payout is not None and fields.currency is None:
        raise InputError("`minimum_payout` is given without its `currency`")
    minimum = None if fields.minimum_payout is None else Decimal(fields.minimum_payout)
    return ProviderRow(Provider(fields.key, fields.name, fields.kind), fields.currency, minimum)
