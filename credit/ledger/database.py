"""Opening a ledger: URLs, transactions, snapshots, locks.

`Ledger.write` lets in one writer at a time on both engines (SQLite's BEGIN IMMEDIATE, PostgreSQL's advisory lock
held until commit), so ids and the hash chain need no retries. `Ledger.read` sees one moment of the ledger
throughout. Errors of a database driver become errors of `credit.errors`, without the password.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.exc import ArgumentError, DatabaseError, NotSupportedError, OperationalError, ProgrammingError
from sqlalchemy.pool import NullPool

from credit.errors import InvalidRequestError, LedgerError, LockHeldError, PeriodClosedError
from credit.ledger import triggers, views
from credit.ledger.actor import OPTION, checked_actor, system_actor
from credit.ledger.rules import PERIOD_CLOSED, REFUSED
from credit.ledger.schema import REVISIONS, metadata
from credit.ledger.scrubbing import scrub_postgresql, scrub_sqlite
from credit.storage import create_file, make_folder, only_one

BUSY_TIMEOUT_MS = 30_000
"""How long a SQLite writer waits for another one, and a scrub for others on either engine, before it gives up."""

SYNCHRONOUS = "FULL"
"""SQLite syncs at every commit: a committed transaction survives a crash of the machine."""

_CACHE_KIB = 65_536
"""Page cache of a SQLite connection: the keys of the journal are hashes, which land anywhere in their indexes."""

_SECRETS = frozenset({"password", "sslpassword"})
_WRITER_LOCK = "writer"
_INIT = "credit init"
_NO_PRIVILEGE = "42501"
"""PostgreSQL's SQLSTATE for what this user may not do."""


