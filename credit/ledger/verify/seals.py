"""Checks of the seals: their chain is whole, and every sealed row is as it was written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Table, select

from credit.ledger import seals
from credit.ledger.schema import period, provider_pii, seal
from credit.ledger.values import GENESIS
from credit.ledger.verify.report import Problem

_STREAM = {"yield_per": 2000}


def check_seals(conn: Connection) -> Iterator[Problem]:
    """Yield each seal that does not continue the chain, was changed, or is of a table without seals."""
    last, head = 0, GENESIS
    known = {table.name for table in seals.SEALED}
    for row in conn.execute(select(seal).order_by(seal.c.id), execution_options=_STREAM):
        place = f"seal {row.id}"
        if row.id != last + 1:
            yield Problem(place, f"follows seal {last}: one is missing or out of order")
        elif row.prev_hash != head:
            yield Problem(place, f"does not continue the chain: prev_hash is not the hash of seal {last}")
        elif seals.seal_hash(row.prev_hash, row.id, row.table_name, row.row_id, row.row_sha256) != row.hash:
            yield Problem(place, "is not what was written: its fields do not have its hash")
        elif row.table_name not in known:
            yield Problem(place, f"is of {row.table_name}, a table without seals")
        last, head = row.id, row.hash


def check_sealed_rows(conn: Connection) -> Iterator[Problem]:
    """Yield each row that differs from its last seal, has no seal, or is gone."""
    for table in seals.SEALED:
        yield from _periods(conn) if table is period else _rows(conn, table)


def _rows(conn: Connection, table: Table) -> Iterator[Problem]:
    query = select(table, seals.last_seal(table).label("sealed")).order_by(table.c.id)
    for row in conn.execute(query, execution_options=_STREAM).mappings():
        said = {name: value for name, value in row.items() if name != "sealed"}
        yield from _fault(conn, table, said, row["sealed"])
    if table is provider_pii:
        for number in conn.execute(select(table.c.id).where(seals.erased(table.c.id)).order_by(table.c.id)).scalars():
            yield Problem(f"{table.name} {number}", "was erased, and somebody put it back")
    for number in conn.execute(seals.lost_rows(table)).scalars():
        yield Problem(f"{table.name} {number}", "is gone: credit wrote it, and somebody removed it")


def _periods(conn: Connection) -> Iterator[Problem]:
    """Check the periods: their key is a text, of which a seal keeps the number."""
    query = select(seal.c.row_id, seal.c.row_sha256).where(seal.c.table_name == period.name).order_by(seal.c.id)
    sealed: dict[int, str] = {number: digest for number, digest in conn.execute(query)}
    for row in conn.execute(select(period).order_by(period.c.id)).mappings():
        yield from _fault(conn, period, dict(row), sealed.pop(seals.row_number(row["id"]), None))
    for number in sorted(sealed):
        place = f"period {number // 100}-{number % 100:02d}"
        yield Problem(place, "is gone: credit wrote it, and somebody removed it")


def _fault(conn: Connection, table: Table, row: dict[str, Any], sealed: str | None) -> Iterator[Problem]:
    place = f"{table.name} {row['id']}"
    if sealed is None:
        yield Problem(place, "was not written by credit: it has no seal")
    elif seals.row_sha256(conn, table.name, row) != sealed:
        yield Problem(place, "is not what was written: it, or a row that belongs to it, was changed")
