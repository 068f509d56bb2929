"""Records and rows: the one mapping between frozen dataclasses and rows of tables.

A field has the name of its column, but for two. `period` is the column `period_id`. `provider` is the provider's key: a
query labels the key so (`PROVIDER`), and a row has the provider's id. Moments and days are text in a row, and truth
values are 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import date, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from sqlalchemy import Connection, Row, Table

from credit.ledger.providers import provider_ids
from credit.ledger.schema import provider
from credit.ledger.seals import add_rows
from credit.ledger.sql import next_id
from credit.ledger.values import utc_moment, utc_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Record = TypeVar("Record", bound=DataclassInstance)
else:
    Record = TypeVar("Record")

PROVIDER = provider.c.key.label("provider")
"""The provider's key, as queries for records with a field `provider` select it."""

_COLUMNS = {"period": "period_id", "provider": "provider_id"}
_READERS: dict[object, Callable[[Any], object]] = {datetime: utc_moment, date: date.fromisoformat, bool: bool}


def read_row(cls: type[Record], row: Row[Any]) -> Record:
    """Return the record of a row, which has a column for each field."""
    found = row._mapping
    values = []
    for column, reader in _reading(cls):
        value = found[column]
        values.append(value if reader is None or value is None else reader(value))
    return cls(*values)


@cache
def _reading(cls: type[Any]) -> list[tuple[str, Callable[[Any], object] | None]]:
    """Return the column of each field of a class, and what reads its values; None: they stay as they are."""
    hints = get_type_hints(cls)
    found = []
    for item in fields(cls):
        kinds = (hints[item.name], *get_args(hints[item.name]))
        reader = next((_READERS[kind] for kind in kinds if kind in _READERS), None)
        found.append(("period_id" if item.name == "period" else item.name, reader))
    return found


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
        row: dict[str, object] = {"id": first + offset, **others}
        for item in fields(record):
            value = getattr(record, item.name)
            row[_COLUMNS.get(item.name, item.name)] = owners[value] if item.name == "provider" else _stored(value)
        rows.append(row)
    add_rows(conn, table, rows)


def _stored(value: object) -> object:
    """Return a value as rows have it."""
    if isinstance(value, datetime):
        return utc_text(value)
    if isinstance(value, date):
        return value.isoformat()
    return int(value) if isinstance(value, bool) else value
