"""Checks of files outside the database: score books, and the folders of indexes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, select

from credit.ledger.indexes import indexes, indexes_in_place, manifest_fault
from credit.ledger.schema import score_book
from credit.ledger.score_books import book_path
from credit.ledger.verify.report import Problem
from credit.records import MANIFEST
from credit.storage import parse_object, sha256_file


def check_book_files(conn: Connection, folder: Path) -> Iterator[Problem]:
    """Yield each score book without its file in `folder`, or with a file of another size or hash than registered."""
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
    """Yield each manifest and file of a registered index unlike its registration.

    The ledger keeps each manifest under a seal, and the manifest has the digest of every file. `unchecked_indexes`
    names the missing indexes.
    """
    for item in indexes_in_place(conn):
        fault = manifest_fault(item)
        if fault is not None:
            yield Problem(str(Path(item.path) / MANIFEST), fault)
        yield from _file_problems(Path(item.path), item.manifest_json)


def unchecked_indexes(conn: Connection) -> list[str]:
    """Return, in words, each registered index without a folder."""
    there = {item.id for item in indexes_in_place(conn)}
    return [
        f"the index {item.fingerprint[:12]}... of {item.model} is no longer in {item.path}: its files were not checked"
        for item in indexes(conn)
        if item.id not in there
    ]


def _file_problems(folder: Path, manifest_json: str) -> Iterator[Problem]:
    try:
        manifest = parse_object(manifest_json)
        files, checkpoints = dict(manifest["files"]), list(manifest["checkpoints"])
    except (ValueError, TypeError, KeyError) as error:
        yield Problem(str(folder), f"has no readable manifest ({error})")
        return
    for name, digest in sorted(files.items()):
        path = folder / name
        if not path.is_file():
            yield Problem(str(path), "is missing")
        elif sha256_file(path) != digest:
            yield Problem(str(path), "is not the registered file")
    for member in checkpoints:
        inside = folder / member["folder"]
        # The manifest of a member is among the files above, so it was compared just now.
        path = inside / member["manifest"]
        if path.is_file():
            yield from _file_problems(inside, path.read_text(encoding="utf-8"))
