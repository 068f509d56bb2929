"""Signing keys: the history of the keys for heads and exports. The ledger keeps public keys alone.

One key is active at a time. A rotation names the next key under a signature by the one before, so trust in the old
key reaches the new one. A revoked key counts no more, and names nobody.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import Connection, select

from credit.errors import LedgerError
from credit.ledger.database import serialise_writers
from credit.ledger.personal_data import keep_erasable
from credit.ledger.rows import add_records, read_row
from credit.ledger.schema import seal, signing_key
from credit.ledger.values import is_storable
from credit.proofs import MANIFEST_FORMAT, key_text, succession_text

_LONGEST_ORIGIN = 200


@dataclass(frozen=True, slots=True)
class KeyEvent:
    """An act on a signing key.

    `public_key` is base64 of 32 bytes, `origin` the ledger's name in heads, `succession` the signature by the key
    before (base64; empty unless rotated), `reason` why a key was revoked.
    """

    action: Literal["new", "rotated", "revoked"]
    public_key: str
    origin: str
    succession: str
    reason: str
    created_at: datetime


def key_history(conn: Connection) -> list[KeyEvent]:
    """Return every act on a signing key, in order."""
    return [read_row(KeyEvent, row) for row in conn.execute(select(signing_key).order_by(signing_key.c.id))]


def active_key(conn: Connection) -> KeyEvent | None:
    """Return the entry of the active key; None without one."""
    history = key_history(conn)
    revoked = {item.public_key for item in history if item.action == "revoked"}
    last = next((item for item in reversed(history) if item.action != "revoked"), None)
    return None if last is None or last.public_key in revoked else last


def check_active(conn: Connection, key: Ed25519PublicKey) -> KeyEvent:
    """Return the entry of a key; LedgerError where it is not the active one."""
    active = active_key(conn)
    if active is None or active.public_key != key_text(key):
        raise LedgerError(
            "this key is not the active signing key of this ledger (credit signing-key list); enter it: credit"
            " signing-key new FILE --existing"
        )
    return active


def enter_key(conn: Connection, key: Ed25519PublicKey, *, now: datetime, origin: str | None = None) -> KeyEvent:
    """Enter the first key, or one after a revocation; the active key again changes nothing.

    Args:
        conn: from `Ledger.write`.
        key: the public key.
        now: when it is entered.
        origin: the ledger's name in heads, which is kept from the first key on; None for one made from its first seal.

    Raises:
        LedgerError: another key is active, the key was active before, or the name is not usable or not the ledger's.
    """
    serialise_writers(conn)
    public, active, history = key_text(key), active_key(conn), key_history(conn)
    name = origin or (history[0].origin if history else _default_origin(conn))
    _check_origin(conn, name)
    if history and name != history[0].origin:
        raise LedgerError(f"the ledger's name in its heads is {history[0].origin!r}, and stays so")
    if active is not None and active.public_key == public:
        return active
    if active is not None:
        raise LedgerError(f"{active.public_key} signs already; hand over from it: credit signing-key rotate --help")
    return _add(conn, history, KeyEvent("new", public, name, "", "", now))


def rotate_key(conn: Connection, old: Ed25519PrivateKey, new: Ed25519PublicKey, *, now: datetime) -> KeyEvent:
    """Let another key sign from now on, named by a signature of the old one; the same again changes nothing.

    Raises:
        LedgerError: the old key is not the active one, or the new one was active before.
    """
    serialise_writers(conn)
    active, history = active_key(conn), key_history(conn)
    before, public = key_text(old.public_key()), key_text(new)
    if active is not None and active.public_key == public and active.action == "rotated":
        return active
    if active is None or active.public_key != before:
        raise LedgerError(f"{before} is not the active signing key; see credit signing-key list")
    signature = old.sign(succession_text(before, public, _day(now)))
    named = base64.b64encode(signature).decode()
    return _add(conn, history, KeyEvent("rotated", public, active.origin, named, "", now))


def revoke_key(conn: Connection, public: str, *, reason: str, now: datetime) -> KeyEvent:
    """Revoke a key, active or not; revoking it again changes nothing.

    Raises:
        LedgerError: the ledger knows no such key, or the reason is missing.
    """
    if not reason.strip() or not is_storable(reason):
        raise LedgerError("revoking a key needs a reason, in words that a database can keep")
    serialise_writers(conn)
    keep_erasable(conn, reason, "the reason")
    history = key_history(conn)
    found = next((item for item in reversed(history) if item.public_key == public), None)
    if found is None:
        raise LedgerError(f"the ledger knows no signing key {public}; see credit signing-key list")
    if found.action == "revoked":
        return found
    return _add(conn, history, KeyEvent("revoked", public, found.origin, "", reason, now))


def successions(history: list[KeyEvent]) -> tuple[tuple[str, str, str, str], ...]:
    """Return for each rotation: old key, new key, day, signature; as `credit.proofs.Manifest` has it."""
    entered = [item for item in history if item.action != "revoked"]
    pairs = pairwise(entered)
    return tuple(
        (old.public_key, new.public_key, _day(new.created_at), new.succession)
        for old, new in pairs
        if new.action == "rotated"
    )


def revocations(history: list[KeyEvent]) -> tuple[tuple[str, str], ...]:
    """Return each revoked key and its day, as `credit.proofs.Manifest` has it."""
    return tuple((item.public_key, _day(item.created_at)) for item in history if item.action == "revoked")


def _add(conn: Connection, history: list[KeyEvent], event: KeyEvent) -> KeyEvent:
    if event.action != "revoked" and any(item.public_key == event.public_key for item in history):
        raise LedgerError(f"{event.public_key} was active before; make a new key: credit signing-key --help")
    add_records(conn, signing_key, [event])
    return event


def _default_origin(conn: Connection) -> str:
    """Return a name made from the first seal, and so the ledger's own."""
    first = conn.execute(select(seal.c.hash).where(seal.c.id == 1)).scalar_one()
    return f"credit/{first[:16]}"


def _check_origin(conn: Connection, name: str) -> None:
    plain = name.isprintable() and not set(name) & {" ", "+"} and is_storable(name)
    if not plain or not 1 <= len(name) <= _LONGEST_ORIGIN or name == MANIFEST_FORMAT:
        raise LedgerError(f"{name!r} is no name of a ledger: write one like example.com/credit, without spaces and +")
    keep_erasable(conn, name, "the name")


def _day(moment: datetime) -> str:
    return moment.date().isoformat()
