"""Readings of log files: how far each file has been read, so that a later run reads only what is new."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection, select

from credit.ledger.rows import add_records, read_row
from credit.ledger.schema import file_reading


@dataclass(frozen=True, slots=True)
class FileReading:
    """One reading of a file.

    Attributes:
        path: the file's absolute path.
        how: hash of everything else that decides what a reading gives, such as options and known models.
        size: bytes that were read.
        mtime_ns: time of the file's last change before it was read, in nanoseconds since 1970.
        sha256: hash of the bytes that were read.
        finished_bytes: bytes after which a later reading can go on; None: it begins at the start.
        finished_lines: lines in them.
        quarantined: bad records.
        unfinished: records that waited at the end.
        read_at: when it was read.
    """

    path: str
    how: str
    size: int
    mtime_ns: int
    sha256: str
    finished_bytes: int | None
    finished_lines: int
    quarantined: int
    unfinished: int
    read_at: datetime


def last_reading(conn: Connection, path: str) -> FileReading | None:
    """Return the last reading of a file, or None."""
    query = select(file_reading).where(file_reading.c.path == path).order_by(file_reading.c.id.desc()).limit(1)
    row = conn.execute(query).one_or_none()
    return None if row is None else read_row(FileReading, row)


def record_reading(conn: Connection, reading: FileReading) -> None:
    """Record a reading, unless it found what the one before found: twice is once."""
    before = last_reading(conn, reading.path)
    if before is None or replace(before, read_at=reading.read_at) != reading:
        add_records(conn, file_reading, [reading])
