"""Many rows into a table in one statement, past the per-row work of a general SQL compiler.

The database's guards judge every row as they always do; only the way there is shorter.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from sqlalchemy import BigInteger, Connection, Table, Text, bindparam, func, insert, select
from sqlalchemy.dialects.postgresql import ARRAY

_ROWS = 50
"""Rows in a statement for SQLite: more are no faster, and each takes parameters, of which there is a limit."""


def insert_rows(conn: Connection, table: Table, rows: Sequence[tuple[object, ...]]) -> None:
    """Insert rows, each with a value for every column in the table's order, in the order given.

    SQLite gets many rows in a statement, because it keeps, for each statement, what undoes it. PostgreSQL gets each
    column as an array: one statement and one journey to the server, whatever the number of rows.
    """
    if not rows:
        return
    if conn.dialect.name == "sqlite":
        one = f"({', '.join('?' * len(table.columns))})"
        whole = len(rows) - len(rows) % _ROWS
        for size, low, high in ((_ROWS, 0, whole), (1, whole, len(rows))):
            many = f"INSERT INTO {table.name} VALUES {', '.join([one] * size)}"  # noqa: S608 - the schema's own name
            for start in range(low, high, size):
                conn.exec_driver_sql(many, tuple(chain.from_iterable(rows[start : start + size])))
        return
    big, text = ARRAY(BigInteger()), ARRAY(Text())
    arrays = [bindparam(item.name, type_=big if item.type.python_type is int else text) for item in table.columns]
    # Ordered, because the guards want transactions in the order of the chain.
    given = func.unnest(*arrays).table_valued(*table.columns.keys(), with_ordinality="place").render_derived("given")
    query = select(*(given.c[column.name] for column in table.columns)).order_by(given.c.place)
    values = dict(zip(table.columns.keys(), map(list, zip(*rows, strict=True)), strict=True))
    conn.execute(insert(table).from_select(table.columns.keys(), query), values)
