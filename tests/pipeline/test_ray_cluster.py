"""A real Ray cluster on one machine: nodes come and go, workers die, the head is lost, and every task counts once."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from credit.engines import EngineChoice
from credit.engines import ray as ray_engine
from credit.engines.ray import RayEngine
from credit.errors import EngineError, InvalidRequestError
from tests.engines.cluster import Nodes
from tests.engines.jobs import Deadly, Failing, Squares, Waiting
from tests.fidelity import trainers
from tests.fidelity.test_retraining import RUNS, laboratory
from tests.pipeline.samples import MODEL

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")

TASKS = range(7)
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


def _drive(address: str, folder: Path, channel: Connection) -> None:
    """Run as a process of its own: Ray may end the process of a driver that has lost its cluster."""
    ray_engine._TURN, ray_engine._GONE = 0.2, 1.0
    try:
        list(RayEngine(address=address).run(Waiting(folder), TASKS))
    except EngineError as error:
        channel.send(str(error))


def test_a_lost_head_ends_the_run_with_the_remedy(nodes, tmp_path):
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    driver = multiprocessing.get_context("spawn").Process(target=_drive, args=(nodes.address, tmp_path, theirs))
    driver.start()
    theirs.close()
    while not list(tmp_path.glob("began-*")):
        time.sleep(0.01)
    nodes.kill_head()
    assert "start the cluster again, and run the same command: what is finished is kept" in ours.recv()
    driver.join()
    (tmp_path / "go").touch()
    with Nodes() as again:
        assert sorted(RayEngine(address=again.address).run(Waiting(tmp_path), TASKS)) == sorted(SQUARES.items())
