"""Checks of files outside the database: score books, and the folders of indexes."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path

from sqlalchemy import Connection, select

from credit.errors import IntegrityError
from credit.ledger.indexes import RegisteredIndex, indexes
from credit.ledger.schema import score_book
from credit.ledger.score_books import book_path
from credit.ledger.verify.report import Problem
from credit.storage import sha256_file

MANIFEST_FILE = "manifest.json"


def check_book_files(conn: Connection, folder: Path) -> Iterator[Problem]:
    """Yield each score book whose file is missing from `folder`, or has another size or hash than was registered."""
    query = select(score_book.c.sha256, score_book.c.byte_count).order_by(score_book.c.id)
    for digest, size in conn.execute(query):
        path = book_path(folder, digest)
        if not path.is_file():
            yield Problem(str(path), "is missing")
        elif path.stat().st_size != size:
            yield Problem(str(path), f"has {path.stat().st_size} bytes; {size} were registered")
        elif sha256_file(path) != digest:
            yield Problem(str(path), "does not have the SHA-256 of its name")


def check_index_files(conn: Connection) -> Iterator[Problem]:
    """Yield each registered index whose manifest, or a file that it names, is not as it was registered.

    The ledger keeps each manifest under a seal, and the manifest has the digest of every file. `unchecked_indexes` has
    those that are gone.
    """
    for item in _in_place(conn):
        yield from _manifest_problems(item)
        yield from _file_problems(Path(item.path), item.manifest_json)


def unchecked_indexes(conn: Connection) -> list[str]:
    """Return in words each registered index that is not there to be checked."""
    there = {item.id for item in _in_place(conn)}
    return [
        f"the index {item.fingerprint[:12]}... of {item.model} is no longer in {item.path}: its files were not checked"
        for item in indexes(conn)
        if item.id not in there
    ]


def refuse_altered_manifests(conn: Connection, fingerprints: Collection[str]) -> None:
    """Compare the manifests of some indexes with what was registered, where they are still there.

    Raises:
        IntegrityError: one was altered; nobody should be paid by it.
    """
    for item in _in_place(conn):
        if item.fingerprint in fingerprints:
            for problem in _manifest_problems(item):
                raise IntegrityError(f"{problem}; nobody is paid by an altered index: find out who changed it")


def _in_place(conn: Connection) -> list[RegisteredIndex]:
    """Return the registered indexes that are still in their last known place: gone are removed and replaced ones."""
    last = {item.path: item for item in indexes(conn)}  # in the order of registration: a later one replaced the earlier
    return [item for path, item in last.items() if (Path(path) / MANIFEST_FILE).is_file()]


def _manifest_problems(item: RegisteredIndex) -> Iterator[Problem]:
    path = Path(item.path) / MANIFEST_FILE
    if path.read_bytes() != item.manifest_json.encode():
        yield Problem(
            str(path),
            f"is not the manifest that was registered for {item.model} ({item.fingerprint[:12]}...)",
        )


def _file_problems(folder: Path, manifest_json: str) -> Iterator[Problem]:
    manifest = json.loads(manifest_json)
    for name, digest in sorted(manifest["files"].items()):
        path = folder / name
        if not path.is_file():
            yield Problem(str(path), "is missing")
        elif sha256_file(path) != digest:
            yield Problem(str(path), "is not the file that was registered")
    for member in manifest["checkpoints"]:
        inside = folder / member["folder"]
        # The member's manifest is among the files above: what it says was compared just now.
        path = inside / member["manifest"]
        if path.is_file():
            yield from _file_problems(inside, path.read_text(encoding="utf-8"))
