"""Training data as the engine sees it: examples with their groups, a hash of all of it, and its listing in an index."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from credit.errors import InputError, MismatchError
from credit.records import PPM, Group, Share
from credit.storage import sha256_file, write_whole
from credit.valuation.manifest import ExcludedExample
from credit.valuation.rows import RowLayout
from credit.valuation.task import AnyExample, ExampleEncoder, Tagged, short_digest

EXAMPLES_FILE = "examples.jsonl"

_MODULUS = 1 << 256


@dataclass(frozen=True, slots=True)
class Member:
    """An example of an index that is built or changed. It has its old rows, or its content, or was excluded.

    Attributes:
        id: its id.
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
    """Encoded training data: its N examples, and a hash of all of it that ignores their order."""

    members: Sequence[Member]
    sha256: str


@dataclass(frozen=True, slots=True)
class IndexedExample:
    """An example as an index lists it: its row, its number of predicted tokens, and the start of its digest.

    One that several groups share is listed once for each, with the row there and the share in parts per million.
    """

    id: str
    row: int
    tokens: int
    digest: str
    ppm: int = PPM


def encode_training(records: Iterable[Tagged], encoder: ExampleEncoder, length: int | None = None) -> TrainingData:
    """Turn training records into examples of at most `length` predictions; None leaves windows whole.

    Raises:
        InputError: there is nothing to index, or two examples share an id.
    """
    members: list[Member] = []
    seen: set[str] = set()
    for record in records:
        for example in examples_of(record, encoder, length):
            if example.id in seen:
                raise InputError(f"two training examples have the id {example.id!r}; ids must be unique")
            seen.add(example.id)
            digest = short_digest(example)
            members.append(Member(example.id, record.shares, example.predicted, digest, example=example))
    if not members:
        raise InputError("the training data holds no record that can be indexed")
    return TrainingData(members, _hex(hash_of(members)))


def examples_of(record: Tagged, encoder: ExampleEncoder, length: int | None) -> Iterator[Any]:
    """Yield the examples of a record, of at most `length` predictions; None leaves windows whole."""
    for window in encoder.training(record):
        yield from [window] if length is None else encoder.cut(window, length)


def hash_of(members: Iterable[Member]) -> int:
    """Return the hash of a set of examples with their shares: the sum of their SHA-256 modulo 2^256.

    Order does not matter, and data that is added or withdrawn is an addition or a subtraction. It tells data sets
    apart that differ by accident; it is not meant to withstand somebody who searches for a collision.
    """
    total = 0
    for member in members:
        assert member.example is not None  # noqa: S101  # only what joins or leaves is hashed, with its content
        shares = member.shares
        owners = str(shares[0].group) if len(shares) == 1 else "\n".join(f"{s.group}={s.ppm}" for s in shares)
        digest = hashlib.sha256(member.example.digest() + owners.encode()).digest()
        total += int.from_bytes(digest, "big")
    return total % _MODULUS


def changed_hash(before: str, change: int) -> str:
    """Hash of a data set after a change: `hash_of` what was added, or minus `hash_of` what was withdrawn."""
    return _hex((int(before, 16) + change) % _MODULUS)


def _hex(value: int) -> str:
    return f"{value:064x}"


def read_listing(path: Path) -> Iterator[IndexedExample]:
    """Yield all examples of an index in the order of their rows."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield IndexedExample(*json.loads(line))


def write_listing(path: Path, listed: Iterable[IndexedExample]) -> str:
    """List the examples of an index, in the order of their rows; return the file's SHA-256."""
    lines = [
        json.dumps([item.id, item.row, item.tokens, item.digest, *([] if item.ppm == PPM else [item.ppm])])
        for item in sorted(listed, key=lambda item: (item.row, item.id))
    ]
    write_whole(path, ("\n".join(lines) + "\n").encode())
    return sha256_file(path)


def listing(members: Iterable[Member], layout: RowLayout) -> Iterator[IndexedExample]:
    """Yield what an index lists of its members, which come in the order of the layout's examples."""
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
    members: Mapping[Group, Mapping[str, tuple[str, int]]],
    length: int | None,
) -> list[Member]:
    """Find the examples of some groups of an index in training data; records of other groups are passed over.

    Args:
        folder: the index, for messages.
        encoder: the tokenizer and length that the index was built with.
        records: training data.
        members: for each group the ids of all its examples, with their digests and its share of each, in parts per
            million.
        length: predictions of an example at most, as of `encode_training`.

    Returns:
        Each example once, with its content and the shares of all groups.

    Raises:
        MismatchError: an example is not in the index, or has another content or share there.
        InputError: an example of the index is not in the data.
    """
    missing = {group: dict(ids) for group, ids in members.items()}
    found = []
    for record in records:
        asked = [share for share in record.shares if share.group in members]
        if not asked:
            continue
        for example in examples_of(record, encoder, length):
            digest = short_digest(example)
            for share in asked:
                if missing[share.group].pop(example.id, None) != (digest, share.ppm):
                    raise MismatchError(f"{example.id} of {share.group} is not what {folder} was built from")
            found.append(Member(example.id, record.shares, example.predicted, digest, example=example))
    for group, ids in missing.items():
        if ids:
            raise InputError(f"the data lacks {len(ids)} examples of {group} that are in {folder}: {min(ids)}")
    return found
