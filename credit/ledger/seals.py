"""Seals: a second chain of hashes, over every row outside the journal.

Transactions have hashes of their own. All other rows (terms, holds, rates, names, pools, allocations, statements,
payouts, files, score books, ...) are sealed: a seal holds the hash of a row's content, and seals are chained in the
order of writing. With them `credit verify` finds each change, removal and insertion behind the ledger's back, in every
column. A row that may change (a provider's name, a period) is sealed again, and its last seal counts. A seal names the
actor who wrote the row.

Many rows are sealed together: outputs, identities of calls and spans with their file, valuations with their book, and
outputs again with their purge. A seal outlives the personal data behind it. Each version of personal data has a salt,
erased with it: the remaining hash is of a text that nobody can guess.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, ScalarSelect, Select, Table, exists, func, select

from credit.ledger import schema
from credit.ledger.actor import actor_of
from credit.ledger.schema import (
    call_identity,
    ledger_txn,
    metadata,
    output,
    personal_event,
    proposal,
    proposal_details,
    provider_pii,
    seal,
    span_link,
    valuation,
)
from credit.ledger.sql import insert_records, insert_rows
from credit.ledger.values import GENESIS
from credit.storage import canonical_json

ENCODING = "credit.seal.1"
"""First element of every hashed text. It names the encoding, so that no other can be mistaken for it."""

WITH_ACTOR = "credit.seal.2"
"""Encoding of a seal that names its actor, as every one does since revision 0002."""

IN_TREE = "credit.seal.3"
"""Encoding of a seal with its place among the transactions, as every one has since revision 0007."""

# The journal has its own chain; the others are sealed with their file or book.
_OTHERWISE = (schema.ledger_txn, schema.ledger_entry, output, call_identity, span_link, valuation, seal)
SEALED: tuple[Table, ...] = tuple(table for table in metadata.sorted_tables if table not in _OTHERWISE)
"""Tables in which every row has a seal."""

_DERIVED = frozenset({("payout", "status")})
"""Columns that follow from other rows and change with them; `credit verify` compares the two."""

_INSIDE: Mapping[str, tuple[tuple[Select[Any], ColumnElement[int]], ...]] = {
    "ingest_file": (
        (
            select(output.c.id, output.c.model_id, output.c.content_sha256, output.c.ingest_file_id, output.c.line),
            output.c.ingest_file_id,
        ),
        (select(call_identity), call_identity.c.ingest_file_id),
        (select(span_link), span_link.c.ingest_file_id),
    ),
    "score_book": (
        (select(valuation.c.output_id, valuation.c.index_id, valuation.c.score_book_id), valuation.c.score_book_id),
    ),
    # The content hash of a purged output can no longer be checked: what is left of it is sealed with its purge.
    "purge": (
        (
            select(
                output.c.id,
                output.c.source,
                output.c.external_id,
                output.c.model_id,
                output.c.occurred_at,
                output.c.weight_micro,
                output.c.user_hmac,
                output.c.text_hmac,
                output.c.content_sha256,
                output.c.purge_id,
            ),
            output.c.purge_id,
        ),
    ),
}
"""Rows sealed with a row of another table: queries, whose first column is their order, and the column that refers."""

_LAST_TRANSACTION = select(func.coalesce(func.max(ledger_txn.c.seq), 0))
_LAST_SEAL = select(seal.c.id, seal.c.hash).order_by(seal.c.id.desc()).limit(1)
_SEAL_COLUMNS = ("id", "table_name", "row_id", "row_sha256", "prev_hash", "hash", "actor", "after_seq")


def add_rows(conn: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert rows and seal them; a row names its columns, without empty ones."""
    if rows:
        insert_records(conn, table, rows)
        seal_rows(conn, table.name, rows)


def seal_row(conn: Connection, table: Table, key: str | int) -> None:
    """Seal a row as it is now, after a change of it or after the rows inside it."""
    (primary,) = table.primary_key
    row = conn.execute(select(table).where(primary == key)).mappings().one()
    seal_rows(conn, table.name, [row])


def seal_rows(conn: Connection, table_name: str, rows: Iterable[Mapping[Any, Any]]) -> None:
    """Seal rows of a table, in order."""
    number, prev = seal_head(conn)  # safe: one writer at a time
    actor = actor_of(conn)
    after = int(conn.execute(_LAST_TRANSACTION).scalar_one())
    seals: list[tuple[object, ...]] = []
    for row in rows:
        number += 1
        of, content = row_number(row["id"]), row_sha256(conn, table_name, row)
        digest = seal_hash(prev, number, table_name, of, content, actor, after)
        seals.append((number, table_name, of, content, prev, digest, actor, after))
        prev = digest
    insert_rows(conn, seal, _SEAL_COLUMNS, seals)


