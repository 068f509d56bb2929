"""Training data, tokenised once and kept for the next run: a slice, a merge, a build that was interrupted.

What is kept has a name that follows from everything that decides it: the bytes of the files, how they are read, the
tokenizer and its libraries. So nothing old is ever taken for something new, and nobody has to say that data changed.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path

from credit.errors import IntegrityError
from credit.ingest.training import TrainingCounts, TrainingReader
from credit.ingest.training_source import CROISSANT, TrainingSource
from credit.records import Group, Place, Quarantined
from credit.storage import canonical_json, make_folder, one_after_the_other, sha256_file
from credit.valuation import IndexSettings, LanguageModel
from credit.valuation.build import encode_data
from credit.valuation.examples import TrainingData
from credit.version import VERSION

_PACKAGES = ("transformers", "tokenizers")
_MOST_QUARANTINED = 10_000
"""Quarantined records that are kept; data with more are read anew each time."""
_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Tokenised:
    """Training data of a build, and what their reading told.

    Attributes:
        data: the examples.
        counts: counts of the records.
        notices: notices of the reading, in words.
    """

    data: TrainingData
    counts: TrainingCounts
    notices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrainingInput:
    """Way to read the training data of a build.

    Attributes:
        data: files and folders.
        source: how they are read.
        known_providers: providers that may be tagged; None: any.
        refuse: takes each quarantined record, also those that an earlier run has found.
    """

    data: Sequence[Path]
    source: TrainingSource
    known_providers: Collection[str] | None
    refuse: Callable[[Quarantined], None]

    def reader(self, refuse: Callable[[Quarantined], None] | None = None) -> TrainingReader:
        """Return a reader of the data.

        Raises:
            InputError: a file as a whole cannot be used.
            InvalidRequestError: the source makes no sense.
        """
        return TrainingReader(
            self.data,
            source=self.source,
            known_providers=self.known_providers,
            on_quarantined=refuse or self.refuse,
        )

    def name(self, model: LanguageModel, settings: IndexSettings) -> str | None:
        """Return the name of these data, tokenised; None where not everything that decides them can be named."""
        if self.source.provider_from == CROISSANT:
            return None  # metadata may lie anywhere above the files
        parts = [
            [VERSION, *map(metadata.version, _PACKAGES)],
            [(name, sha256_file(file)) for name, file in self._files()],
            asdict(replace(self.source, provider_map=None)),
            sha256_file(self.source.provider_map) if self.source.provider_map else None,
            None if self.known_providers is None else sorted(self.known_providers),
            [model.tokenizer_sha256, settings.max_length or model.max_length, settings.template_date],
            settings.example_length,
        ]
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()

    def stamps(self) -> list[tuple[str, int, int]]:
        """Return the sizes and times of all files: they tell whether one has changed meanwhile."""
        return [(name, file.stat().st_size, file.stat().st_mtime_ns) for name, file in self._files()]

    def _files(self) -> Iterator[tuple[str, Path]]:
        """Yield all files, by name in each folder, with the names by which messages call them."""
        for path in self.data:
            if not path.is_dir():
                yield str(path), path
                continue
            for folder, folders, files in os.walk(path):
                folders.sort()
                yield from ((str(Path(folder) / name), Path(folder) / name) for name in sorted(files))


def tokenise(reading: TrainingInput, model: LanguageModel, out: Path, settings: IndexSettings) -> Tokenised:
    """Read and tokenise the training data of a build, and keep nothing; see `kept_or_tokenised`."""
    return _tokenised(reading.reader(), model, out, settings)


def kept_or_tokenised(
    reading: TrainingInput, model: LanguageModel, out: Path, settings: IndexSettings, place: Path
) -> Tokenised:
    """Return the training data of a build as an earlier run has kept them, or tokenise and keep them.

    Args:
        reading: the data.
        model: the model, for its tokenizer.
        out: folder of the index.
        settings: of the index.
        place: folder of kept data. Runs that come at once wait for the one that tokenises.

    Raises:
        InputError: there is nothing to index.
        ValuationError: the disk is full.
    """
    make_folder(place)
    with one_after_the_other(place / _LOCK):
        make_folder(place)  # the build may have ended while this run waited, and its folder with it
        before = reading.stamps()
        if (name := reading.name(model, settings)) is None:
            return tokenise(reading, model, out, settings)
        if (found := _kept(place / name, reading)) is not None:
            return found
        bad: list[Quarantined] = []

        def refuse(item: Quarantined) -> None:
            if len(bad) <= _MOST_QUARANTINED:
                bad.append(item)
            reading.refuse(item)

        made = _tokenised(reading.reader(refuse), model, out, settings)
        # Data that grew meanwhile are not what the name says.
        if len(bad) <= _MOST_QUARANTINED and reading.stamps() == before:
            counts = asdict(replace(made.counts, records_by_group={}))
            groups = [(one.provider, one.collection, count) for one, count in made.counts.records_by_group.items()]
            told = {"counts": counts, "groups": groups, "notices": made.notices, "bad": [_line(item) for item in bad]}
            made.data.keep(place / name, told)
        return made


def _tokenised(reader: TrainingReader, model: LanguageModel, out: Path, settings: IndexSettings) -> Tokenised:
    data = encode_data(model, reader, out, settings, reader.leave_out)
    return Tokenised(data, reader.counts, reader.notices)


def _kept(folder: Path, reading: TrainingInput) -> Tokenised | None:
    """Open kept data, and refuse their quarantined records again; None if there are none, or damaged ones."""
    if not folder.is_dir():
        return None
    try:
        data, told = TrainingData.open(folder)
    except IntegrityError:
        shutil.rmtree(folder)
        return None
    for file, line, error, raw in told["bad"]:
        reading.refuse(Quarantined(Place(file, line), error, base64.b64decode(raw)))
    groups = {Group(provider, collection): count for provider, collection, count in told["groups"]}
    examples = tuple(told["counts"]["shared_examples"])
    counts = TrainingCounts(**(told["counts"] | {"records_by_group": groups, "shared_examples": examples}))
    return Tokenised(data, counts, tuple(told["notices"]))


def _line(item: Quarantined) -> tuple[str, int, str, str]:
    return item.place.file, item.place.line, item.error, base64.b64encode(item.raw).decode()