class Ledger:
    """An open ledger at the revision that this version of `credit` reads and writes.

    Everything written through it names its `actor`.
    """

    __slots__ = ("_engine", "actor", "url")

    def __init__(self, engine: Engine, actor: str) -> None:
        self._engine = engine.execution_options(**{OPTION: actor})
        self.actor = actor
        self.url = redact(engine.url)

    @classmethod
    def open(cls, url: str, *, actor: str | None = None) -> Self:
        """Open the ledger at `url`.

        Args:
            url: of SQLite or PostgreSQL.
            actor: who writes; None for the system's user and host.

        Raises:
            LedgerError: it is missing, unreachable, or of another revision than this version of `credit`.
            InvalidRequestError: the URL is not one of SQLite or PostgreSQL, or the actor is no name.
        """
        by = checked_actor(system_actor() if actor is None else actor)
        target = parse_url(url)
        # SQLite would leave an empty file at a misspelt path.
        if target.get_backend_name() == "sqlite" and not Path(str(target.database)).is_file():
            raise LedgerError(f"there is no ledger at {redact(target)}; create it: {_INIT}")
        engine = _engine(target)
        try:
            with _translated(engine.url), engine.connect() as conn:
                _check_revision(conn, redact(target))
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, by)

    def close(self) -> None:
        """Give back every connection."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Ledger({self.url!r})"

    @property
    def sqlite_path(self) -> Path | None:
        """The database file, or None on PostgreSQL."""
        return Path(str(self._engine.url.database)) if self._engine.dialect.name == "sqlite" else None

    @property
    def is_read_only(self) -> bool:
        """True for a SQLite file that this user can only read."""
        path = self.sqlite_path
        return path is not None and _is_read_only(path)

    def write(self, *, sorting: bool = False) -> AbstractContextManager[Connection]:
        """One transaction, alone among writers: committed when the block ends, undone when it raises.

        `sorting`: the block reads and sorts much, and SQLite sorts in temporary files. Otherwise SQLite keeps temporary
        data in memory, which spares a posting of many small transactions a file for each statement.

        Raises:
            LedgerError: the database refused; PeriodClosedError when because a period is closed.
            LockHeldError: another writer kept SQLite's lock for longer than the busy timeout.
        """
        return _writing(self._engine, sorting=sorting)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent snapshot; the database refuses writes in it."""
        options: dict[str, Any] = {"credit_begin": "BEGIN"}
        if self._engine.dialect.name == "postgresql":
            # One snapshot for all queries of the block: a report must not see half of a close.
            options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with _translated(self._engine.url), self._engine.connect() as conn:
            conn.execution_options(**options)
            with conn.begin():
                if self._engine.dialect.name == "sqlite":
                    # SQLite has no read-only transaction; the connection is closed after the block.
                    conn.exec_driver_sql("PRAGMA query_only = ON")
                unshared = self.is_read_only and not _has_log(self.sqlite_path)
                yield conn
                if unshared and _has_log(self.sqlite_path):
                    raise LockHeldError(f"somebody began to write to {self.url} while this read it; run this again")

    def scrub(self, *tables: sa.Table) -> None:
        """Remove the bytes of tables' deleted rows and emptied texts from the database's files, as often as needed.

        SQLite rewrites all tables at once.

        On PostgreSQL, the write-ahead log, replicas and backups keep those bytes until their keeper recycles them.

        Raises:
            LockHeldError: another session may still read deleted rows, or is in the way; the deletion stands.
            LedgerError: the files cannot be written anew; the deletion stands.
        """
        with _translated(self._engine.url), self._engine.connect() as conn:
            if self._engine.dialect.name == "sqlite":
                scrub_sqlite(conn, self.url)
            else:
                scrub_postgresql(conn, tables, self.url, wait_ms=BUSY_TIMEOUT_MS)

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Hold the lock `name` of this ledger; LockHeldError at once when another run holds it.

        The operating system or the server frees it when the process dies, however it dies.
        """
        held = f"another run holds the lock {name!r} of {self.url}; let it finish, then run this again"
        path = self.sqlite_path
        if path is not None:
            with only_one(path.with_name(f"{path.name}.{name}.lock"), held):
                yield
            return
        with _translated(self._engine.url), self._engine.connect() as conn:
            # Outside a transaction, so that an hour's work does not hold back the server's clean-up.
            conn.execution_options(isolation_level="AUTOCOMMIT")
            key = {"key": _lock_key(name)}
            if not conn.execute(sa.text("SELECT pg_try_advisory_lock(:key)"), key).scalar_one():
                raise LockHeldError(held)
            try:
                yield
            finally:
                conn.execute(sa.text("SELECT pg_advisory_unlock(:key)"), key)


def upgrade(url: str, *, now: datetime | None = None, migrations: Path | None = None) -> str:
    """Create the ledger at `url` or bring it to the newest revision, in one transaction; return the revision.

    Revisions change tables only: `upgrade` drops triggers and views first and installs them again at the end. In a
    ledger that is up to date, it puts back missing ones.

    Args:
        url: of SQLite or PostgreSQL.
        now: when the ledger is created.
        migrations: the folder of the revisions; None is the one that travels with the package.

    Raises:
        LedgerError: the ledger is of a newer revision than this version of `credit` knows, has lost the record of its
            revision, or cannot be reached.
        InvalidRequestError: the URL is not one of SQLite or PostgreSQL.
    """
    from alembic import command
    from alembic.config import Config

    from credit.resources import resource

    target = parse_url(url)
    if target.get_backend_name() == "sqlite":
        _create_private(Path(str(target.database)))
    engine = _engine(target)
    try:
        with _writing(engine) as conn:
            found = _current_revision(conn)
            if found not in REVISIONS and (found is not None or _has_tables(conn)):
                raise LedgerError(_revision_message(conn, redact(target), found))
            if found != REVISIONS[-1]:
                # A revision may rewrite rows, which the triggers would refuse.
                triggers.drop(conn)
                # PostgreSQL changes no column that a view shows.
                views.drop(conn)
                config = Config()
                config.set_main_option("script_location", str(migrations or resource("migrations")).replace("%", "%%"))
                config.attributes["connection"] = conn
                config.attributes["now"] = now
                command.upgrade(config, "head")
            if triggers.installed(conn) != triggers.expected(triggers.dialect_of(conn)):
                triggers.install(conn)
            if any(views.differences(conn)):
                views.install(conn)
    finally:
        engine.dispose()
    return REVISIONS[-1]


def _create_private(path: Path) -> None:
    """Create an empty file for its owner alone where there is none: SQLite gives its mode to the files beside it."""
    make_folder(path.parent)
    with suppress(OSError):  # the file is there, or SQLite will say why it cannot be
        create_file(path.resolve()).close()


def sqlite_file(url: str) -> Path | None:
    """Return the file of a SQLite ledger; None for another URL, or one that cannot be read."""
    try:
        target = sa.make_url(url)
    except (ArgumentError, ValueError):
        return None
    return Path(target.database) if target.get_backend_name() == "sqlite" and target.database else None


def redact(url: str | URL) -> str:
    """Return `url` fit to be printed: without its password, and without the driver's name."""
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):
        return "<unreadable database URL>"
    # A password can stand in the query as well as before the host.
    hidden = {name: "hidden" for name in parsed.query if name.lower() in _SECRETS}
    plain = parsed.update_query_dict(hidden).set(drivername=parsed.get_backend_name())
    return plain.render_as_string(hide_password=True)


