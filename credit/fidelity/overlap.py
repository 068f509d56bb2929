"""Who contributed text that others contributed too: near-copies, padding with common text, and repetition.

Texts are compared by their shingles: every run of `SHINGLE` letters and digits, whatever its case and whatever stands
between them. Of a large corpus a sample of shingles is kept, the same ones in every text (those with the smallest
hashes; Broder 1997, "On the resemblance and containment of documents"), so that memory does not grow with the data.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from credit.errors import InvalidRequestError
from credit.records import TrainingRecord

SHINGLE = 32
"""Letters and digits of a shingle: some six words, long enough not to recur by chance."""
KEPT = 1 << 21
"""Shingles that are kept at the most, each for each provider that has it; 20 bytes each, and as much to sort them."""

_IGNORED = re.compile(r"[\W_]+")
_BASE = 0x9E3779B97F4A7C15
_BLOCK = 1 << 20
"""Characters that are hashed at a time."""
_ALL = np.uint64(2**64 - 1)

Hashes = NDArray[np.uint64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RecordOverlap:
    """How much of a record's text is in other data.

    Attributes:
        id: of the record.
        provider: who contributed it; several who share it stand with commas between, and are no others.
        shared: fraction of its text that any other provider has, 0 to 1.
        before: fraction that another provider had in a record that came before it.
        repeated: fraction that its own provider had in a record that came before it.
        other: who has most of it.
    """

    id: str
    provider: str
    shared: float
    before: float
    repeated: float
    other: str


@dataclass(frozen=True, slots=True)
class ProviderOverlap:
    """How much of a provider's text is in other providers' data, and how much is in its own more than once.

    Attributes:
        provider: whose text it is.
        records: how many it contributed.
        characters: letters and digits in them.
        shared: fraction that any other provider has, 0 to 1.
        before: fraction that another provider had in a record that came before.
        repeated: fraction that repeats text of its own.
        others: who has most of it, with the fractions, largest first.
    """

    provider: str
    records: int
    characters: int
    shared: float
    before: float
    repeated: float
    others: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Overlap:
    """What providers have in common.

    Attributes:
        providers: by name.
        records: those of which other providers have, or their own had before, at least what was asked for, in the
            order of the data.
        sampled: fraction of all shingles that were compared; 1: all.
    """

    providers: tuple[ProviderOverlap, ...]
    records: tuple[RecordOverlap, ...]
    sampled: float


@dataclass(slots=True)
class _Tally:
    records: int = 0
    characters: int = 0
    shingles: int = 0
    distinct: int = 0
    shared: int = 0
    before: int = 0
    others: Counter[int] = field(default_factory=Counter)


def find_overlap(
    records: Iterable[TrainingRecord],
    *,
    least: float = 0.8,
    kept: int = KEPT,
    progress: Callable[[int, int], None] | None = None,
) -> Overlap:
    """Compare everybody's text with everybody's, in two passes over the data.

    Args:
        records: training data that can be iterated over twice, and is the same each time.
        least: fraction of a record that other providers have, or its own had before, from which on it is named.
        kept: shingles that are kept; more are compared by a sample.
        progress: called with records done and in all, in the second pass.

    Raises:
        InvalidRequestError: `least` is no fraction, or nothing can be kept.
    """
    if not 0 < least <= 1:
        raise InvalidRequestError(f"at least {least:g} of a record: it must be above 0 and at most 1")
    if kept < 1:
        raise InvalidRequestError(f"{kept} shingles to be kept: at least one is needed")
    sketch = _Sketch(kept)
    for record in records:
        sketch.add(record)
    sketch.finish()
    found = []
    for number, record in enumerate(records):
        item = sketch.compare(number, record)
        if max(item.shared, item.repeated) >= least:
            found.append(item)
        if progress:
            progress(number + 1, sketch.records)
    return Overlap(sketch.summary(), tuple(found), 1.0 / sketch.scale)


class _Sketch:
    """The shingles of all texts, or a sample of them, with the providers that have them and the first record of each.

    Sorted by hash, then provider: the providers of one hash stand side by side.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self.scale = 1
        self.records = 0
        self._providers: dict[str, int] = {}
        self._tallies: list[_Tally] = []
        self._hash: Hashes = np.empty(0, np.uint64)
        self._provider: Ints = np.empty(0, np.int64)
        self._first: Ints = np.empty(0, np.int64)
        self._new: list[tuple[Hashes, int, int]] = []
        self._waiting = 0

    def add(self, record: TrainingRecord) -> None:
        """Take in a record's text: all of it for each who has a share of it."""
        text = _letters(record)
        hashes = np.unique(self._sample(text))
        for name in _owners(record):
            provider = self._providers.setdefault(name, len(self._providers))
            if provider == len(self._tallies):
                self._tallies.append(_Tally())
            tally = self._tallies[provider]
            tally.records += 1
            tally.characters += len(text)
            self._new.append((hashes, provider, self.records))
            self._waiting += len(hashes)
        self.records += 1
        if self._waiting >= self._kept:
            self._sort()

    def finish(self) -> None:
        """Make ready to compare."""
        self._sort()
        for provider, count in enumerate(np.bincount(self._provider, minlength=len(self._tallies))):
            self._tallies[provider].distinct = int(count)

    def compare(self, number: int, record: TrainingRecord) -> RecordOverlap:
        """Compare a record, of which `number` came before, with what others have."""
        owners = _owners(record)
        own = [self._providers[name] for name in owners]
        hashes = self._sample(_letters(record))
        low, high = (np.searchsorted(self._hash, hashes, side) for side in ("left", "right"))
        lengths = high - low
        place = np.repeat(np.arange(len(hashes)), lengths)
        entry = np.arange(len(place)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + low[place]
        came_before = self._first[entry] < number
        is_own = np.isin(self._provider[entry], own)
        repeated, shared, before = (
            len(np.unique(place[chosen])) for chosen in (is_own & came_before, ~is_own, ~is_own & came_before)
        )
        entry = entry[~is_own]
        counts = np.bincount(self._provider[entry], minlength=len(self._tallies))
        for provider in own:
            tally = self._tallies[provider]
            tally.shingles += len(hashes)
            tally.shared += shared
            tally.before += before
            tally.others.update({int(other): int(counts[other]) for other in np.flatnonzero(counts)})
        names = list(self._providers)
        most = names[int(counts.argmax())] if shared else ""
        total = max(len(hashes), 1)
        return RecordOverlap(record.id, ", ".join(owners), shared / total, before / total, repeated / total, most)

    def summary(self) -> tuple[ProviderOverlap, ...]:
        """Everything that was compared, by provider."""
        names = list(self._providers)
        return tuple(_summary(names[number], self._tallies[number], names) for number in np.argsort(names))

    def _sample(self, text: str) -> Hashes:
        """Hashes of a text's shingles that belong to the sample; a long text is taken in blocks."""
        starts = range(0, max(1, len(text) - SHINGLE + 1), _BLOCK)
        parts = (_shingles(text[start : start + _BLOCK + SHINGLE - 1]) for start in starts)
        return np.concatenate([hashes[hashes <= _ALL // np.uint64(self.scale)] for hashes in parts])

    def _sort(self) -> None:
        """Merge what is new, and keep a smaller sample for as long as there is too much."""
        hashes = [part for part, _, _ in self._new]
        owners, numbers = (np.array([item[place] for item in self._new], np.int64) for place in (1, 2))
        counts = np.array([len(part) for part in hashes], np.int64)
        self._hash = np.concatenate([self._hash, *hashes])
        self._provider = np.concatenate([self._provider, np.repeat(owners, counts)])
        self._first = np.concatenate([self._first, np.repeat(numbers, counts)])
        order = np.lexsort((self._first, self._provider, self._hash))
        self._take(order)
        known = np.zeros(len(order), bool)  # the same provider had it in a record before
        known[1:] = (self._hash[1:] == self._hash[:-1]) & (self._provider[1:] == self._provider[:-1])
        self._take(np.flatnonzero(~known))
        while len(self._hash) > self._kept:
            self.scale *= 2
            self._take(np.flatnonzero(self._hash <= _ALL // np.uint64(self.scale)))
        self._new, self._waiting = [], 0

    def _take(self, chosen: Ints) -> None:
        self._hash, self._provider, self._first = self._hash[chosen], self._provider[chosen], self._first[chosen]


def _summary(name: str, tally: _Tally, names: list[str]) -> ProviderOverlap:
    total = max(tally.shingles, 1)
    others = sorted(tally.others.items(), key=lambda item: (-item[1], names[item[0]]))
    return ProviderOverlap(
        provider=name,
        records=tally.records,
        characters=tally.characters,
        shared=tally.shared / total,
        before=tally.before / total,
        repeated=1 - tally.distinct / total if tally.shingles else 0.0,
        others=tuple((names[other], count / total) for other, count in others),
    )


def _owners(record: TrainingRecord) -> list[str]:
    return sorted({share.group.provider for share in record.shares})


def _letters(record: TrainingRecord) -> str:
    """The text that a model is trained to predict, less everything but letters and digits."""
    return "".join(_IGNORED.sub("", part.casefold()) for part in _predicted(record))


def _predicted(record: TrainingRecord) -> Iterator[str]:
    if not record.messages:
        yield record.completion
    for message in record.messages:
        if message.role == "assistant":
            yield message.content


def _shingles(text: str) -> Hashes:
    """Hashes of all runs of `SHINGLE` characters; of the whole text if it is shorter; none of an empty one."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    if not len(codes):
        return np.empty(0, np.uint64)
    length = min(SHINGLE, len(codes))
    # Rolling polynomial in arithmetic modulo 2^64, by prefix sums of c_i·b^i; b^-i brings a window to its start.
    powers = np.cumprod(np.full(len(codes), _BASE, np.uint64))
    inverses = np.cumprod(np.full(len(codes), pow(_BASE, -1, 2**64), np.uint64))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum((codes + np.uint64(1)) * powers)])
    return _mixed((sums[length:] - sums[:-length]) * inverses[: len(codes) - length + 1])


def _mixed(values: Hashes) -> Hashes:
    """Spread over all 64 bits (the finaliser of SplitMix64; Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
