"""Parquet files and Arrow streams of others, as frames of bounded size; a child process decodes them."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import polars as pl

from credit.errors import InputError, InvalidRequestError
from credit.ingest.json_documents import parse_json_object
from credit.ingest.lines import LINE_LIMIT, check_file
from credit.ingest.table_process import ARROW, MESSAGE, MIB, NO_MEMORY, PARQUET, SLICE_SECONDS, SMALLER, Told

MEMORY = "CREDIT_READ_MEMORY"
"""Environment variable: MiB of memory in which a Parquet file or an Arrow stream is decoded."""
DEFAULT_MEMORY = 1024

_KINDS = {PARQUET: "write it again", ARROW: "save the data set again"}
_ROOT = Path(__file__).resolve().parents[2]
_START = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import credit  # this very package; all that it needs is found where it always is
del sys.path[0]
from credit.ingest.table_process import main
main()
"""
_QUIETLY = {
    "POLARS_MAX_THREADS": "1",
    "POLARS_ROW_GROUP_PREFETCH_SIZE": "1",
    # Without memory, the report of where there was none never ends.
    "RUST_BACKTRACE": "0",
    # The allocator's own threads would try for ever to start where the limit leaves them no memory.
    # Freed memory goes back at once: a fifth less at its peak, for no time.
    "_RJEM_MALLOC_CONF": "background_thread:false,dirty_decay_ms:0,muzzy_decay_ms:0",
}
_NO_MEMORY = {NO_MEMORY, -signal.SIGABRT, -9}
"""Ends of a process without memory: Python's own, Rust's, and the system's (SIGKILL)."""


@dataclass(frozen=True, slots=True)
class LongRow:
    """A row too long for a record."""

    size: int

    @property
    def problem(self) -> str:
        """The reason for the quarantine."""
        return f"the row takes {self.size} bytes; the limit is {LINE_LIMIT}"


class TableFile:
    """Context to read a file in, by a child process with limited memory.

    Example:
        with TableFile(path, PARQUET, {"id", "text"}) as table:
            for piece in table.pieces(): ...

    Attributes:
        names: all columns of the file.

    Args:
        path: the file.
        kind: `PARQUET` or `ARROW`.
        known: columns to read, as far as the file has them.

    Raises:
        InputError: the file is damaged, or takes too much memory or time (some faults show only while it is read).
        InvalidRequestError: the limit of memory is no number of MiB.
    """

    def __init__(self, path: Path, kind: str, known: Collection[str]) -> None:
        self.names: list[str] = []
        self._path, self._kind, self._known = path, kind, sorted(known)
        self._place = "its footer" if kind == PARQUET else "its schema"

    def __enter__(self) -> Self:
        self._mebibytes = _memory()
        arguments = [str(_ROOT), str(self._path), self._kind, str(self._mebibytes * MIB), json.dumps(self._known)]
        self._process = subprocess.Popen(  # noqa: S603  # this Python, and a file's name as one argument
            # -P: a file of the working folder must not be taken for a module.
            [sys.executable, "-P", "-c", _START, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **_QUIETLY},
        )
        try:
            for told, content in self._messages():
                if told is Told.COLUMNS:
                    self.names = json.loads(content)
                    break
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def pieces(self) -> Iterator[pl.DataFrame | LongRow]:
        """Yield the rows in order, in pieces of some megabytes, with the known columns."""
        for told, content in self._messages():
            if told is Told.FRAME:
                yield pl.read_ipc_stream(io.BytesIO(content))
            elif told is Told.LONG_ROW:
                yield LongRow(int(content))
            elif told is Told.AT:
                self._place = content.decode()

    def _messages(self) -> Iterator[tuple[Told, bytes]]:
        """Yield the messages of the process until its last one."""
        assert self._process.stdout is not None  # noqa: S101  # for the type: it is a pipe
        while True:
            head = self._process.stdout.read(MESSAGE.size)
            if len(head) < MESSAGE.size:
                raise InputError(self._death(self._process.wait()))
            kind, size = MESSAGE.unpack(head)
            content = self._process.stdout.read(size)
            if len(content) < size:
                raise InputError(self._death(self._process.wait()))
            match Told(kind):
                case Told.END:
                    return
                case Told.DAMAGE:
                    raise InputError(self._damage(content.decode()))
                case Told.OVER_LIMIT:
                    raise InputError(f"{self._path}: {content.decode()}; {self._remedy()}")
                case told:
                    yield told, content

    def _death(self, code: int) -> str:
        """Return why the process died."""
        if -code == getattr(signal, "SIGALRM", None):
            return f"{self._path}: {self._place} takes more than {SLICE_SECONDS} seconds to decode; {SMALLER}"
        if code in _NO_MEMORY:
            taken = f"{self._place} takes more than {self._mebibytes} MiB to decode; {SMALLER}"
            return f"{self._path}: {taken}; {self._remedy()}"
        end = f"signal {-code}" if code < 0 else f"exit code {code}"
        return self._damage(f"{self._place} stops its reader ({end})")

    def _damage(self, reason: str) -> str:
        return f"{self._path} is not a whole {self._kind}: {reason}; {_KINDS[self._kind]}"

    def _remedy(self) -> str:
        return f"if the file is right, raise the limit: {MEMORY}={2 * self._mebibytes}"

    def _stop(self) -> None:
        self._process.kill()
        self._process.communicate()


def _memory() -> int:
    """Return the limit of memory, in MiB."""
    said = os.environ.get(MEMORY) or str(DEFAULT_MEMORY)
    if not (said.isascii() and said.isdecimal() and 64 <= int(said) <= 1 << 20):
        raise InvalidRequestError(f"{MEMORY} is {said!r}; it must be a whole number of MiB, from 64 to {1 << 20}")
    return int(said)


def saved_shards(folder: Path) -> list[Path]:
    """Return the shards of a data set in the layout of `save_to_disk`, in order.

    Raises:
        InputError: the folder holds no such data set, or several splits, or lacks a file.
    """
    splits = folder / "dataset_dict.json"
    if splits.is_file():
        names = _json_file(splits).get("splits")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{splits} does not list its splits; save the data set again")
        if len(names) != 1:
            raise InputError(
                f"{folder} holds the splits {', '.join(names)}; name those that the model was trained on, "
                f"like {folder / (names or ['train'])[0]}"
            )
        return saved_shards(folder / names[0])
    state = folder / "state.json"
    if not state.is_file():
        raise InputError(f"{folder} is a folder, but not a data set saved with save_to_disk; name the files in it")
    listed = _json_file(state).get("_data_files")
    files = [item.get("filename") for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    if not files or not all(isinstance(name, str) and Path(name).name == name for name in files):
        raise InputError(f"{state} does not list its data files; save the data set again")
    paths = [folder / str(name) for name in files]
    for path in paths:
        check_file(path)
    return paths


def _json_file(path: Path) -> dict[str, object]:
    if path.stat().st_size > LINE_LIMIT:
        raise InputError(f"{path} is longer than {LINE_LIMIT} bytes; save the data set again")
    try:
        return parse_json_object(path.read_bytes())
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
