"""Signed notes, Merkle proofs, and the check of a provider's folder, far from any ledger.

A signed export holds a copy of this file, check.py. It needs Python 3.11 and the package `cryptography`, no network,
and nothing else of `credit`:

    python check.py --key PUBLIC_KEY                        # in the folder
    python check.py FOLDER --key PUBLIC_KEY --before FOLDER_OF_LAST_MONTH

It checks three things: the owner of the key signed every file of the folder; the statement is in the issuer's ledger,
under its signed head; and this head extends the one of last month, so that nothing older was changed since.
Exit codes: 0 all is so, 2 wrong usage, 4 something is not.

Formats are those of public transparency logs, so that their tools read them too: notes (c2sp.org/signed-note), heads
(c2sp.org/tlog-checkpoint), proofs (c2sp.org/tlog-proof, and the request of c2sp.org/tlog-witness) and cosignatures
(c2sp.org/tlog-cosignature). Trees and proofs are those of RFC 9162, section 2.1.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MANIFEST_FILE, PROOF_FILE, EXTENSION_FILE = "manifest.txt", "statement.tlog-proof", "extends.txt"
"""Files of a signed folder: all files by hash; the statement's place in the ledger; this head and the one before."""

MANIFEST_FORMAT = "credit.manifest.v1"
SUCCESSION_FORMAT = "credit.key-succession.v1"
ROW_ENCODING = "credit.seal.1"
SEAL_ENCODINGS = ("credit.seal.1", "credit.seal.2", "credit.seal.3")

SIGNATURE, COSIGNATURE = b"\x01", b"\x04"
"""Kinds of signatures in a note: Ed25519 over its text, and a witness's with the time."""

_PROOF_FORMAT = "c2sp.org/tlog-proof@v1"
_MOST_SIGNATURES = 64
_NAME = re.compile(r"[^\s+]+")
_VERIFIER_KEY = re.compile(r"[^\s+]+\+[0-9a-f]{8}\+([A-Za-z0-9+/=]+)")
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
_FIELD = 2**255 - 19
_ORDER_8 = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
_SMALL = {0, 1, _FIELD - 1, _ORDER_8, _FIELD - _ORDER_8}
"""The y coordinates of the points of small order on Curve25519: such a key takes one signature for many texts."""


_Item = TypeVar("_Item")


