"""Logged outputs from files of any known format, record by record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from credit.errors import InputError
from credit.ingest import openai_chat, own_format
from credit.ingest.fields import field_names
from credit.ingest.results import Parsed, notices_of_ignored
from credit.ingest.sources import Row, check_input, read_rows
from credit.records import LoggedOutput, Quarantined

_KNOWN = frozenset(own_format.FIELDS) | openai_chat.FIELDS


class OutputReader:
    """Streams a file's outputs; iterating again starts again.

    Each item is an output with its place, or a quarantined record. Ids are not compared here: the ledger knows
    all outputs, a file only its own.
    """

    def __init__(self, path: Path, source: str | None, fields: Mapping[str, str] | None) -> None:
        self._names = field_names(own_format.FIELDS, fields) if fields else None
        check_input(path)
        self._path = path
        self._source = source
        self._ignored: Counter[str] = Counter()

    @property
    def notices(self) -> tuple[str, ...]:
        """What the last iteration wants known: the fields that it found and did not use."""
        return notices_of_ignored(self._ignored)

    def __iter__(self) -> Iterator[Parsed[LoggedOutput] | Quarantined]:
        self._ignored.clear()
        known = frozenset(self._names.values()) if self._names else _KNOWN
        for row in read_rows(self._path, known, self._ignored):
            if isinstance(row, Quarantined):
                yield row
            else:
                yield from self._outputs(row)

    def _outputs(self, row: Row) -> Iterator[Parsed[LoggedOutput] | Quarantined]:
        record, own = row.record, frozenset(own_format.FIELDS)
        self._ignored.update(record.keys() - (frozenset(self._names.values()) if self._names else _KNOWN))
        if self._names:  # a mapping is about the own format
            record = {ours: record[theirs] for ours, theirs in self._names.items() if theirs in record}
            parse, fields = own_format.parse_own, own
        elif openai_chat.is_openai_chat(record):
            parse, fields = openai_chat.parse_openai_chat, openai_chat.FIELDS
        else:
            parse, fields = own_format.parse_own, own
        try:
            outputs = parse(record, self._source)
        except InputError as error:
            yield row.refuse(str(error))
            return
        # Fields of another format are as good as unknown ones: a `weight` in a log of OpenAI's API counts nothing.
        self._ignored.update((record.keys() - fields) & _KNOWN)
        for output in outputs:
            yield row.refuse(output) if isinstance(output, str) else Parsed(output, row.place, row.raw)


def read_outputs(path: Path, *, source: str | None = None, fields: Mapping[str, str] | None = None) -> OutputReader:
    """Read logged outputs: the own format (JSON Lines, CSV, Parquet) or OpenAI chat completions (JSON Lines).

    The format is told for every record apart. One call with several choices becomes several outputs.

    Args:
        path: the file; JSON Lines and CSV may be gzipped.
        source: what the ids are unique within; given, it goes before the records' own `source`. By default it is
            the name of the format.
        fields: names in the file that differ from those of the own format, as ours to theirs; with it, every record is
            of the own format.

    Raises:
        InvalidRequestError: the mapping of fields makes no sense.
        InputError: the file as a whole cannot be used (some faults show only while it is read).
    """
    return OutputReader(path, source, fields)
