"""Overlap of text between providers: near-copies, padding with common text, and repetition.

Texts are folded first (`credit.fidelity.folding`), and then compared by their shingles: all runs of `SHINGLE` letters
and digits. Of a large corpus only a sample of shingles is kept, the same in every text (those with the smallest hashes;
Broder 1997, "On the resemblance and containment of documents"). Memory does not grow with the data.

A replaced word breaks all shingles across it. So text is looked at in blocks: a block with `DENSE` of its shingles in
the text of one other provider counts as found there as a whole. Phrases that people share are too thin for that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from credit.errors import InvalidRequestError
from credit.fidelity.folding import folded
from credit.records import TrainingRecord

SHINGLE = 24
"""Letters and digits of a shingle: some five words. Longer ones fit between few replaced words, shorter ones recur."""
BLOCK = 256
"""Shingles of a block, some 50 words; of a sample as many fewer, but no fewer than `SAMPLED_BLOCK`."""
SAMPLED_BLOCK = 64
DENSE = 0.25
"""Fraction of a block's shingles in one other provider's text from which on it counts whole."""
LEAST = 24
"""Shingles that must be found besides: a short text with one common phrase in it is no copy."""
KEPT = 1 << 21
"""Most shingles that are kept, counted once for each provider that has them; 20 bytes each, and as much to sort."""

_BASE = 0x9E3779B97F4A7C15
PIECE = 1 << 20
"""Characters hashed at a time."""
_ALL = np.uint64(2**64 - 1)

Hashes = NDArray[np.uint64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RecordOverlap:
    """Fractions (0 to 1) of a record's text found in other data.

    Attributes:
        id: id of the record.
        provider: its provider, or its providers with commas between them.
        shared: found with any other provider.
        before: found in an earlier record of another provider.
        repeated: found in an earlier record of its own provider.
        other: the provider with most of it.
    """

    id: str
    provider: str
    shared: float
    before: float
    repeated: float
    other: str


@dataclass(frozen=True, slots=True)
class ProviderOverlap:
    """Fractions (0 to 1) of a provider's text found with other providers, or more than once in its own.

    Attributes:
        provider: key of the provider.
        records: number of its records.
        characters: letters and digits in them.
        shared: found with any other provider.
        before: found in an earlier record of another provider.
        repeated: repeats its own text.
        others: the other providers with their fractions, largest first.
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
    """Overlap of a whole corpus.

    Attributes:
        providers: all providers, by name.
        records: records with at least the wanted fraction shared or repeated, in the order of the data.
        sampled: compared fraction of all shingles; 1: all.
    """

    providers: tuple[ProviderOverlap, ...]
    records: tuple[RecordOverlap, ...]
    sampled: float


