"""What statements over more than one table need: the next id, and sums that hold on both engines."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, Table, func, literal_column, select


def next_id(conn: Connection, table: Table) -> int:
    """Return the next free id of `table`; safe because `Ledger.write` lets in one writer at a time."""
    return int(conn.execute(select(func.coalesce(func.max(table.c.id), 0))).scalar_one()) + 1


def exact_sum(column: ColumnElement[int]) -> tuple[ColumnElement[int], ColumnElement[int]]:
    """Return two sums that `join_sum` puts together, because SQLite's sum() fails beyond 64 bits."""
    high = func.sum(column.op(">>")(literal_column("32")))
    low = func.sum(column.op("&")(literal_column("4294967295")))
    return func.coalesce(high, 0), func.coalesce(low, 0)


def join_sum(high: int, low: int) -> int:
    """Return the total whose halves `exact_sum` selected."""
    return (int(high) << 32) + int(low)
