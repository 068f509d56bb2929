"""A run of `ingest_outputs` killed at any step, and run again: a process from which short-lived ones are forked."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from itertools import count
from multiprocessing import Queue
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from credit.pipeline import ingest_outputs as pipeline
from credit.pipeline.workspace import Workspace
from credit.storage import is_left_over
from tests.kills import die

_FILE_STEPS = ("open", "os.rename", "os.remove", "os.link")


def state_after_kills(template: Path, logs: Path, folder: Path, told: Queue[Any], *, every: int) -> None:
    """Kill a run at every so many steps, run again, and tell what ledger and quarantine then hold; None: the end."""
    pipeline._BATCH = 2
    for number in count():
        here = folder / str(number)
        shutil.copytree(logs, here / "logs")
        shutil.copyfile(template, here / "credit.db")
        # The first run meets nothing and imports what it needs, so that later ones die in their work.
        died = number > 0 and _die_in(lambda: _run(here), at=1 + (number - 1) * every)  # noqa: B023
        _run(here)
        told.put((died, _state(here)))
        if number and not died:
            told.put(None)
            return


def _die_in(run: Callable[[], None], *, at: int) -> bool:
    """Run in a process that kills itself at a step. Return False if the run has no such step."""
    process = os.fork()
    if process == 0:
        _arm(at)
        run()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


def _arm(at: int) -> None:
    left = at

    def step(*_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            die()

    event.listen(Engine, "before_cursor_execute", step)
    event.listen(Engine, "commit", step)
    sys.addaudithook(lambda name, _: step() if name in _FILE_STEPS else None)


def _run(folder: Path) -> None:
    place = Workspace(f"sqlite:///{folder / 'credit.db'}", folder / "credit-data")
    for path in sorted((folder / "logs").iterdir()):
        pipeline.ingest_outputs(place, path, complete=True)


def _state(folder: Path) -> dict[str, object]:
    place = Workspace(f"sqlite:///{folder / 'credit.db'}", folder / "credit-data")
    with place.open() as ledger, ledger.read() as conn:
        query = "SELECT external_id, completion FROM output ORDER BY external_id"
        outputs = [tuple(row) for row in conn.exec_driver_sql(query)]
        files = conn.exec_driver_sql("SELECT name, accepted, quarantined FROM ingest_file ORDER BY name")
        return {"outputs": outputs, "files": [tuple(row) for row in files], "quarantine": dict(_quarantined(folder))}


def _quarantined(folder: Path) -> Iterator[tuple[str, int]]:
    for path in sorted((folder / "credit-data" / "quarantine").iterdir()):
        if not is_left_over(path.name):
            yield path.name, path.read_bytes().count(b"\n")