@dataclass(slots=True)
class _Tally:
    """Running counts of one provider; all but records and characters are in shingles."""

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
    """Compare the text of all providers with each other, in two passes over the data.

    Args:
        records: training data, the same in each of two iterations.
        least: fraction from which on a record is named, shared with others or repeated.
        kept: most shingles to keep; a sample stands for more.
        progress: called in the second pass, with records done and in all.

    Raises:
        InvalidRequestError: `least` is no fraction, or nothing can be kept.
    """
    if not 0 < least <= 1:
        raise InvalidRequestError(f"a shared fraction of {least:g} is not above 0 and at most 1: --least")
    if kept < 1:
        raise InvalidRequestError(f"{kept} shingles are too few to compare; keep at least 1")
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
    """Shingles of all texts, or a sample: each with its providers, and with the first record of each of those.

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
        """Add the text of a record, the whole of it for each of its providers."""
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
        """Count the distinct shingles, after the last record."""
        self._sort()
        for provider, count in enumerate(np.bincount(self._provider, minlength=len(self._tallies))):
            self._tallies[provider].distinct = int(count)

    def compare(self, number: int, record: TrainingRecord) -> RecordOverlap:
        """Compare a record with the sketch. `number`: count of the records before it."""
        owners = _owners(record)
        own = [self._providers[name] for name in owners]
        hashes = self._sample(_letters(record))
        low, high = (np.searchsorted(self._hash, hashes, side) for side in ("left", "right"))
        lengths = high - low
        place = np.repeat(np.arange(len(hashes)), lengths)
        entry = np.arange(len(place)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + low[place]
        came_before = self._first[entry] < number
        is_own = np.isin(self._provider[entry], own)
        blocks = _Blocks(len(hashes), self.scale)
        providers = self._provider[entry]
        repeated = blocks.found(place[is_own & came_before], providers[is_own & came_before]).total
        shared, before = (blocks.found(place[chosen], providers[chosen]) for chosen in (~is_own, ~is_own & came_before))
        for provider in own:
            tally = self._tallies[provider]
            tally.shingles += len(hashes)
            tally.shared += shared.total
            tally.before += before.total
            tally.others.update(shared.by_provider)
        names = list(self._providers)
        most = max(shared.by_provider.items(), key=lambda item: (item[1], -item[0]), default=None)
        total = max(len(hashes), 1)
        return RecordOverlap(
            record.id,
            ", ".join(owners),
            shared.total / total,
            before.total / total,
            repeated / total,
            names[most[0]] if most else "",
        )

    def summary(self) -> tuple[ProviderOverlap, ...]:
        """Return the overlap of each provider, by name."""
        names = list(self._providers)
        return tuple(_summary(names[number], self._tallies[number], names) for number in np.argsort(names))

    def _sample(self, text: str) -> Hashes:
        """Return the hashes of a text's shingles within the sample; pieces bound the memory of a long text."""
        starts = range(0, max(1, len(text) - SHINGLE + 1), PIECE)
        parts = (_shingles(text[start : start + PIECE + SHINGLE - 1]) for start in starts)
        return np.concatenate([hashes[hashes <= _ALL // np.uint64(self.scale)] for hashes in parts])

    def _sort(self) -> None:
        """Merge the new shingles. Halve the sample as long as there are too many."""
        hashes = [part for part, _, _ in self._new]
        owners, numbers = (np.array([item[place] for item in self._new], np.int64) for place in (1, 2))
        counts = np.array([len(part) for part in hashes], np.int64)
        self._hash = np.concatenate([self._hash, *hashes])
        self._provider = np.concatenate([self._provider, np.repeat(owners, counts)])
        self._first = np.concatenate([self._first, np.repeat(numbers, counts)])
        order = np.lexsort((self._first, self._provider, self._hash))
        self._take(order)
        known = np.zeros(len(order), bool)  # the same provider had it in an earlier record
        known[1:] = (self._hash[1:] == self._hash[:-1]) & (self._provider[1:] == self._provider[:-1])
        self._take(np.flatnonzero(~known))
        while len(self._hash) > self._kept:
            self.scale *= 2
            self._take(np.flatnonzero(self._hash <= _ALL // np.uint64(self.scale)))
        self._new, self._waiting = [], 0

    def _take(self, chosen: Ints) -> None:
        self._hash, self._provider, self._first = self._hash[chosen], self._provider[chosen], self._first[chosen]


@dataclass(frozen=True, slots=True)
class _SharedShingles:
    """Shingles of a record that were found: with anybody, and with each provider. Whole blocks count whole."""

    total: int
    by_provider: dict[int, int]


class _Blocks:
    """The blocks of a record with `count` shingles, one of `scale`: the last block is up to half as long again."""

    def __init__(self, count: int, scale: int) -> None:
        self._count = count
        self._size = max(BLOCK // scale, SAMPLED_BLOCK)
        number = max(1, (count + self._size // 2) // self._size)
        self._lengths = np.full(number, self._size, np.int64)
        self._lengths[-1] = count - self._size * (number - 1)
        self._least = np.maximum(DENSE * self._lengths, LEAST / scale)

    def found(self, places: Ints, providers: Ints) -> _SharedShingles:
        """Count the shingles at `places`, each found with one of `providers`."""
        if not len(places):
            return _SharedShingles(0, {})
        blocks = np.minimum(places // self._size, len(self._lengths) - 1)
        keys, counts = np.unique(providers * len(self._lengths) + blocks, return_counts=True)
        provider, block = np.divmod(keys, len(self._lengths))
        whole = counts >= self._least[block]
        by_provider = np.bincount(provider, np.where(whole, self._lengths[block], counts))
        # With anybody: a whole block, or else the places found in it.
        dense = np.zeros(len(self._lengths), bool)
        dense[block[whole]] = True
        total = int(self._lengths[dense].sum()) + len(np.unique(places[~dense[blocks]]))
        return _SharedShingles(total, {int(who): int(by_provider[who]) for who in np.flatnonzero(by_provider)})


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
    """Return the letters and digits of the text to be predicted."""
    return "".join(map(folded, _predicted(record)))


def _predicted(record: TrainingRecord) -> Iterator[str]:
    if not record.messages:
        yield record.completion
    for message in record.messages:
        if message.role == "assistant":
            yield message.content


def _shingles(text: str) -> Hashes:
    """Return hashes of all runs of `SHINGLE` characters, or of a whole shorter text; none of an empty one."""
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
    """Spread hashes over all 64 bits (finaliser of SplitMix64; Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
