"""Many rows into a table in one statement, past the per-row work of a general SQL compiler.

The database's guards judge every row as they always do; only the way there is shorter.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import BigInteger, Connection, Table, Text, bindparam, func, insert, select
from sqlalchemy.dialects.postgresql import ARRAY


def insert_rows(conn: Connection, table: Table, rows: Sequence[tuple[object, ...]]) -> None:
    """Insert rows, each with a value for every column in the table's order, in the order given.

    SQLite prepares the statement once and runs it for every row. PostgreSQL gets each column as an array: one
    statement and one journey to the server, whatever the number of rows.
    """
    if not rows:
        return
    if conn.dialect.name == "sqlite":
        conn.exec_driver_sql(str(insert(table).compile(dialect=conn.dialect)), list(rows))
        return
    big, text = ARRAY(BigInteger()), ARRAY(Text())
    arrays = [bindparam(item.name, type_=big if item.type.python_type is int else text) for item in table.columns]
    # Ordered, because the guards want transactions in the order of the chain.
    given = func.unnest(*arrays).table_valued(*table.columns.keys(), with_ordinality="place").render_derived("given")
    query = select(*(given.c[column.name] for column in table.columns)).order_by(given.c.place)
    values = dict(zip(table.columns.keys(), map(list, zip(*rows, strict=True)), strict=True))
    conn.execute(insert(table).from_select(table.columns.keys(), query), values)
