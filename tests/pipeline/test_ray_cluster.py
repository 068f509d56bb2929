"""A real Ray cluster on one machine: nodes come and go, workers die, the head is lost, and every task counts once."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from credit.engines import EngineChoice
from credit.engines import ray as ray_engine
from credit.engines.ray import RayEngine
from credit.errors import EngineError, InvalidRequestError
from credit.records import Group
from credit.valuation import build_index, load_model, shards
from credit.valuation.batches import Progress
from tests.engines.cluster import Nodes
from tests.engines.jobs import Deadly, Failing, Squares, Waiting
from tests.fidelity import trainers
from tests.fidelity.test_retraining import RUNS, laboratory
from tests.models import hidden_settings, records
from tests.pipeline.samples import MODEL

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")

TASKS = range(7)
SETTINGS = hidden_settings(rank=2, rows_per_group=4)
DATA = records({Group("ann", "books"): 13, Group("ben", "blog"): 4, Group("cleo"): 9})
SQUARES = {number: number * number for number in TASKS}


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file to which every training adds a line, also one on the cluster, whose workers inherit its name."""
    log = tmp_path_factory.mktemp("trainings") / "log"
    log.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(trainers.LOG, str(log))
        yield log


@pytest.fixture(scope="module")
def nodes(trainings: Path) -> Iterator[Nodes]:
    """A head with one core, and nodes to add."""
    with Nodes() as nodes:
        yield nodes


def test_every_task_has_its_result_once_also_those_of_workers_that_are_killed(nodes, tmp_path):
    engine = EngineChoice("ray", address=nodes.address).engine()
    assert sorted(engine.run(Deadly(tmp_path, (5,)), TASKS)) == sorted(SQUARES.items())
    assert len(list(tmp_path.iterdir())) == 1, "no worker died"


def test_errors_travel_with_their_types(nodes):
    with RayEngine(address=nodes.address).start(Failing()) as workers:
        with pytest.raises(ValueError, match="no such number") as caught:
            list(workers.run(["fine", "value"]))
        assert "_fail" in caught.value.__notes__[0]
        with pytest.raises(EngineError, match="Odd: not portable"):
            list(workers.run(["odd"]))
        with pytest.raises(OSError, match="/dev/full") as full:
            list(workers.run(["disk"]))
        assert full.value.errno


def test_a_node_that_is_added_gets_tasks_and_those_of_a_removed_one_are_done_again(nodes, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_engine, "_TURN", 0.2)
    for number in (0, 1, 3):
        (tmp_path / f"go-{number}").touch()
    results = RayEngine(address=nodes.address).run(Waiting(tmp_path), TASKS)
    assert [next(results), next(results)] == [(0, 0), (1, 1)]
    added = nodes.add()
    assert next(results) == (3, 9), "task 2 keeps the first node; the new one does 3, and begins 4"
    while not list(tmp_path.glob("began-4-*")):
        time.sleep(0.01)
    nodes.remove(added)
    (tmp_path / "go").touch()
    assert sorted(results) == [(number, number**2) for number in (2, 4, 5, 6)]
    assert len(list(tmp_path.glob("began-4-*"))) == 2


def test_compute_has_the_books_and_the_ledger_of_one_worker(nodes, new_site):
    whole, site = new_site("whole"), new_site("by-ray")
    whole.run("compute", "--chunk", "4")
    site.run("compute", "--chunk", "4", "--engine", "ray", "--address", nodes.address)
    assert site.books() == whole.books()
    assert site.tables() == whole.tables()


def test_an_index_has_the_bytes_of_this_process(nodes, inputs, site, tmp_path):
    for name, *options in (("here",), ("ray", "--engine", "ray", "--address", nodes.address)):
        settings = ("--name", MODEL, "--rank", "2", "--projection", "random", "--no-register")
        site.run("index", inputs / MODEL, inputs / "train.jsonl", "--out", tmp_path / name, *settings, *options)
    here, by_ray = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir() if path.is_file()}
        for name in ("here", "ray")
    )
    assert here == by_ray


