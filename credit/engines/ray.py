"""Engine of a Ray cluster: actors with the opened job.

It uses actors and nothing else of Ray. Results travel through Ray's object store and need no disk in common. The files
of a job must be on every node.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from credit.engines.crew import Crew, Report, outcome
from credit.engines.engine import Engine, Job, R, T, Watch, Workers, ignore_workers
from credit.errors import EngineError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

_TURN = 2.0
"""Seconds between two looks at the cluster, at least."""
_GONE = 10.0
"""Seconds without an answer after which the head of a cluster is gone."""


@dataclass(frozen=True, slots=True)
class RayEngine(Engine):
    """Engine of actors in a Ray cluster.

    Attributes:
        workers: actors. Those without room wait for new nodes. None: as many as the cluster holds, and more with each
            new node.
        address: `auto` for the cluster of this machine, HOST:PORT of the head, or `local` for a cluster of the run's
            own.
        cpus: cores of an actor, and threads.
        gpus: GPUs of an actor; None for one where the cluster has any.
        memory_each: bytes for an actor; 0 if unknown.
        patience: seconds to wait for the first worker.
        watch: hears of workers coming and going.
    """

    workers: int | None = None
    address: str = "auto"
    cpus: float = 1
    gpus: float | None = None
    memory_each: int = 0
    patience: float = 600
    watch: Watch = ignore_workers

    def planned(self, most: int) -> None:
        """Return None: the cluster places the actors."""

    def start(self, job: Job[T, R], most: int | None = None) -> Workers[T, R]:
        """Connect to the cluster, and place the actors."""
        return _Actors(self, job, most, *_connect(self.address))


def _connect(address: str) -> tuple[Any, bool]:
    """Return the module of Ray, connected, and True if it was not before.

    Raises:
        InvalidRequestError: Ray is not installed, or the address is one of Ray Client.
        EngineError: there is no cluster.
    """
    if "://" in address:
        raise InvalidRequestError(
            f"{address} goes through Ray Client, which credit does not use; run the command on a node of the cluster, "
            "with --address auto, or by: ray job submit"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise InvalidRequestError("--engine ray needs an extra: pip install 'credit[ray]'") from error
    if ray.is_initialized():
        return ray, False
    private = {"_node_ip_address": "127.0.0.1", "include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", **private)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise EngineError(
            f"no Ray cluster answers at {address}: {str(error).splitlines()[0]}; start one with: ray start --head, or "
            "name its head with --address HOST:PORT"
        ) from error
    return ray, True


class _Worker:
    """Actor: a worker of a cluster."""

    def __init__(self, worker: int) -> None:
        self._worker = worker

    def open(self, job: Job[Any, Any]) -> Report:
        """Open the job."""
        opened = outcome(self._worker, "ready", job.open)
        if opened.kind == "failed":
            return opened
        self._function: Callable[[Any], Any] = opened.value
        return Report(self._worker, "ready")

    def work(self, task: Any) -> Report:
        """Do a task."""
        return outcome(self._worker, "done", self._function, task)


class _Actors(Crew[T, R]):
    """Actors with their open calls."""

    def __init__(self, engine: RayEngine, job: Job[T, R], most: int | None, ray: Any, connected: bool) -> None:
        super().__init__((), engine.watch)
        self._engine, self._ray, self._connected, self._most = engine, ray, connected, most
        self._address: str = ray.get_runtime_context().gcs_address
        self._output = contextlib.ExitStack()
        if connected:
            # Ray prints lost nodes to standard output, where the result of a command belongs.
            self._output.enter_context(contextlib.redirect_stdout(sys.stderr))
        self._job = ray.put(job)  # once, however many actors read it
        self._actors: dict[int, Any] = {}
        self._asked: dict[Any, int] = {}
        self._silent_since: float | None = None
        self._began = self._looked = time.monotonic()
        self._grow()

    def _needs(self) -> dict[str, float]:
        """Return the resources of an actor, by Ray's names."""
        has = self._ray.cluster_resources()
        gpus = self._engine.gpus if self._engine.gpus is not None else float(has.get("GPU", 0) >= 1)
        needs = {"CPU": self._engine.cpus, "GPU": gpus, "memory": float(self._engine.memory_each)}
        return {name: amount for name, amount in needs.items() if amount}

    def _grow(self) -> None:
        """Ask for the missing actors."""
        count = self._engine.workers
        if count is None:
            needs = self._needs()
            nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            count = sum(int(min(node.get(name, 0) / amount for name, amount in needs.items())) for node in nodes)
        count = max(1, min(count, self._most or count))
        for worker in range(len(self._actors), count):
            self._opening.add(worker)
            self._replace(worker)

    def _replace(self, worker: int) -> None:
        needs = self._needs()
        options = {"num_cpus": needs.get("CPU", 0), "num_gpus": needs.get("GPU", 0), "memory": needs.get("memory")}
        # Replaced here, not by Ray: it would give a new worker tasks before the job is open.
        kind = self._ray.remote(_Worker).options(max_restarts=0, scheduling_strategy="SPREAD", **options)
        self._actors[worker] = kind.remote(worker)
        self._asked[self._actors[worker].open.remote(self._job)] = worker

    def _give(self, worker: int, task: T) -> None:
        self._asked[self._actors[worker].work.remote(task)] = worker

    def _hear(self) -> list[Report]:
        answered, _ = self._ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
        if not answered:
            answered, _ = self._ray.wait(list(self._asked), num_returns=1, timeout=_TURN)
        if time.monotonic() - self._looked > _TURN:
            self._look()
        return [self._report(reference) for reference in answered]

    def _report(self, reference: Any) -> Report:
        worker = self._asked.pop(reference)
        try:
            report: Report = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:  # Ray could not carry the task or its result
            return Report(worker, "failed", error)
        except self._ray.exceptions.RayError as error:  # the actor, its node, or the result in its store is lost
            self._ray.kill(self._actors[worker])
            return Report(worker, "died", f"was lost: {_one_line(error)}")
        return report

    def _look(self) -> None:
        """Look at the cluster now and then: new nodes, room for a worker, the head.

        Raises:
            EngineError: the head is gone, or no worker found room for too long.
        """
        now = self._looked = time.monotonic()
        if _answers(self._address):
            self._silent_since = None
        else:
            self._silent_since = self._silent_since or now
            if now - self._silent_since > _GONE:
                raise EngineError(
                    f"the head of the Ray cluster at {self._address} is gone; start the cluster again, and run the "
                    "same command: what is finished is kept"
                )
            return
        if not self.ready and now - self._began > self._engine.patience:
            raise EngineError(
                f"no worker found room in the Ray cluster for {self._engine.patience:.0f} s; each needs "
                f"{self._needs()}, and the cluster has {self._ray.available_resources()} free: add nodes, or ask for "
                "less"
            )
        if self._engine.workers is None:
            self._grow()

    def close(self) -> None:
        """End the workers, also those at work."""
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._actors, self._asked = {}, {}
        if self._connected:
            self._ray.shutdown()
        self._output.close()


def _answers(address: str) -> bool:
    """Return True if something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_TURN).close()
    except OSError:
        return False
    return True


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
