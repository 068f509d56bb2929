"""Logged outputs: a file of any known log format, read call by call, each call once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from credit.errors import InputError, InvalidRequestError
from credit.ingest.batch_requests import BatchRequests
from credit.ingest.calls import Call, Entry, Skipped, SpanEntry, Unusable
from credit.ingest.fields import field_names
from credit.ingest.files import Parsed, Row, check_input, notices_of_ignored, read_rows
from credit.ingest.formats import FORMATS, KNOWN_FIELDS, OWN, LogFormat, Record, format_of, own
from credit.ingest.pseudonyms import PseudonymKey
from credit.ingest.spans import LogContext, SpansMet
from credit.ingest.streams import Reading
from credit.records import MICRO, LoggedOutput, Quarantined
from credit.text import counted

_UNKNOWN = f"is of no known format; looked for {'; '.join(map(str, FORMATS))}"
_MEANT_FOR_CREDIT = frozenset({"weight"})
"""Fields that somebody put into a log of other software in vain."""
_NOTHING = Skipped("records that hold no call")
_MOST_DAYS_AHEAD = 36_500


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """Limits beyond which an output is quarantined: one line with a mistyped number must not take a month's pool.

    Attributes:
        max_weight_micro: the largest weight in micro-credits.
        max_days_ahead: days by which an output may lie ahead of this machine's clock.
    """

    max_weight_micro: int = 1000 * MICRO
    max_days_ahead: int = 1

    def __post_init__(self) -> None:
        if self.max_weight_micro < 0:
            raise InvalidRequestError("the largest weight is negative; it is at least 0")
        if not 0 <= self.max_days_ahead <= _MOST_DAYS_AHEAD:
            raise InvalidRequestError(
                f"an output may lie 0 to {_MOST_DAYS_AHEAD} days ahead, not {self.max_days_ahead}"
            )

    def problem(self, output: LoggedOutput, now: datetime) -> str:
        """Return why an output is beyond the limits at `now`, with the option that lets it in; empty if it is not."""
        # The reason leaves out the time of the run: the same record must give the same reason in every run.
        if output.weight_micro > self.max_weight_micro:
            weight, most = (_weight_text(micro) for micro in (output.weight_micro, self.max_weight_micro))
            return f"`weight` {weight} is above the largest weight of {most}; if it is right: --max-weight {weight}"
        if output.occurred_at > now + timedelta(days=self.max_days_ahead):
            ahead = counted(self.max_days_ahead, "day")
            return (
                f"`occurred_at` {output.occurred_at:%Y-%m-%dT%H:%M:%SZ} is more than {ahead} ahead of this machine's"
                " clock; if both are right: --max-ahead DAYS"
            )
        return ""


class OutputReader:
    """Outputs of a file. Each item is an output with its place, or a quarantined record; iterating again starts again.

    The format is recognised record by record. A call with several choices gives several outputs, and a trace one or
    more for each of its spans. Nothing is compared here: the ledger decides which of them are one call.

    Args:
        path: the file; JSON and CSV may be gzipped.
        source: scope of the ids; None: the record's own `source`, or the format's name.
        fields: names in the file that differ from those of the own format, as ours to theirs. Every record is then of
            the own format.
        requests: requests of batches, for results: `read_batch_requests`.
        occurred_at: time of outputs without one in their log (Anthropic's message batches).
        model: name of the model, for outputs without one in their log; empty: not given.
        limits: outputs beyond them are quarantined.
        key: makes the pseudonyms of users and texts; without it, outputs have none.
        reading: says how far the file is finished, and learns what was read; None: it is finished.

    Raises:
        InvalidRequestError: the mapping of fields makes no sense.
        InputError: the file as a whole cannot be used (some faults show only while it is read).
    """

    def __init__(
        self,
        path: Path,
        *,
        source: str | None = None,
        fields: Mapping[str, str] | None = None,
        requests: BatchRequests | None = None,
        occurred_at: datetime | None = None,
        model: str = "",
        limits: OutputLimits | None = None,
        key: PseudonymKey | None = None,
        reading: Reading | None = None,
    ) -> None:
        self._names = field_names(own.NAMES, fields) if fields else None
        check_input(path, may_be_empty=reading is not None and reading.may_be_empty)
        self._path, self._source, self._reading = path, source, reading
        self._requests, self._occurred_at, self._model = requests or BatchRequests(), occurred_at, model
        self._limits, self._key = limits or OutputLimits(), key
        self._restart()

    def _restart(self) -> None:
        self._context = LogContext(self._requests, self._occurred_at, model=self._model)
        self._ignored: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()
        self._yielded = 0

    @property
    def read(self) -> int:
        """Count of records in the last iteration, each answer and span by itself: those yielded and those skipped."""
        return self._yielded + self._skipped.total()

    @property
    def skipped(self) -> dict[str, int]:
        """Counts of sound entries without an output in the last iteration, by reason."""
        return dict(sorted(self._skipped.items()))

    @property
    def can_resume(self) -> bool:
        """False if a later record may need one that the last iteration read, such as an event before its answer."""
        return not self._context.asked and not len(self._requests)

    @property
    def spans(self) -> SpansMet:
        """Spans met in the last iteration so far."""
        return self._context.spans

    @property
    def notices(self) -> tuple[str, ...]:
        """Unused fields of the last iteration, in words."""
        return notices_of_ignored(self._ignored)

    def __iter__(self) -> Iterator[Parsed[LoggedOutput] | Quarantined]:
        self._restart()
        for found in self._found():
            self._yielded += len(found)
            yield from found

    def _found(self) -> Iterator[Sequence[Parsed[LoggedOutput] | Quarantined]]:
        """Yield the outputs and quarantined records of each row."""
        known = frozenset(self._names.values()) if self._names else KNOWN_FIELDS
        for row in read_rows(self._path, known, self._ignored, self._reading):
            if isinstance(row, Quarantined):
                yield [row]
                continue
            log, record = self._format(row.record)
            if log is None:
                yield [row.quarantined(_UNKNOWN)]
                continue
            self.spans.last = None
            try:
                entries = log.reader.read(record, self._context) or [_NOTHING]
            except InputError as error:
                met = self.spans.last
                yield [row.quarantined(f"{log.name}: {error}", met.identity() if met else None)]
                continue
            except RecursionError:  # the JSON parser takes deeper nesting than a walk through its result
                yield [row.quarantined(f"{log.name}: is nested too deeply")]
                continue
            if self._names is None and (unread := record.keys() - log.reader.FIELDS):
                # Logs of other software hold scores of fields that nobody meant for us; these stay unmentioned.
                self._ignored.update(unread if log.names_unread else unread & _MEANT_FOR_CREDIT)
            for entry in entries:
                yield self._outputs(entry, row, log)

    def _format(self, record: Record) -> tuple[LogFormat | None, Record]:
        """Return the format of a record, and the record by the format's own names of fields."""
        if self._names is None:
            return format_of(record), record
        self._ignored.update(record.keys() - self._names.values())
        return OWN, {ours: record[theirs] for ours, theirs in self._names.items() if theirs in record}

    def _outputs(self, item: Entry | SpanEntry, row: Row, log: LogFormat) -> list[Parsed[LoggedOutput] | Quarantined]:
        """Return the outputs of an entry; count what is skipped."""
        entry, span = (item.entry, item.identity) if isinstance(item, SpanEntry) else (item, None)
        made: Sequence[LoggedOutput | Unusable | Skipped] = (
            entry.outputs(self._source or entry.source or log.source, self._key) if isinstance(entry, Call) else [entry]
        )
        found: list[Parsed[LoggedOutput] | Quarantined] = []
        for output in made:
            if isinstance(output, Skipped):
                self._skipped[output.reason] += 1
                continue
            raw = _bytes_of(item, row)
            if isinstance(output, Unusable):
                found.append(Quarantined(row.place, f"{log.name}: {output.reason}", raw, span))
            elif problem := self._limits.problem(output, datetime.now(UTC)):
                found.append(Quarantined(row.place, f"{log.name}: {problem}", raw, output.identity))
            else:
                found.append(Parsed(output, row.place, raw))
        return found


def _weight_text(weight_micro: int) -> str:
    return f"{Decimal(weight_micro).scaleb(-6).normalize():f}"


def _bytes_of(item: Entry | SpanEntry, row: Row) -> bytes:
    """Return the bytes of a row, or one span of it as JSON with its numbers as they were."""
    if not isinstance(item, SpanEntry):
        return row.raw
    return json.dumps(item.span, default=str, ensure_ascii=False).encode(errors="surrogatepass")
