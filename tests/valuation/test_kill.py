"""Builds and revisions in processes of their own, killed with SIGKILL and run again, end as if they had not been.

A process is killed at each moment at which a file of its index changes: right before it opens one for writing, renames
one into its place, or removes one. What it finds there when it runs again is what a kill at any moment can leave.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from credit.valuation import AttributionIndex, build_index, load_model
from credit.valuation.language_model import LanguageModel
from credit.valuation.revise import update_index, withdraw_provider
from tests.kills import die_at_change
from tests.models import hidden_settings, records, save_tiny_model
from tests.valuation.conftest import FOLDED, LONE, SINGLE

_FORKS = multiprocessing.get_context("fork")
SETTINGS = {
    "one pass": hidden_settings(rank=2, rows_per_group=4, layers=("*.self_attn.*",)),
    "fitted": hidden_settings(rank=2, rows_per_group=4, projection="pca", curvature="none", sample=9),
    "two passes": hidden_settings(rank=2, rows_per_group=4, weighting="relatif", curvature="ekfac", rows_dtype="int8"),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_model(save_tiny_model(tmp_path_factory.mktemp("kill") / "llama"), dtype="fp32", device="cpu")


@pytest.fixture(autouse=True)
def _small_shards(write_limits: Callable[..., None]) -> None:
    write_limits(shard_bytes=500, waiting_bytes=0)


def _in_a_process(work: Callable[..., None], *arguments: object) -> bool:
    """Run work in a process of its own; whether it came to its end, or was killed."""

    def run() -> None:
        torch.set_num_threads(1)
        work(*arguments)

    child = _FORKS.Process(target=run)
    child.start()
    child.join()
    assert child.exitcode in {0, -signal.SIGKILL}, f"it ended by itself, with {child.exitcode}"
    return child.exitcode == 0


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("kind", "step"),
    [("one pass", 4), ("fitted", 5), ("two passes", 7)],  # each life is two processes
)
def test_a_build_killed_at_any_change_of_a_file_ends_with_the_same_bytes(small, data, tmp_path, kind, step):
    def build(folder: Path, kill_at: int | None = None) -> None:
        if kill_at is not None:
            die_at_change(folder, kill_at)
        build_index(small, data, folder, SETTINGS[kind], name="tiny")

    whole = tmp_path / "whole"
    assert _in_a_process(build, whole)
    expected = _content(whole)
    assert len([name for name in expected if name.startswith("rows-")]) > 2
    for change in range(0, 1000, step):
        folder = tmp_path / str(change)
        if _in_a_process(build, folder, change):
            break
        assert not (folder / "manifest.json").exists() or _content(folder).items() >= expected.items()
        assert _in_a_process(build, folder)
        assert _content(folder) == expected, f"killed before change {change}, it did not end as it would have"
        shutil.rmtree(folder)
    assert change > 15, f"only {change} changes were seen"


def test_killed_again_and_again_it_still_ends_with_the_same_bytes(small, data, tmp_path):
    settings = SETTINGS["two passes"]

    def build(folder: Path, life: int | None = None) -> None:
        if life is not None:
            die_at_change(folder, life)
        build_index(small, data, folder, settings, name="tiny")

    assert _in_a_process(build, tmp_path / "whole")
    lives = 1
    while not _in_a_process(build, tmp_path / "killed", 32 + lives % 3):
        lives += 1
        assert lives < 200, "it does not go on where it was killed"
    assert lives > 2
    assert _content(tmp_path / "killed") == _content(tmp_path / "whole")


def test_killed_from_outside_while_it_works_it_goes_on(small, tmp_path):
    many = [replace(r, id=f"{r.id}-{n}") for n in range(12) for r in records({FOLDED: 6, SINGLE: 5, LONE: 4}, seed=n)]
    settings = SETTINGS["one pass"]

    def build(folder: Path, channel: Connection | None = None) -> None:
        def report(_phase: str, done: int, _total: int) -> None:
            if channel is not None:
                channel.send(done)

        torch.set_num_threads(1)
        build_index(small, many, folder, settings, name="tiny", tokens_per_batch=64, progress=report)

    assert _in_a_process(build, tmp_path / "whole")
    kills = 0
    while True:
        ours, theirs = _FORKS.Pipe(duplex=False)
        child = _FORKS.Process(target=build, args=(tmp_path / "killed", theirs))
        child.start()
        theirs.close()
        try:
            for _ in range(4 + kills):  # it works on while this is read, and is killed wherever it has come to
                ours.recv()
            child.kill()
        except EOFError:
            pass
        child.join()
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        kills += 1
    assert kills > 1
    assert _content(tmp_path / "killed") == _content(tmp_path / "whole")


@pytest.mark.parametrize("action", ["update", "withdraw"])
def test_a_revision_killed_at_any_change_of_a_file_is_done_by_the_next_run(small, data, outputs, tmp_path, action):
    more = [replace(r, id=f"new-{r.id}") for r in records({FOLDED: 3, SINGLE: 4}, seed=8)]
    base = tmp_path / "base"
    build_index(small, data, base, SETTINGS["one pass"], name="tiny")
    before = _content(base)

    def revise(folder: Path, kill_at: int | None = None) -> None:
        if kill_at is not None:
            die_at_change(folder, kill_at)
        if action == "update":
            update_index(folder, small, [*data, *more])
        else:
            withdraw_provider(folder, small, "ben", data)

    whole = shutil.copytree(base, tmp_path / "whole")
    assert _in_a_process(revise, whole)
    expected = _content(whole)
    assert json.loads(expected["manifest.json"])["history"]
    for change in range(0, 1000, 4):  # units go through the same moments
        folder = shutil.copytree(base, tmp_path / str(change))
        if _in_a_process(revise, folder, change):
            break
        left = _content(folder)
        counted = before if left["manifest.json"] == before["manifest.json"] else expected
        assert left.items() >= counted.items(), f"killed before change {change}, the index is damaged"
        AttributionIndex.open(folder).value(small, outputs[:1])
        assert _in_a_process(revise, folder)
        assert _content(folder) == expected
        shutil.rmtree(folder)
    assert change > 10, f"only {change} moments were tried"


def test_how_often_a_build_has_merged_its_sums_changes_no_bit(small, data, tmp_path, write_limits):
    build_index(small, data, tmp_path / "often", SETTINGS["one pass"], name="tiny")
    write_limits(waiting_bytes=10**12)
    build_index(small, data, tmp_path / "once", SETTINGS["one pass"], name="tiny")
    assert _content(tmp_path / "often") == _content(tmp_path / "once")
