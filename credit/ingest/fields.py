"""Kinds of fields in input records, and the words for everything that can be wrong with them.

Validators raise FieldError with the remedy in it; pydantic adds the name of the field.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from hashlib import blake2b
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PlainValidator, ValidationError

from credit.errors import InputError, InvalidRequestError
from credit.ingest.json_documents import parse_json
from credit.records import PPM, is_collection, is_provider_key
from credit.text import invisible_character

_NAME_LIMIT = 512
_WEIGHT_LIMIT = 1_000_000_000
_MICRO_DIGITS = 6
_PLAIN_NUMBER = re.compile(r"-?[0-9]{1,40}(?:\.[0-9]{1,40})?")
_WHOLE = re.compile(r"[0-9]{1,30}")
_FRACTION = re.compile(r"([0-9]{1,9})/([1-9][0-9]{0,8})")
_HEX = re.compile(r"[0-9A-Fa-f]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
"""Earlier times are placeholders (0 seconds since 1970): no model answered then."""
_LATEST_MICROS = 253_402_300_800 * 1_000_000
"""The year 10000, in microseconds since 1970."""

Model = TypeVar("Model", bound="InputModel")


class FieldError(ValueError):
    """Fault of one field, in words that follow its name."""


class InputModel(BaseModel):
    """Base of the models that check input records: exact types, nothing converted in silence."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, arbitrary_types_allowed=True)


def validate(model: type[Model], record: Mapping[str, object]) -> Model:
    """Check a record. One InputError names every wrong field."""
    try:
        return model.model_validate(record)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise InputError("; ".join(_in_words(item["loc"], item["type"], item["msg"]) for item in found)) from None


def _in_words(location: tuple[int | str, ...], kind: str, message: str) -> str:
    words = {"missing": "is missing", "string_type": "must be a text", "int_type": "must be a whole number"}
    message = words.get(kind, message.removeprefix("Value error, ").replace("Input should be", "must be"))
    return f"`{'.'.join(map(str, location))}` {message}" if location else message


def storable(text: str) -> str:
    """Return a text that every database and file can hold; raise FieldError for any other."""
    if "\x00" in text:
        raise FieldError("holds a NUL character, which databases cannot store")
    # The common case, ASCII, holds no half character and needs no copy.
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise FieldError(f"holds half a character (a lone surrogate) at {error.start + 1}") from error
    return text


def filled(text: str) -> str:
    """Return a text of more than white space; raise FieldError for any other."""
    if not text or text.isspace():
        raise FieldError("is empty")
    return storable(text)


def check_name(text: str) -> str:
    """Return a text that can name something: one line, not too long; raise FieldError for any other."""
    if text and len(text) <= _NAME_LIMIT and text.isascii() and text.isprintable() and not text.isspace():
        return text  # the common case, without a call
    if len(text) > _NAME_LIMIT:
        raise FieldError(f"has {len(text)} characters; {_NAME_LIMIT} is the most")
    if _CONTROL.search(text):
        raise FieldError("holds a control character")
    return filled(text)


