"""What the readers of this package hand out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Generic, TypeVar

from credit.records import Place, Quarantined
from credit.text import counted

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Parsed(Generic[T_co]):
    """A record with the place and the bytes that it was read from, so that it can still be set aside later."""

    record: T_co
    place: Place
    raw: bytes

    def refuse(self, error: str) -> Quarantined:
        """Return the quarantined form of a record that turned out to be unusable."""
        return Quarantined(self.place, error, self.raw)


@dataclass(frozen=True, slots=True)
class ReadResult(Generic[T_co]):
    """A small file, read whole: the good records, the others, and what the reader wants known."""

    records: tuple[T_co, ...]
    quarantined: tuple[Quarantined, ...] = ()
    notices: tuple[str, ...] = ()


def notices_of_ignored(ignored: Counter[str]) -> tuple[str, ...]:
    """Say which fields were not read: a misspelt `weigth` must not vanish in silence."""
    return tuple(
        f"field `{name}` is not used (in {counted(count, 'record')})" for name, count in sorted(ignored.items())
    )
