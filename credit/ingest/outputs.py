"""Logged outputs from files of any known format, record by record."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from credit.errors import InputError
from credit.ingest.batch_requests import BatchRequests
from credit.ingest.calls import Found, Piece, Refused, Skipped
from credit.ingest.fields import field_names
from credit.ingest.files import Parsed, Row, check_input, notices_of_ignored, read_rows
from credit.ingest.formats import FORMATS, KNOWN_FIELDS, OWN, Format, Record, format_of, own
from credit.ingest.spans import Reading
from credit.records import LoggedOutput, Quarantined

_UNKNOWN = f"is of no known format; looked for {'; '.join(known.title for known in FORMATS)}"
_MEANT_FOR_US = frozenset({"weight"})
"""Fields that, in whatever log, somebody put there in vain."""
_SAID_AGAIN = Skipped("calls that were logged before in the same file")


class OutputReader:
    """Streams a file's outputs; iterating again starts again.

    Each item is an output with its place, or a quarantined record. Ids are not compared with those of other files: the
    ledger knows all outputs, a file only its own.
    """

    def __init__(
        self,
        path: Path,
        source: str | None,
        fields: Mapping[str, str] | None,
        requests: BatchRequests,
        occurred_at: datetime | None,
    ) -> None:
        self._names = field_names(own.FIELDS, fields) if fields else None
        check_input(path)
        self._path = path
        self._shared = source, requests, occurred_at
        self._reading = Reading(*self._shared)
        self._ignored: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()

    @property
    def skipped(self) -> dict[str, int]:
        """What the last iteration met that is no output although nothing is wrong with it: how often, by reason."""
        return dict(sorted(self._skipped.items()))

    @property
    def notices(self) -> tuple[str, ...]:
        """What the last iteration wants known: the fields that it found and did not use."""
        return notices_of_ignored(self._ignored)

    def __iter__(self) -> Iterator[Parsed[LoggedOutput] | Quarantined]:
        self._ignored.clear()
        self._skipped.clear()
        self._reading = Reading(*self._shared)
        known = frozenset(self._names.values()) if self._names else KNOWN_FIELDS
        for row in read_rows(self._path, known, self._ignored):
            if isinstance(row, Quarantined):
                yield row
                continue
            try:
                log, found = self._parse(row.record)
            except InputError as error:
                yield row.refuse(str(error))
                continue
            except RecursionError:  # what the parser of JSON took may still be too deep for who walks through it
                yield row.refuse("is nested too deeply")
                continue
            for item in found:
                yield from self._handed_out(item, row, log)

    def _parse(self, record: Record) -> tuple[Format, Sequence[Found | Piece]]:
        """Return the format of a record, and what it holds."""
        if self._names:  # a mapping is about the own format
            self._ignored.update(record.keys() - self._names.values())
            record = {ours: record[theirs] for ours, theirs in self._names.items() if theirs in record}
            return OWN, OWN.parse(record, self._reading)
        known = format_of(record)
        if known is None:
            raise InputError(_UNKNOWN)
        found = known.parse(record, self._reading)
        unread = record.keys() - known.fields
        self._ignored.update(unread if known.names_unread else unread & _MEANT_FOR_US)
        return known, found

    def _handed_out(self, item: Found | Piece, row: Row, known: Format) -> Iterator[Parsed[LoggedOutput] | Quarantined]:
        found = item.found if isinstance(item, Piece) else item
        if isinstance(found, LoggedOutput) and known.says_again and self._reading.calls.is_said_again(found):
            found = _SAID_AGAIN
        if isinstance(found, Skipped):
            self._skipped[found.reason] += 1
            return
        raw = _bytes_of(item.span) if isinstance(item, Piece) else row.raw
        if isinstance(found, Refused):
            yield Quarantined(row.place, found.reason, raw)
        else:
            yield Parsed(found, row.place, raw)


def _bytes_of(span: Record) -> bytes:
    """Return a part of a record as JSON, numbers as they were."""
    return json.dumps(span, default=str, ensure_ascii=False).encode(errors="surrogatepass")


def read_outputs(
    path: Path,
    *,
    source: str | None = None,
    fields: Mapping[str, str] | None = None,
    requests: BatchRequests | None = None,
    occurred_at: datetime | None = None,
) -> OutputReader:
    """Read logged outputs, of any of `credit.ingest.formats`.

    The format is told for every record apart. One call with several choices becomes several outputs.

    Args:
        path: the file; JSON and CSV may be gzipped.
        source: what the ids are unique within; given, it goes before the records' own `source`. By default it is
            the name of the format.
        fields: names in the file that differ from those of the own format, as ours to theirs; with it, every record is
            of the own format.
        requests: requests of batches, for results: `credit.ingest.batch_requests.read_batch_requests`.
        occurred_at: when outputs occurred whose log does not say so (Anthropic's message batches).

    Raises:
        InvalidRequestError: the mapping of fields makes no sense.
        InputError: the file as a whole cannot be used (some faults show only while it is read).
    """
    return OutputReader(path, source, fields, requests or BatchRequests(), occurred_at)