class ProofError(Exception):
    """A file or proof unlike its signature, or unreadable; the message names it."""


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """A signature line of a note: name of the key, its 4-byte id, and the bytes of the signature."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A text with its signatures; the text ends with a newline."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def __str__(self) -> str:
        lines = [signature_line(item.name, item.key_id, item.signature) for item in self.signatures]
        return f"{self.text}\n{''.join(lines)}"


@dataclass(frozen=True, slots=True)
class Head:
    """A checkpoint: origin is the ledger's name, `size` its number of leaves, `root` their Merkle root (32 bytes).

    `time` is when it was signed, as its issuer says; empty in a checkpoint of other software.
    """

    origin: str
    size: int
    root: bytes
    time: str
    note: Note


@dataclass(frozen=True, slots=True)
class CheckedFolder:
    """A folder in agreement with its signature.

    `payable` has the statement's amounts to be paid, as decimal numbers by currency. The statement is leaf `leaf`
    (from 0) of `head`; `extends` is the size of the earlier head that this one extends, and `compared` is True if that
    head came from outside the folder.
    """

    provider: str
    period: str
    version: int
    issued: str
    sha256: str
    payable: dict[str, str]
    key: str
    files: int
    leaf: int
    head: Head
    extends: int | None
    compared: bool


# Keys and notes.


def read_key(text: str) -> Ed25519PublicKey:
    """Return a public key from its base64, or from a verifier key of a note, `name+id+base64`.

    Raises:
        ProofError: it is neither, or a point of small order.
    """
    try:
        verifier_key = _VERIFIER_KEY.fullmatch(text.strip())
        raw = base64.b64decode(verifier_key[1] if verifier_key else text.strip(), validate=True)
        # In a verifier key, the kind of its signatures comes first.
        raw = raw[1:] if verifier_key else raw
        if int.from_bytes(raw, "little") % 2**255 % _FIELD in _SMALL:
            raise ProofError("the key is a point of small order: anybody could sign with it")
        return Ed25519PublicKey.from_public_bytes(raw)
    except ValueError:
        raise ProofError("the key is not an Ed25519 public key: give its line of 44 characters") from None


def key_text(key: Ed25519PublicKey) -> str:
    """Return a public key as a line for a letter: base64 of its 32 bytes."""
    return base64.b64encode(key.public_bytes_raw()).decode()


def key_id(name: str, key: Ed25519PublicKey, kind: bytes = SIGNATURE) -> bytes:
    """Return the 4-byte id of a key in notes (c2sp.org/signed-note)."""
    return hashlib.sha256(name.encode() + b"\n" + kind + key.public_bytes_raw()).digest()[:4]


def signature_line(name: str, number: bytes, signature: bytes) -> str:
    """Return a signature line of a note."""
    return f"— {name} {base64.b64encode(number + signature).decode()}\n"


def read_notes(content: str) -> list[Note]:
    """Return the notes in a text, in order; other blocks, such as the proof before a head, are passed over.

    The texts of notes here have no empty line: empty lines separate texts, signatures and other blocks.
    """
    blocks = content.strip("\n").split("\n\n")
    return [Note(text + "\n", _signatures(lines)) for text, lines in pairwise(blocks) if lines.startswith("— ")]


def _signatures(lines: str) -> tuple[NoteSignature, ...]:
    found = []
    for line in lines.split("\n")[:_MOST_SIGNATURES]:
        mark, name, said = (*line.split(" "), "", "", "")[:3]
        raw = _base64(said)
        if mark != "—" or not _NAME.fullmatch(name) or len(raw) < 5:
            raise ProofError(f"{line[:40]!r} is not a signature line of a note")
        found.append(NoteSignature(name, raw[:4], raw[4:]))
    return tuple(found)


def signer_of(note: Note, keys: Iterable[Ed25519PublicKey]) -> Ed25519PublicKey | None:
    """Return the signer of a note among some keys, or None."""
    for key in keys:
        for item in note.signatures:
            if item.key_id == key_id(item.name, key) and _is_valid(key, item.signature, note.text.encode()):
                return key
    return None


def cosigned_at(note: Note, name: str, key: Ed25519PublicKey) -> int | None:
    """Return the moment at which a witness cosigned a head, in seconds since 1970; None if it did not."""
    for item in note.signatures:
        if (item.name, item.key_id) == (name, key_id(name, key, COSIGNATURE)) and len(item.signature) == 72:
            moment = int.from_bytes(item.signature[:8], "big")
            if _is_valid(key, item.signature[8:], cosigned_text(note.text, moment)):
                return moment
    return None


def cosigned_text(text: str, moment: int) -> bytes:
    """Return the message that a witness signs at a moment, in seconds since 1970 (c2sp.org/tlog-cosignature)."""
    return f"cosignature/v1\ntime {moment}\n{text}".encode()


def _is_valid(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def read_head(note: Note) -> Head:
    """Return the head in a note; ProofError where there is none."""
    origin, size, root, *more = (*note.text.split("\n")[:-1], "", "", "")
    raw = _base64(root)
    if not origin or not _DECIMAL.fullmatch(size) or len(raw) != 32:
        raise ProofError(f"{origin[:40]!r} begins no head: origin, size and root stand in three lines")
    time = next((line.removeprefix("time ") for line in more if line.startswith("time ")), "")
    return Head(origin, int(size), raw, time, note)


def read_heads(content: str) -> list[Head]:
    """Return the heads in a text, in order: one or more of them, or a proof with its head."""
    return [read_head(item) for item in read_notes(content)]


def _base64(text: str) -> bytes:
    """Return the bytes of a base64 text; none where it is not base64."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


