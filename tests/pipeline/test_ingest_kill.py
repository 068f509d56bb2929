"""Ingest is killed at any moment, and so is a program that writes the log beside it: each record is logged once."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from credit.ledger.database import Ledger
from credit.ledger.outputs import pending_outputs
from credit.pipeline.ingest_outputs import ingest_outputs
from credit.pipeline.workspace import Workspace
from tests.conftest import ON_SQLITE
from tests.kills import die_at_commit_of, killed
from tests.ledger import samples
from tests.ledger.samples import MODEL
from tests.pipeline.ingest_kills import state_after_kills

EVERY = 10
"""Steps between two of the steps at which a run is killed."""


def lines(*numbers: int) -> str:
    fields = {"occurred_at": "2026-09-02T08:00:00Z", "model": MODEL, "prompt": "How?", "completion": "It lay still."}
    return "".join(json.dumps({"id": f"o{number}", **fields}) + "\n" for number in numbers)


def ids(place: Workspace) -> list[str]:
    with place.open() as ledger, ledger.read() as conn:
        return sorted(item.output.external_id for item in pending_outputs(conn, MODEL, 0, 10**6))


@pytest.fixture
def place(database_url, tmp_path) -> Workspace:
    with Ledger.open(database_url) as ledger, ledger.write() as conn:
        samples.add_index(conn)
    return Workspace(database_url, tmp_path / "credit-data")


@ON_SQLITE
def test_a_run_that_is_killed_at_any_step_and_run_again_logs_what_one_run_does(place, tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "a.jsonl").write_text(lines(*range(5)) + "{bad\n" + lines(5))
    (logs / "b.jsonl").write_text(lines(3, 7))
    context = multiprocessing.get_context("spawn")
    told: Any = context.Queue()
    database = Path(place.database.removeprefix("sqlite:///"))
    arguments = (database, logs, tmp_path / "killed", told)
    process = context.Process(target=state_after_kills, args=arguments, kwargs={"every": EVERY})
    process.start()
    found = list(iter(told.get, None))
    process.join()
    (_, once), *others = found
    assert [name for name, _ in once["outputs"]] == ["o0", "o1", "o2", "o3", "o4", "o5", "o7"]
    assert once["files"] == [("a.jsonl", 6, 1), ("b.jsonl", 1, 0)]
    assert list(once["quarantine"].values()) == [1]
    assert [state for _, state in others] == [once] * len(others)
    assert sum(died for died, _ in others) > 100 // EVERY


def dying_run(url: str, folder: Path, path: Path) -> None:
    die_at_commit_of("ingest_file")  # after its outputs, which PostgreSQL gets by COPY, unseen by SQLAlchemy
    ingest_outputs(Workspace(url, folder), path, complete=True)


def test_a_run_that_is_killed_before_its_commit_logs_nothing_and_the_next_one_all(place, database_url, tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(lines(0, 1, 2))
    killed(dying_run, database_url, place.data_dir, path)
    assert ids(place) == []
    assert ingest_outputs(place, path, complete=True).accepted == 3
    assert ids(place) == ["o0", "o1", "o2"]


WRITER = """
import sys, time
path, whole, half = sys.argv[1], sys.argv[2], sys.argv[3]
with open(path, "ab", buffering=0) as log:
    log.write(whole.encode())
    log.write(half.encode())
    print(flush=True)
    time.sleep(600)
"""


def write_and_die(path: Path, whole: str, half: str) -> None:
    """Append lines to a log, and the beginning of one, by a process that is then killed."""
    command = [sys.executable, "-S", "-c", WRITER, str(path), whole, half]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline()
        writer.kill()


@pytest.mark.parametrize("restarted", ["on a new line", "where it stopped"])
def test_a_log_whose_writer_is_killed_within_a_line_and_started_again_loses_that_line_alone(place, tmp_path, restarted):
    path = tmp_path / "log.jsonl"
    write_and_die(path, lines(0, 1), lines(2)[:70])
    report = ingest_outputs(place, path)
    assert (report.accepted, report.unfinished, report.quarantined) == (2, 1, 0)
    write_and_die(path, ("\n" if restarted == "on a new line" else "") + lines(3, 4), lines(5)[:-1])
    report = ingest_outputs(place, path)
    # The line that closes is whole, though its newline is missing; what is glued to half a line is lost with it.
    kept = ["o3", "o4", "o5"] if restarted == "on a new line" else ["o4", "o5"]
    assert (report.accepted, report.unfinished, report.quarantined) == (len(kept), 0, 1)
    assert ids(place) == ["o0", "o1", *kept]
    write_and_die(path, "\n" + lines(6), "")
    report = ingest_outputs(place, path)
    assert (report.accepted, report.quarantined, report.quarantined_before) == (1, 1, 1)
    assert ids(place) == ["o0", "o1", *kept, "o6"]
