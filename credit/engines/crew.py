"""Scheduling of tasks over mortal workers.

A crew gives the next task to a free worker and waits for reports. Another worker repeats the task of a dead one. Each
kind of worker adds three things: the way of a task to it, the way of its reports back, and the start of a new one.
"""

from __future__ import annotations

import pickle
import traceback
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Literal, Self

from credit.engines.engine import R, T, Watch, Workers
from credit.errors import EngineError

DEATHS = 3
"""Dead workers in a row that end the run: over one task, or at their start."""

_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Report:
    """Report of a worker, or of its death.

    Attributes:
        worker: number of the worker.
        kind: ready for its first task; done with one; failed at one, or at opening the job; or dead.
        value: the result, the exception, or the cause of death in words.
    """

    worker: int
    kind: Literal["ready", "done", "failed", "died"]
    value: Any = None


def outcome(worker: int, kind: Literal["ready", "done"], function: Callable[..., Any], *arguments: Any) -> Report:
    """Call a function on the worker's side, and report its result or its exception."""
    try:
        return Report(worker, kind, function(*arguments))
    except Exception as error:  # every error of a task belongs to the one who asked for it
        return Report(worker, "failed", _portable(error))


def _portable(error: Exception) -> Exception:
    """Return an exception fit for `pickle`: the same, or an `EngineError` with its words. Its trace becomes a note."""
    trace = "".join(traceback.format_exception(error))
    try:
        copy: Exception = pickle.loads(pickle.dumps(error))  # noqa: S301  # what was pickled just now
    except Exception:  # an exception of anybody's may refuse in any way
        copy = EngineError(f"{type(error).__name__}: {error}")
    copy.add_note(f"in a worker:\n{trace}")
    return copy


@dataclass(slots=True)
class _Attempt(Generic[T]):
    """A drawn task without a result."""

    run: int
    position: int
    task: T
    deaths: int = 0

    def again(self, cause: str) -> Self:
        """Count a dead worker; EngineError if there were too many."""
        self.deaths += 1
        if self.deaths < DEATHS:
            return self
        raise EngineError(
            f"{str(self.task)[:_LONGEST_NAME]} ended {DEATHS} workers, one after the other; the last {cause}; "
            "what is finished is kept: mend that, and run the same command again"
        )


class _Course(Generic[T]):
    """Tasks of a run: those to do again, then those not drawn yet."""

    def __init__(self, run: int, tasks: Iterable[T], ahead: int | None) -> None:
        self.run, self.again, self.exhausted = run, deque[_Attempt[T]](), False
        self._tasks, self._ahead, self._drawn = iter(tasks), ahead, 0

    def next(self, at_work: Iterable[_Attempt[T]]) -> _Attempt[T] | None:
        """Return the next task; None if there is none, or none before an earlier one has its result."""
        if self.again:
            return self.again.popleft()
        first = min((attempt.position for attempt in at_work), default=self._drawn)
        if self.exhausted or (self._ahead is not None and self._drawn >= first + self._ahead):
            return None
        for task in self._tasks:
            self._drawn += 1
            return _Attempt(self.run, self._drawn - 1, task)
        self.exhausted = True
        return None


class Crew(Workers[T, R]):
    """Workers with a task at a time. A subclass starts them under the numbers of its choice."""

    def __init__(self, numbers: Iterable[int], watch: Watch) -> None:
        self._opening = set(numbers)
        self._watch = watch
        self._free: set[int] = set()
        self._at_work: dict[int, _Attempt[T]] = {}
        self._run = 0
        self._stillborn = 0

    @abstractmethod
    def _give(self, worker: int, task: T) -> None:
        """Send a task to a worker. The death of the worker is no error here: `_hear` reports it."""

    @abstractmethod
    def _hear(self) -> list[Report]:
        """Wait for reports, for a moment or longer; EngineError if none can come any more."""

    @abstractmethod
    def _replace(self, worker: int) -> None:
        """Start a worker under the number of a dead one."""

    @property
    def ready(self) -> int:
        """Workers ready or at work."""
        return len(self._free) + len(self._at_work)

    @property
    def wanted(self) -> int:
        """Workers ready, at work, or opening the job."""
        return max(1, self.ready + len(self._opening))

    def run(self, tasks: Iterable[T], *, ahead: int | None = None) -> Generator[tuple[int, R]]:
        """Yield (position of a task, its result) as results come, each once; see `Workers.run`."""
        self._run += 1  # what comes from a run that was closed early is dropped
        course = _Course(self._run, tasks, ahead)
        results = deque[tuple[int, R]]()
        while True:
            self._hand_out(course)
            # Only now: the workers are busy while the caller takes his time with these.
            while results:
                yield results.popleft()
            if course.exhausted and not course.again and not self._of(course):
                return
            # All of them are noted before the first leaves: the caller may close the run at any result.
            before = self.ready
            heard = [(report, self._note(report)) for report in self._hear()]
            if self.ready != before:
                self._watch(self.ready, self.wanted)
            for report, attempt in heard:
                if attempt is None or attempt.run != course.run:
                    continue
                if report.kind == "failed":
                    raise report.value
                if report.kind == "died":
                    course.again.append(attempt.again(report.value))
                else:
                    results.append((attempt.position, report.value))

    def _hand_out(self, course: _Course[T]) -> None:
        """Give each free worker a task."""
        for worker in sorted(self._free):
            attempt = course.next([*self._of(course), *course.again])
            if attempt is None:
                return
            self._free.discard(worker)
            self._at_work[worker] = attempt
            self._give(worker, attempt.task)

    def _of(self, course: _Course[T]) -> list[_Attempt[T]]:
        return [attempt for attempt in self._at_work.values() if attempt.run == course.run]

    def _note(self, report: Report) -> _Attempt[T] | None:
        """Enter a report in the books of workers; return the task that it is about.

        Raises:
            EngineError: workers die before they are ready.
            Exception: the error of a worker at opening the job.
        """
        attempt = self._at_work.pop(report.worker, None)
        opening = report.worker in self._opening
        self._opening.discard(report.worker)
        if report.kind == "died":
            self._stillborn += opening
            if self._stillborn >= DEATHS:
                raise EngineError(f"workers die before their first task; the last {report.value}")
            self._opening.add(report.worker)
            self._replace(report.worker)
            return attempt
        if opening and report.kind == "failed":
            raise report.value
        self._stillborn = 0
        self._free.add(report.worker)
        return attempt
