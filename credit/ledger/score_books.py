"""Score books: the credit of every group for every output, in Parquet files named by their SHA-256.

The life of a book, in the order of this file: `write_book` writes it whole; `register_book` makes it count; `compute`
posts its credits, one transaction for each day (UTC) of its outputs; reports read it with `book_scores`, which holds
it against the credits that were posted. A book that a killed run left unregistered is a file without effect.

**Which outputs belong to a period.** Those whose credits were posted in it. The transaction of a book and a day names
the book and takes effect on that day; its period is the period of the outputs, also when their own month was closed by
then. A day on which a book credited nobody (all outputs of weight 0) is posted nowhere; its outputs belong to the month
in which they occurred.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl
from sqlalchemy import Connection, func, select

from credit.errors import IntegrityError, LedgerError
from credit.ledger.accounts import AccountKind
from credit.ledger.database import serialise_writers
from credit.ledger.journal import journal_lines
from credit.ledger.periods import existing_period
from credit.ledger.schema import (
    account,
    attribution_index,
    compute_run,
    ledger_entry,
    ledger_txn,
    output,
    provider,
    score_book,
    valuation,
)
from credit.ledger.seals import add_rows, seal_row
from credit.ledger.sql import insert_records, next_id
from credit.ledger.transaction_kinds import CreditsDetails, TransactionKind
from credit.ledger.transactions import reversed_transactions
from credit.ledger.values import month_bounds, utc_text
from credit.records import CREDIT, output_name
from credit.storage import make_folder, write_whole

MEASURES = ("influence", "support", "effect")
"""The three numbers of an output and a group, in nats."""

_BATCH = 500
"""Outputs looked up at a time."""

SCHEMA = {
    "output_id": pl.Int64,
    "provider": pl.String,
    "collection": pl.String,
    "influence": pl.Float64,
    "support": pl.Float64,
    "effect": pl.Float64,
    "credit_micro": pl.Int64,
}
"""Columns of a score book; the three measures are in nats, and `output_id` is the id in the ledger."""


@dataclass(frozen=True, slots=True)
class WrittenBook:
    """A written score book."""

    sha256: str
    row_count: int
    byte_count: int


def book_path(folder: Path, sha256: str) -> Path:
    """Return the path of the book with this SHA-256 in the folder of books."""
    return folder / f"{sha256}.parquet"


def write_book(folder: Path, scores: pl.DataFrame) -> WrittenBook:
    """Write a score book, whole or not at all; the same scores give the same file.

    Args:
        folder: folder of the books.
        scores: the columns of `SCHEMA`; a row for each output and group.
    """
    buffer = io.BytesIO()
    scores.select(*SCHEMA).write_parquet(buffer, compression="zstd", statistics=True)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    make_folder(folder)
    # Named by content: the run after a kill finds its book, and writes no second one.
    path = book_path(folder, digest)
    if not path.is_file():
        write_whole(path, content)
    return WrittenBook(digest, scores.height, len(content))


def read_book(folder: Path, sha256: str) -> pl.DataFrame:
    """Read a score book and check its hash.

    Raises:
        IntegrityError: the file is missing or has another hash.
    """
    path = book_path(folder, sha256)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise IntegrityError(
            f"score book {path} is missing; restore it from a backup, or name its folder with --data-dir"
        ) from error
    # The bytes that are parsed below are those that were hashed: the file is read once.
    if hashlib.sha256(content).hexdigest() != sha256:
        raise IntegrityError(f"score book {path} is not the registered file; restore it from a backup")
    return pl.read_parquet(io.BytesIO(content))


def ensure_run(
    conn: Connection, fingerprint: str, *, index_id: int, policy_json: str, software_version: str, now: datetime
) -> int:
    """Return the id of the compute run with this fingerprint, and record a new one.

    Raises:
        LedgerError: the run is known with another index or policy.
    """
    serialise_writers(conn)
    found = conn.execute(select(compute_run).where(compute_run.c.fingerprint == fingerprint)).one_or_none()
    if found is None:
        number = next_id(conn, compute_run)
        row = {"id": number, "fingerprint": fingerprint, "index_id": index_id, "policy_json": policy_json}
        add_rows(conn, compute_run, [{**row, "software_version": software_version, "created_at": utc_text(now)}])
        return number
    if (found.index_id, found.policy_json) != (index_id, policy_json):
        raise LedgerError(f"compute run {fingerprint} is recorded with another index or policy; run credit verify")
    return int(found.id)


def register_book(
    conn: Connection,
    *,
    sha256: str,
    compute_run_id: int,
    output_ids: Sequence[int],
    row_count: int,
    byte_count: int,
    now: datetime,
) -> int:
    """Register a score book and the valuation of its outputs under the index of its run; return its id.

    Raises:
        LedgerError: the book is registered, or the index has valued one of the outputs before.
    """
    serialise_writers(conn)
    index_id = conn.execute(select(compute_run.c.index_id).where(compute_run.c.id == compute_run_id)).scalar()
    if index_id is None:
        raise LedgerError(f"there is no compute run {compute_run_id}")
    if conn.execute(select(score_book.c.id).where(score_book.c.sha256 == sha256)).scalar() is not None:
        raise LedgerError(f"score book {sha256} is registered already")
    for start in range(0, len(output_ids), _BATCH):
        some = output_ids[start : start + _BATCH]
        twice = valuation.c.output_id.in_(some) & (valuation.c.index_id == index_id)
        found = conn.execute(select(func.min(valuation.c.output_id)).where(twice)).scalar()
        if found is not None:
            raise LedgerError(f"output {found} has been valued by index {index_id} before; it is valued once")
    number = next_id(conn, score_book)
    row = {"id": number, "sha256": sha256, "compute_run_id": compute_run_id, "output_count": len(output_ids)}
    counts = {"row_count": row_count, "byte_count": byte_count, "registered_at": utc_text(now)}
    # The seal comes last, because it covers the valuations of the book too.
    insert_records(conn, score_book, [{**row, **counts}])
    links = [{"output_id": item, "index_id": index_id, "score_book_id": number} for item in output_ids]
    insert_records(conn, valuation, links)
    seal_row(conn, score_book, number)
    return number


def books_of_period(conn: Connection, period: str) -> list[str]:
    """Return the SHA-256 of the score books with outputs of a month, in order of registration."""
    low, high = month_bounds(period)
    rows = conn.execute(
        select(score_book.c.id, score_book.c.sha256)
        .distinct()
        .join_from(output, valuation, valuation.c.output_id == output.c.id)
        .join(score_book, score_book.c.id == valuation.c.score_book_id)
        .where(output.c.occurred_at >= low, output.c.occurred_at < high)
        .order_by(score_book.c.id)
    )
    return [sha256 for _, sha256 in rows]


@dataclass(frozen=True, slots=True)
class PostedBook:
    """A score book with outputs in a period: its index, its policy, and the transaction of each day."""

    id: int
    sha256: str
    index_fingerprint: str
    policy_json: str
    transactions: Mapping[str, int]


def posted_books(conn: Connection, period: str) -> list[PostedBook]:
    """Return the books with outputs in a period, in order of registration."""
    days: dict[str, dict[str, int]] = {sha256: {} for sha256 in books_of_period(conn, period)}
    query = (
        select(ledger_txn.c.id, ledger_txn.c.effective_on, ledger_txn.c.details_json)
        .where(ledger_txn.c.period_id == period, ledger_txn.c.kind == TransactionKind.CREDITS)
        .order_by(ledger_txn.c.id)
    )
    for number, day, details in conn.execute(query):
        said = CreditsDetails.read(details)
        if said is None:
            raise IntegrityError(f"transaction {number} posts credits and names no score book; run credit verify")
        days.setdefault(said.score_book, {})[day] = number
    registered = conn.execute(
        select(score_book.c.id, score_book.c.sha256, attribution_index.c.fingerprint, compute_run.c.policy_json)
        .join_from(score_book, compute_run, compute_run.c.id == score_book.c.compute_run_id)
        .join(attribution_index, attribution_index.c.id == compute_run.c.index_id)
        .order_by(score_book.c.id)
    )
    books = [
        PostedBook(number, sha256, index, policy, days.pop(sha256))
        for number, sha256, index, policy in registered
        if sha256 in days
    ]
    if days:
        sha256, transactions = min(days.items())
        raise IntegrityError(
            f"transaction {min(transactions.values())} posts the credits of score book {sha256}, which is not"
            " registered; run credit verify"
        )
    return books


def scores(conn: Connection, books_folder: Path, period: str) -> Iterator[pl.DataFrame]:
    """Yield the rows of a period, one frame per book, as `book_scores` does."""
    for _, rows in book_scores(conn, books_folder, period):
        yield rows


def book_scores(conn: Connection, books_folder: Path, period: str) -> Iterator[tuple[PostedBook, pl.DataFrame]]:
    """Yield the books of a period and their rows of this period, in order of registration.

    Columns: those of the book, then `name` (of the output), `occurred_at` and `day` (ISO 8601, UTC). Only one book is
    in memory at a time.

    Raises:
        LedgerError: the ledger has no such period.
        IntegrityError: a book is missing, changed, or contradicts the ledger.
    """
    existing_period(conn, period)
    for book in posted_books(conn, period):
        rows = _with_outputs(conn, book, read_book(books_folder, book.sha256))
        # Days on which the book credited nobody have no transaction; they belong to their own month.
        unpaid = rows.group_by("day").agg(pl.col("credit_micro").sum()).filter(pl.col("credit_micro") == 0)
        silent = [day for day in unpaid["day"] if day.startswith(period)]
        rows = rows.filter(pl.col("day").is_in([*book.transactions, *silent]))
        _check(conn, book, rows)
        if rows.height:
            yield book, rows


def standing_scores(conn: Connection, books: Path, period: str) -> Iterator[tuple[PostedBook, pl.DataFrame]]:
    """Yield as `book_scores` does, without outputs with reversed credits."""
    undone = reversed_transactions(conn)
    for book, rows in book_scores(conn, books, period):
        yield book, standing_rows(book, rows, undone)


def standing_rows(book: PostedBook, rows: pl.DataFrame, undone: Collection[int]) -> pl.DataFrame:
    """Return the rows of a book without the days of reversed transactions."""
    # A transaction holds the credits of one book on one day, so whole days are reversed.
    reversed_days = [day for day, txn_id in book.transactions.items() if txn_id in undone]
    return rows.filter(~pl.col("day").is_in(reversed_days))


def _with_outputs(conn: Connection, book: PostedBook, rows: pl.DataFrame) -> pl.DataFrame:
    """Add the name and time of every output to the rows of its book."""
    columns = (output.c.id, output.c.source, output.c.external_id, output.c.occurred_at)
    query = select(*columns).join_from(output, valuation).where(valuation.c.score_book_id == book.id)
    found = conn.execute(query.order_by(output.c.id)).all()
    outputs = pl.DataFrame(
        {
            "output_id": [row.id for row in found],
            "name": [output_name(row.source, row.external_id) for row in found],
            "occurred_at": [row.occurred_at for row in found],
            "day": [row.occurred_at[:10] for row in found],
        },
        schema={"output_id": pl.Int64, "name": pl.String, "occurred_at": pl.String, "day": pl.String},
    )
    if set(rows["output_id"].unique()) != set(outputs["output_id"]):
        raise IntegrityError(f"score book {book.sha256} values other outputs than the ledger says; run credit verify")
    return rows.join(outputs, on="output_id", how="left", maintain_order="left")


def _check(conn: Connection, book: PostedBook, rows: pl.DataFrame) -> None:
    """Refuse a book that differs from its posted credits, in any group on any day."""
    booked = {
        (day, key, collection): micro
        for day, key, collection, micro in rows.group_by("day", "provider", "collection")
        .agg(pl.col("credit_micro").sum())
        .iter_rows()
        if micro
    }
    query = (
        journal_lines(ledger_txn.c.effective_on, provider.c.key, account.c.collection, owners=True)
        .add_columns(ledger_entry.c.amount)
        .where(ledger_txn.c.id.in_(book.transactions.values()))
        .where(account.c.kind == AccountKind.EARNED, ledger_entry.c.commodity == CREDIT)
    )
    posted: dict[tuple[str, str, str], int] = {}
    for day, key, collection, amount in conn.execute(query):
        posted[day, key, collection] = posted.get((day, key, collection), 0) + amount
    if booked == posted:
        return
    day, key, collection = min(
        item for item in booked.keys() | posted.keys() if booked.get(item, 0) != posted.get(item, 0)
    )
    raise IntegrityError(
        f"score book {book.sha256} says that {key}/{collection} earned {booked.get((day, key, collection), 0)}"
        f" micro-credits on {day}; the ledger says {posted.get((day, key, collection), 0)}; run credit verify"
    )