def serialise_writers(conn: Connection) -> None:
    """Wait until no other transaction writes (PostgreSQL; on SQLite BEGIN IMMEDIATE has done so already)."""
    if conn.dialect.name == "postgresql":
        conn.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _lock_key(_WRITER_LOCK)})


def _current_revision(conn: Connection) -> str | None:
    """Return the revision of the schema that `conn` reaches, or None where there is no ledger."""
    if not sa.inspect(conn).has_table("alembic_version"):
        return None
    return conn.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


@contextmanager
def _translated(url: URL) -> Iterator[None]:
    """Turn errors of a driver into errors of `credit.errors` with a text for people."""
    try:
        yield
    except (ProgrammingError, NotSupportedError) as error:
        if getattr(error.orig, "sqlstate", None) != _NO_PRIVILEGE:
            raise  # our own mistake: it keeps its trace
        raise _translate(error, redact(url)) from error
    except DatabaseError as error:
        raise _translate(error, redact(url)) from error


_REMEDIES = {
    "FULL": "; its disk is full, or a quota is used up: make room there and run this again",
    "IOERR": "; its disk is full, gone or faulty: look there, then run this again",
    "READONLY": "; its file and its folder must be writable for whoever runs this: SQLite keeps files beside it",
    "CANTOPEN": "; its file and its folder must be there and writable for whoever runs this. Who can only read needs a"
    " file without a log (-wal) beside it, which holds what is not in the file yet: let its owner run credit verify",
}
"""Remedies by the family of SQLite's error: SQLITE_IOERR_WRITE is one of IOERR."""


def _translate(error: DatabaseError, place: str) -> LedgerError | LockHeldError:
    text = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
    if REFUSED in text:
        reason = text[text.index(REFUSED) + len(REFUSED) :]
        if reason.startswith(PERIOD_CLOSED):
            return PeriodClosedError(f"{place} refuses: {reason}; post into an open period instead")
        return LedgerError(f"{place} refuses: {reason}")
    # By now the busy timeout has passed.
    if "database is locked" in text:
        return LockHeldError(f"another run is writing to {place}; let it finish, then run this again")
    remedy = _REMEDIES.get(getattr(error.orig, "sqlite_errorname", "").partition("_")[2].partition("_")[0], "")
    if isinstance(error, OperationalError) or "not a database" in text:
        return LedgerError(f"cannot use {place}: {text}{remedy}")
    return LedgerError(f"{place} refuses: {text}")


def _check_revision(conn: Connection, place: str) -> None:
    """Raise LedgerError where the ledger is missing or of another revision than this version of `credit`."""
    found = _current_revision(conn)
    if found != REVISIONS[-1]:
        raise LedgerError(_revision_message(conn, place, found))


def _has_tables(conn: Connection) -> bool:
    """Return True if a table of a ledger is there."""
    return not metadata.tables.keys().isdisjoint(sa.inspect(conn).get_table_names())


