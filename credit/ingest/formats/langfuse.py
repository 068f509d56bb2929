"""Observations of Langfuse: from its API (one, a page, a trace of them) and from its exports to blob storage.

The API writes `startTime`, `traceId` and `model`; exports write `start_time`, `trace_id` and `provided_model_name`, and
their times are UTC without saying so. An observation of type GENERATION is a call; its input and output may be JSON in
a text. Langfuse's clients write spans of OpenTelemetry, and a collector may keep those: `otlp` reads them.
Milliseconds are all that the API has of a time. Finer digits are cut, so an observation is the same from each.
https://api.reference.langfuse.com, https://langfuse.com/docs/api-and-data-platform/features/blob-storage-export-fields
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from pydantic import Field

from credit.errors import InputError
from credit.ingest.calls import Call, Entry, Skipped, SpanEntry, user_of
from credit.ingest.fields import Identifier, InputModel, Name, Timestamp, span_id, validate
from credit.ingest.spans import LogContext, LoggedSpan, read_spans
from credit.ingest.traced import read_traced

SOURCE = "langfuse"
_API = ("traceId", "parentObservationId", "startTime", "model")
_EXPORT = ("trace_id", "parent_observation_id", "start_time", "provided_model_name")
_USERS = ("userId", "user_id")
FIELDS = frozenset({"id", "type", "level", "input", "output", "data", "observations", *_API, *_EXPORT, *_USERS})


class _ApiObservation(InputModel):
    id: Identifier
    start_time: Timestamp = Field(alias="startTime")
    model: Name


class _ExportedObservation(_ApiObservation):
    start_time: Timestamp
    model: Name = Field(alias="provided_model_name")


def matches(record: Mapping[str, object]) -> bool:
    """Return True if a record is an observation, a trace with its observations, or a page of either."""
    return _is_observation(record) or bool(_nested(record))


def _is_observation(record: Mapping[str, object]) -> bool:
    return "type" in record and any(trace in record and time in record for trace, _, time, _ in (_API, _EXPORT))


def _nested(record: Mapping[str, object]) -> list[dict[str, object]]:
    """Return the observations of a trace, or the items of a page."""
    items = record.get("observations", record.get("data") if "meta" in record else None)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def read(record: Mapping[str, object], context: LogContext) -> Sequence[Entry | SpanEntry]:
    """Return the calls of the observations in a record.

    Raises:
        InputError: an observation that is alone cannot be used.
    """
    if _is_observation(record):
        return [read_observation(record, context)]
    observations = [found for item in _of_trace(record) for found in (_of_trace(item) or [item])]
    return read_spans(observations, lambda item: read_observation(item, context), _API[2], context.spans)


def _of_trace(record: Mapping[str, object]) -> list[dict[str, object]]:
    """Return the observations nested in a record. A trace names the user of all of them."""
    users = {name: record[name] for name in _USERS if record.get(name) is not None}
    return [users | item for item in _nested(record)]


def read_observation(record: Mapping[str, object], context: LogContext) -> Entry:
    """Return the call of one observation.

    Raises:
        InputError: it cannot be used.
    """
    if not _is_observation(record):
        return Skipped("traces without their observations")
    is_export = _API[2] not in record
    trace, above, time, _ = _EXPORT if is_export else _API
    span = LoggedSpan(
        span_id(record.get(trace)),
        span_id(record.get("id")),
        span_id(record.get(above)),
        is_call=record["type"] == "GENERATION",
        failed=record.get("level") == "ERROR",
        answered=record.get("output") is not None,
    )
    if skipped := context.spans.reason_to_skip(span):
        return skipped
    if not span.answered:
        raise InputError("`output` is missing")
    started = _in_utc(record.get(time)) if is_export else record.get(time)
    fields = validate(_ExportedObservation if is_export else _ApiObservation, {**record, time: started})
    exchange = read_traced(record.get("input"), record.get("output"), ("input", "output"))
    moment = fields.start_time.replace(microsecond=fields.start_time.microsecond // 1000 * 1000)
    identity, user = span.identity(response=exchange.id), user_of(record, *_USERS)
    answers, asked = exchange.answers, exchange.asked
    return Call(fields.id, moment, fields.model, answers, asked, source=SOURCE, identity=identity, user=user)


def _in_utc(value: object) -> object:
    """Return a time of an export with the zone that it leaves out."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return value
    return moment.replace(tzinfo=UTC) if isinstance(moment, datetime) and moment.tzinfo is None else value