def _build(model: Path, folder: Path, address: str | None, progress: Progress | None = None) -> dict[str, bytes]:
    """Build an index with a unit for each row, on a cluster or in this process; return its files."""
    torch.set_num_threads(1)
    load = partial(load_model, model, dtype="fp32", device="cpu")
    engine = RayEngine(address=address) if address else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_BYTES", 1)
        build_index(load(), DATA, folder, SETTINGS, name="tiny", engine=engine, load=load, progress=progress)
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def _workers() -> list[psutil.Process]:
    """Return the actors of the cluster on this machine."""
    return [process for process in psutil.process_iter(["name"]) if process.info["name"].startswith("ray::_Worker")]


def test_units_by_two_and_three_workers_and_one_that_is_killed_leave_the_same_bytes(nodes, inputs, tmp_path):
    model, killed = inputs / MODEL, []

    def kill_a_worker(_phase: str, _done: int, _total: int) -> None:
        if not killed and len(found := _workers()) > 1:  # one of them has just reported; the other is at work
            for worker in found:
                worker.kill()
            killed.extend(found)

    whole = _build(model, tmp_path / "here", None)
    assert len([name for name in whole if name.startswith("rows-")]) == 12
    added = [nodes.add()]
    assert _build(model, tmp_path / "killed", nodes.address, kill_a_worker) == whole
    assert len(killed) == 2
    added.append(nodes.add())
    assert _build(model, tmp_path / "three", nodes.address) == whole
    for node in added:
        nodes.remove(node)


def test_each_retraining_on_a_cluster_is_made_once_and_comes_out_as_in_this_process(nodes, trainings, tmp_path):
    here = laboratory(tmp_path / "here").outcomes(RUNS)
    trainings.write_text("")
    by_ray = laboratory(tmp_path / "ray").outcomes(RUNS, engine=RayEngine(address=nodes.address))
    assert len(trainings.read_text().splitlines()) == len(RUNS)
    for run in RUNS:
        np.testing.assert_array_equal(by_ray[run], here[run])


def test_without_room_a_cluster_or_the_right_address_the_remedy_is_said(nodes, monkeypatch):
    monkeypatch.setattr(ray_engine, "_TURN", 0.2)
    with pytest.raises(EngineError, match=r"no worker found room.*'CPU': 64.*add nodes"):
        list(RayEngine(address=nodes.address, cpus=64, patience=0.5).run(Squares(), TASKS))
    with pytest.raises(InvalidRequestError, match="ray job submit"):
        list(RayEngine(address="ray://127.0.0.1:10001").run(Squares(), TASKS))


def _drive_build(model: Path, folder: Path, address: str, channel: Connection) -> None:
    """Build, and wait after the third unit.

    Run as a process of its own: Ray may end the process of a driver that has lost its cluster.
    """
    ray_engine._TURN, ray_engine._GONE = 0.2, 1.0
    done = 0

    def wait(_phase: str, _done: int, _total: int) -> None:
        nonlocal done
        done += 1
        if done == 3:
            channel.send("began")
            channel.recv()

    try:
        _build(model, folder, address, wait)
    except EngineError as error:
        channel.send(str(error))


def test_a_lost_head_ends_a_build_with_the_remedy_and_a_new_one_goes_on(nodes, inputs, tmp_path):
    index = tmp_path / "index"
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    arguments = (inputs / MODEL, index, nodes.address, theirs)
    driver = multiprocessing.get_context("spawn").Process(target=_drive_build, args=arguments)
    driver.start()
    theirs.close()
    assert ours.recv() == "began"
    nodes.kill_head()
    ours.send("go on")
    assert "start the cluster again, and run the same command: what is finished is kept" in ours.recv()
    driver.join()
    kept = {path: path.stat().st_mtime_ns for path in index.glob("rows-*")}
    assert 3 <= len(kept) < 12
    with Nodes() as again:
        assert _build(inputs / MODEL, index, again.address) == _build(inputs / MODEL, tmp_path / "here", None)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "a finished unit was done again"
