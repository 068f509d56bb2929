"""JSON as it is meant: one object, no key twice, no NaN, numbers exact."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from typing import NoReturn

from credit.errors import InputError


def parse_json_object(raw: bytes) -> dict[str, object]:
    """Parse one JSON object from UTF-8 bytes; fractions become Decimal.

    Raises:
        InputError: with the reason; the caller knows the place.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"byte 0x{raw[error.start]:02x} at position {error.start + 1} is not UTF-8; write the file as UTF-8"
        ) from error
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
