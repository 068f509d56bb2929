"""Heads: signed Merkle roots of the whole ledger at a moment.

All transactions and seals are leaves of one tree (`merkle`), in the order of writing: each seal says after which
transaction it was written, and the seals from before heads come first. A leaf is the hash by which its chain knows the
row. So a change of any column of any row moves every later head, even if all was hashed anew.

A head is a checkpoint as public transparency logs have it (c2sp.org/tlog-checkpoint): the ledger's name, the number of
leaves, their root, and a line with the time. The ledger records the heads it signed, and nothing trusts these: a forger
of the ledger rewrites them too. Only a head kept elsewhere tells.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, func, select

from credit.ledger.database import serialise_writers
from credit.ledger.merkle import MerkleTree
from credit.ledger.rows import add_records
from credit.ledger.schema import head, ledger_txn, provider, seal, statement
from credit.ledger.signing_keys import check_active
from credit.ledger.values import utc_text
from credit.proofs import (  # fmt: skip
    COSIGNATURE,
    Head,
    Note,
    NoteSignature,
    cosigned_text,
    key_id,
    read_head,
    read_heads,
    read_key,
    signer_of,
)
from credit.storage import canonical_json

_STREAM = {"yield_per": 5000}
_PLACE = func.coalesce(seal.c.after_seq, 0)


@dataclass(frozen=True, slots=True)
class _HeadRow:
    """A row of the table `head`."""

    size: int
    root: str
    note: str
    created_at: datetime


def ledger_tree(conn: Connection) -> MerkleTree:
    """Return the tree of all transactions and seals, hashed anew: 64 bytes of memory for each."""
    return MerkleTree(_leaves(conn))


def _leaves(conn: Connection) -> Iterator[bytes]:
    """Yield the leaves in order: each seal follows the last transaction before it."""
    sealed = iter(conn.execute(select(_PLACE, seal.c.hash).order_by(seal.c.id), execution_options=_STREAM))
    waiting = next(sealed, None)
    posted = select(ledger_txn.c.seq, ledger_txn.c.hash).order_by(ledger_txn.c.seq)
    for seq, digest in conn.execute(posted, execution_options=_STREAM):
        while waiting is not None and waiting[0] < seq:
            yield bytes.fromhex(waiting[1])
            waiting = next(sealed, None)
        yield bytes.fromhex(digest)
    while waiting is not None:
        yield bytes.fromhex(waiting[1])
        waiting = next(sealed, None)


def leaf_of_seal(number: int, after_seq: int | None) -> int:
    """Return the place of a seal among the leaves, from 0: the seals and the transactions before it."""
    return number - 1 + (after_seq or 0)


def entry_at(conn: Connection, leaf: int) -> str:
    """Name the transaction or sealed row of a leaf, counted from 0."""
    row = conn.execute(
        select(seal.c.id, seal.c.table_name, seal.c.row_id).where(seal.c.id - 1 + _PLACE == leaf)
    ).one_or_none()
    if row is not None:
        return f"{row.table_name} {row.row_id}"
    before = conn.execute(select(func.count()).where(seal.c.id - 1 + _PLACE < leaf)).scalar_one()
    return f"transaction {leaf + 1 - before}"


def signed_heads(conn: Connection) -> list[Head]:
    """Return the recorded heads, in order."""
    notes = conn.execute(select(head.c.note).order_by(head.c.id)).scalars()
    return [item for note in notes for item in read_heads(note)]


def sign_head(conn: Connection, key: Ed25519PrivateKey, *, now: datetime) -> Head:
    """Sign the present head and record it; with nothing new, return the last one again.

    Args:
        conn: from `Ledger.write`.
        key: the active signing key.
        now: the time that the head states.

    Raises:
        LedgerError: the key is not the ledger's active signing key.
    """
    serialise_writers(conn)
    active = check_active(conn, key.public_key())
    tree, last = ledger_tree(conn), signed_heads(conn)[-1:]
    # The last head is itself a sealed row, and so one more leaf.
    if last and last[0].size == len(tree) - 1 and signer_of(last[0].note, [key.public_key()]) is not None:
        return last[0]
    root, moment = tree.root(), utc_text(now)
    text = f"{active.origin}\n{len(tree)}\n{base64.b64encode(root).decode()}\ntime {moment}\n"
    number = key_id(active.origin, key.public_key())
    note = Note(text, (NoteSignature(active.origin, number, key.sign(text.encode())),))
    add_records(conn, head, [_HeadRow(len(tree), root.hex(), str(note), now)])
    return read_head(note)


@dataclass(frozen=True, slots=True)
class SealedStatement:
    """A statement's place in the tree.

    `leaf` counts from 0. `extra` is JSON of the row's columns beside its text, and of its seal: with the statement's
    bytes it gives the leaf (`credit.proofs.sealed_leaf`).
    """

    provider: str
    period: str
    version: int
    leaf: int
    extra: bytes


def sealed_statements(conn: Connection, through: str) -> list[SealedStatement]:
    """Return the place of every statement of the periods to `through`, by period and version."""
    sealed = (seal.c.table_name == statement.name) & (seal.c.row_id == statement.c.id)
    row = [statement.c[name] for name in ("id", "period_id", "provider_id", "version", "created_at")]
    place = [seal.c.id.label("seal_id"), seal.c.prev_hash, seal.c.actor, seal.c.after_seq]
    query = select(*row, *place, provider.c.key).join_from(statement, seal, sealed)
    query = query.join(provider, provider.c.id == statement.c.provider_id).where(statement.c.period_id <= through)
    found = []
    for said in conn.execute(query.order_by(statement.c.period_id, statement.c.version, statement.c.id)):
        columns = {column.name: said._mapping[column.name] for column in row}
        seal_of = {name: said._mapping[name] for name in ("prev_hash", "actor", "after_seq")} | {"id": said.seal_id}
        extra = canonical_json({"row": columns, "seal": seal_of}).encode()
        leaf = leaf_of_seal(said.seal_id, said.after_seq)
        found.append(SealedStatement(said.key, said.period_id, said.version, leaf, extra))
    return found


def head_over(heads: Sequence[Head], size: int, public_key: str | None = None) -> Head | None:
    """Return the first of some heads with at least `size` leaves, signed with a key if one is given; or None."""
    keys = None if public_key is None else [read_key(public_key)]
    large = (item for item in heads if item.size >= size)
    return next((item for item in large if keys is None or signer_of(item.note, keys) is not None), None)


def cosigned(of: Head, name: str, key: Ed25519PrivateKey, *, now: datetime) -> Note:
    """Return the note of a head with a witness's signature of it and of the time (c2sp.org/tlog-cosignature)."""
    moment = int(now.timestamp())
    signature = moment.to_bytes(8, "big") + key.sign(cosigned_text(of.note.text, moment))
    own = NoteSignature(name, key_id(name, key.public_key(), COSIGNATURE), signature)
    others = [item for item in of.note.signatures if (item.name, item.key_id) != (own.name, own.key_id)]
    return Note(of.note.text, (*others, own))
