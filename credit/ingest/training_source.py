"""Where training data says whose it is: names of fields, a provider for all of it, or a rule from paths and fields."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from credit.errors import InputError, InvalidRequestError
from credit.ingest import fields as kinds
from credit.ingest.croissant import FILES, Croissant
from credit.ingest.fields import InputModel, validate
from credit.ingest.files import Row, read_table
from credit.records import DEFAULT_COLLECTION, Group, is_provider_key

PATH = "path"
"""Value of `provider_from` that stands for the place of the file."""
CROISSANT = "croissant"
"""Value of `provider_from` that stands for the creator in the metadata beside the file."""
REST = "*"
"""Value in a map that stands for everything without a line of its own."""

_COLUMNS = ("value", "provider", "collection")
_SCHEME = re.compile(r"^(?:[A-Za-z][A-Za-z0-9+.-]*:)?//")
_HOST = re.compile(r"^(?:[^/@]*@)?((?:[A-Za-z0-9_-]+\.)+[A-Za-z0-9-]{2,})(?::\d+)?$")
_SUFFIXES = re.compile(r"(?:\.[A-Za-z0-9]+)+$")
_SHOWN = 120


@dataclass(frozen=True, slots=True)
class TrainingSource:
    """How to read training data that is not in credit's own form.

    Attributes:
        fields: our names of fields → the names in the files; `a.b` is the field `b` inside `a`.
        provider: provider of every record that names none.
        provider_from: field whose value tells the provider (`metadata.source`), or `path`, the place of the file, or
            `croissant`, the creator that a `croissant.json` beside the file names.
        provider_map: CSV file with the columns value and provider, and optionally collection.
        preference: of preference pairs, the `chosen` answers alone were trained on, or `both`.
        instructions: form in which records with an instruction were trained on: a `chat` by the model's template, or
            the text of Stanford's `alpaca`.
    """

    fields: Mapping[str, str] = field(default_factory=dict)
    provider: str | None = None
    provider_from: str | None = None
    provider_map: Path | None = None
    preference: Literal["chosen", "both"] = "chosen"
    instructions: Literal["chat", "alpaca"] = "chat"

    def __post_init__(self) -> None:
        if self.provider is not None and self.provider_from is not None:
            raise InvalidRequestError("--provider and --provider-from both say whose the data is; give one of them")
        if self.provider_map is not None and self.provider_from is None:
            raise InvalidRequestError("--provider-map needs --provider-from: the field, or path, whose values it maps")
        if self.provider is not None and not is_provider_key(self.provider):
            raise InvalidRequestError(f"{self.provider!r} is not a provider key: 1 to 64 of a-z 0-9 _ -")


AS_IT_IS = TrainingSource()
"""Training data in credit's own form."""


def lookup(record: Mapping[str, object], name: str) -> object:
    """Return a field of a record; `a.b` is the field `b` inside `a` if there is none of the whole name."""
    if name in record:
        return record[name]
    head, dot, rest = name.partition(".")
    inner = record.get(head)
    return lookup(inner, rest) if dot and isinstance(inner, dict) else None


class _MapFields(InputModel):
    value: kinds.Name
    provider: kinds.ProviderKey
    collection: kinds.Collection = DEFAULT_COLLECTION


class ProviderRule:
    """Rule that names the provider of a record by a value of it: a domain, a path or any other text.

    With a map, the longest match wins: `example.org/blog` over `example.org`, which also stands for its subdomains, and
    `anna/novels` over `anna`. The value `*` stands for all others. Without a map the value is the provider's key, and
    a path's first part is.

    Args:
        name: field with the value, or `path`.
        path: the map; None: there is none.

    Raises:
        InputError: the map cannot be used.
    """

    def __init__(self, name: str, path: Path | None) -> None:
        self.name = name
        self._path = path
        self._groups: dict[str, Group] = {}
        if path is None:
            return
        read = read_table(path, _COLUMNS, _map_line, required=("value", "provider"), holds="lines of values")
        if read.quarantined:
            raise InputError(f"{read.quarantined[0]}; mend the map")
        for item in read.records:
            value, group = item.record
            if self._groups.setdefault(value, group) != group:
                raise InputError(f"{item.place}: the value {value!r} stands there twice, with another provider")

    def group(self, *values: object) -> Group:
        """Return the group that a value stands for, or one of several names of the same.

        Raises:
            InputError: there is none; the message names the value and the remedy.
        """
        texts = [value.strip() for value in values if isinstance(value, str) and value.strip()]
        if not texts:
            raise InputError(f"`{self.name}` is missing, which tells the provider")
        value = texts[0]
        if self._path is not None:
            # What stands for everything else comes after all names.
            keys = [*(key for text in texts for key in _keys(text) if key != REST), REST]
            found = next((self._groups[key] for key in keys if key in self._groups), None)
            if found is None:
                raise InputError(f"`{self.name}` {value[:_SHOWN]!r} has no line in {self._path}; add it, or one of *")
            return found
        key = _SUFFIXES.sub("", value.split("/")[0]) if self.name == PATH else value
        if not is_provider_key(key):
            raise InputError(
                f"`{self.name}` {value[:_SHOWN]!r} gives no provider key (a-z 0-9 _ -); map values to providers with "
                "--provider-map FILE"
            )
        return Group(key)

    def group_of_creators(self, card: Croissant | None) -> Group:
        """Return the group that the creators of a data set stand for.

        Raises:
            InputError: there is no metadata, no creator in it, or they stand for several providers.
        """
        if card is None:
            raise InputError(f"no {FILES[0]} lies beside the file or in a folder above it, to tell the creator")
        if not card.creators:
            raise InputError(f"{card.path} names no `creator`")
        groups = {self.group(*names) for names in card.creators}
        if len(groups) > 1:
            named = ", ".join(names[-1][:_SHOWN] for names in card.creators)
            raise InputError(f"{card.path} names creators of several providers ({named}); give records `splits`")
        return groups.pop()


def _map_line(row: Row) -> tuple[str, Group]:
    fields = validate(_MapFields, row.record)
    first = next(_keys(fields.value.strip()))
    return first, Group(fields.provider, fields.collection)


def _keys(value: str) -> Iterator[str]:
    """Yield the names to look a value up by, the most specific first; the first is its normal form."""
    if value == REST:
        yield REST
        return
    bare = _SCHEME.sub("", value)
    host, *parts = re.split(r"[?#]", bare, maxsplit=1)[0].strip("/").split("/")
    found = _HOST.match(host)
    if not found or (bare == value and not parts and "." not in host):
        names = [host]
    else:
        labels = found[1].lower().split(".")
        names = [".".join(labels[at:]) for at in range(len(labels) - 1)]
    for name in names:
        for size in range(len(parts), -1, -1):
            yield "/".join([name, *parts[:size]])
    yield REST
