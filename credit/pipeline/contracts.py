"""Contracts as files: the terms of one provider, in TOML, each version whole.

    provider = "anna-books"
    agreement = "A-17"

    [[terms]]
    currency = "EUR"
    from = 2027-01-01
    rate = "70%"
    minimum_payout = "50.00"

What a version does not name has its default: the file is the contract, and not a change of another one.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, get_args

from credit.accounting.amounts import currency_digits, parse_amount, parse_percent
from credit.errors import InputError, InvalidRequestError
from credit.records import PaymentFormat, Terms

_SHARES = {
    "rate": "rate_ppm",
    "reserve": "reserve_ppm",
    "recoupment": "recoupment_ppm",
    "withholding": "withholding_ppm",
}
_AMOUNTS = {"minimum_payout": "minimum_payout_minor", "fee": "fee_minor"}
_TEXTS = {"agreement": "agreement_reference", "pay_in": "pay_in", "channel": "channel"}
_MONTHS = {"release_after": "reserve_release_periods"}
FIELDS = ("currency", "from", "to", *_SHARES, *_AMOUNTS, *_MONTHS, *_TEXTS)
"""Fields of a version; the first two are required."""


@dataclass(frozen=True, slots=True)
class ContractTerms:
    """A version of a provider's terms in a currency, from a contract; `changes` has every field of `Terms`."""

    provider: str
    currency: str
    valid_from: date
    valid_to: date | None
    changes: Mapping[str, int | str | None]


def read_contract(path: Path) -> list[ContractTerms]:
    """Return the versions in a contract's file, in their order.

    Raises:
        InputError: it is no TOML, names no provider or no terms, or a value cannot be right; the message names the
            version and the field.
    """
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from None
    versions = said.get("terms")
    if not isinstance(said.get("provider"), str) or not isinstance(versions, list) or not versions:
        raise InputError(f'{path} needs provider = "KEY", and a table [[terms]] for each currency and time')
    _check_names(said, ("provider", "agreement", "terms"), str(path))
    common = {"agreement": said["agreement"]} if "agreement" in said else {}
    found = []
    for number, version in enumerate(versions, start=1):
        where = f"{path}: terms {number}"
        if not isinstance(version, dict):
            raise InputError(f"{where} are no table; write [[terms]]")
        try:
            found.append(_version(said["provider"], {**common, **version}, where))
        except InvalidRequestError as error:
            raise InputError(f"{where}: {error}") from None
    return found


def _version(provider: str, said: Mapping[str, Any], where: str) -> ContractTerms:
    _check_names(said, FIELDS, where)
    currency = said.get("currency")
    if not isinstance(currency, str):
        raise InputError(f'{where}: currency is needed, such as currency = "EUR"')
    currency_digits(currency)
    begin, end = _days(said, where)
    values: dict[str, Any] = {}
    for name, value in said.items():
        if name in _MONTHS:
            if type(value) is not int:
                raise InputError(f"{where}: {name} is a number of months, such as 3")
            values[_MONTHS[name]] = value
        elif name in {*_SHARES, *_AMOUNTS, *_TEXTS} and not isinstance(value, str):
            raise InputError(f"{where}: {name} is in quotes, as in {_example(name)}: a number could be rounded")
        elif name in _SHARES:
            values[_SHARES[name]] = parse_percent(value)
        elif name in _AMOUNTS:
            values[_AMOUNTS[name]] = parse_amount(value, currency)
        elif name in _TEXTS:
            values[_TEXTS[name]] = value
    if values.get("channel") not in {None, *get_args(PaymentFormat)}:
        raise InputError(f"{where}: channel {values['channel']!r} is none of {', '.join(get_args(PaymentFormat))}")
    return ContractTerms(provider, currency, begin, end, asdict(Terms(**values)))


def _days(said: Mapping[str, Any], where: str) -> tuple[date, date | None]:
    begin, end = said.get("from"), said.get("to")
    # A datetime is a date to Python; a contract holds from a day on.
    days = [item for item in (begin, end) if item is not None]
    if begin is None or any(not isinstance(item, date) or isinstance(item, datetime) for item in days):
        raise InputError(f"{where}: from is needed, and from and to are days without quotes, such as 2027-01-01")
    return begin, end


def _example(name: str) -> str:
    if name in _SHARES:
        return f'{name} = "70%"'
    return f'{name} = "12.50"' if name in _AMOUNTS else f'{name} = "..."'


def _check_names(said: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    unknown = sorted(said.keys() - set(known))
    if unknown:
        raise InputError(f"{where}: there is no field {unknown[0]!r}; fields are {', '.join(known)}")
