"""Checks of signing keys and heads: recorded heads, and heads kept outside."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, select

from credit.ledger.heads import entry_at, ledger_tree
from credit.ledger.journal import in_chain
from credit.ledger.schema import head
from credit.ledger.seals import has_seal
from credit.ledger.signing_keys import key_history, successions
from credit.ledger.verify.report import Problem
from credit.proofs import Head, ProofError, read_heads, read_key, signer_of, succession_text

UNKNOWN = "whether everything was written anew, with new hashes; a head kept elsewhere tells: credit verify --head FILE"
"""What no check can know without a head from outside."""


def check_signing_keys(conn: Connection) -> Iterator[Problem]:
    """Yield each unusable key, and each rotation without the old key's signature."""
    history = key_history(conn)
    for number, item in enumerate(history, start=1):
        try:
            read_key(item.public_key)
        except ProofError as error:
            yield Problem(f"signing_key {number}", str(error))
            return
    for old, new, day, signature in successions(history):
        try:
            read_key(old).verify(base64.b64decode(signature, validate=True), succession_text(old, new, day))
        except (InvalidSignature, binascii.Error):
            yield Problem(f"signing key {new}", f"was not named by the key before it, {old}")


def check_signed_heads(conn: Connection) -> Iterator[Problem]:
    """Yield each recorded head unlike the rows, or without a signature by a key of the ledger."""
    rows = conn.execute(select(head).order_by(head.c.id)).all()
    if not rows:
        return
    tree, keys = ledger_tree(conn), _keys(conn)
    for row in rows:
        place = f"head {row.id}"
        try:
            (said,) = read_heads(row.note)
        except (ProofError, ValueError):
            yield Problem(place, "its text is no signed head")
            continue
        if (said.size, said.root.hex(), said.time) != (row.size, row.root, row.created_at):
            yield Problem(place, "its columns are not those of its text")
        elif signer_of(said.note, keys) is None:
            yield Problem(place, "was not signed with a key of this ledger")
        elif said.size > len(tree) or tree.root(said.size) != said.root:
            yield Problem(place, f"the first {said.size} entries of the ledger are not what was signed")


def check_outside_heads(
    conn: Connection, heads: Sequence[Head], keys: Sequence[Ed25519PublicKey] = ()
) -> Iterator[Problem]:
    """Yield each head from outside unless the ledger extends it, with the place of the change.

    Args:
        conn: from `Ledger.read`.
        heads: heads from outside.
        keys: public keys of the issuer, received elsewhere; none for the ledger's own.
    """
    if not heads:
        return
    tree, trusted = ledger_tree(conn), list(keys) or _keys(conn)
    names = {item.origin for item in key_history(conn)}
    agreed = 0
    for item in sorted(heads, key=lambda item: item.size):
        place = f"head of {item.time or item.origin} with {item.size} entries"
        if signer_of(item.note, trusted) is None:
            yield Problem(place, "was not signed with a key of this ledger")
        elif item.origin not in names:
            yield Problem(place, f"is of {item.origin}, and this ledger has another name")
        elif item.size > len(tree):
            yield Problem(
                place,
                f"is longer than this ledger, which ends at entry {len(tree)}, {entry_at(conn, len(tree) - 1)}: later"
                " ones were removed, or an older backup was restored",
            )
        elif tree.root(item.size) != item.root:
            yield Problem(place, _changed(conn, agreed, item.size))
        else:
            agreed = item.size


def _changed(conn: Connection, agreed: int, size: int) -> str:
    """Say where a change lies: behind the entries of an earlier head, if one agrees."""
    first, last = entry_at(conn, agreed), entry_at(conn, size - 1)
    narrower = "" if agreed else "; an earlier head would narrow it"
    return (
        f"is not what the ledger holds: of its entries {agreed + 1} to {size}, now {first} to {last}, somebody changed,"
        f" inserted or removed at least one{narrower}"
    )


def check_chain_heads(conn: Connection, heads: Sequence[str]) -> Iterator[Problem]:
    """Yield each hash from outside, of a transaction or seal, missing from both chains."""
    for item in heads:
        if not in_chain(conn, item) and not has_seal(conn, item):
            yield Problem("chain", f"the head {item[:16]} is not in it: its tail was cut off or replaced")


def _keys(conn: Connection) -> list[Ed25519PublicKey]:
    """Return the ledger's keys; revoked ones signed the heads of their time."""
    return [read_key(key) for key in sorted({item.public_key for item in key_history(conn)})]
