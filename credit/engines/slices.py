"""Slices of work for machines without a coordinator, as the tasks of a job array are."""

from __future__ import annotations

import re
from dataclasses import dataclass

from credit.errors import InvalidRequestError

SLICE_LOCKS = ".slice-*-of-*.lock"
"""Pattern of the locks of slices at work in a folder."""

_TEXT = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class Slice:
    """Slice `number` of `count`, counted from 1. Every task is in one of them."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise InvalidRequestError(f"there is no slice {self}; slices of {self.count} are 1/{self.count} and so on")

    @classmethod
    def read(cls, text: str) -> Slice:
        """Read `I/N`.

        Raises:
            InvalidRequestError: the text is something else.
        """
        if found := _TEXT.fullmatch(text):
            return cls(int(found[1]), int(found[2]))
        raise InvalidRequestError(f"{text!r} is not a slice; write I/N, such as 2/8")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def lock(self) -> str:
        """Name of the file that a process locks while it is at work on this slice."""
        return f".slice-{self.number}-of-{self.count}.lock"

    def __contains__(self, task: object) -> bool:
        """Return True for the number of a task, counted from 0, in this slice. Neighbours lie in different ones."""
        return isinstance(task, int) and task % self.count == self.number - 1
