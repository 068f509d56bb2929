"""Seals: a second chain of hashes, over every row that is not in the journal.

Transactions have hashes of their own. All else that shapes what is paid, or says what was (terms, holds, rates, names,
pools, shares, statements, payouts, files, books, ...) is sealed: each row's content has a hash, and the seals are
chained in the order in which rows were written. So a row that was changed, removed or inserted behind the ledger's back
is found, in whatever column, and whichever table a later version adds. Where a row may change (a provider's name, a
period that closes), it is sealed again, and its last seal counts.

The many rows of two tables are sealed together: outputs with the file that they came in, valuations with their book.
A seal outlives the personal data that it is of, so that each version of those has a salt, which is erased with it: what
is left is the hash of a text nobody can guess.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, Table, exists, insert, select

from credit.ledger import schema
from credit.ledger.bulk import insert_rows
from credit.ledger.schema import metadata, output, personal_event, provider_pii, seal, valuation
from credit.ledger.values import GENESIS
from credit.storage import canonical_json

ENCODING = "credit.seal.1"
"""First element of what is hashed: names the encoding, so that another one can never be mistaken for it."""

_OTHERWISE = (schema.ledger_txn, schema.ledger_entry, output, valuation, seal)
SEALED: tuple[Table, ...] = tuple(table for table in metadata.sorted_tables if table not in _OTHERWISE)
"""Tables of which every row has a seal."""

_DERIVED = frozenset({("payout", "status")})
"""Columns that follow from other rows and change with them; `credit verify` compares the two."""

_INSIDE: Mapping[str, Select[Any]] = {
    "ingest_file": select(output.c.id, output.c.model_id, output.c.content_sha256, output.c.ingest_file_id),
    "score_book": select(valuation.c.output_id, valuation.c.index_id, valuation.c.score_book_id),
}
"""Rows that are sealed with one of another table, to which their last column refers; first comes their order."""


_SEAL_COLUMNS = ("id", "table_name", "row_id", "row_sha256", "prev_hash", "hash")


def add_rows(conn: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert rows, each with a value for every column but those that are empty, and seal them."""
    if rows:
        conn.execute(insert(table), [dict(row) for row in rows])
        seal_rows(conn, table.name, rows)


def seal_row(conn: Connection, table: Table, key: str | int) -> None:
    """Seal a row as it is now, after it was changed, or after the rows inside it were written."""
    (primary,) = table.primary_key
    row = conn.execute(select(table).where(primary == key)).mappings().one()
    seal_rows(conn, table.name, [row])


def seal_rows(conn: Connection, table_name: str, rows: Iterable[Mapping[Any, Any]]) -> None:
    """Seal rows of a table, given by name because a migration may know other columns than the schema."""
    number, prev = seal_head(conn)
    seals: list[tuple[object, ...]] = []
    for row in rows:
        number += 1
        of, content = row_number(row["id"]), row_sha256(conn, table_name, row)
        digest = seal_hash(prev, number, table_name, of, content)
        seals.append((number, table_name, of, content, prev, digest))
        prev = digest
    insert_rows(conn, seal, _SEAL_COLUMNS, seals)


def seal_head(conn: Connection) -> tuple[int, str]:
    """Return number and hash of the last seal, or 0 and 64 zeros."""
    row = conn.execute(select(seal.c.id, seal.c.hash).order_by(seal.c.id.desc()).limit(1)).one_or_none()
    return (0, GENESIS) if row is None else (row.id, row.hash)


def has_seal(conn: Connection, digest: str) -> bool:
    """Whether a seal has this hash."""
    return conn.execute(select(seal.c.id).where(seal.c.hash == digest)).scalar() is not None


def seal_hash(prev: str, number: int, table_name: str, of: int, content: str) -> str:
    """Return the hash of a seal: SHA-256 of a JSON array of its fields."""
    return hashlib.sha256(canonical_json((ENCODING, prev, number, table_name, of, content)).encode()).hexdigest()


def row_number(key: str | int) -> int:
    """Return a row's key as a number; that of a period 2026-01 is 202601, and 0 stands for what is no key at all."""
    text = str(key).replace("-", "")
    return int(text) if text.isascii() and text.isdigit() else 0


def row_sha256(conn: Connection, table_name: str, row: Mapping[Any, Any]) -> str:
    """Return the SHA-256 of what a row says, and the rows inside it.

    Empty columns are left out, so that a column that comes later changes no hash where it says nothing.
    """
    said = {
        str(name): value for name, value in row.items() if value is not None and (table_name, str(name)) not in _DERIVED
    }
    whole = hashlib.sha256(canonical_json((ENCODING, table_name, said)).encode())
    if table_name in _INSIDE:
        for inner in _rows_inside(conn, table_name, row["id"]):
            whole.update(canonical_json(tuple(inner)).encode())
    return whole.hexdigest()


def _rows_inside(conn: Connection, table_name: str, number: int) -> Iterator[Row[Any]]:
    query = _INSIDE[table_name]
    first, *_, parent = query.selected_columns
    return iter(conn.execute(query.where(parent == number).order_by(first), execution_options={"yield_per": 5000}))


def last_seal(table: Table) -> Any:
    """Return, as a column of a query over a table, the content that the last seal of each row says."""
    return (
        select(seal.c.row_sha256)
        .where(seal.c.table_name == table.name, seal.c.row_id == table.c.id)
        .order_by(seal.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )


def lost_rows(table: Table) -> Select[Any]:
    """Return the query for the numbers of rows that were sealed and are gone, but for what was erased."""
    gone = ~exists().where(table.c.id == seal.c.row_id)
    if table is provider_pii:
        gone &= ~erased(seal.c.row_id)
    return select(seal.c.row_id).where(seal.c.table_name == table.name, gone).distinct().order_by(seal.c.row_id)


def erased(version: ColumnElement[int]) -> ColumnElement[bool]:
    """Return the condition that a version of somebody's details was erased: that an erasure follows it on record."""
    made, erasure = personal_event.alias(), personal_event.alias()
    later = (erasure.c.provider_id == made.c.provider_id) & (erasure.c.id > made.c.id) & (erasure.c.action == "erased")
    return exists().where(made.c.id == version, later)