# Merkle trees (RFC 9162).


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of a leaf: SHA-256 of a zero byte and its content."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_by_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """Return the root that a leaf and its inclusion proof lead to (RFC 9162, 2.1.3.2).

    Args:
        leaf: the content of the leaf.
        index: its place, from 0.
        size: the number of leaves in the tree.
        path: the proof, from the leaf's sibling upwards.

    Raises:
        ProofError: the proof is too long or too short for this place.
    """
    number, last, found = index, size - 1, leaf_hash(leaf)
    if not 0 <= number <= last:
        raise ProofError(f"leaf {index} is not in a tree of {size} leaves")
    for sibling in path:
        if last == 0:
            raise ProofError("the inclusion proof is too long")
        if number % 2 or number == last:
            found = node_hash(sibling, found)
            while number % 2 == 0 and number:
                number, last = number >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        number, last = number >> 1, last >> 1
    if last:
        raise ProofError("the inclusion proof is too short")
    return found


def extends(old: Head, new: Head, path: Sequence[bytes]) -> bool:
    """Return True if a consistency proof leads from `old` to `new` (RFC 9162, 2.1.4.2)."""
    if old.size == new.size:
        return not path and old.root == new.root
    if not 0 < old.size < new.size or not path:
        return old.size == 0 and not path
    # A whole power of two is itself a node of the new tree: the proof leaves it out.
    steps = list(path) if old.size & (old.size - 1) else [old.root, *path]
    number, last = old.size - 1, new.size - 1
    while number % 2:
        number, last = number >> 1, last >> 1
    before = after = steps[0]
    for node in steps[1:]:
        if last == 0:
            return False
        if number % 2 or number == last:
            before, after = node_hash(node, before), node_hash(node, after)
            while number % 2 == 0 and number:
                number, last = number >> 1, last >> 1
        else:
            after = node_hash(after, node)
        number, last = number >> 1, last >> 1
    return (before, after, last) == (old.root, new.root, 0)


def inclusion_text(index: int, path: Sequence[bytes], head: Head, extra: bytes) -> str:
    """Return an inclusion proof with its head, as c2sp.org/tlog-proof has it."""
    lines = [_PROOF_FORMAT, f"extra {base64.b64encode(extra).decode()}", f"index {index}", *_hash_lines(path)]
    return "\n".join(lines) + f"\n\n{head.note}"


def extension_text(old_size: int, path: Sequence[bytes], head: Head) -> str:
    """Return a consistency proof with the new head, as a witness takes it (c2sp.org/tlog-witness)."""
    return "\n".join([f"old {old_size}", *_hash_lines(path)]) + f"\n\n{head.note}"


def _hash_lines(path: Sequence[bytes]) -> list[str]:
    return [base64.b64encode(item).decode() for item in path]


def read_extension(content: str) -> tuple[int, list[bytes], Head]:
    """Return old size, consistency proof and new head of `extension_text`; ProofError where a text is none."""
    said, *_ = content.split("\n\n")
    first, *lines = said.split("\n")
    size = first.removeprefix("old ")
    if not first.startswith("old ") or not _DECIMAL.fullmatch(size):
        raise ProofError("it is not a consistency proof: it begins with `old` and a size")
    return int(size), _hashes(lines), _only(read_heads(content), "head")


def _read_inclusion(content: str) -> tuple[bytes, int, list[bytes], Head]:
    said, *_ = content.split("\n\n")
    first, *lines = said.split("\n")
    extra = lines.pop(0).removeprefix("extra ") if lines and lines[0].startswith("extra ") else ""
    index = lines.pop(0).removeprefix("index ") if lines else ""
    if first != _PROOF_FORMAT or not _DECIMAL.fullmatch(index):
        raise ProofError("it is not an inclusion proof")
    return _base64(extra), int(index), _hashes(lines), _only(read_heads(content), "head")


def _hashes(lines: Sequence[str]) -> list[bytes]:
    found = [_base64(line) for line in lines]
    if any(len(item) != 32 for item in found) or len(found) > 63:
        raise ProofError("a line of the proof is not a hash")
    return found


def _only(items: Sequence[_Item], what: str) -> _Item:
    if len(items) != 1:
        raise ProofError(f"one {what} is expected, and there are {len(items)}")
    return items[0]


# A provider's folder.


def succession_text(old: str, new: str, day: str) -> bytes:
    """Return the message by which the owner of a key names the next one; keys as in `key_text`."""
    return f"{SUCCESSION_FORMAT}\n{old}\n{new}\n{day}\n".encode()


def sealed_leaf(statement: bytes, extra: bytes) -> bytes:
    """Return the leaf of a statement: the hash of its seal in the ledger, computed from the statement's own bytes.

    Args:
        statement: the bytes of `statement.json`.
        extra: JSON of the row's other columns and of the seal's place in its chain.
    """
    try:
        said = json.loads(extra)
        row, seal = dict(said["row"]), said["seal"]
        row |= {"body_json": statement.decode(), "sha256": hashlib.sha256(statement).hexdigest()}
        content = _sha256([ROW_ENCODING, "statement", row])
        place = [seal["prev_hash"], seal["id"], "statement", row["id"], content]
        more = [item for item in (seal["actor"], seal["after_seq"]) if item is not None]
        # Seals from before actors, and from before heads, have fewer fields and another encoding.
        return bytes.fromhex(_sha256([SEAL_ENCODINGS[len(more)], *place, *more]))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ProofError(f"{PROOF_FILE} does not say where the statement is") from None


def _sha256(said: object) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Manifest:
    """List of all other files of a folder, and of its statement; the issuer signs it as a note.

    Attributes:
        provider, period, version: the statement.
        issued: the moment at which the statement was written.
        key: the signing key, as in `key_text`.
        successions: for each key that named its successor: old key, new key, day, signature in base64.
        revoked: keys that count no more, each with its day.
        files: SHA-256 in hexadecimal by name.
    """

    provider: str
    period: str
    version: int
    issued: str
    key: str
    successions: tuple[tuple[str, str, str, str], ...]
    revoked: tuple[tuple[str, str], ...]
    files: dict[str, str]

    @property
    def text(self) -> str:
        """The text to sign. Its lines of files are as `sha256sum` writes and checks them."""
        lines = [
            MANIFEST_FORMAT,
            f"provider {self.provider}",
            f"period {self.period}",
            f"statement {self.version}",
            f"issued {self.issued}",
            f"key {self.key}",
            *(f"successor {' '.join(item)}" for item in self.successions),
            *(f"revoked {' '.join(item)}" for item in self.revoked),
            *(f"{digest}  {name}" for name, digest in sorted(self.files.items())),
        ]
        return "\n".join(lines) + "\n"

    @classmethod
    def read(cls, text: str) -> Manifest:
        """Read the text of a manifest; ProofError where it is none."""
        lines = [line.split(" ") for line in text.split("\n")[:-1]]
        said = [" ".join(line[1:]) for line in lines[1:6]]
        names = [line[0] for line in lines[:6]]
        files = {line[2]: line[0] for line in lines[6:] if len(line) == 3 and not line[1] and len(line[0]) == 64}
        successions = [(a, b, c, d) for name, a, b, c, d in (line for line in lines[6:] if len(line) == 5)]
        revoked = [(line[1], line[2]) for line in lines[6:] if line[0] == "revoked" and len(line) == 3]
        if names != [MANIFEST_FORMAT, *_MANIFEST_FIELDS] or not _DECIMAL.fullmatch(said[2]):
            raise ProofError("it is not the list of a folder's files")
        found = cls(said[0], said[1], int(said[2]), said[3], said[4], tuple(successions), tuple(revoked), files)
        if found.text != text:
            raise ProofError("it holds a line that is none of its format")
        return found

    def trusted(self, keys: Sequence[Ed25519PublicKey]) -> list[Ed25519PublicKey]:
        """Return the given keys and their named successors, without revoked keys.

        Raises:
            ProofError: all given keys are revoked.
        """
        revoked = dict(self.revoked)
        known = [key_text(key) for key in keys]
        if all(key in revoked for key in known):
            raise ProofError(f"this key was revoked on {revoked[known[0]]}: ask the issuer for the present one")
        for old, new, day, said in self.successions:
            if (
                old in known
                and old not in revoked
                and _is_valid(read_key(old), _base64(said), succession_text(old, new, day))
            ):
                known.append(new)
        return [read_key(key) for key in known if key not in revoked]


_MANIFEST_FIELDS = ["provider", "period", "statement", "issued", "key"]


def check_folder(folder: Path, keys: Sequence[Ed25519PublicKey], before: Path | None = None) -> CheckedFolder:
    """Check a provider's folder against the public keys of its issuer.

    Args:
        folder: the folder.
        keys: keys that came by another way than the folder; a key that one of them named its successor counts too.
        before: an earlier folder, or a file with a head that was kept.

    Raises:
        ProofError: something is not as it was signed, or cannot be read.
    """
    with _reading(MANIFEST_FILE):
        content = _text(folder / MANIFEST_FILE)
        note = _only(read_notes(content), "signed note")
        if str(note) != content:
            raise ProofError("it holds more than was signed")
        manifest = Manifest.read(note.text)
    trusted = manifest.trusted(keys)
    signer = signer_of(note, trusted)
    if signer is None or key_text(signer) != manifest.key:
        raise ProofError(f"{MANIFEST_FILE} is not what was signed with this key: it was changed, or the key is another")
    _check_files(folder, manifest.files)
    statement = _bytes(folder / "statement.json")
    provider, period, payable = _facts(statement)
    if (provider, period) != (manifest.provider, manifest.period):
        raise ProofError(f"{MANIFEST_FILE} is of another statement")
    with _reading(PROOF_FILE):
        extra, index, path, head = _read_inclusion(_text(folder / PROOF_FILE))
    if signer_of(head.note, trusted) is None:
        raise ProofError("the head is not signed with this key")
    if root_by_inclusion(sealed_leaf(statement, extra), index, head.size, path) != head.root:
        raise ProofError("the statement is not in the ledger of the signed head: its proof leads to another root")
    earlier = _check_extension(folder, trusted, head, before)
    digest = hashlib.sha256(statement).hexdigest()
    about = (provider, period, manifest.version, manifest.issued, digest, payable, manifest.key, len(manifest.files))
    return CheckedFolder(*about, index, head, earlier, before is not None)


def _check_files(folder: Path, listed: dict[str, str]) -> None:
    """Raise ProofError at the first file of a folder to be missing, added or changed."""
    found = {item.name for item in folder.iterdir()} - {MANIFEST_FILE}
    for name in sorted(found | listed.keys()):
        if name not in listed:
            raise ProofError(f"{name} was not signed: somebody added it to the folder")
        if name not in found:
            raise ProofError(f"{name} is missing")
        if hashlib.sha256(_bytes(folder / name)).hexdigest() != listed[name]:
            raise ProofError(f"{name} is not what was signed: it was changed")


def _facts(statement: bytes) -> tuple[str, str, dict[str, str]]:
    """Return provider, period and payable amounts of a statement."""
    try:
        body = json.loads(statement)
        payable = {str(item["currency"]): str(item["payable"]) for item in body["balances"]}
        if body["format"] != "credit.statement.v1":
            raise ProofError(f"statement.json is no statement but {str(body['format'])[:40]!r}")
        return str(body["provider"]["key"]), str(body["period"]), payable
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ProofError("statement.json is no statement") from None


def _check_extension(folder: Path, trusted: Sequence[Ed25519PublicKey], head: Head, before: Path | None) -> int | None:
    """Return the size of the earlier head that a folder's head extends; None where there is no earlier one."""
    size, path = 0, list[bytes]()
    if (folder / EXTENSION_FILE).exists():
        with _reading(EXTENSION_FILE):
            size, path, of = read_extension(_text(folder / EXTENSION_FILE))
        if of.note.text != head.note.text:
            raise ProofError(f"{EXTENSION_FILE} is about another head")
    if before is None:
        return size or None
    with _reading(str(before)):
        old = _only(read_heads(_text(before / PROOF_FILE if before.is_dir() else before)), "head")
    if signer_of(old.note, trusted) is None:
        raise ProofError(f"the head in {before} is not signed with this key")
    if old.origin != head.origin:
        raise ProofError(f"the head in {before} is of another ledger: {old.origin}")
    if old.size not in {size, head.size}:
        raise ProofError(
            f"the head in {before} has {old.size} entries, and {EXTENSION_FILE} begins at {size}: ask the issuer for a"
            " proof from yours (credit head prove)"
        )
    if not extends(old, head, [] if old.size == head.size else path):
        raise ProofError(f"the ledger was rewritten: its head does not extend the one in {before}")
    return old.size


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Add the name of the file to errors."""
    try:
        yield
    except ProofError as error:
        raise ProofError(f"{name}: {error}") from None


def _bytes(path: Path) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise ProofError(f"{path.name} is missing, or is no file")
    return path.read_bytes()


def _text(path: Path) -> str:
    try:
        return _bytes(path).decode()
    except UnicodeDecodeError:
        raise ProofError(f"{path.name} is not text") from None


def told(found: CheckedFolder) -> list[str]:
    """Return the result of a check in words."""
    head = found.head
    lines = [
        f"signed     all {found.files} files, with the key {found.key}",
        f"statement  {found.provider}, {found.period}, version {found.version}, issued {found.issued[:10]}",
        *(f"to be paid {amount} {currency}" for currency, amount in found.payable.items()),
        f"recorded   as entry {found.leaf + 1} of {head.size} in {head.origin}"
        + (f", by {head.time}" if head.time else ""),
    ]
    if found.extends is None:
        return [
            *lines,
            "unchanged  unknown: this is the first head; keep this folder, and compare the next one with it",
        ]
    since = f"the first {found.extends} entries of the ledger are as they were"
    if found.compared:
        return [*lines, f"unchanged  {since} in the head that you kept"]
    return [*lines, f"unchanged  not compared: {since}, says the proof; name the folder that you kept: --before FOLDER"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a folder and print the result; return the exit code."""
    parser = argparse.ArgumentParser(prog="check.py", description="Check a provider's folder, without network.")
    parser.add_argument("folder", nargs="?", default=".", type=Path, help="the folder  [default: this one]")
    parser.add_argument(
        "--key", action="append", required=True, metavar="PUBLIC_KEY", help="of the issuer, 44 characters"
    )
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="the folder, or head, of an earlier month")
    options = parser.parse_args(arguments)
    try:
        keys = [read_key(text) for text in options.key]
    except ProofError as error:
        parser.error(str(error))
    try:
        lines, code = told(check_folder(options.folder, keys, options.before)), 0
    except (ProofError, OSError) as error:
        lines, code = [f"NOT AS SIGNED: {error}"], 4
    sys.stdout.write("\n".join(lines) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
