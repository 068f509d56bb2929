"""Small pure jobs for workers, which they find by importing this module."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from credit.storage import write_whole


@dataclass(frozen=True)
class Squares:
    """Job of squares. Each opening leaves a file named after its process."""

    opened: Path | None = None

    def open(self) -> Callable[[int], int]:
        if self.opened is not None:
            (self.opened / str(os.getpid())).touch()
        return lambda number: number * number


@dataclass(frozen=True)
class Deadly:
    """Job of squares with workers that die by a real SIGKILL: at some tasks, as often as said."""

    marks: Path
    tasks: tuple[int, ...]
    times: int = 1

    def open(self) -> Callable[[int], int]:
        return self._square

    def _square(self, number: int) -> int:
        if number in self.tasks:
            for attempt in range(self.times):
                mark = self.marks / f"{number}-{attempt}"
                if not mark.exists():
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
        return number * number


@dataclass(frozen=True)
class Stillborn:
    """Job whose workers die as they open it."""

    def open(self) -> Callable[[int], int]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class Odd(Exception):
    """Error that needs two arguments: pickle can write it, and cannot read it."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


@dataclass(frozen=True)
class Failing:
    """Job with tasks that fail: by an error, by one that cannot travel, by a result that cannot, and by a full disk."""

    def open(self) -> Callable[[str], object]:
        return self._fail

    def _fail(self, how: str) -> object:
        if how == "value":
            raise ValueError("no such number")
        if how == "odd":
            raise Odd("not", "portable")
        if how == "result":
            return lambda: None
        if how == "disk":
            write_whole(Path("/dev/full/file"), b"")
        return how


@dataclass(frozen=True)
class Unopenable:
    """Job that no worker can open."""

    def open(self) -> Callable[[int], int]:
        raise ValueError("the model was moved")


@dataclass(frozen=True)
class Waiting:
    """Job of tasks that wait until a file is there, after they have left their process id."""

    folder: Path

    def open(self) -> Callable[[int], int]:
        return self._wait

    def _wait(self, number: int) -> int:
        (self.folder / f"began-{number}-{os.getpid()}").touch()
        while not (self.folder / f"go-{number}").exists() and not (self.folder / "go").exists():
            time.sleep(0.01)
        return number * number


@dataclass(frozen=True)
class Threads:
    """Job that tells how many threads its worker takes in a matrix product, and which GPU it was given."""

    def open(self) -> Callable[[int], tuple[int, str]]:
        import torch

        said = torch.__config__.parallel_info()
        (mkl,) = re.findall(r"mkl_get_max_threads\(\) : (\d+)", said)
        return lambda _: (max(torch.get_num_threads(), int(mkl)), os.environ.get("CUDA_VISIBLE_DEVICES", ""))
