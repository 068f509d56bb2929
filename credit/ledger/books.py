"""Score books: what every output drew from every group, in Parquet files named by their SHA-256.

A book is written whole before the ledger hears of it, and counts only once the ledger has registered it; one that
was written by a run that died is a file that nobody refers to.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from credit.errors import IntegrityError
from credit.storage import write_whole

SCHEMA = {
    "output_id": pl.Int64,
    "provider": pl.String,
    "collection": pl.String,
    "influence": pl.Float64,
    "support": pl.Float64,
    "effect": pl.Float64,
    "credit_micro": pl.Int64,
}
"""Columns of a score book. The three measures are in nats; `output_id` is the output's id in the ledger."""


@dataclass(frozen=True, slots=True)
class Score:
    """One row of a score book: an output and a group."""

    output_id: int
    provider: str
    collection: str
    influence: float
    support: float
    effect: float
    credit_micro: int


@dataclass(frozen=True, slots=True)
class Book:
    """A written score book."""

    sha256: str
    row_count: int
    byte_count: int


def book_path(folder: Path, sha256: str) -> Path:
    """Where the book with this SHA-256 lies in the folder of books."""
    return folder / f"{sha256}.parquet"


def write_book(folder: Path, scores: Sequence[Score]) -> Book:
    """Write a score book, whole or not at all; the same scores give the same file."""
    columns = {
        name: pl.Series(name, [getattr(score, name) for score in scores], dtype=dtype) for name, dtype in SCHEMA.items()
    }
    buffer = io.BytesIO()
    pl.DataFrame(columns).write_parquet(buffer, compression="zstd", statistics=True)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    path = book_path(folder, digest)
    if not path.is_file():
        write_whole(path, content)
    return Book(digest, len(scores), len(content))


def read_book(folder: Path, sha256: str) -> pl.DataFrame:
    """Read a score book after checking that it is the one that was written.

    Raises:
        IntegrityError: the file is missing or differs.
    """
    path = book_path(folder, sha256)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise IntegrityError(
            f"score book {path} is missing; restore it from a backup, or name its folder with --data-dir"
        ) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise IntegrityError(f"score book {path} is not the file that was registered; restore it from a backup")
    return pl.read_parquet(io.BytesIO(content))
