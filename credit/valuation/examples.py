"""Training examples: encoded from records, hashed together, and listed in an index."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np

from credit.errors import InputError, MismatchError, NothingToPredictError
from credit.records import PPM, Group, Share
from credit.storage import sha256_file, written_whole
from credit.valuation.example_store import StoredExamples
from credit.valuation.manifest import ExcludedExample, IndexManifest
from credit.valuation.rows import ExampleColumns, RowLayout
from credit.valuation.task import AnyExample, ExampleEncoder, Tagged, short_digest
from credit.valuation.tokens import Segment, Window

EXAMPLES_FILE = "examples.jsonl"

T = TypeVar("T")
TaggedRecord = TypeVar("TaggedRecord", bound=Tagged)

Unusable = Callable[[InputError], None]
"""Takes the error of a record without examples, which is left out. The record is the one that was read last."""

_MODULUS = 1 << 256


@dataclass(frozen=True, slots=True)
class Member:
    """An example of an index, in a build or a change. It has old rows, content, or both, unless it was excluded.

    Attributes:
        id: id of the example.
        shares: the groups' shares of it.
        tokens: its predicted tokens.
        digest: the start of its digest.
        old_rows: its rows before the change, one for each of its `shares`; none if it joins or was excluded.
        example: its content, if it joins or leaves.
    """

    id: str
    shares: tuple[Share, ...]
    tokens: int
    digest: str
    old_rows: tuple[int, ...] = ()
    example: AnyExample | None = None

    @property
    def is_excluded(self) -> bool:
        """True if an earlier build or change excluded it."""
        return not self.old_rows and self.example is None


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Encoded training data: N examples, and the hash of all of them, in any order."""

    members: Sequence[Member]
    sha256: str

    def keep(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Keep tokenised texts in a folder, with some facts, for `open`; other data are not kept.

        Raises:
            ValuationError: the disk is full.
        """
        if isinstance(self.members, StoredMembers):
            self.members.store.keep(folder, {"sha256": self.sha256, "told": facts})

    @classmethod
    def open(cls, folder: Path) -> tuple[TrainingData, dict[str, Any]]:
        """Open kept data; return them with the facts.

        Raises:
            IntegrityError: a file is missing or altered.
        """
        store, kept = StoredExamples.open(folder)
        return cls(StoredMembers(store), kept["sha256"]), kept["told"]


@dataclass(frozen=True, slots=True)
class IndexedExample:
    """An entry in an index's listing: an example's row, its number of predicted tokens, the start of its digest.

    A shared example has an entry for each of its groups, with the row there and the share in parts per million.
    """

    id: str
    row: int
    tokens: int
    digest: str
    ppm: int = PPM


class StoredMembers(Sequence[Member]):
    """Members of a build, each made from the store of its examples when it is asked for."""

    def __init__(self, store: StoredExamples) -> None:
        self.store = store
        self.columns = ExampleColumns(store.keys, store.predicted, store.kinds, store.kind, store.id_of)

    def __len__(self) -> int:
        return len(self.store)

    @overload
    def __getitem__(self, at: int) -> Member: ...
    @overload
    def __getitem__(self, at: slice) -> list[Member]: ...
    def __getitem__(self, at: int | slice) -> Member | list[Member]:
        if isinstance(at, slice):
            return [self[position] for position in range(*at.indices(len(self)))]
        if not 0 <= at < len(self):
            raise IndexError(at)
        (example,) = self.store.take([at])
        shares = self.store.kinds[self.columns.kind[at]]
        return Member(example.id, shares, example.predicted, self.store.digest_of(at), example=example)


def columns_of(members: Sequence[Member]) -> ExampleColumns:
    """Return the columns of members, from which their rows follow."""
    if isinstance(members, StoredMembers):
        return members.columns
    ids = [member.id for member in members]
    return ExampleColumns.of(ids, [member.shares for member in members], [member.tokens for member in members])


def encode_training(
    records: Iterable[Tagged],
    encoder: ExampleEncoder,
    length: int | None = None,
    unusable: Unusable | None = None,
    *,
    folder: Path | None = None,
) -> TrainingData:
    """Turn training records into examples of at most `length` predictions; None leaves windows whole.

    Texts are tokenised into files: memory holds no more than a few numbers of each example.

    Args:
        records: the training data.
        encoder: the model's encoder.
        length: predictions of an example, at most.
        unusable: takes the errors of records the encoder refuses, or with nothing to predict. Without it, a
            refused record is an error, and a Python warning counts the others.
        folder: folder of the disk for the files; None for the system's temporary one.

    Raises:
        InputError: there is nothing to index, or two examples have the same id.
        ValuationError: the disk is full.
    """
    held: list[Member] = []
    store = StoredExamples(folder)
    total = empty = 0
    for record in records:
        try:
            examples = _some_examples(record, encoder, length)
        except InputError as error:
            if unusable is not None:
                unusable(error)
            elif isinstance(error, NothingToPredictError):
                empty += 1
            else:
                raise
            continue
        shares = record.shares
        for example in examples:
            digest = example.digest()
            total += _hash(digest, shares)
            if isinstance(example, Window | Segment):
                store.add(example, shares, digest)
            else:
                held.append(Member(example.id, shares, example.predicted, digest[:8].hex(), example=example))
    if empty:
        warnings.warn(f"records without a token to predict, which are left out: {empty}", stacklevel=2)
    members: Sequence[Member] = held or StoredMembers(store)
    if not members:
        raise InputError("the training data holds no record that can be indexed")
    if repeated := columns_of(members).repeated_id():
        raise InputError(f"two training examples have the id {repeated!r}; ids must be unique")
    return TrainingData(members, _hex(total % _MODULUS))


def _some_examples(record: Tagged, encoder: ExampleEncoder, length: int | None) -> list[Any]:
    examples = list(examples_of(record, encoder, length))
    if not examples:
        raise NothingToPredictError("it has no token to predict")
    return examples


def usable_records(records: Iterable[T], encoder: ExampleEncoder) -> Iterator[T]:
    """Yield the records with examples: those that `encode_training` does not leave out."""
    for record in records:
        try:
            if any(True for _ in encoder.training(record)):
                yield record
        except InputError:
            continue


def indexed_records(
    records: Iterable[TaggedRecord], encoder: ExampleEncoder, folder: Path, manifest: IndexManifest, unusable: Unusable
) -> Iterator[TaggedRecord]:
    """Yield the records with examples, and compare all of these with the data of an index at the end.

    Args:
        records: training data, in any order.
        encoder: the index's encoder.
        folder: the index, for the message.
        manifest: its manifest.
        unusable: takes the errors of records without examples, as in `encode_training`.

    Raises:
        MismatchError: the data is not the index's; raised after the last record.
    """
    total = 0
    for record in records:
        try:
            examples = _some_examples(record, encoder, manifest.settings.example_length)
        except InputError as error:
            unusable(error)
            continue
        total += sum(_hash(example.digest(), record.shares) for example in examples)
        yield record
    if _hex(total % _MODULUS) != manifest.data_sha256:
        raise MismatchError(
            f"this is not the data that {folder} was built from; give all of its files, read in the same way"
        )


def examples_of(record: Tagged, encoder: ExampleEncoder, length: int | None) -> Iterator[Any]:
    """Yield the examples of a record, of at most `length` predictions; None leaves windows whole."""
    for window in encoder.training(record):
        yield from [window] if length is None else encoder.cut(window, length)


def hash_of(members: Iterable[Member]) -> int:
    """Return the hash of a set of examples with their shares: the sum of their SHA-256 modulo 2^256.

    Order does not matter, and adding or withdrawing data adds or subtracts. The hash tells data sets apart that differ
    by accident; it does not withstand a search for collisions.
    """
    total = 0
    for member in members:
        assert member.example is not None  # noqa: S101  # only what joins or leaves is hashed, with its content
        total += _hash(member.example.digest(), member.shares)
    return total % _MODULUS


def _hash(digest: bytes, shares: Sequence[Share]) -> int:
    """Return the hash of an example with its shares."""
    owners = str(shares[0].group) if len(shares) == 1 else "\n".join(f"{s.group}={s.ppm}" for s in shares)
    return int.from_bytes(hashlib.sha256(digest + owners.encode()).digest(), "big")


def changed_hash(before: str, change: int) -> str:
    """Return the hash of a data set after a change: `hash_of` the added examples, or minus that of withdrawn ones."""
    return _hex((int(before, 16) + change) % _MODULUS)


def _hex(value: int) -> str:
    return f"{value:064x}"


def read_listing(path: Path) -> Iterator[IndexedExample]:
    """Yield all examples of an index in the order of their rows."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield IndexedExample(*json.loads(line))


def write_listing(path: Path, listed: Iterable[IndexedExample]) -> str:
    """Write the listing of an index, given in the order of its rows and then of ids; return the file's SHA-256."""
    with written_whole(path) as beside:
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            for item in listed:
                share = [] if item.ppm == PPM else [item.ppm]
                file.write(json.dumps([item.id, item.row, item.tokens, item.digest, *share]) + "\n")
        return sha256_file(beside)


def listing(members: Sequence[Member], layout: RowLayout) -> Iterator[IndexedExample]:
    """Yield the entries of members, given in the order of the layout's examples, by row and then by id."""
    order = np.argsort(layout.row_of, kind="stable")
    rows = layout.row_of[order]
    owner = np.repeat(np.arange(len(members)), np.diff(layout.first))
    for low, high in pairwise([*np.flatnonzero(np.diff(rows, prepend=-2)).tolist(), len(rows)]):
        if rows[low] < 0:
            continue
        own = [
            IndexedExample(name, int(rows[low]), tokens, digest, int(layout.ppm[slot]))
            for slot in order[low:high].tolist()
            for name, tokens, digest in [_entry(members, int(owner[slot]))]
        ]
        yield from sorted(own, key=lambda item: item.id)


def _entry(members: Sequence[Member], at: int) -> tuple[str, int, str]:
    """Return id, predicted tokens and digest of a member, without reading its tokens."""
    if isinstance(members, StoredMembers):
        return members.store.id_of(at), int(members.columns.tokens[at]), members.store.digest_of(at)
    member = members[at]
    return member.id, member.tokens, member.digest


def excluded_examples(members: Iterable[Member], excluded: Collection[str]) -> tuple[ExcludedExample, ...]:
    """Return the members whose ids are in `excluded`, as a manifest lists them."""
    if not excluded:
        return ()
    return tuple(ExcludedExample(own.id, own.shares, own.digest) for own in members if own.id in excluded)


def match_members(
    folder: Path,
    encoder: ExampleEncoder,
    records: Iterable[Tagged],
    listed: Mapping[Group, Mapping[str, tuple[str, int]]],
    length: int | None,
) -> list[Member]:
    """Find the examples of some groups of an index in training data, and pass over records of other groups.

    Args:
        folder: the index, for messages.
        encoder: encoder with the index's tokenizer and length.
        records: training data.
        listed: for each group the ids of all its examples, with their digests and the group's shares in parts per
            million.
        length: predictions of an example, at most; see `encode_training`.

    Returns:
        Each example once, with its content and the shares of all groups.

    Raises:
        MismatchError: an example is not in the index, or has another content or share there.
        InputError: an example of the index is not in the data.
    """
    missing = {group: dict(ids) for group, ids in listed.items()}
    found = []
    for record in records:
        asked = [share for share in record.shares if share.group in listed]
        if not asked:
            continue
        try:
            examples = list(examples_of(record, encoder, length))
        except InputError:
            continue  # the build left it out, or its examples are missing below
        for example in examples:
            digest = short_digest(example)
            for share in asked:
                if missing[share.group].pop(example.id, None) != (digest, share.ppm):
                    raise MismatchError(f"{example.id} of {share.group} is not what {folder} was built from")
            found.append(Member(example.id, record.shares, example.predicted, digest, example=example))
    for group, ids in missing.items():
        if ids:
            raise InputError(f"the data lacks {len(ids)} examples of {group} that are in {folder}: {min(ids)}")
    return found