def _revision_message(conn: Connection, place: str, found: str | None) -> str:
    """Return the reason why this version of `credit` cannot use `place`, and the remedy."""
    if found is None and _has_tables(conn):
        return (
            f"{place} holds no ledger: tables of one are there, but the record of their revision (alembic_version) is"
            " gone; restore a backup"
        )
    if found is None:
        return f"{place} holds no ledger; create it: {_INIT}"
    if found in REVISIONS:
        return f"{place} is at revision {found}, this version of credit needs {REVISIONS[-1]}; run: {_INIT}"
    return (
        f"{place} is at revision {found}, newer than {REVISIONS[-1]}, the newest that this version of credit"
        f" knows; install the version that upgraded it ({_INIT} cannot go back)"
    )


def _lock_key(name: str) -> int:
    # PostgreSQL's advisory locks have numbers for names, shared by the whole database.
    return int.from_bytes(hashlib.sha256(f"credit:{name}".encode()).digest()[:8], "big", signed=True)


def parse_url(url: str) -> URL:
    """Return the URL of a ledger with the driver that `credit` uses.

    Raises:
        LedgerError: the driver is not installed.
        InvalidRequestError: the URL is not one of SQLite or PostgreSQL.
    """
    try:
        target = sa.make_url(url.replace("postgres://", "postgresql://", 1))
    except (ArgumentError, ValueError):
        raise InvalidRequestError(
            "the database URL cannot be read; write sqlite:///credit.db or postgresql://user@host/name"
        ) from None
    backend = target.get_backend_name()
    if backend == "sqlite":
        if target.database in {None, "", ":memory:"}:
            raise InvalidRequestError("a ledger needs a file, as in sqlite:///credit.db")
        return target.set(drivername="sqlite+pysqlite")
    if backend != "postgresql":
        raise InvalidRequestError(f"no ledger on {backend}; use sqlite:///credit.db or postgresql://user@host/name")
    if importlib.util.find_spec("psycopg") is None:
        raise LedgerError('PostgreSQL needs an extra: pip install "credit[postgres]"')
    return target.set(drivername="postgresql+psycopg")


def _engine(target: URL) -> Engine:
    if target.get_backend_name() == "postgresql":
        return sa.create_engine(target, pool_pre_ping=True)
    # No pool: a SQLite connection is cheap, and a kept one would keep its settings (query_only).
    path = Path(str(target.database))
    if _is_read_only(path):
        engine = sa.create_engine(target, poolclass=NullPool, creator=lambda: _read_only_connection(path))
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    engine = sa.create_engine(target, poolclass=NullPool)
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _is_read_only(path: Path) -> bool:
    """Return True for a file that this user can read, and cannot write to, or not write beside."""
    writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    return path.is_file() and os.access(path, os.R_OK) and not writable


def _has_log(path: Path | None) -> bool:
    """Return True if committed transactions may lie in the write-ahead log beside a file."""
    if path is None:
        return False
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0


def _read_only_connection(path: Path) -> sqlite3.Connection:
    """Connect to a file that this user can only read, without making a file beside it.

    Without a log nobody else has the file open, and SQLite may take it as immutable. A log is read through the files of
    whoever writes it.
    """
    how = "mode=ro" if _has_log(path) else "mode=ro&immutable=1"
    connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?{how}", uri=True, isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    return connection


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves; the driver would, but too late and too weakly
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        f"synchronous = {SYNCHRONOUS}",
        "foreign_keys = ON",  # off by default, and per connection
        "recursive_triggers = ON",  # with it, deletions of INSERT OR REPLACE fire triggers
        f"cache_size = -{_CACHE_KIB}",
        "secure_delete = ON",  # overwrite deleted rows at once: only personal data is ever deleted
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(conn: Connection) -> None:
    conn.exec_driver_sql(conn.get_execution_options().get("credit_begin", "BEGIN IMMEDIATE"))


@contextmanager
def _writing(engine: Engine, *, sorting: bool = False) -> Iterator[Connection]:
    with _translated(engine.url), engine.connect() as conn:
        if not sorting:
            _keep_in_memory(conn)
        with conn.begin():
            serialise_writers(conn)
            yield conn


def _keep_in_memory(conn: Connection) -> None:
    """Let SQLite keep temporary data in memory; it listens only before a transaction."""
    raw = conn.connection.driver_connection
    if conn.dialect.name == "sqlite" and raw is not None:
        raw.execute("PRAGMA temp_store = MEMORY")
