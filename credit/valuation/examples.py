"""Training examples: encoded from records, hashed together, and listed in an index."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from credit.errors import InputError, MismatchError, NothingToPredictError
from credit.records import PPM, Group, Share
from credit.storage import sha256_file, write_whole
from credit.valuation.manifest import ExcludedExample, IndexManifest
from credit.valuation.rows import RowLayout
from credit.valuation.task import AnyExample, ExampleEncoder, Tagged, short_digest

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


def encode_training(
    records: Iterable[Tagged], encoder: ExampleEncoder, length: int | None = None, unusable: Unusable | None = None
) -> TrainingData:
    """Turn training records into examples of at most `length` predictions; None leaves windows whole.

    Args:
        records: the training data.
        encoder: the model's encoder.
        length: predictions of an example, at most.
        unusable: takes the errors of records the encoder refuses, or with nothing to predict. Without it, a
            refused record is an error, and a Python warning counts the others.

    Raises:
        InputError: there is nothing to index, or two examples have the same id.
    """
    members: list[Member] = []
    seen: set[str] = set()
    empty = 0
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
        for example in examples:
            if example.id in seen:
                raise InputError(f"two training examples have the id {example.id!r}; ids must be unique")
            seen.add(example.id)
            digest = short_digest(example)
            members.append(Member(example.id, record.shares, example.predicted, digest, example=example))
    if empty:
        warnings.warn(f"records without a token to predict, which are left out: {empty}", stacklevel=2)
    if not members:
        raise InputError("the training data holds no record that can be indexed")
    return TrainingData(members, _hex(hash_of(members)))


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
        total += sum(_hash_of_one(example, record.shares) for example in examples)
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
        total += _hash_of_one(member.example, member.shares)
    return total % _MODULUS


def _hash_of_one(example: AnyExample, shares: Sequence[Share]) -> int:
    owners = str(shares[0].group) if len(shares) == 1 else "\n".join(f"{s.group}={s.ppm}" for s in shares)
    return int.from_bytes(hashlib.sha256(example.digest() + owners.encode()).digest(), "big")


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
    """Write the listing of an index in the order of its rows; return the file's SHA-256."""
    lines = [
        json.dumps([item.id, item.row, item.tokens, item.digest, *([] if item.ppm == PPM else [item.ppm])])
        for item in sorted(listed, key=lambda item: (item.row, item.id))
    ]
    write_whole(path, ("\n".join(lines) + "\n").encode())
    return sha256_file(path)


def listing(members: Iterable[Member], layout: RowLayout) -> Iterator[IndexedExample]:
    """Yield the entries of members, given in the order of the layout's examples."""
    for number, member in enumerate(members):
        for row, share in zip(layout.rows_of(number), member.shares, strict=True):
            if row >= 0:
                yield IndexedExample(member.id, int(row), member.tokens, member.digest, share.ppm)


def excluded_examples(members: Iterable[Member], excluded: Collection[str]) -> tuple[ExcludedExample, ...]:
    """Return the members whose ids are in `excluded`, as a manifest lists them."""
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
