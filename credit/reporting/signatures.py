"""Signatures of exports: the key's file, the signed manifest of a folder, and its check without a database.

The private key is a PEM file (PKCS #8), readable by its owner alone, and encrypted where a passphrase is given.
Providers get the public key by another way than with their folders. Signatures (Ed25519, RFC 8032) are deterministic:
a folder exported again has the same one. `credit.proofs` has the formats, and travels with each folder as check.py.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from credit import proofs
from credit.errors import InputError, IntegrityError, InvalidRequestError
from credit.ledger.signing_keys import KeyEvent, revocations, successions
from credit.ledger.statements import Statement
from credit.ledger.values import utc_text
from credit.proofs import CheckedFolder, Head, Manifest, Note, NoteSignature, ProofError, key_id, key_text
from credit.storage import create_file

CHECK_FILE = "check.py"
"""Name of the copy of `credit.proofs` in a signed folder."""

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_ENCRYPTED = b"ENCRYPTED PRIVATE KEY"


@dataclass(frozen=True, slots=True)
class LedgerProof:
    """Proof of a statement as leaf `leaf` (from 0) of the tree under `head`, which extends one of `extends` leaves.

    `inclusion` and `extension` are the texts of the two files; `extends` is 0, and `extension` empty, at first.
    """

    head: Head
    leaf: int
    inclusion: str
    extends: int
    extension: str


def create_key(path: Path, passphrase: str = "") -> Ed25519PrivateKey:
    """Make a private key and write it to a new file, readable by its owner alone.

    Args:
        path: the new file.
        passphrase: protects the file; empty for none.

    Raises:
        InvalidRequestError: the file exists, or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    how = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
    try:
        file = create_file(path)
    except FileExistsError:
        raise InvalidRequestError(
            f"{path} exists; a key is never overwritten: name another file, or enter it with --existing"
        ) from None
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be written: {error.strerror}") from error
    with file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    return key


def is_protected(path: Path) -> bool:
    """Return True if a key's file is there, and asks for a passphrase."""
    try:
        return _ENCRYPTED in path.read_bytes()
    except OSError:
        return False


def load_key(path: Path, passphrase: str = "") -> Ed25519PrivateKey:
    """Read a private key; the passphrase is used where the file is protected.

    Raises:
        InvalidRequestError: the file is missing, holds no Ed25519 key, is readable by others than its owner, or the
            passphrase is missing or wrong.
    """
    try:
        # Windows has no such mode: it shows every file as readable by all.
        if os.name == "posix" and path.stat().st_mode & _OTHERS:
            raise InvalidRequestError(f"{path} can be read by others than its owner: chmod 600 {path}")
        pem = path.read_bytes()
    except OSError as error:
        raise InvalidRequestError(
            f"the key {path} cannot be read: {error.strerror}; make one: credit signing-key new {path}"
        ) from error
    protected = _ENCRYPTED in pem
    if protected and not passphrase:
        raise InvalidRequestError(f"{path} needs its passphrase: CREDIT_SIGNING_PASSPHRASE, or --passphrase-file FILE")
    try:
        key = serialization.load_pem_private_key(pem, passphrase.encode() if protected else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        why = "the passphrase is not its own, or it" if protected else "it"
        raise InvalidRequestError(f"{path} cannot be used: {why} is not a key of credit signing-key") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidRequestError(f"{path} is not an Ed25519 key; make one: credit signing-key new FILE")
    return key


def read_public_key(text_or_file: str) -> Ed25519PublicKey:
    """Return a public key from its line of base64, or from a file with that line or with PEM.

    Raises:
        InvalidRequestError: it is neither, or a key that anybody could sign with.
    """
    path = Path(text_or_file)
    try:
        text = path.read_text("utf-8") if path.is_file() else text_or_file
        if "BEGIN PUBLIC KEY" in text:
            key = serialization.load_pem_public_key(text.encode())
            text = key_text(key) if isinstance(key, Ed25519PublicKey) else ""
        return proofs.read_key(text)
    except ProofError as error:
        raise InvalidRequestError(f"{error}, or name a file with it") from None
    except (OSError, ValueError, UnsupportedAlgorithm):
        raise InvalidRequestError("the key is not an Ed25519 public key: give its line of 44 characters") from None


def check_script() -> str:
    """Return the script that checks a folder: `credit.proofs` as it is."""
    return Path(proofs.__file__).read_text("utf-8")


def signed_manifest(
    key: Ed25519PrivateKey, item: Statement, history: Sequence[KeyEvent], files: Mapping[str, bytes]
) -> str:
    """Return the signed manifest of a folder.

    Args:
        key: the active signing key.
        item: the folder's statement.
        history: acts on the ledger's signing keys.
        files: the folder's files by name.
    """
    manifest = Manifest(
        provider=item.provider,
        period=item.period,
        version=item.version,
        issued=utc_text(item.created_at),
        key=key_text(key.public_key()),
        successions=successions(list(history)),
        revoked=revocations(list(history)),
        files={name: sha256(content).hexdigest() for name, content in files.items()},
    )
    origin = history[0].origin
    signature = NoteSignature(origin, key_id(origin, key.public_key()), key.sign(manifest.text.encode()))
    return str(Note(manifest.text, (signature,)))


def verify_folder(folder: Path, keys: Sequence[Ed25519PublicKey], *, before: Path | None = None) -> CheckedFolder:
    """Check a provider's folder: every file of it, the statement's place in the ledger, and the ledger's growth.

    Args:
        folder: the folder.
        keys: the issuer's public keys, received by another way than the folder.
        before: an earlier folder, or a file with a head kept from before.

    Raises:
        InputError: there is no such folder.
        IntegrityError: something is not as it was signed.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; name the folder that the export wrote")
    try:
        return proofs.check_folder(folder, keys, before)
    except ProofError as error:
        raise IntegrityError(f"{folder}: {error}") from None