def _identifier(value: object) -> object:
    """Accept whole numbers as ids: they have one spelling."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _provider(text: str) -> str:
    if not is_provider_key(text):
        raise FieldError(
            f"{text[:80]!r} is not a provider key: 1 to 64 of a-z 0-9 _ -, starting with a letter or digit"
        )
    return text


def _collection(text: str) -> str:
    if not is_collection(storable(text)):
        raise FieldError("must have 1 to 128 characters, no control characters and no outer space")
    return _visible(text)


def _visible(text: str) -> str:
    """Return a text that reads as it is; two names must not look alike by hidden characters."""
    if found := invisible_character(text):
        raise FieldError(f"holds the invisible character {found}; take it out")
    return text


def to_decimal(value: object) -> Decimal:
    """Return a number of JSON, CSV or Parquet as the decimal in the file; raise FieldError for anything else."""
    if isinstance(value, str) and _PLAIN_NUMBER.fullmatch(value):
        return Decimal(value)
    if isinstance(value, float):
        # The shortest digits that give this float: those in the file, and not its binary expansion.
        value = Decimal(repr(value))
    if isinstance(value, int) and not isinstance(value, bool):
        value = Decimal(value)
    if not isinstance(value, Decimal) or not value.is_finite():
        raise FieldError("must be a plain finite number, like 1 or 0.25")
    return value


def weight_micro(value: object) -> int:
    """Return a weight in micro-credits: 0 to a thousand million, at most 6 decimal places, never rounded."""
    weight = to_decimal(value)
    if weight.is_signed() and weight != 0:
        raise FieldError("is negative; a weight is at least 0")
    if weight > _WEIGHT_LIMIT:
        raise FieldError(f"is more than {_WEIGHT_LIMIT}")
    return _millionths(weight)


def _millionths(number: Decimal) -> int:
    """Return a number of at most 6 decimal places times 10⁶; huge exponents cost nothing."""
    # On the digits: a product of Decimals is rounded to the context's 28 digits.
    _, digits, exponent = number.as_tuple()
    text = "".join(map(str, digits))
    places = -int(exponent)
    if places <= _MICRO_DIGITS:
        return int(text) * 10 ** (_MICRO_DIGITS - places) if number else 0
    cut = places - _MICRO_DIGITS
    if text[-cut:].strip("0"):
        raise FieldError(f"has more than {_MICRO_DIGITS} decimal places")
    return int(text[:-cut] or "0")


def timestamp(value: object) -> datetime:
    """Return a moment in UTC from ISO 8601 text or a Parquet timestamp, each with its time zone."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise FieldError("is not an ISO 8601 time, like 2026-10-31T23:59:00Z") from None
    if not isinstance(value, datetime):
        raise FieldError("must be an ISO 8601 time, like 2026-10-31T23:59:00Z")
    if value.utcoffset() is None:
        raise FieldError("has no time zone; end it with Z or an offset like +02:00")
    try:
        return _plausible(value.astimezone(UTC))
    except OverflowError:
        raise FieldError("is outside the calendar") from None


def unix_time(value: object) -> datetime:
    """Return a moment in UTC from whole seconds since 1970."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise FieldError("must be a whole number of seconds since 1970")
    try:
        moment = datetime.fromtimestamp(value, UTC)
    except (OverflowError, ValueError, OSError):
        raise FieldError("is not a time in seconds since 1970 (are they milliseconds?)") from None
    return _plausible(moment)


def unix_seconds(value: object) -> datetime:
    """Return a moment in UTC from seconds since 1970 with their fraction, cut to microseconds."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise FieldError("must be a number of seconds since 1970")
    return _unix_micros(Decimal(value) * 1_000_000)


def unix_nanos(value: object) -> datetime:
    """Return a moment in UTC from whole nanoseconds since 1970 (a number or its digits), cut to microseconds."""
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise FieldError("must be a whole number of nanoseconds since 1970")
    return _unix_micros(Decimal(value) / 1000)


def _unix_micros(value: Decimal) -> datetime:
    if not 0 <= value < _LATEST_MICROS:
        raise FieldError("is not a time since 1970")
    return _plausible(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(value)))


def span_id(value: object) -> str:
    """Return the id of a span or trace in hexadecimal digits, from those (OTLP's JSON) or base64 (protobuf's JSON)."""
    if not isinstance(value, str):
        return ""
    if value.endswith("="):
        try:
            return base64.b64decode(value, validate=True).hex()
        except ValueError:
            return value
    return value.lower() if _HEX.fullmatch(value) else value


def digest(*parts: str | bytes) -> bytes:
    """Return 16 bytes that stand for texts. Lengths count: ("ab", "c") and ("a", "bc") differ."""
    hasher = blake2b(digest_size=16)
    for part in parts:
        data = part.encode(errors="surrogatepass") if isinstance(part, str) else part
        # The length first: without it two lists of texts could run into the same bytes.
        hasher.update(len(data).to_bytes(8, "big"))
        hasher.update(data)
    return hasher.digest()


def _plausible(moment: datetime) -> datetime:
    """Return a moment at which a language model can have answered; raise FieldError for any other."""
    if moment < _EARLIEST:
        raise FieldError(f"{moment:%Y-%m-%d} is before any logged output; a placeholder?")
    return moment


