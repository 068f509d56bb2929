"""Checks of references: every row that another row refers to is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, ForeignKeyConstraint, Select, Table, and_, select

from credit.ledger.schema import metadata
from credit.ledger.verify.report import Problem


def check_references(conn: Connection) -> Iterator[Problem]:
    """Yield, for each foreign key, the first row that refers to a missing one."""
    for table in metadata.sorted_tables:
        for key in sorted(table.foreign_key_constraints, key=lambda item: str(item.name)):
            row = conn.execute(_first_dangling(table, key)).one_or_none()
            if row is not None:
                place = f"{table.name} " + ", ".join(str(value) for value in row)
                yield Problem(place, f"refers to a row of {key.referred_table.name} that is missing")


def _first_dangling(table: Table, key: ForeignKeyConstraint) -> Select[Any]:
    """Return the query for the primary key of the first row without the row that `key` refers to."""
    target = key.referred_table.alias("target")
    pairs = [(item.parent, target.c[item.column.name]) for item in key.elements]
    joined = table.outerjoin(target, and_(*(own == other for own, other in pairs)))
    lost = and_(*(own.is_not(None) for own, _ in pairs), pairs[0][1].is_(None))
    order = list(table.primary_key)
    return select(*order).select_from(joined).where(lost).order_by(*order).limit(1)
