"""Records and rows: the one mapping between frozen dataclasses and rows of tables.

A field has the name of its column, with four exceptions. `period` is the column `period_id`, and `on` the column
`on_day`. `provider` is the provider's key: a query labels the key so (`PROVIDER`), and a row has the provider's id.
`actor` is who wrote the row: its seal says so, and a query labels it so (`last_actor`).
The fields of a record inside a record are columns of the same row. Moments and days are text in a row, and truth values
are 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from sqlalchemy import Connection, Row, Table

from credit.ledger.providers import provider_ids
from credit.ledger.schema import provider
from credit.ledger.seals import add_rows
from credit.ledger.sql import next_id
from credit.ledger.values import utc_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Record = TypeVar("Record", bound=DataclassInstance)
else:
    Record = TypeVar("Record")

PROVIDER = provider.c.key.label("provider")
"""The provider's key, as queries for records with a field `provider` select it."""

_COLUMNS = {"period": "period_id", "provider": "provider_id", "on": "on_day"}
_READERS: dict[object, Callable[[Any], object]] = {
    datetime: datetime.fromisoformat,
    date: date.fromisoformat,
    bool: bool,
}


def read_row(cls: type[Record], row: Row[Any]) -> Record:
    """Return the record of a row, which has a column for each field."""
    return cls(*[read(row._mapping) for read in _readers(cls)])


@cache
def _readers(cls: type[Any]) -> list[Callable[[Any], object]]:
    """Return for each field of a class the function that takes its value from the columns of a row."""
    hints = get_type_hints(cls)
    return [_reader(item.name, hints[item.name]) for item in fields(cls)]


def _reader(name: str, hint: Any) -> Callable[[Any], object]:
    if isinstance(hint, type) and is_dataclass(hint):
        return lambda found: hint(*[read(found) for read in _readers(hint)])
    # A query labels the provider's key, because the row itself has only the id.
    column = name if name == "provider" else _COLUMNS.get(name, name)
    convert = next((_READERS[kind] for kind in (hint, *get_args(hint)) if kind in _READERS), None)
    if convert is None:
        return itemgetter(column)
    return lambda found: None if found[column] is None else convert(found[column])


def add_records(conn: Connection, table: Table, items: Sequence[DataclassInstance], **others: object) -> None:
    """Insert records as rows of a table, and seal them.

    Args:
        conn: from `Ledger.write`.
        table: the table.
        items: the records; without a field `id`, they are numbered in their order.
        others: values of the columns that the records have no field for, the same in every row.
    """
    owners = provider_ids(conn, {str(item.provider) for item in items if hasattr(item, "provider")})
    first = next_id(conn, table)
    rows = []
    for offset, record in enumerate(items):
        row = {"id": first + offset, **others, **_columns_of(record)}
        if hasattr(record, "provider"):
            row["provider_id"] = owners[record.provider]
        rows.append(row)
    add_rows(conn, table, rows)


def _columns_of(record: DataclassInstance) -> dict[str, object]:
    """Return the values of a record by column; the provider is still a key."""
    found: dict[str, object] = {}
    for item in fields(record):
        value = getattr(record, item.name)
        if is_dataclass(value) and not isinstance(value, type):
            found |= _columns_of(value)
        else:
            found[_COLUMNS.get(item.name, item.name)] = _stored(value)
    found.pop("actor", None)  # the seal takes it from the connection
    return found


def _stored(value: object) -> object:
    """Return a value as rows have it."""
    if isinstance(value, datetime):
        return utc_text(value)
    if isinstance(value, date):
        return value.isoformat()
    return int(value) if isinstance(value, bool) else value
