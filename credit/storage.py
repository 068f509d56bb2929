"""Whole or absent files, private to their owner, and locks. Every part of the product writes through here.

Files get the mode 0600 and folders 0700 from the start, whatever the umask. A temporary file is always new and its
name cannot be guessed, so nobody can plant a link in its place.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from credit.errors import LockHeldError

canonical_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
"""JSON with sorted keys, no spaces, in ASCII: equal values give equal bytes. Integers of any size stay exact.

Everything hashed is written by it, except statements: these follow RFC 8785, so that programs of others can check them.
"""

quoted = json.encoder.encode_basestring_ascii
"""A text as canonical JSON. Where arrays are hashed by the million, they are put together by hand from such texts."""

FILE_MODE = 0o600
FOLDER_MODE = 0o700

_LEFT_OVER = re.compile(r"\..+\.credit-[0-9a-f]{16}\.tmp")
_NO_ROOM = {
    errno.ENOSPC: "no space is left on the device",
    errno.EDQUOT: "the quota of disk space is used up",
    errno.EFBIG: "files may not be as large as that here",
}


def parse_object(content: bytes | str) -> dict[str, Any]:
    """Return the JSON object in a text or its UTF-8 bytes.

    Raises:
        ValueError: no JSON, JSON nested too deeply, or another value than an object; in one line.
    """
    try:
        value = json.loads(content)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error})") from error
    if isinstance(value, dict):
        return value
    raise ValueError("it is not a JSON object, {...}")


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_folder(folder: Path) -> None:
    """Make a folder for its owner alone, and the missing ones above it. An existing folder keeps its mode."""
    try:
        folder.mkdir(FOLDER_MODE)
    except FileNotFoundError:
        make_folder(folder.parent)
        make_folder(folder)
    except OSError:  # also where the folder is there, and the disk can only be read
        if not folder.is_dir():
            raise


def is_exposed(path: Path) -> bool:
    """Return True if others than the owner can reach a file or folder, and read it. POSIX has such modes."""
    if os.name != "posix":
        return False
    place = path.resolve()
    entered = all(folder.stat().st_mode & (stat.S_IXGRP | stat.S_IXOTH) for folder in place.parents)
    return entered and bool(place.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))


def create_file(path: Path) -> IO[bytes]:
    """Create a file for its owner alone, and open it for writing.

    Raises:
        FileExistsError: a file, or a link to anywhere, has this name.
    """
    # O_EXCL alone refuses links on local disks; O_NOFOLLOW does so also where a network's file system is lax.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, FILE_MODE), "wb")


def name_beside(path: Path) -> Path:
    """Return a new temporary name beside `path`; `is_left_over` recognises it."""
    return path.with_name(f".{path.name}.credit-{secrets.token_hex(8)}.tmp")


def make_folder_beside(folder: Path) -> Path:
    """Make a folder for its owner alone, with a temporary name beside `folder`."""
    beside = name_beside(folder)
    beside.mkdir(FOLDER_MODE)
    return beside


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole, or leave it as it was: write beside, fsync, rename."""
    with written_whole(path) as beside:
        beside.write_bytes(content)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Context to write the file `path` in: fill the empty file it gives, which then takes the place of `path`.

    A failure deletes that file and leaves `path` as it was. The system's errors then name `path`; of themselves, those
    of a write or a sync name no file.
    """
    beside = name_beside(path)
    try:
        create_file(beside).close()
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        rename_whole(beside, path)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)
        raise


@contextmanager
def one_after_the_other(lock: Path) -> Iterator[None]:
    """Context for one process at a time; the others wait. The operating system frees the lock of a killed process."""
    from filelock import FileLock

    with FileLock(lock, mode=FILE_MODE):
        yield


@contextmanager
def only_one(lock: Path, held: str) -> Iterator[None]:
    """Context for one process at a time. The operating system frees the lock of a killed process.

    Args:
        lock: the lock file, created if it is missing.
        held: the message, with a remedy, for a lock held by another process.

    Raises:
        LockHeldError: another process holds the lock.
    """
    from filelock import FileLock, Timeout

    mine = FileLock(lock, timeout=0, mode=FILE_MODE)
    try:
        mine.acquire()
    except Timeout:
        raise LockHeldError(held) from None
    try:
        yield
    finally:
        mine.release()


def nobody_has(locks: Iterable[Path], held: str) -> None:
    """Refuse to go on if another process holds one of some locks.

    Raises:
        LockHeldError: with the message `held`.
    """
    for lock in locks:
        with only_one(lock, held):
            pass


def nearest_folder(folder: Path) -> Path:
    """Return a folder, or its nearest existing parent: both lie on the same disk."""
    return next(place for place in (folder, *folder.absolute().parents) if place.is_dir())


def is_left_over(name: str) -> bool:
    """Return True for a name made by `name_beside`: its process died before the rename."""
    return _LEFT_OVER.fullmatch(name) is not None


def why_disk_is_full(error: OSError) -> str | None:
    """Say in words why there was no room for a file; None for any other error."""
    return None if error.errno is None else _NO_ROOM.get(error.errno)


def rename_whole(beside: Path, path: Path) -> None:
    """Rename a written and synced file into its place, and make the rename itself durable."""
    beside.replace(path)
    sync_folder(path.parent)


def replace_folder(beside: Path, folder: Path) -> None:
    """Put a finished folder in the place of another, or of none."""
    # A folder cannot replace one that is not empty in a single step: the old one steps aside first.
    old = make_folder_beside(folder)
    if folder.exists():
        folder.rename(old)
    beside.rename(folder)
    shutil.rmtree(old)


def sync_folder(folder: Path) -> None:
    """Sync a folder, so its new names survive a power cut. Only POSIX can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
