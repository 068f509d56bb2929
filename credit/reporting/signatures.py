"""Signatures of statements: Ed25519 (RFC 8032) over the bytes of `statement.json`, checked without a database.

The private key is a PEM file (PKCS #8), readable by its owner alone. Providers get the public key by another way than
with their statements. Signatures are deterministic: a statement exported again has the same one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import rfc8785
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from credit.accounting.statement import FORMAT
from credit.errors import InputError, IntegrityError, InvalidRequestError
from credit.storage import create_file, parse_object

SIGNATURE_FILE = "statement.sig"
"""Name of the signature beside `statement.json`."""

_FORMAT = "credit.signature.v1"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class VerifiedStatement:
    """A statement with a valid signature; `payable` has its amounts to be paid, as decimal numbers by currency."""

    provider: str
    period: str
    sha256: str
    payable: dict[str, str]


def create_key(path: Path) -> Ed25519PrivateKey:
    """Make a private key and write it to a new file, readable by its owner alone.

    Raises:
        InvalidRequestError: the file exists, or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        file = create_file(path)
    except FileExistsError:
        raise InvalidRequestError(f"{path} exists; a key is never overwritten: name another file") from None
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be written: {error.strerror}") from error
    with file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    return key


def load_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key.

    Raises:
        InvalidRequestError: the file is missing, holds no Ed25519 key, or is readable by others than its owner.
    """
    try:
        # Windows has no such mode: it shows every file as readable by all.
        if os.name == "posix" and path.stat().st_mode & _OTHERS:
            raise InvalidRequestError(f"{path} can be read by others than its owner: chmod 600 {path}")
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise InvalidRequestError(
            f"the key {path} cannot be read: {error.strerror}; make one: credit signing-key {path}"
        ) from error
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidRequestError(f"{path} is not a private key as credit signing-key makes it") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidRequestError(f"{path} is not an Ed25519 key; make one: credit signing-key FILE")
    return key


def public_text(key: Ed25519PrivateKey) -> str:
    """Return the public key in a line short enough for a letter: base64 of its 32 bytes."""
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return base64.b64encode(raw).decode()


def signature_text(key: Ed25519PrivateKey, body: bytes) -> str:
    """Return the signature of a statement's bytes as canonical JSON."""
    said = {
        "format": _FORMAT,
        "algorithm": "Ed25519",
        "public_key": public_text(key),
        "sha256": hashlib.sha256(body).hexdigest(),
        "signature": base64.b64encode(key.sign(body)).decode(),
    }
    return rfc8785.dumps(said).decode()


def read_public_key(text_or_file: str) -> Ed25519PublicKey:
    """Return a public key from its line of base64, or from a file with that line or with PEM.

    Raises:
        InvalidRequestError: it is neither.
    """
    path = Path(text_or_file)
    try:
        text = path.read_text("utf-8") if path.is_file() else text_or_file
        if "BEGIN PUBLIC KEY" in text:
            key = serialization.load_pem_public_key(text.encode())
            if isinstance(key, Ed25519PublicKey):
                return key
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text.strip(), validate=True))
    except (OSError, ValueError, UnsupportedAlgorithm, binascii.Error):
        raise InvalidRequestError(
            "the key is not an Ed25519 public key: give its line of 44 characters, or a file with it"
        ) from None


def verify_statement(path: Path, key: Ed25519PublicKey, *, signature: Path | None = None) -> VerifiedStatement:
    """Check the signature of a statement.

    Args:
        path: the statement, `statement.json`.
        key: the public key, received by another way than the statement.
        signature: its signature; `statement.sig` beside it unless given.

    Raises:
        InputError: a file cannot be read.
        IntegrityError: the statement was changed after signing, was signed with another key, or is no statement.
    """
    beside = signature or path.with_name(SIGNATURE_FILE)
    body = _read(path)
    try:
        said = parse_object(_read(beside))
        mark = base64.b64decode(said["signature"], validate=True)
        known = said["format"] == _FORMAT and said["algorithm"] == "Ed25519"
    except (ValueError, KeyError, TypeError):
        known, mark = False, b""
    if not known:
        raise IntegrityError(f"{beside} is not a signature of a statement")
    try:
        key.verify(mark, body)
    except InvalidSignature:
        # The stated hash decides nothing here. It only helps to say which of the two went wrong.
        why = "the file was changed" if said.get("sha256") != hashlib.sha256(body).hexdigest() else "the key is another"
        raise IntegrityError(f"{path} is not what was signed with this key: {why}, or the signature is") from None
    try:
        facts = parse_object(body)
        if facts["format"] != FORMAT:
            raise IntegrityError(f"{path} is signed, and is no statement but {facts['format']!r}")
        payable = {balance["currency"]: balance["payable"] for balance in facts["balances"]}
        return VerifiedStatement(facts["provider"]["key"], facts["period"], hashlib.sha256(body).hexdigest(), payable)
    except (ValueError, KeyError, TypeError):
        raise IntegrityError(f"{path} is signed, and is no statement") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
