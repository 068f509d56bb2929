"""Merkle tree of RFC 9162, section 2.1: roots and proofs of all its sizes.

Only complete subtrees are kept, level by level, in 32 bytes a hash: 64 MB for a million leaves. An append costs one
hash on average; a root or a proof costs O(log n) hashes, also of an earlier size. `credit.proofs` checks proofs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from credit.proofs import leaf_hash, node_hash

_BYTES = 32
EMPTY_ROOT = hashlib.sha256().digest()
"""Root of a tree without leaves."""


class MerkleTree:
    """A growing tree; leaves are numbered from 0."""

    __slots__ = ("_levels",)

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        # The hashes of complete subtrees of 2**k leaves stand one behind the other in the k-th level.
        self._levels: list[bytearray] = [bytearray()]
        self.extend(leaves)

    def __len__(self) -> int:
        return len(self._levels[0]) // _BYTES

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Append leaves, given by their content."""
        for leaf in leaves:
            self._levels[0] += leaf_hash(leaf)
        self._complete()

    def _complete(self) -> None:
        """Hash each pair of subtrees without a parent."""
        below = self._levels[0]
        for level in range(1, len(self).bit_length()):
            if level == len(self._levels):
                self._levels.append(bytearray())
            here = self._levels[level]
            # Two children for each parent: what lies beyond in the level below has no parent yet.
            fresh = bytes(below[2 * len(here) :])
            for start in range(0, len(fresh) - 2 * _BYTES + 1, 2 * _BYTES):
                here += node_hash(fresh[start : start + _BYTES], fresh[start + _BYTES : start + 2 * _BYTES])
            below = here

    def root(self, size: int | None = None) -> bytes:
        """Return the root, of an earlier size if one is given."""
        return self._hash(0, self._known(len(self) if size is None else size))

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """Return the inclusion proof of a leaf in the tree of `size` leaves, from its sibling upwards."""
        path = []
        start, end = 0, self._known(size)
        if not 0 <= index < size:
            raise ValueError(f"leaf {index} is not in a tree of {size} leaves")
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                path.append(self._hash(middle, end))
                end = middle
            else:
                path.append(self._hash(start, middle))
                start = middle
        return path[::-1]

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Return the consistency proof from `old` leaves, or none, to `new` leaves."""
        path = []
        start, end, whole = 0, self._known(new), True
        if not 0 <= old <= new:
            raise ValueError(f"a tree of {new} leaves extends none of {old}")
        while 0 < old < end:
            middle = start + _split(end - start)
            if old <= middle:
                path.append(self._hash(middle, end))
                end = middle
            else:
                path.append(self._hash(start, middle))
                start, whole = middle, False
        # The old tree itself is known to whoever checks, unless it is the rest of a larger one.
        return path[::-1] if whole else [self._hash(start, end), *path[::-1]]

    def _known(self, size: int) -> int:
        if not 0 <= size <= len(self):
            raise ValueError(f"the tree has {len(self)} leaves, and never had {size}")
        return size

    def _hash(self, start: int, end: int) -> bytes:
        """Return the hash of the leaves `start` to `end`, a subtree as in RFC 9162."""
        count = end - start
        if count == 0:
            return EMPTY_ROOT
        if count & (count - 1) == 0:
            # A power of two at a multiple of itself is a complete subtree, and kept.
            place = start // count * _BYTES
            return bytes(self._levels[count.bit_length() - 1][place : place + _BYTES])
        middle = start + _split(count)
        return node_hash(self._hash(start, middle), self._hash(middle, end))


def _split(count: int) -> int:
    """Return the largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1
