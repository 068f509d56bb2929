"""Seam between work and workers, and the engine of this process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Sized
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

T = TypeVar("T")
R = TypeVar("R")
T_contra = TypeVar("T_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


Watch = Callable[[int, int], None]
"""Called with the number of workers ready or at work, and with that of all in the end."""


def ignore_workers(_ready: int, _wanted: int) -> None:
    """Watch nothing."""


class Job(Protocol[T_contra, R_co]):
    """Kind of work. It travels to workers by `pickle`, and so do tasks and results.

    Messages name a task by its `str()`.
    """

    def open(self) -> Callable[[T_contra], R_co]:
        """Prepare a worker, once: load models, open files. Return the function from task to result."""
        ...


class Workers(ABC, Generic[T, R]):
    """Workers with an opened job. As a context, it ends them."""

    @abstractmethod
    def run(self, tasks: Iterable[T], *, ahead: int | None = None) -> Generator[tuple[int, R]]:
        """Yield (position of a task, its result) as results come, each once.

        Tasks are drawn when a worker is free. To close the iterator early leaves the workers ready for the next run.

        Args:
            tasks: may be endless or lazy.
            ahead: draw no task this many positions, or more, past the first one without a result; None: no limit.

        Raises:
            EngineError: a task ended one worker after the other, or the workers cannot be reached.
            Exception: the first error of a task, with its type and message. It ends the run.
        """

    @property
    @abstractmethod
    def ready(self) -> int:
        """Workers ready or at work."""

    @property
    @abstractmethod
    def wanted(self) -> int:
        """Workers in the end, at least 1: as many as the machine or cluster can hold."""

    def in_order(self, tasks: Iterable[T]) -> Generator[R]:
        """Yield the results in the order of their tasks. At most two for each worker wait for an earlier one."""
        waiting: dict[int, R] = {}
        turn = 0
        for position, result in self.run(tasks, ahead=2 * self.wanted):
            waiting[position] = result
            while turn in waiting:
                yield waiting.pop(turn)
                turn += 1

    def close(self) -> None:
        """End the workers, also those at work."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Engine(ABC):
    """Place for jobs to run."""

    @abstractmethod
    def planned(self, most: int) -> int | None:
        """Return the number of workers on this machine for `most` tasks; None where they are on others."""

    @abstractmethod
    def start(self, job: Job[T, R], most: int | None = None) -> Workers[T, R]:
        """Start workers, at most `most` of them, and let each open the job."""

    def run(self, job: Job[T, R], tasks: Iterable[T]) -> Generator[tuple[int, R]]:
        """Yield (position of a task, its result) from workers of their own, as `Workers.run` does."""
        with self.start(job, len(tasks) if isinstance(tasks, Sized) else None) as workers:
            yield from workers.run(tasks)


class InProcess(Engine):
    """Engine of one worker: this process. Errors keep their trace."""

    def planned(self, most: int) -> int:
        """Return 1."""
        return 1

    def start(self, job: Job[T, R], most: int | None = None) -> Workers[T, R]:
        """Open the job here, and now."""
        return _Here(job.open())


class _Here(Workers[T, R]):
    def __init__(self, function: Callable[[T], R]) -> None:
        self._function = function

    ready = wanted = 1

    def run(self, tasks: Iterable[T], *, ahead: int | None = None) -> Generator[tuple[int, R]]:
        for position, task in enumerate(tasks):
            yield position, self._function(task)
