"""Report of a verification: the problems found, and the heads of both chains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from credit.errors import IntegrityError


@dataclass(frozen=True, slots=True)
class Problem:
    """A difference between the ledger and its record; `place` is a row, a file or a database object."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Result of a verification.

    Attributes:
        checked: rows checked by table, and the number of score book files.
        chain_seq: number of the last transaction; 0 where there is none.
        chain_head: hash of the last transaction.
        seal_head: hash of the last seal.
        problems: in the order of the checks; look at the first one first.
        unchecked: in words, each missing thing; nothing could be checked of it.
        unknown: in words, what cannot be known without a head from outside; empty where one was given.
    """

    checked: Mapping[str, int]
    chain_seq: int
    chain_head: str
    seal_head: str
    problems: tuple[Problem, ...]
    unchecked: tuple[str, ...] = ()
    unknown: str = ""

    def raise_for_problems(self) -> None:
        """Raise IntegrityError with the first problem and the number of others, if any."""
        if self.problems:
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            raise IntegrityError(f"{self.problems[0]}{more}")
