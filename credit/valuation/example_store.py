"""Examples by position: held in memory, or tokenised once into files that hold everything but a few numbers of each.

A store of N short texts keeps about 80 bytes of each in memory, and no Python object. Ids and tokens lie in two files
without names, which vanish with the process. A unit reads its own examples from them. A store can be kept in a folder;
what opens it there maps its files into memory, and reads of them what it needs.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from credit.errors import IntegrityError, ValuationError
from credit.records import Group, Share
from credit.storage import (
    canonical_json,
    create_file,
    make_folder_beside,
    parse_object,
    rename_whole,
    sha256_file,
    why_disk_is_full,
)
from credit.valuation.batches import by_window
from credit.valuation.rows import fold_key
from credit.valuation.task import AnyExample
from credit.valuation.tokens import Segment, Window

_IN_MEMORY = 32 * 2**20
"""Bytes of a file that stay in memory: small data needs no disk."""

_DIGEST = 8
"""Bytes of a digest that an index lists."""

_FACTS = "store.json"
"""File of a kept store with everything that is no column, and the digests of the other files."""

_COLUMNS = {
    "first_token": "<i8",
    "first_letter": "<i8",
    "border": "<i4",
    "first_example": "<i8",
    "window": "<i4",
    "start": "<i4",
    "stop": "<i4",
    "digests": "u1",
    "kind": "<i4",
    "keys": "<u8",
}
"""Columns of a kept store, each a file of numbers."""


class Examples(Protocol):
    """N examples of W windows, by their positions."""

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Positions of each example in a batch: (N,)."""
        ...

    @property
    def window_sizes(self) -> NDArray[np.int64]:
        """Positions of each window: (W,)."""
        ...

    @property
    def window_counts(self) -> NDArray[np.int64]:
        """Examples of each window: (W,)."""
        ...

    @property
    def disk_bytes(self) -> int:
        """Bytes of files with the examples."""
        ...

    def __len__(self) -> int: ...

    def id_of(self, position: int) -> str:
        """Return the id of an example."""
        ...

    def take(self, positions: Sequence[int]) -> list[AnyExample]:
        """Return some examples. Those of one window share it."""
        ...

    def of_windows(self, numbers: Iterable[int]) -> list[AnyExample]:
        """Return the examples of some windows, one window after the other."""
        ...

    def window_keys(self, prefix: str) -> NDArray[np.uint64]:
        """Return the hash of each window's id after a prefix: (W,)."""
        ...


class HeldExamples:
    """Examples in memory: those of a module's own tensors, or of a change that is small against its index."""

    disk_bytes = 0

    def __init__(self, examples: Sequence[AnyExample]) -> None:
        self._examples = examples
        self._windows = by_window(examples)
        self.sizes = np.asarray([example.size for example in examples], dtype=np.int64)
        self.window_sizes = np.asarray([window.size for window in self._windows], dtype=np.int64)
        self.window_counts = np.asarray([len(window.places) for window in self._windows], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._examples)

    def id_of(self, position: int) -> str:
        """Return the id of an example."""
        return self._examples[position].id

    def take(self, positions: Sequence[int]) -> list[AnyExample]:
        """Return some examples."""
        return [self._examples[position] for position in positions]

    def of_windows(self, numbers: Iterable[int]) -> list[AnyExample]:
        """Return the examples of some windows, one window after the other."""
        return [self._examples[place] for number in numbers for place in self._windows[number].places]

    def window_keys(self, prefix: str) -> NDArray[np.uint64]:
        """Return the hash of each window's id after a prefix: (W,)."""
        return np.asarray([fold_key(prefix + own.window.id) for own in self._windows], dtype=np.uint64)


