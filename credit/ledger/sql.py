"""SQL that the two engines do not share: the next id, exact sums, and inserts of many rows at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Column,
    ColumnElement,
    Connection,
    Insert,
    Select,
    Table,
    Text,
    bindparam,
    func,
    insert,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError

from credit.errors import IntegrityError
from credit.storage import canonical_json

_COUNTED = {"preserve_rowcount": True}
"""Option without which SQLAlchemy forgets how many rows an insert stored."""

_ROWS = 50
"""Rows in a statement for SQLite: more are no faster, and each takes parameters, of which there is a limit."""


def next_id(conn: Connection, table: Table) -> int:
    """Return the next free id of `table`; safe because `Ledger.write` lets in one writer at a time."""
    return int(conn.execute(_last_id(table)).scalar_one()) + 1


@cache
def _last_id(table: Table) -> Select[int]:
    return select(func.coalesce(func.max(table.c.id), 0))


def exact_sum(column: ColumnElement[int]) -> tuple[ColumnElement[int], ColumnElement[int]]:
    """Return the sums of the upper and lower 32 bits; `join_sum` puts them together."""
    # SQLite's sum() fails beyond 64 bits.
    high = func.sum(column.op(">>")(literal_column("32")))
    low = func.sum(column.op("&")(literal_column("4294967295")))
    return func.coalesce(high, 0), func.coalesce(low, 0)


def join_sum(high: int, low: int) -> int:
    """Return the total of the two sums of `exact_sum`."""
    return (int(high) << 32) + int(low)


def _check_stored(stored: int, table: Table, count: int) -> None:
    """Check that an insert stored all its rows.

    Raises:
        IntegrityError: the database stored others or none, as a PostgreSQL rule on the table makes it do.
    """
    if stored != count:
        raise IntegrityError(
            f"the database took {count} rows for {table.name} and stored {stored}: something rewrites what is"
            " written, such as a rule on the table; find it: credit verify"
        )


def insert_records(conn: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert rows by the names of their columns, and check that all are stored.

    Raises:
        IntegrityError: the database stored others or none.
    """
    if rows:
        result = conn.execute(insert(table), [dict(row) for row in rows], execution_options=_COUNTED)
        _check_stored(result.rowcount, table, len(rows))


def among(
    conn: Connection, query: Select[Any], columns: Sequence[Column[Any]], keys: Iterable[tuple[object, ...]]
) -> Select[Any]:
    """Restrict a query to rows that have one of these keys, of any number, in some columns.

    The keys come as one parameter, or one for each column, so the statement is always the same and compiled once.
    """
    listed = list(keys)
    # A join, because SQLite scans the whole table for a row of several columns IN a list.
    if conn.dialect.name == "sqlite":
        rows = func.json_each(canonical_json(listed)).table_valued("value", name="given")
        found = [
            func.json_extract(rows.c.value, literal_column(f"'$[{place}]'", Text())) for place in range(len(columns))
        ]
        return query.where(*(column == cell for column, cell in zip(columns, found, strict=True)))
    cells: list[list[object]] = [list(some) for some in zip(*listed, strict=True)] or [[] for _ in columns]
    arrays = [_array(column, f"keys_{column.name}", some) for column, some in zip(columns, cells, strict=True)]
    given = func.unnest(*arrays).table_valued(*(column.name for column in columns)).render_derived("given")
    return query.where(*(column == given.c[column.name] for column in columns))


def _array(column: Column[Any], name: str, cells: list[object] | None = None) -> BindParameter[Any]:
    """Return a parameter for PostgreSQL with cells of a column; None: they are given when the statement runs."""
    kind: ARRAY[Any] = ARRAY(BigInteger()) if column.type.python_type is int else ARRAY(Text())
    return bindparam(name, type_=kind) if cells is None else bindparam(name, cells, type_=kind)


def insert_rows(conn: Connection, table: Table, columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> None:
    """Insert rows in the order given, each with a value for each of `columns`.

    SQLite gets many rows in a statement, because it keeps, for each statement, what undoes it. PostgreSQL gets each
    column as an array: one statement and one journey to the server, whatever the number of rows.
    """
    if not rows:
        return
    if conn.dialect.name == "sqlite":
        one = f"({', '.join('?' * len(columns))})"
        into = f"{table.name} ({', '.join(columns)})"
        whole = len(rows) - len(rows) % _ROWS
        for size, low, high in ((_ROWS, 0, whole), (1, whole, len(rows))):
            many = f"INSERT INTO {into} VALUES {', '.join([one] * size)}"  # noqa: S608 - the schema's own names
            for start in range(low, high, size):
                result = conn.exec_driver_sql(many, tuple(chain.from_iterable(rows[start : start + size])))
                _check_stored(result.rowcount, table, size)
        return
    values = dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))
    stored = conn.execute(_insert_arrays(table, tuple(columns)), values, execution_options=_COUNTED)
    _check_stored(stored.rowcount, table, len(rows))


@cache
def _insert_arrays(table: Table, columns: tuple[str, ...]) -> Insert:
    """Return PostgreSQL's insert of rows from one array for each column."""
    arrays = [_array(table.c[name], name) for name in columns]
    # Ordered, because the triggers want transactions in the order of the chain.
    given = func.unnest(*arrays).table_valued(*columns, with_ordinality="place").render_derived("given")
    query = select(*(given.c[name] for name in columns)).order_by(given.c.place)
    return insert(table).from_select(list(columns), query)


def load_rows(conn: Connection, table: Table, columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> None:
    """Insert the rows of a batch of a file, as `insert_rows`; on PostgreSQL by COPY, under the same rules and keys.

    COPY needs no statement for the rows and no array of them.
    """
    if conn.dialect.name == "sqlite" or not rows:
        insert_rows(conn, table, columns, rows)
        return
    connection: Any = conn.connection.driver_connection
    statement = f"COPY {table.name} ({', '.join(columns)}) FROM STDIN"
    refused = conn.dialect.loaded_dbapi.Error
    try:
        with connection.cursor() as cursor:
            with cursor.copy(statement) as copy:
                for row in rows:
                    copy.write_row(row)
            stored = int(cursor.rowcount)
    except refused as error:  # as SQLAlchemy raises the errors of its own statements
        raise DBAPIError.instance(statement, None, error, refused, dialect=conn.dialect) from error
    _check_stored(stored, table, len(rows))
