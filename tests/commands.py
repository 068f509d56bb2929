"""Commands in processes of their own that are killed or find the disk full, and the bytes they leave behind."""

from __future__ import annotations

import os
import resource
import shlex
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, event

from credit.ledger import database
from credit.ledger.database import Ledger
from tests.processes import FORKS


def run_command(url: str, line: str, said: Path, last_step: int | None, largest_file: int | None) -> None:
    """Run a command in a process of its own that waits for nobody.

    It dies after so many steps of SQLite's machine, and finds the disk full where a file would grow beyond a size.
    """
    from contextlib import redirect_stderr, redirect_stdout

    from credit.cli.main import cli

    database.BUSY_TIMEOUT_MS = 100
    if largest_file is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    if last_step is not None:
        steps = iter(range(last_step))

        def step() -> int:
            if next(steps, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return 0

        @event.listens_for(Engine, "begin")
        def count_steps(conn: Connection) -> None:
            driver = conn.connection.driver_connection
            assert driver is not None
            driver.set_progress_handler(step, 1)

    os.environ["CREDIT_DATABASE_URL"] = url
    os.environ["CREDIT_DATA_DIR"] = str(said.parent / "credit-data")
    with said.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        cli(shlex.split(line), prog_name="credit")


def run(
    url: str, line: str, said: Path, *, last_step: int | None = None, largest_file: int | None = None
) -> tuple[int | None, str]:
    """Run a command and return its exit code, negative for a signal, and everything it said."""
    process = FORKS.Process(target=run_command, args=(url, line, said, last_step, largest_file))
    process.start()
    process.join()
    return process.exitcode, said.read_text()


@contextmanager
def full_disk() -> Iterator[None]:
    """Context in which the kernel refuses the first byte of any file of this process."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def hold_open(url: str, statement: str, pipe: Pipe) -> None:
    """Keep a transaction open in a process of its own until the pipe says so."""
    if url.startswith("sqlite"):
        connection: Any = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        connection.execute("BEGIN")
    else:
        connection = psycopg.connect(url)
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.execute(statement).fetchall()
    pipe.send("open")
    pipe.recv()
    connection.close()


@contextmanager
def held_open(url: str, statement: str) -> Iterator[None]:
    """Context in which another process keeps a transaction open."""
    here, there = FORKS.Pipe()
    process = FORKS.Process(target=hold_open, args=(url, statement, there))
    process.start()
    here.recv()
    yield
    here.send("end")
    process.join()


def left(ledger: Ledger, url: str, values: list[str]) -> list[str]:
    """Those of some values of which a byte is in the files that hold the ledger's tables."""
    if ledger.sqlite_path is not None:
        path = ledger.sqlite_path
        files = [path, *(path.with_name(path.name + end) for end in ("-wal", "-journal"))]
    else:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CHECKPOINT")
            (folder,), (number,) = (
                connection.execute(query).fetchone() or ("",)
                for query in (
                    "SHOW data_directory",
                    "SELECT oid::text FROM pg_database WHERE datname = current_database()",
                )
            )
        files = list(Path(folder, "base", number).iterdir())
    content = b"".join(file.read_bytes() for file in files if file.is_file())
    return [value for value in values if value.encode() in content]