class StoredExamples:
    """Examples of texts in files, in the order in which they were added.

    Args:
        folder: folder of the disk for the files; None for the system's temporary one.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._tokens, self._ids = _Spool(folder), _Spool(folder)
        self._first_token, self._first_letter = array("q", [0]), array("q", [0])  # (W + 1,)
        self._border = array("i")  # (W,): the first predicted token of each window
        self._first_example = array("q", [0])  # (W + 1,)
        self._window, self._start, self._stop = array("i"), array("i"), array("i")  # (N,)
        self._digests = bytearray()
        self._kind = array("i")
        self._kinds: dict[tuple[Share, ...], int] = {}
        self._keys = array("Q")
        self._length = 0
        self._last: Window | None = None

    @classmethod
    def open(cls, folder: Path) -> tuple[StoredExamples, dict[str, Any]]:
        """Open a kept store; return it with the facts that were kept with it.

        Raises:
            IntegrityError: a file is missing or altered.
        """
        store = cls.__new__(cls)
        try:
            kept = parse_object((folder / _FACTS).read_bytes())
            for name, digest in kept["files"].items():
                if sha256_file(folder / name) != digest:
                    raise IntegrityError(f"{folder / name} was altered; delete {folder}")
            for name, dtype in _COLUMNS.items():
                setattr(store, f"_{name}", np.memmap(folder / name, dtype=dtype, mode="r"))
            store._tokens, store._ids = _Mapped(folder / "tokens"), _Mapped(folder / "ids")
            shares = [tuple(Share(Group(*group), ppm) for *group, ppm in kind) for kind in kept["kinds"]]
            store._kinds = {kind: number for number, kind in enumerate(shares)}
            store._length = kept["length"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"{folder} holds no whole tokens of training data; delete it ({error})") from error
        store._last = None
        return store, kept["facts"]

    def keep(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Keep the store in a folder that is not there yet, whole or not at all, with some facts.

        Raises:
            ValuationError: the disk is full.
        """
        kinds = [[(share.group.provider, share.group.collection, share.ppm) for share in kind] for kind in self._kinds]
        beside = make_folder_beside(folder)
        try:
            for name, spool in (("tokens", self._tokens), ("ids", self._ids)):
                with create_file(beside / name) as file:
                    spool.copy(file)
                    _sync(file)
            for name in _COLUMNS:
                with create_file(beside / name) as file:
                    file.write(getattr(self, f"_{name}"))
                    _sync(file)
            files = {path.name: sha256_file(path) for path in sorted(beside.iterdir())}
            about = {"files": files, "kinds": kinds, "length": self._length, "facts": facts}
            with create_file(beside / _FACTS) as file:
                file.write(canonical_json(about).encode())
                _sync(file)
            rename_whole(beside, folder)
        except OSError as error:
            if reason := why_disk_is_full(error):
                raise ValuationError(f"tokens of the data cannot be kept in {folder}: {reason}") from error
            raise
        finally:
            if beside.is_dir():
                shutil.rmtree(beside)

    @property
    def disk_bytes(self) -> int:
        """Bytes of ids and tokens."""
        return 4 * int(self._first_token[-1]) + int(self._first_letter[-1])

    def add(self, example: Window | Segment, shares: tuple[Share, ...], digest: bytes) -> None:
        """Add an example with its shares and its digest. Those of one window follow each other."""
        cut = example if isinstance(example, Segment) else None
        window = example.window if isinstance(example, Segment) else example
        if window is not self._last:
            self._add_window(window)
            self._last = window
        self._window.append(len(self._border) - 1)
        self._start.append(example.start)
        self._stop.append(cut.stop if cut else window.size)
        self._length = cut.length if cut else self._length
        self._first_example[-1] += 1
        self._digests += digest[:_DIGEST]
        self._kind.append(self._kinds.setdefault(shares, len(self._kinds)))
        self._keys.append(fold_key(example.id))

    def _add_window(self, window: Window) -> None:
        self._border.append(window.start)
        self._first_token.append(self._tokens.append(window.tokens.astype("<i4").tobytes()) // 4)
        self._first_letter.append(self._ids.append(window.id.encode()))
        self._first_example.append(self._first_example[-1])

    def __len__(self) -> int:
        return len(self._window)

    @property
    def kinds(self) -> tuple[tuple[Share, ...], ...]:
        """The different shares of examples."""
        return tuple(self._kinds)

    @property
    def kind(self) -> NDArray[np.int32]:
        """Number of each example's shares in `kinds`: (N,)."""
        return _view(self._kind, np.int32)

    @property
    def keys(self) -> NDArray[np.uint64]:
        """Hash of each example's id: (N,)."""
        return _view(self._keys, np.uint64)

    @property
    def window_of(self) -> NDArray[np.int32]:
        """Number of each example's window: (N,)."""
        return _view(self._window, np.int32)

    @property
    def predicted(self) -> NDArray[np.int32]:
        """Predicted tokens of each example: (N,)."""
        predicted: NDArray[np.int32] = _view(self._stop, np.int32) - _view(self._start, np.int32)
        return predicted

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Positions of each example in a batch: (N,)."""
        whole = self.window_counts[self.window_of] == 1
        start, stop, border = _view(self._start, np.int32), _view(self._stop, np.int32), _view(self._border, np.int32)
        sizes = self.window_sizes[self.window_of]
        first = np.where(start == border[self.window_of], 0, start - 1)
        cut = stop - 1 - first + (stop == sizes)
        return np.where(whole, sizes, cut)

    @property
    def window_sizes(self) -> NDArray[np.int64]:
        """Tokens of each window: (W,)."""
        return np.diff(_view(self._first_token, np.int64))

    @property
    def window_counts(self) -> NDArray[np.int64]:
        """Examples of each window: (W,)."""
        return np.diff(_view(self._first_example, np.int64))

    def digest_of(self, position: int) -> str:
        """Return the start of an example's digest, as an index lists it."""
        return bytes(self._digests[_DIGEST * position : _DIGEST * (position + 1)]).hex()

    def id_of(self, position: int) -> str:
        """Return the id of an example."""
        number = self._window[position]
        name = self._window_id(number)
        if self._first_example[number + 1] - self._first_example[number] == 1:
            return name
        return f"{name}[{self._start[position]}:{self._stop[position]}]"

    def _window_id(self, number: int) -> str:
        first, stop = self._first_letter[number : number + 2]
        return self._ids.read(first, stop - first).decode()

    def take(self, positions: Sequence[int]) -> list[AnyExample]:
        """Return some examples. Those of one window share it."""
        windows: dict[int, Window] = {}
        taken: list[AnyExample] = []
        for position in positions:
            number = self._window[position]
            if number not in windows:
                first, stop = self._first_token[number : number + 2]
                tokens = np.frombuffer(self._tokens.read(4 * first, 4 * (stop - first)), dtype="<i4")
                windows[number] = Window(self._window_id(number), tokens, self._border[number])
            window = windows[number]
            if self._first_example[number + 1] - self._first_example[number] == 1:
                taken.append(window)
            else:
                taken.append(Segment(window, self._start[position], self._stop[position], self._length))
        return taken

    def of_windows(self, numbers: Iterable[int]) -> list[AnyExample]:
        """Return the examples of some windows, one window after the other."""
        first = self._first_example
        return self.take([place for number in numbers for place in range(first[number], first[number + 1])])

    def window_keys(self, prefix: str) -> NDArray[np.uint64]:
        """Return the hash of each window's id after a prefix: (W,)."""
        names = (self._window_id(number) for number in range(len(self._border)))
        return np.fromiter((fold_key(prefix + name) for name in names), dtype=np.uint64, count=len(self._border))


def _view(values: array[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """Return an array's memory as it is now. Nothing may be added while it is in use."""
    return np.frombuffer(values, dtype=dtype)


class _Spool:
    """File without a name, to append to and to read anywhere. A small one stays in memory."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = str(folder or tempfile.gettempdir())
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=self._folder)  # noqa: SIM115
        weakref.finalize(self, _close, self._file)
        self._size, self._at_end = 0, True

    def append(self, content: bytes) -> int:
        """Append bytes; return the bytes in all.

        Raises:
            ValuationError: the disk is full.
        """
        try:
            if not self._at_end:
                self._file.seek(self._size)
                self._at_end = True
            self._file.write(content)
        except OSError as error:
            if reason := why_disk_is_full(error):
                raise ValuationError(f"tokens of the data cannot be kept in {self._folder}: {reason}") from error
            raise
        self._size += len(content)
        return self._size

    def copy(self, to: IO[bytes]) -> None:
        """Copy everything to a file."""
        self._at_end = False
        self._file.seek(0)
        shutil.copyfileobj(self._file, to)

    def read(self, at: int, size: int) -> bytes:
        """Return `size` bytes from a place on."""
        self._at_end = False
        self._file.seek(at)
        return self._file.read(size)


class _Mapped(_Spool):
    """Whole file, mapped into memory. Nothing can be appended."""

    def __init__(self, path: Path) -> None:
        self._map = np.memmap(path, dtype="u1", mode="r")

    def read(self, at: int, size: int) -> bytes:
        """Return `size` bytes from a place on."""
        return self._map[at : at + size].tobytes()


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _close(file: IO[bytes]) -> None:
    """Close a file that nobody reads any more, also on a full disk."""
    with suppress(OSError):
        file.close()
