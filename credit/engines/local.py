"""Engine of one machine: worker processes, one a GPU, or one a core.

A worker has one thread, as one of Ray has, unless OMP_NUM_THREADS says otherwise. So the bytes of its results depend
neither on the number of workers nor on the engine: a matrix product on two threads rounds otherwise than on one.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from credit.engines.crew import Crew, Report, outcome
from credit.engines.engine import Engine, Job, R, T, Watch, Workers, ignore_workers

PROCESSES: SpawnContext = multiprocessing.get_context("spawn")
"""How processes start. A forked one would inherit threads and GPU contexts, which do not work there."""
_PATIENCE = 5.0
"""Seconds in which a worker must end that is asked to."""


@dataclass(frozen=True, slots=True)
class LocalEngine(Engine):
    """Engine of processes.

    Attributes:
        workers: processes; None for one a GPU, or one a core as far as memory allows.
        gpus: names of the GPUs for CUDA_VISIBLE_DEVICES. Workers share them in turn.
        memory_each: bytes for a worker; 0 if unknown.
        watch: hears of workers coming and going.
    """

    workers: int | None = None
    gpus: Sequence[str] = ()
    memory_each: int = 0
    watch: Watch = ignore_workers

    def planned(self, most: int) -> int:
        """Return the number of processes for `most` tasks."""
        return max(1, min(self.workers or len(self.gpus) or self._fitting(), most))

    def start(self, job: Job[T, R], most: int | None = None) -> Workers[T, R]:
        """Start the processes, `most` at the most, and let each open the job."""
        return _Processes(job, self.planned(most or sys.maxsize), self.gpus, self.watch)

    def _fitting(self) -> int:
        if not self.memory_each:
            return cores()
        return max(1, min(cores(), available_memory() // self.memory_each))


def cores() -> int:
    """Return the number of cores for this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> int:
    """Return the free memory in bytes; very much where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), sys.maxsize)


class _Processes(Crew[T, R]):
    """Worker processes, each with a pipe. A closed pipe is a dead worker."""

    def __init__(self, job: Job[T, R], count: int, gpus: Sequence[str], watch: Watch) -> None:
        super().__init__(range(count), watch)
        # Pickled once. Each process reads it after it has set its threads, which torch looks at when it is imported.
        self._job = pickle.dumps(job)
        self._gpus = gpus
        self._processes: dict[int, tuple[BaseProcess, Connection]] = {}
        atexit.register(self.close)  # before multiprocessing waits for its processes, for ever
        for worker in range(count):
            self._replace(worker)

    def _replace(self, worker: int) -> None:
        ours, theirs = PROCESSES.Pipe()
        arguments = (worker, theirs, self._job, self._gpu(worker))
        process = PROCESSES.Process(target=_serve, args=arguments, name=f"credit-worker-{worker}")
        process.start()
        theirs.close()
        self._processes[worker] = (process, ours)

    def _gpu(self, worker: int) -> str | None:
        return self._gpus[worker % len(self._gpus)] if self._gpus else None

    def _give(self, worker: int, task: T) -> None:
        content = pickle.dumps(task)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._processes[worker][1].send_bytes(content)

    def _hear(self) -> list[Report]:
        workers = {pipe: worker for worker, (_, pipe) in self._processes.items()}
        ready = wait(list(workers))
        return [self._report(worker, pipe) for pipe, worker in workers.items() if pipe in ready]

    def _report(self, worker: int, pipe: Connection) -> Report:
        try:
            content = pipe.recv_bytes()
        except (EOFError, ConnectionResetError):
            process, _ = self._processes.pop(worker)
            pipe.close()
            process.join()
            return Report(worker, "died", _cause(process.exitcode))
        report: Report = pickle.loads(content)  # noqa: S301  # from a worker
        return report

    def close(self) -> None:
        """End the workers, also those at work."""
        atexit.unregister(self.close)
        for process, pipe in self._processes.values():
            pipe.close()
            process.terminate()  # idle ones too: they keep nothing
        for process, _ in self._processes.values():
            process.join(_PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()
        self._processes = {}


def _cause(code: int | None) -> str:
    """Say how a process ended."""
    if code == -signal.SIGKILL:
        return "was killed, as the system does when memory is short: try fewer --workers, or smaller batches"
    if code is not None and code < 0:
        return f"ended by signal {-code} ({signal.strsignal(-code)})"
    return f"exited with code {code}"


def _serve(worker: int, pipe: Connection, job: bytes, gpu: str | None) -> None:
    """Run a worker: open the job, then do tasks until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first one ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _set_threads()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    opened = outcome(worker, "ready", _open, job)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        if opened.kind == "failed":
            pipe.send_bytes(pickle.dumps(opened))
            return
        pipe.send_bytes(pickle.dumps(Report(worker, "ready")))
        while True:
            pipe.send_bytes(_pickled(outcome(worker, "done", _do, opened.value, pipe.recv_bytes())))


def _open(job: bytes) -> Callable[[Any], Any]:
    function: Callable[[Any], Any] = pickle.loads(job).open()  # noqa: S301  # from the process that started this one
    return function


def _do(function: Callable[[Any], Any], task: bytes) -> Any:
    return function(pickle.loads(task))  # noqa: S301  # from the process that started this one


def _pickled(report: Report) -> bytes:
    # Not the pipe's own pickling: torch would share the memory of tensors with it, which dies with the worker.
    try:
        return pickle.dumps(report)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        why = f"the result of a task cannot be sent to another process: {error}"
        return pickle.dumps(Report(report.worker, "failed", TypeError(why)))


def _set_threads() -> None:
    """Take one thread, or as many as the user says."""
    threads = os.environ.setdefault("OMP_NUM_THREADS", "1")
    # torch takes the larger of both where both are set, and OMP_NUM_THREADS for both where one is.
    os.environ.setdefault("MKL_NUM_THREADS", threads)
    # A program that imports torch at its top has done so by now, with as many threads as there are cores.
    if (torch := sys.modules.get("torch")) is not None and threads.isdigit() and int(threads):
        torch.set_num_threads(int(threads))


def _end_with_parent() -> None:
    """End this process at once when its parent is gone, for whatever reason.

    Otherwise a worker would go on for nobody, in files of the next run.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
