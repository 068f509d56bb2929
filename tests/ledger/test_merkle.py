"""The tree is that of RFC 9162: its published vectors, and the definition itself as the slow reference."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from itertools import product

import pytest

from credit.ledger.merkle import MerkleTree
from credit.proofs import Head, Note, ProofError, extends, root_by_inclusion

LEAVES = [bytes.fromhex(text) for text in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
"""Roots of the first leaves, from none to eight: the vectors of Certificate Transparency for RFC 6962, whose tree
RFC 9162 keeps (transparency-dev/merkle, testonly/constants.go)."""

INCLUSION = {
    (0, 8): ("96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
             "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
             "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"),
    (5, 8): ("bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
             "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
             "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
    (2, 3): ("fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",),
}  # fmt: skip
CONSISTENCY = {
    (2, 8): ("5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
             "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"),
    (6, 8): ("0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
             "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
             "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
    (2, 5): ("5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
             "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"),
}  # fmt: skip

MANY = [bytes([number]) for number in range(40)]


def reference(leaves: Sequence[bytes]) -> bytes:
    """The root as RFC 9162, 2.1.1 defines it."""
    if len(leaves) < 2:
        return sha256(b"\x00" + leaves[0]).digest() if leaves else sha256().digest()
    split = next(2**power for power in range(60, -1, -1) if 2**power < len(leaves))
    return sha256(b"\x01" + reference(leaves[:split]) + reference(leaves[split:])).digest()


def head(leaves: Sequence[bytes]) -> Head:
    return Head("log", len(leaves), reference(leaves), "", Note("", ()))


def test_the_published_roots_and_proofs():
    tree = MerkleTree(LEAVES)
    assert [tree.root(size).hex() for size in range(9)] == list(ROOTS)
    for (index, size), path in INCLUSION.items():
        assert [item.hex() for item in tree.inclusion(index, size)] == list(path)
    for (old, new), path in CONSISTENCY.items():
        assert [item.hex() for item in tree.consistency(old, new)] == list(path)


def test_every_root_and_inclusion_proof_of_every_size():
    tree = MerkleTree(MANY)
    for size in range(1, len(MANY) + 1):
        assert tree.root(size) == reference(MANY[:size])
        for index in range(size):
            assert root_by_inclusion(MANY[index], index, size, tree.inclusion(index, size)) == tree.root(size)


def test_every_pair_of_sizes_has_a_proof_and_no_other_tree_passes():
    tree = MerkleTree(MANY)
    heads = [head(MANY[:size]) for size in range(len(MANY) + 1)]
    other = [head([b"x", *MANY[1:size]]) for size in range(1, len(MANY) + 1)]
    for old, new in product(range(len(MANY) + 1), repeat=2):
        if old > new:
            continue
        path = tree.consistency(old, new)
        assert extends(heads[old], heads[new], path)
        if 0 < old < new:
            assert not extends(other[old - 1], heads[new], path)
            assert not extends(heads[old], other[new - 1], path)
            assert not extends(heads[old], heads[new], path[:-1])
            assert not extends(heads[old], heads[new], [*path, path[-1]])


def test_grown_leaf_by_leaf_it_is_the_same():
    tree = MerkleTree()
    for number, leaf in enumerate(MANY):
        tree.extend([leaf])
        assert tree.root() == reference(MANY[: number + 1])


def test_a_proof_of_the_wrong_length_or_place_is_refused():
    tree = MerkleTree(MANY)
    path = tree.inclusion(11, 40)
    for bad in (path[:-1], [*path, path[0]]):
        with pytest.raises(ProofError, match="proof is too"):
            root_by_inclusion(MANY[11], 11, 40, bad)
    assert root_by_inclusion(MANY[11], 12, 40, path) != tree.root()
    for act in (lambda: tree.root(41), lambda: tree.inclusion(40, 40), lambda: tree.consistency(3, 2)):
        with pytest.raises(ValueError, match=r"tree of|the tree has"):
            act()
