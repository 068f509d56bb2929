"""Observations of Langfuse: from its API, one or a page or a trace of them, and from its exports to blob storage.

The API writes `startTime`, `traceId` and `model`, exports `start_time`, `trace_id` and `provided_model_name`, with
times of UTC that do not say so. An observation of type GENERATION is a call; input and output may be JSON in a text.
Langfuse's clients write spans of OpenTelemetry, which a collector may keep: `credit.ingest.formats.otlp` reads them.
Of a time milliseconds are kept, which is what the API has, so that an observation is the same from wherever it comes.
https://api.reference.langfuse.com, https://langfuse.com/docs/api-and-data-platform/features/blob-storage-export-fields
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from pydantic import Field

from credit.errors import InputError
from credit.ingest.calls import (
    FAILED,
    NO_CALL,
    TOLD_TWICE,
    Call,
    Found,
    Piece,
    Skipped,
    answers_of,
    prompt_of,
    read,
)
from credit.ingest.fields import Identifier, InputModel, Name, Timestamp, span_id, validate
from credit.ingest.spans import Reading, pieces

NAME = "langfuse"
_API = ("traceId", "parentObservationId", "startTime", "model")
_EXPORT = ("trace_id", "parent_observation_id", "start_time", "provided_model_name")
FIELDS = frozenset({"id", "type", "level", "input", "output", "data", "observations", *_API, *_EXPORT})


class _Observation(InputModel):
    id: Identifier
    start_time: Timestamp = Field(alias="startTime")
    model: Name


class _Exported(_Observation):
    start_time: Timestamp
    model: Name = Field(alias="provided_model_name")


def is_langfuse(record: Mapping[str, object]) -> bool:
    """Whether a record is an observation, a trace with its observations, or a page of either."""
    return _is_observation(record) or bool(_nested(record))


def _is_observation(record: Mapping[str, object]) -> bool:
    return "type" in record and any(trace in record and time in record for trace, _, time, _ in (_API, _EXPORT))


def _nested(record: Mapping[str, object]) -> list[dict[str, object]]:
    """Return the observations of a trace, or what a page of the API lists."""
    items = record.get("observations", record.get("data") if "meta" in record else None)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def parse_langfuse(record: Mapping[str, object], reading: Reading) -> Sequence[Found | Piece]:
    """Return the outputs of the observations in a record.

    Raises:
        InputError: an observation that is alone cannot be used.
    """
    if _is_observation(record):
        return parse_observation(record, reading)
    observations = [found for item in _nested(record) for found in (_nested(item) or [item])]
    return pieces(observations, lambda item: parse_observation(item, reading), _API[2])


def parse_observation(record: Mapping[str, object], reading: Reading) -> list[Found]:
    """Return the outputs of one observation.

    Raises:
        InputError: it cannot be used.
    """
    if not _is_observation(record):
        return [Skipped("traces without their observations")]
    trace, above, time, _ = _API if _API[2] in record else _EXPORT
    is_call = record["type"] == "GENERATION"
    failed = record.get("level") == "ERROR"
    told = record.get("output") is not None and not failed
    place = [span_id(record.get(name)) for name in (trace, "id", above)]
    is_told_of = reading.calls.span(*place, is_call=is_call and told)
    if not is_call:
        return [Skipped(NO_CALL)]
    if failed:
        return [Skipped(FAILED)]
    if not told:
        raise InputError("`output` is missing")
    if not is_told_of:
        return [Skipped(TOLD_TWICE)]
    started = _in_utc(record.get(time)) if time == _EXPORT[2] else record.get(time)
    fields = validate(_Exported if time == _EXPORT[2] else _Observation, {**record, time: started})
    prompt, messages = read(prompt_of, record.get("input"), "input")
    moment = fields.start_time.replace(microsecond=fields.start_time.microsecond // 1000 * 1000)
    call = Call(reading.source or NAME, fields.id, moment, fields.model, prompt, messages)
    return call.outputs(read(answers_of, record.get("output"), "output"))


def _in_utc(value: object) -> object:
    """Return a time of an export, whose times are UTC without saying so, as one that says so."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return value
    return moment.replace(tzinfo=UTC) if isinstance(moment, datetime) and moment.tzinfo is None else value
