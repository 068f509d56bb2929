"""The folder in which an index is built: one build at a time, and nothing in it that is somebody else's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from credit.errors import InputError
from credit.storage import is_left_over, only_one
from credit.valuation.manifest import MANIFEST
from credit.valuation.resume_state import STATE


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Context in which nobody else builds in a folder.

    Raises:
        LockHeldError: somebody does.
    """
    with only_one(out / ".lock", f"another build is at work in {out}; wait for it or choose another --out"):
        yield


def prepare_folder(out: Path) -> None:
    """Create the folder of an index.

    Raises:
        InputError: it is a file, or holds something else.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{out} is a file; --out must name a folder") from error
    check_folder(out)


def check_folder(out: Path) -> None:
    """Refuse a folder for an index that is a file, or holds something else.

    Raises:
        InputError: saying which.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out} is a file; --out must name a folder")
    content = {path.name for path in out.iterdir() if not is_left_over(path.name)}
    if content - {".lock"} and not content & {MANIFEST, STATE}:
        raise InputError(f"{out} is not empty and holds no index; choose another --out")
