"""Places at which a process kills itself with a real SIGKILL: statements, commits, and steps of writing a file."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event

from tests.processes import FORKS


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_before(table: str) -> None:
    """Die where the first row would enter a table of the ledger."""

    @event.listens_for(Engine, "before_cursor_execute")
    def watch(_conn: Connection, _cursor: Any, statement: str, *_: object) -> None:
        if statement.startswith(f"INSERT INTO {table} "):
            die()


def die_after(table: str, *, verb: str = "INSERT INTO") -> None:
    """Die as soon as a row has entered a table, or has left it, in a transaction without a commit."""

    @event.listens_for(Engine, "after_cursor_execute")
    def watch(_conn: Connection, _cursor: Any, statement: str, *_: object) -> None:
        if statement.startswith(f"{verb} {table} "):
            die()


def die_at_commit_of(table: str, *, verb: str = "INSERT INTO") -> None:
    """Die before the commit of the first transaction that put a row into a table, or deleted one."""
    seen = False

    @event.listens_for(Engine, "after_cursor_execute")
    def watch(_conn: Connection, _cursor: Any, statement: str, *_: object) -> None:
        nonlocal seen
        seen = seen or statement.startswith(f"{verb} {table} ")

    @event.listens_for(Engine, "commit")
    def commit(_conn: Connection) -> None:
        if seen:
            die()


def die_at_file(step: str, path: Path) -> None:
    """Die in writing a file, at a step: before it is `begun`, before it gets its `name`, or when it is `done`."""
    renamed = False

    def watch(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal renamed
        if name == "open" and Path(str(arguments[0])).name.startswith(f".{path.name}.") and step == "begun":
            die()
        if name == "os.rename" and str(arguments[1]) == str(path):
            if step == "name":
                die()
            renamed = True
        # Its folder is opened once the file has its name, to sync it.
        if name == "open" and renamed and str(arguments[0]) == str(path.parent):
            die()

    sys.addaudithook(watch)


def die_at_change(folder: Path, number: int) -> None:
    """Die right before the change of a folder with this number, counted from 0: something in it
    is written, renamed or removed, or a folder is made."""
    seen = 0

    def watch(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        writes = name == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (name in {"os.rename", "os.remove", "os.mkdir"} or writes) and str(arguments[0]).startswith(str(folder)):
            if seen == number:
                die()
            seen += 1

    sys.addaudithook(watch)


def killed(function: Callable[..., None], *arguments: object) -> None:
    """Run a function in a process of its own, and see it killed."""
    process = FORKS.Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
