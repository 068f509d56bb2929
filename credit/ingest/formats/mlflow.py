"""Traces of MLflow 2 and 3: `Trace.to_json`, the artifacts `traces.json`, and rows of the DataFrame of `search_traces`.

A span's attributes are JSON in texts. A span of type CHAT_MODEL or LLM is a call of a model. Each form names trace and
span alike, so a call is the same from each.
https://mlflow.org/docs/latest/genai/tracing/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from credit.errors import InputError
from credit.ingest.calls import Call, Entry, Skipped, SpanEntry, user_of
from credit.ingest.fields import Identifier, InputModel, Name, UnixNanos, span_id, validate
from credit.ingest.json_documents import parse_json
from credit.ingest.spans import LogContext, LoggedSpan, read_spans
from credit.ingest.traced import read_traced

_ABOUT = ("trace_metadata", "request_metadata")
"""Names of a trace's metadata in version 3 and in version 2."""
_IDS = ("trace_id", "request_id")
FIELDS = frozenset({"info", "data", "spans", "trace", *_IDS, *_ABOUT})

_CALLS = ("CHAT_MODEL", "LLM")
_FAILED = ("STATUS_CODE_ERROR", "ERROR")
_TRACE = "mlflow.traceRequestId"
_MODELS = ("mlflow.llm.model", "model")


@dataclass(frozen=True, slots=True)
class _Trace:
    """A trace in any of the forms: its id (empty: its spans name it), its user as logged, and its spans."""

    id: str
    user: str
    spans: list[dict[str, object]]


class _MlflowSpan(InputModel):
    span_id: Identifier
    name: Name
    started: UnixNanos
    model: Name


def matches(record: Mapping[str, object]) -> bool:
    """Return True if a record is a trace, an artifact of one, or a row of the DataFrame."""
    info = record.get("info")
    if isinstance(info, dict):
        return any(name in info for name in _IDS) and isinstance(record.get("data"), dict)
    if any(name in record for name in _IDS):
        return "trace" in record or ("spans" in record and any(name in record for name in _ABOUT))
    spans = record.get("spans")
    first = spans[0] if isinstance(spans, list) and spans else None
    attributes = first.get("attributes") if isinstance(first, dict) else None
    return isinstance(attributes, dict) and _TRACE in attributes


def read(record: Mapping[str, object], context: LogContext) -> Sequence[Entry | SpanEntry]:
    """Return the calls of a trace, named by trace and span.

    Raises:
        InputError: the trace is malformed.
    """
    trace = _trace(record)
    start = "start_time_unix_nano" if any("start_time_unix_nano" in span for span in trace.spans) else "start_time"
    found = read_spans(trace.spans, lambda span: _read_span(trace, span, start, context), start, context.spans)
    return found or [Skipped("traces without spans")]


def _trace(record: Mapping[str, object]) -> _Trace:
    info, data = record.get("info"), record.get("data")
    if isinstance(info, dict) and isinstance(data, dict):
        return _Trace(_id(info), _user(info), _spans(data))
    whole = _decoded(record.get("trace"))
    if isinstance(whole, dict) and isinstance(whole.get("info"), dict):
        return _trace(whole)
    return _Trace(_id(record), _user(record), _spans(record))


def _id(info: Mapping[str, object]) -> str:
    return next((str(info[name]) for name in _IDS if isinstance(info.get(name), str)), "")


def _user(info: Mapping[str, object]) -> str:
    metadata = _decoded(next((info[name] for name in _ABOUT if info.get(name)), None))
    return user_of(metadata, "mlflow.trace.user") if isinstance(metadata, dict) else ""


def _spans(holder: Mapping[str, object]) -> list[dict[str, object]]:
    spans = _decoded(holder.get("spans"))
    if not isinstance(spans, list):
        raise InputError("`spans` is missing")
    found = [_decoded(span) for span in spans]
    if not all(isinstance(span, dict) for span in found):
        raise InputError("`spans` must be a list of objects")
    return [span for span in found if isinstance(span, dict)]


def _decoded(value: object) -> object:
    """Return a value from its JSON text, as tables have it; any other as it is."""
    try:
        return parse_json(value) if isinstance(value, str) else value
    except InputError:
        return value


def _read_span(trace: _Trace, record: Mapping[str, object], start: str, context: LogContext) -> Entry:
    attributes, ids = record.get("attributes"), record.get("context")
    if not isinstance(attributes, dict):
        raise InputError("`attributes` is missing")
    output, ids = _value(attributes, "mlflow.spanOutputs"), ids if isinstance(ids, dict) else record
    span = LoggedSpan(
        trace.id or str(_value(attributes, _TRACE) or ""),
        span_id(ids.get("span_id")),
        span_id(record.get("parent_span_id", record.get("parent_id"))),
        is_call=_value(attributes, "mlflow.spanType") in _CALLS,
        failed=_has_failed(record),
        answered=output is not None,
    )
    if skipped := context.spans.reason_to_skip(span):
        return skipped
    if output is None:
        raise InputError("`mlflow.spanOutputs` is missing; the call had not ended")
    asked = _value(attributes, "mlflow.spanInputs")
    exchange = read_traced(asked, output, ("mlflow.spanInputs", "mlflow.spanOutputs"))
    sources = ({name: _value(attributes, name) for name in _MODELS}, output, asked)
    models = (source.get(name) for source in sources if isinstance(source, dict) for name in _MODELS)
    model = next((name for name in models if isinstance(name, str) and name), context.model)
    if not model:
        raise InputError("the log does not name the model; give it: --model-name NAME")
    found = {"span_id": ids.get("span_id"), "name": f"{span.trace}:{span.id}", "started": record.get(start)}
    fields = validate(_MlflowSpan, {**found, "model": model})
    identity, answers, asked_for = span.identity(response=exchange.id), exchange.answers, exchange.asked
    return Call(fields.name, fields.started, fields.model, answers, asked_for, identity=identity, user=trace.user)


def _has_failed(record: Mapping[str, object]) -> bool:
    status = record.get("status")
    return (status.get("code") if isinstance(status, dict) else record.get("status_code")) in _FAILED


def _value(attributes: Mapping[str, object], name: str) -> object:
    """Return the value of an attribute from its JSON text."""
    value = attributes.get(name)
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
    except InputError as error:
        raise InputError(f"`{name}`: {error}") from error