def turns_of(value: object) -> list[dict[str, object]]:
    """Return the objects of a chat, from a list of them or its JSON text (CSV, Parquet)."""
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except InputError as error:
            raise FieldError(str(error)) from error
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise FieldError("must be a list of objects with role and content")
    return value


@dataclass(frozen=True, slots=True)
class Split:
    """A provider's share of a record, in parts per million. Without a collection of its own the record's holds."""

    provider: str
    collection: str | None
    ppm: int


def splits_of(value: object) -> tuple[Split, ...]:
    """Return shares from a list of `{provider, share}`, or from the JSON text of one (CSV, Parquet).

    A share is a decimal number from 0 to 1 with at most 6 places, as a number or as text, and stays as it is; or a
    fraction such as "1/3". Finer fractions than parts per million are rounded, to a sum of 1.
    """
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except InputError as error:
            raise FieldError(str(error)) from error
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        raise FieldError("must be a list of objects with provider and share")
    found = [_split(number, item) for number, item in enumerate(value)]
    parts = _whole_ppm([share for _, _, share in found])
    return tuple(Split(who, what, ppm) for (who, what, _), ppm in zip(found, parts, strict=True))


def _whole_ppm(shares: Sequence[Fraction]) -> list[int]:
    """Return shares in parts per million. Largest remainders round what is no whole number of them."""
    exact = [share * PPM for share in shares]
    parts = [int(share) for share in exact]
    if parts == exact:
        return parts
    if sum(shares) != 1:
        raise FieldError(f"hold shares that sum to {sum(shares)}, not to 1")
    by_remainder = sorted(range(len(exact)), key=lambda at: (parts[at] - exact[at], at))
    for at in by_remainder[: PPM - sum(parts)]:
        parts[at] += 1
    return parts


def _split(number: int, item: Mapping[str, object]) -> tuple[str, str | None, Fraction]:
    name = "provider"
    try:
        provider = _provider(_given_text(item.get(name)))
        name = "collection"
        collection = None if item.get(name) is None else _collection(_given_text(item[name]))
        name = "share"
        return provider, collection, _share(item.get(name))
    except FieldError as error:
        raise FieldError(f"{number}: `{name}` {error}") from error


def _share(value: object) -> Fraction:
    found = _FRACTION.fullmatch(value) if isinstance(value, str) else None
    share = Fraction(int(found[1]), int(found[2])) if found else to_decimal(value)
    if not 0 <= share <= 1:
        raise FieldError("must be between 0 and 1")
    return share if isinstance(share, Fraction) else Fraction(_millionths(share), PPM)


def _given_text(value: object) -> str:
    if not isinstance(value, str):
        raise FieldError("is missing" if value is None else "must be a text")
    return value


Text = Annotated[str, AfterValidator(storable)]
FilledText = Annotated[str, AfterValidator(filled)]
Name = Annotated[str, AfterValidator(check_name)]
ProviderName = Annotated[Name, AfterValidator(_visible)]
Identifier = Annotated[Name, BeforeValidator(_identifier)]
ProviderKey = Annotated[str, AfterValidator(_provider)]
Collection = Annotated[str, AfterValidator(_collection)]
WeightMicro = Annotated[int, PlainValidator(weight_micro)]
Timestamp = Annotated[datetime, PlainValidator(timestamp)]
UnixNanos = Annotated[datetime, PlainValidator(unix_nanos)]
UnixTime = Annotated[datetime, PlainValidator(unix_time)]
Splits = Annotated[tuple[Split, ...], PlainValidator(splits_of)]


def field_names(ours: Sequence[str], fields: Mapping[str, str]) -> dict[str, str]:
    """Return the field of the files to read for each of ours.

    Raises:
        InvalidRequestError: the mapping names an unknown field of ours, or one field of the files for two of ours.
    """
    if unknown := sorted(set(fields) - set(ours)):
        raise InvalidRequestError(f"no such field: {', '.join(unknown)}; known are {', '.join(ours)}")
    # A field that is mapped to another of ours no longer counts under its own name.
    names = {name: fields.get(name, name) for name in ours if name in fields or name not in fields.values()}
    if len(set(names.values())) < len(names):
        raise InvalidRequestError("two fields are mapped to the same name")
    return names
