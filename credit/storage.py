"""Files that are whole or absent, what identifies them, and locks. Every part of the product writes through here."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from credit.errors import LockHeldError

canonical_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
"""JSON with sorted keys, no spaces, in ASCII: equal values give equal bytes. Integers of any size stay exact.

Everything hashed is written by it, except statements: these follow RFC 8785, so that programs of others can check them.
"""

_NO_ROOM = {
    errno.ENOSPC: "no space is left on the device",
    errno.EDQUOT: "the quota of disk space is used up",
    errno.EFBIG: "files may not be as large as that here",
}


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Write a file so that it is whole or absent, whatever happens: beside, fsync, rename.

    `mode` is that of the new file, less the process's umask.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with removed_on_failure(beside, path):
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        rename_whole(beside, path)


@contextmanager
def removed_on_failure(beside: Path, path: Path) -> Iterator[None]:
    """Context that writes the file `path` beside its place: where it fails, what there is of it takes up no room.

    The system's errors name `path`; one that a write or sync raises names no file.
    """
    try:
        yield
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)
        raise


@contextmanager
def only_one(lock: Path, held: str) -> Iterator[None]:
    """Context that one process at a time is in; the operating system lets the next one in, however this one ends.

    Args:
        lock: the file that stands for it, created where it is missing.
        held: what to say where another process is in it, and what to do about it.

    Raises:
        LockHeldError: another one is.
    """
    from filelock import FileLock, Timeout

    mine = FileLock(lock, timeout=0)
    try:
        mine.acquire()
    except Timeout:
        raise LockHeldError(held) from None
    try:
        yield
    finally:
        mine.release()


def nearest_folder(folder: Path) -> Path:
    """Return a folder, or the nearest above it that is there: what is to be made lies on the same disk."""
    return next(place for place in (folder, *folder.absolute().parents) if place.is_dir())


def is_left_over(name: str) -> bool:
    """Whether a file's name is that of one which was being written beside its place when its process was killed."""
    return name.startswith(".") and name.endswith(".tmp")


def why_disk_is_full(error: OSError) -> str | None:
    """Say in words why there was no room for what was written; None if the error is another."""
    return None if error.errno is None else _NO_ROOM.get(error.errno)


def rename_whole(beside: Path, path: Path) -> None:
    """Rename a file that is written and synced into its place, and make the rename itself durable."""
    beside.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make what was created or renamed in a folder survive a power cut; a folder can be synced on POSIX only."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
