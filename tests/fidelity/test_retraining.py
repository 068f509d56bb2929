"""Retrainings side by side, killed by a real SIGKILL and gone on with: each is made once, and all come out the same."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from credit.engines import Slice
from credit.engines.local import LocalEngine
from credit.errors import LockHeldError, MismatchError
from credit.fidelity.recipes import load_trainer, trainer_fingerprint
from credit.fidelity.retraining import Laboratory, plan
from credit.records import Group, LoggedOutput
from credit.storage import only_one
from tests.fidelity import trainers
from tests.ledger.samples import logged
from tests.models import records

PROVIDERS = {Group("a"): 4, Group("b"): 3, Group("c"): 2, Group("d"): 2}
RUNS = plan(["a", "b", "c", "d"], halves=2, seeds=1)


def laboratory(folder: Path) -> Laboratory:
    outputs: list[LoggedOutput] = [logged(1), logged(2)]
    return Laboratory(folder, records(PROVIDERS), outputs, load_trainer("tests.fidelity.trainers:train"), "test", 64)


def test_slices_make_each_retraining_once_and_the_whole_makes_the_rest(tmp_path, monkeypatch):
    log = tmp_path / "trainings"
    log.touch()
    monkeypatch.setenv(trainers.LOG, str(log))
    folder = tmp_path / "runs"
    made = [laboratory(folder).make_slice(RUNS, Slice(number, 3)) for number in (3, 1, 3)]
    assert len(log.read_text().splitlines()) == made[0] + made[1]
    with only_one(folder / ".slice-2-of-3.lock", ""):
        with pytest.raises(LockHeldError):
            laboratory(folder).make_slice(RUNS, Slice(2, 3))
        with pytest.raises(LockHeldError):
            laboratory(folder).outcomes(RUNS)
    outcomes = laboratory(folder).outcomes(RUNS)
    assert len(log.read_text().splitlines()) == len(outcomes) == len(RUNS)


def killed(folder: Path) -> None:
    laboratory(folder).outcomes(RUNS, engine=LocalEngine(2))


def test_killed_and_called_again_nothing_is_trained_twice_and_the_outcome_is_the_same(tmp_path, monkeypatch):
    log = tmp_path / "trainings"
    log.touch()
    monkeypatch.setenv(trainers.LOG, str(log))
    monkeypatch.setenv(trainers.KILL_AFTER, "4")
    process = multiprocessing.get_context("spawn").Process(target=killed, args=(tmp_path / "runs",))
    process.start()
    process.join()
    assert process.exitcode == -9
    with log.open() as held_by_workers:  # a worker that outlives its parent for a moment may begin one more
        fcntl.flock(held_by_workers, fcntl.LOCK_EX)
    finished = {path.name: path.read_bytes() for path in (tmp_path / "runs").glob("*.json")}
    assert 0 < len(finished) < len(RUNS)

    monkeypatch.delenv(trainers.KILL_AFTER)
    before = len(log.read_text().splitlines())
    told: list[tuple[int, int]] = []
    resumed = laboratory(tmp_path / "runs").outcomes(RUNS, progress=lambda done, total: told.append((done, total)))
    assert len(log.read_text().splitlines()) - before == len(RUNS) - len(finished)
    assert told == [(done, len(RUNS)) for done in range(len(finished), len(RUNS) + 1)]
    for name, content in finished.items():
        assert (tmp_path / "runs" / name).read_bytes() == content

    first = next((tmp_path / "runs").glob("*.json"))
    for damage in ("{", "{}", '{"log_likelihood": "x"}', '{"log_likelihood": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]}'):
        first.write_text(damage)
        with pytest.raises(MismatchError, match=rf"{first.name} (is damaged|has 7 results).*delete it"):
            laboratory(tmp_path / "runs").outcomes(RUNS)

    whole = laboratory(tmp_path / "whole").outcomes(RUNS)
    for run in RUNS:
        np.testing.assert_array_equal(resumed[run], whole[run])
    assert len({tuple(values) for values in whole.values()}) == len(RUNS), "the trainings cannot be told apart"
    assert not list((tmp_path / "runs").glob("*.model"))


def test_a_second_validation_in_the_same_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(trainers.LOG, os.devnull)

    def again(_done: int, _total: int) -> None:
        with pytest.raises(LockHeldError, match="another validation is at work"):
            laboratory(tmp_path).outcomes(RUNS)

    laboratory(tmp_path).outcomes(RUNS[:1], progress=again)


def test_another_source_of_a_users_recipe_is_another_recipe(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    hashes = []
    for number in range(2):
        name = f"recipe_{number}"
        (tmp_path / f"{name}.py").write_text(f"def train(records, seed, folder):\n    return {number}\n")
        hashes.append(trainer_fingerprint("recipe:train", load_trainer(f"{name}:train")))
    assert hashes[0] != hashes[1]
