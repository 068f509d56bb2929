"""Files of training data: tables of records, saved data sets, texts, and folders with any of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from credit.errors import InputError
from credit.ingest.files import Parsed, Row, check_input, read_rows
from credit.ingest.lines import LINE_LIMIT, check_file, without_bom
from credit.ingest.streams import DAMAGES, Reading
from credit.records import Place, Quarantined

TEXTS = (".txt", ".text", ".md", ".rst", ".tex", ".html", ".htm")
"""Ends of files that are one text each."""
_TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_SAVED = ("state.json", "dataset_dict.json", "dataset_info.json")
"""Files of a folder written by `save_to_disk`; the last one alone is what a damaged one has left."""
_ABOUT = frozenset({"readme", "license", "licence", "notice", "dataset_infos", "croissant"})
"""Files about a data set, by their names without the end. They are no part of it."""


@dataclass(frozen=True, slots=True)
class TrainingFile:
    """A file, or a saved data set.

    Attributes:
        path: its place.
        name: its path inside the folder that was named, with `/` between the parts; else its own name. It does not
            change when the data move.
    """

    path: Path
    name: str

    @property
    def is_text(self) -> bool:
        """True for a file that is one text."""
        return self.path.is_file() and _plain_suffix(self.path) in TEXTS and not _looks_like_json(self.path)


def training_files(path: Path, skipped: Counter[str]) -> Iterator[TrainingFile]:
    """Yield the files of an input, in a folder by name, before those of its folders. Hidden ones are passed over.

    Args:
        path: a file, a saved data set, or a folder of files, texts and data sets.
        skipped: gets the counts of other files in a folder, by the end of their names.
    """
    if path.is_file() or _is_saved(path):
        yield TrainingFile(path, path.name)
        return
    for folder, folders, files in os.walk(path):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in list(folders):
            if _is_saved(here / name):
                folders.remove(name)
                yield TrainingFile(here / name, (here / name).relative_to(path).as_posix())
        for name in sorted(name for name in files if not name.startswith(".")):
            suffix = _plain_suffix(here / name)
            if name.lower().removesuffix(suffix) in _ABOUT:
                skipped[f"files called {name}"] += 1
            elif suffix in TEXTS or suffix in _TABLES:
                if (here / name).stat().st_size:
                    yield TrainingFile(here / name, (here / name).relative_to(path).as_posix())
                else:
                    skipped["empty files"] += 1
            else:
                skipped[f"files ending in {suffix}" if suffix else "files without an ending"] += 1


def check_training_input(path: Path) -> None:
    """Raise InputError for an input that is unusable at first sight."""
    if not path.is_dir() or _is_saved(path):
        check_input(path)
    elif next(training_files(path, Counter()), None) is None:
        ends = " ".join((*_TABLES, *TEXTS))
        raise InputError(f"{path} is a folder without a data set or a file that is read: {ends}, also gzipped")


def rows_of(
    file: TrainingFile, names: dict[str, str], known: Collection[str], ignored: Counter[str]
) -> Iterator[Row | Quarantined]:
    """Yield the rows of a file; a text is one row, with its name as id.

    Args:
        file: the file.
        names: our names of fields → those in the files.
        known: see `files.read_rows`.
        ignored: see `files.read_rows`.

    Raises:
        InputError: the file as a whole cannot be used.
    """
    if not file.is_text:
        yield from read_rows(file.path, known, ignored)
        return
    place = Place(str(file.path), 1)
    try:
        check_file(file.path)
        reading = Reading(file.path)
        with reading.open() as stream:
            raw = stream.read(LINE_LIMIT + 1)
    except InputError as error:  # one text of many ends no reading
        yield Quarantined(place, str(error), b"")
        return
    except DAMAGES as error:
        yield Quarantined(place, reading.damage(error), b"")
        return
    if reading.is_cut:
        yield Quarantined(place, reading.damage(), b"")
        return
    if len(raw) > LINE_LIMIT:
        yield Quarantined(place, f"the text is longer than {LINE_LIMIT} bytes; cut it into several", raw[:1024])
        return
    try:
        text = without_bom(raw).decode()
    except UnicodeDecodeError as error:
        yield Quarantined(place, f"byte 0x{raw[error.start]:02x} is not UTF-8; write the file as UTF-8", raw[:1024])
        return
    yield Parsed({names["id"]: file.name, names["text"]: text}, place, raw)


def _is_saved(path: Path) -> bool:
    return path.is_dir() and any((path / name).is_file() for name in _SAVED)


def _plain_suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _looks_like_json(path: Path) -> bool:
    """Return True if a file begins as a record does: some data sets end in .txt."""
    try:
        with Reading(path).open() as stream:
            return without_bom(stream.read(64)).lstrip()[:1] == b"{"
    except (InputError, OSError, *DAMAGES):
        return False