def seal_head(conn: Connection) -> tuple[int, str]:
    """Return number and hash of the last seal, or 0 and 64 zeros."""
    row = conn.execute(_LAST_SEAL).one_or_none()
    return (0, GENESIS) if row is None else (row.id, row.hash)


def has_seal(conn: Connection, digest: str) -> bool:
    """Return True if a seal has this hash."""
    return conn.execute(select(seal.c.id).where(seal.c.hash == digest)).scalar() is not None


def seal_hash(
    prev: str, number: int, table_name: str, of: int, content: str, actor: str | None, after_seq: int | None
) -> str:
    """Return the hash of a seal: SHA-256 of a JSON array of its fields; `credit.proofs` computes it too."""
    said = (prev, number, table_name, of, content)
    # In the older encodings seals from before actors, and from before heads, keep their hashes.
    if after_seq is not None:
        whole: tuple[object, ...] = (IN_TREE, *said, actor, after_seq)
    else:
        whole = (ENCODING, *said) if actor is None else (WITH_ACTOR, *said, actor)
    return hashlib.sha256(canonical_json(whole).encode()).hexdigest()


def row_number(key: str | int) -> int:
    """Return a row's key as a number: 202601 for the period 2026-01, and 0 for a text that is no key."""
    text = str(key).replace("-", "")
    return int(text) if text.isascii() and text.isdigit() else 0


def row_sha256(conn: Connection, table_name: str, row: Mapping[Any, Any]) -> str:
    """Return the SHA-256 of a row's content and of the rows inside it.

    Empty columns are left out, so a column added later changes no hash of older rows.
    """
    said = {
        str(name): value for name, value in row.items() if value is not None and (table_name, str(name)) not in _DERIVED
    }
    whole = hashlib.sha256(canonical_json((ENCODING, table_name, said)).encode())
    # Hashed row by row: a file can have a million outputs.
    if table_name in _INSIDE:
        for inner in _rows_inside(conn, table_name, row["id"]):
            # Without empty ends, so that a column added later changes no hash of older rows.
            told = tuple(inner) if inner[-1] is not None else tuple(inner)[:-1]
            whole.update(canonical_json(told).encode())
    return whole.hexdigest()


def _rows_inside(conn: Connection, table_name: str, number: int) -> Iterator[Row[Any]]:
    for query, parent in _INSIDE[table_name]:
        first, *_ = query.selected_columns
        ordered = query.where(parent == number).order_by(first)
        yield from conn.execute(ordered, execution_options={"yield_per": 5000})


def last_seal(table: Table) -> Any:
    """Return the content hash in the last seal of each row, as a column of a query over the table."""
    return _of_last_seal(table, seal.c.row_sha256)


def last_actor(table: Table) -> Any:
    """Return the actor in the last seal of each row, as a column `actor` of a query over the table."""
    return _of_last_seal(table, seal.c.actor).label("actor")


@cache
def _of_last_seal(table: Table, column: ColumnElement[str]) -> ScalarSelect[str]:
    of_row = select(column).where(seal.c.table_name == table.name, seal.c.row_id == table.c.id)
    return of_row.order_by(seal.c.id.desc()).limit(1).scalar_subquery()


@cache
def lost_rows(table: Table) -> Select[Any]:
    """Return the query for the numbers of lost rows: sealed, gone, and not erased personal data."""
    gone = ~exists().where(table.c.id == seal.c.row_id)
    if table is provider_pii:
        gone &= ~erased(seal.c.row_id)
    elif table is proposal_details:
        gone &= ~erased_proposal(seal.c.row_id)
    return select(seal.c.row_id).where(seal.c.table_name == table.name, gone).distinct().order_by(seal.c.row_id)


@cache
def erased(version: ColumnElement[int]) -> ColumnElement[bool]:
    """Return the condition for erased versions of personal details: an erasure follows them on record."""
    # The event of a version outlives the version, and has its id.
    made, erasure = personal_event.alias(), personal_event.alias()
    later = (erasure.c.provider_id == made.c.provider_id) & (erasure.c.id > made.c.id) & (erasure.c.action == "erased")
    return exists().where(made.c.id == version, later)


@cache
def erased_proposal(number: ColumnElement[int]) -> ColumnElement[bool]:
    """Return the condition for proposals with erased details: an erasure of the provider's was sealed after them."""
    made, last = seal.alias(), seal.alias()
    erasure, of = personal_event.alias(), proposal.alias()
    return exists().where(
        of.c.id == number,
        erasure.c.provider_id == of.c.provider_id,
        erasure.c.action == "erased",
        made.c.table_name == proposal.name,
        made.c.row_id == of.c.id,
        last.c.table_name == personal_event.name,
        last.c.row_id == erasure.c.id,
        last.c.id > made.c.id,
    )
