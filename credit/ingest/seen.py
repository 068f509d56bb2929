"""Which records came before, for corpora of any size: a temporary SQLite database that spills to disk."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from hashlib import blake2b
from types import TracebackType
from typing import Self

from credit.errors import InputError
from credit.records import Place, TrainingRecord

_DIGEST = 16


@dataclass(frozen=True, slots=True)
class FirstSeen:
    """Where some content came first, and whose it was there: a provider, or several with a comma between them."""

    provider: str
    place: str


class SeenRecords:
    """Remembers ids and contents; memory stays below some tens of megabytes."""

    def __enter__(self) -> Self:
        # The empty name is SQLite's temporary database: private, on disk only when it outgrows its cache.
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(
            """
            PRAGMA journal_mode = OFF;
            PRAGMA synchronous = OFF;
            PRAGMA cache_size = -32768;
            CREATE TABLE ids (id TEXT PRIMARY KEY, digest BLOB, place TEXT) WITHOUT ROWID;
            CREATE TABLE contents (digest BLOB, provider TEXT, place TEXT);
            CREATE INDEX contents_by_digest ON contents (digest);
            BEGIN;  -- never committed: a commit for every record would write its pages out each time
            """
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._db.close()

    def first_with_id(self, record: TrainingRecord, place: Place) -> str | None:
        """Return where the same record came before, or None and remember it.

        Raises:
            InputError: another record has the id.
        """
        owners = (part for s in record.shares for part in (s.group.provider, s.group.collection, str(s.ppm)))
        digest = _digest(*owners, _content(record))
        inserted = self._db.execute("INSERT OR IGNORE INTO ids VALUES (?, ?, ?)", (record.id, digest, str(place)))
        if inserted.rowcount:
            return None
        before, first = self._db.execute("SELECT digest, place FROM ids WHERE id = ?", (record.id,)).fetchone()
        if before != digest:
            raise InputError(f"`id` {record.id!r} was used before, at {first}, with another content or provider")
        return str(first)

    def first_with_content(self, record: TrainingRecord, place: Place) -> FirstSeen | None:
        """Return who contributed the same content before, and where, or None and remember the record.

        A provider's own record is found before another's, whoever came first. Those who share one are another provider
        than each of them.
        """
        digest, provider = _content(record), owners_in_words(record)
        query = "SELECT provider, place FROM contents WHERE digest = ? ORDER BY provider <> ?, rowid LIMIT 1"
        row = self._db.execute(query, (digest, provider)).fetchone()
        if row is None or row[0] != provider:
            self._db.execute("INSERT INTO contents VALUES (?, ?, ?)", (digest, provider, str(place)))
        return None if row is None else FirstSeen(*row)


def owners_in_words(record: TrainingRecord) -> str:
    """Return the provider of a record, or all of one that is shared, with a comma between them."""
    return ",".join(sorted({share.group.provider for share in record.shares}))


def _content(record: TrainingRecord) -> bytes:
    turns = (part for message in record.messages for part in (message.role, message.content))
    kind = "chat" if record.messages else "text" if record.prompt is None else "prompt"
    return _digest(kind, record.prompt or "", record.completion, *turns)


def _digest(*parts: str | bytes) -> bytes:
    """Hash a sequence of parts; the length before each keeps ("ab", "c") and ("a", "bc") apart."""
    digest = blake2b(digest_size=_DIGEST)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.digest()
