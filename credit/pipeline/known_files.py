"""Log files that earlier runs have read: a file as it was is not read again, and one that has grown is read on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, func, select

from credit.ingest.streams import Reading
from credit.ledger.aliases import aliases
from credit.ledger.file_readings import FileReading, last_reading, record_reading
from credit.ledger.indexes import models
from credit.ledger.schema import unvalued
from credit.storage import canonical_json, sha256_file
from credit.version import VERSION

_RACE_NS = 2_000_000_000
"""A change within so many nanoseconds after a reading may have left the time of the last change as it was."""


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file as it is now, and the options under which it is read."""

    path: Path
    options: tuple[object, ...]
    size: int
    mtime_ns: int

    @classmethod
    def look(cls, path: Path, options: tuple[object, ...]) -> KnownFile:
        """Look at a file's size and time."""
        status = path.stat()
        return cls(path, options, status.st_size, status.st_mtime_ns)

    def last(self, conn: Connection) -> FileReading | None:
        """Return the last reading of the file, if one now would judge its records in the same way.

        What becomes of a record follows from its bytes, the options, the models and what a person took out. Limits on
        times depend on the clock too: a file with bad records is read anew each day.
        """
        found = last_reading(conn, str(self.path.resolve()))
        if found is None or found.how != self._how(conn):
            return None
        return None if found.quarantined and found.read_at.date() != datetime.now(UTC).date() else found

    def is_unchanged(self, before: FileReading, *, growing: bool) -> bool:
        """Return True if the file is as it was, by size and time, and by its hash where these cannot tell."""
        if self.size != before.size or (before.unfinished and not growing):
            return False
        read_ns = int(before.read_at.timestamp() * 1_000_000) * 1000
        if self.mtime_ns == before.mtime_ns and before.mtime_ns + _RACE_NS < read_ns:
            return True
        return sha256_file(self.path) == before.sha256

    def resume(self, reading: Reading, before: FileReading) -> bool:
        """Let a reading go on where the last one ended, if the file still begins with what that one read.

        With bad records it begins at the start, so that one quarantine file holds all of them.
        """
        if before.finished_bytes is None or before.quarantined or self.size < before.size:
            return False
        return reading.resume(before.size, before.sha256, before.finished_bytes, before.finished_lines)

    def record(self, conn: Connection, reading: Reading, *, quarantined: int, can_resume: bool) -> None:
        """Record a reading, and where the next one can go on if `can_resume`."""
        found = FileReading(
            str(self.path.resolve()),
            self._how(conn),
            reading.size,
            self.mtime_ns,
            reading.sha256,
            reading.end if can_resume else None,
            reading.lines if can_resume else 0,
            quarantined,
            reading.unfinished,
            datetime.now(UTC),
        )
        before = last_reading(conn, found.path)
        if before is None or replace(before, mtime_ns=found.mtime_ns) != found:
            record_reading(conn, found)

    def _how(self, conn: Connection) -> str:
        taken_out = conn.execute(select(func.count()).select_from(unvalued)).scalar_one()
        known = [sorted(models(conn)), [(item.pattern, item.model) for item in aliases(conn)], taken_out]
        said = canonical_json(["credit.reading.1", VERSION, self.options, known])
        return hashlib.sha256(said.encode()).hexdigest()
