"""Worker processes of one machine: every task once, whoever dies, and nobody left behind."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from credit.engines import Engine, EngineChoice, InProcess, local
from credit.engines.local import LocalEngine
from credit.errors import EngineError, InvalidRequestError
from tests.engines.jobs import Deadly, Failing, Squares, Stillborn, Threads, Unopenable, Waiting

TASKS = range(7)
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.engines.jobs"])
SQUARES = {number: number * number for number in TASKS}


@pytest.fixture(autouse=True)
def start(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start workers quickly, unless a test says `spawn`: a spawned one imports pytest."""
    if getattr(request, "param", None) != "spawn":
        monkeypatch.setattr(local, "PROCESSES", _FORKS)


def _alive(process: int) -> bool:
    """Return True for a process that is there, and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _begun(folder: Path, count: int) -> list[int]:
    """Wait until tasks have begun, and return the processes of theirs."""
    while len(marks := list(folder.glob("began-*"))) < count:
        time.sleep(0.01)
    return [int(mark.name.rpartition("-")[2]) for mark in marks]


def _gone(processes: list[int]) -> bool:
    deadline = time.monotonic() + 20
    while any(map(_alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(map(_alive, processes))


@pytest.mark.parametrize("start", ["spawn"], indirect=True)
@pytest.mark.parametrize("engine", [InProcess(), LocalEngine(1), LocalEngine(3)], ids=["here", "one", "three"])
def test_every_task_has_its_result_once_in_any_order(engine: Engine, tmp_path):
    results = list(engine.run(Squares(tmp_path), TASKS))
    assert sorted(results) == sorted(SQUARES.items())
    opened = len(list(tmp_path.iterdir()))
    assert opened <= 3, "a worker opened the job more than once"


def test_workers_of_one_run_serve_the_next_and_keep_order(tmp_path):
    with LocalEngine(2).start(Squares(tmp_path)) as workers:
        first = list(itertools.islice(workers.in_order(itertools.count()), 9))
        again = list(workers.in_order(TASKS))
    assert first == [number * number for number in range(9)]
    assert again == list(SQUARES.values())
    assert len(list(tmp_path.iterdir())) <= 2, "a worker opened the job for each run"


def test_tasks_are_drawn_when_a_worker_is_free_and_no_further_than_order_allows(tmp_path):
    drawn = []

    def tasks():
        for number in itertools.count():
            drawn.append(number)
            yield number

    with LocalEngine(2).start(Waiting(tmp_path)) as workers:
        for number in range(1, 20):
            (tmp_path / f"go-{number}").touch()
        results = workers.run(tasks(), ahead=4)
        assert sorted(next(results)[0] for _ in range(3)) == [1, 2, 3], "task 0 has not ended"
        assert drawn == [0, 1, 2, 3]
        (tmp_path / "go-0").touch()
        assert next(results) == (0, 0)


def test_the_task_of_a_killed_worker_is_done_by_another(tmp_path):
    results = list(LocalEngine(2).run(Deadly(tmp_path, (0, 3, 6), times=2), TASKS))
    assert sorted(results) == sorted(SQUARES.items())
    assert len(list(tmp_path.iterdir())) == 6


def test_a_task_that_ends_three_workers_is_named_with_the_remedy(tmp_path):
    with pytest.raises(EngineError, match=r"^3 ended 3 workers.*was killed.*fewer --workers.*run the same command"):
        list(LocalEngine(2).run(Deadly(tmp_path, (3,), times=3), TASKS))


def test_workers_that_die_at_their_start_end_the_run():
    with pytest.raises(EngineError, match="before their first task; the last was killed"):
        list(LocalEngine(1).run(Stillborn(), TASKS))


def test_an_error_travels_with_its_type_message_and_trace():
    with pytest.raises(ValueError, match="no such number") as caught:
        list(LocalEngine(2).run(Failing(), ["value"]))
    assert "_fail" in caught.value.__notes__[0]
    with pytest.raises(OSError, match="/dev/full") as full:
        list(LocalEngine(1).run(Failing(), ["disk"]))
    assert full.value.errno
    with pytest.raises(EngineError, match="Odd: not portable"):
        list(LocalEngine(1).run(Failing(), ["odd"]))
    with pytest.raises(TypeError, match="result of a task cannot be sent"):
        list(LocalEngine(1).run(Failing(), ["result"]))
    with pytest.raises(ValueError, match="the model was moved"):
        list(LocalEngine(2).run(Unopenable(), TASKS))


def test_a_run_that_is_closed_early_ends_its_workers_at_work(tmp_path):
    (tmp_path / "go-0").touch()
    results = LocalEngine(2).run(Waiting(tmp_path), TASKS)
    assert next(results) == (0, 0)
    processes = _begun(tmp_path, 2)  # task 0, and what its worker began next
    results.close()
    assert _gone(processes)


def _parent(folder: Path) -> None:
    local.PROCESSES = _FORKS
    list(LocalEngine(2).run(Waiting(folder), TASKS))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_parent_that_is_killed_or_interrupted_leaves_no_worker_behind(tmp_path, how):
    parent = _FORKS.Process(target=_parent, args=(tmp_path,))
    parent.start()
    processes = _begun(tmp_path, 2)
    os.kill(parent.pid, how)
    parent.join()
    assert _gone(processes)


@pytest.mark.parametrize("start", ["spawn"], indirect=True)
@pytest.mark.parametrize(("omp", "threads"), [(None, 1), ("2", 2)])
def test_a_worker_has_one_thread_or_as_many_as_the_user_says_and_a_gpu_of_its_own(monkeypatch, omp, threads):
    """On other threads a matrix product rounds its last bits otherwise, and money moves by the engine."""
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if omp is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", omp)
    with LocalEngine(gpus=("GPU-a", "GPU-b")).start(Threads()) as workers:
        told = {result for _, result in workers.run(range(40))}
    assert {number for number, _ in told} == {threads}
    assert {gpu for _, gpu in told} <= {"GPU-a", "GPU-b"}


def test_without_a_number_there_are_as_many_workers_as_memory_and_cores_allow(monkeypatch):
    monkeypatch.setattr("credit.engines.local.cores", lambda: 3)
    monkeypatch.setattr("credit.engines.local.available_memory", lambda: 25)
    for each, count in ((0, 3), (5, 3), (10, 2), (100, 1)):
        with LocalEngine(memory_each=each).start(Squares()) as workers:
            assert workers.wanted == count
    with LocalEngine(memory_each=5).start(Squares(), most=2) as workers:
        assert workers.wanted == 2, "more workers than tasks"


def test_one_worker_is_this_process_unless_an_engine_is_named():
    assert isinstance(EngineChoice().engine(), InProcess)
    assert isinstance(EngineChoice(workers=1).engine(), InProcess)
    assert EngineChoice(workers=2).engine() == LocalEngine(2)
    assert EngineChoice("local").engine(gpus=("0",), memory_each=5) == LocalEngine(None, ("0",), 5)
    with pytest.raises(InvalidRequestError, match="--engine ray"):
        EngineChoice("local", address="auto")
