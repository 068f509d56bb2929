"""Traces of MLflow 3, as `Trace.to_json` and `Trace.to_dict` write them.

A span's attributes are JSON in texts. A span of type CHAT_MODEL or LLM is a call of a model.
https://mlflow.org/docs/latest/genai/tracing/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from credit.errors import InputError
from credit.ingest.calls import Call, Entry, Skipped, SpanEntry, user_of
from credit.ingest.fields import Identifier, InputModel, Name, UnixNanos, span_id, validate
from credit.ingest.json_documents import parse_json
from credit.ingest.spans import LogContext, LoggedSpan, read_spans
from credit.ingest.traced import read_traced

FIELDS = frozenset({"info", "data"})

_CALLS = ("CHAT_MODEL", "LLM")


class _TraceInfo(InputModel):
    trace_id: Name
    trace_metadata: object = None


class _TraceData(InputModel):
    spans: list[dict[str, object]]


class _MlflowTrace(InputModel):
    info: _TraceInfo
    data: _TraceData


class _MlflowSpan(InputModel):
    span_id: Identifier
    started: UnixNanos = Field(alias="start_time_unix_nano")
    model: Name = Field(alias="mlflow.llm.model")


def matches(record: Mapping[str, object]) -> bool:
    """Return True if a record is a trace."""
    info = record.get("info")
    return isinstance(info, dict) and "trace_id" in info and isinstance(record.get("data"), dict)


def read(record: Mapping[str, object], context: LogContext) -> Sequence[Entry | SpanEntry]:
    """Return the calls of a trace, named by trace and span.

    Raises:
        InputError: the trace is malformed.
    """
    trace = validate(_MlflowTrace, record)
    name, metadata, start = trace.info.trace_id, trace.info.trace_metadata, "start_time_unix_nano"
    user = user_of(metadata, "mlflow.trace.user") if isinstance(metadata, dict) else ""
    found = read_spans(trace.data.spans, lambda span: _read_span(name, user, span, context), start, context.spans)
    return found or [Skipped("traces without spans")]


def _read_span(trace: str, user: str, record: Mapping[str, object], context: LogContext) -> Entry:
    attributes, status = record.get("attributes"), record.get("status")
    if not isinstance(attributes, dict):
        raise InputError("`attributes` is missing")
    output = _value(attributes, "mlflow.spanOutputs")
    span = LoggedSpan(
        trace,
        span_id(record.get("span_id")),
        span_id(record.get("parent_span_id")),
        is_call=_value(attributes, "mlflow.spanType") in _CALLS,
        failed=isinstance(status, dict) and status.get("code") in ("STATUS_CODE_ERROR", "ERROR"),
        answered=output is not None,
    )
    if skipped := context.spans.reason_to_skip(span):
        return skipped
    if output is None:
        raise InputError("`mlflow.spanOutputs` is missing; the call had not ended")
    fields = validate(_MlflowSpan, {**record, "mlflow.llm.model": _value(attributes, "mlflow.llm.model")})
    exchange = read_traced(_value(attributes, "mlflow.spanInputs"), output, ("mlflow.spanInputs", "mlflow.spanOutputs"))
    identity = span.identity(response=exchange.id)
    call = f"{trace}:{span.id}"
    return Call(call, fields.started, fields.model, exchange.answers, exchange.asked, identity=identity, user=user)


def _value(attributes: Mapping[str, object], name: str) -> object:
    """Return the value of an attribute from its JSON text."""
    value = attributes.get(name)
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
    except InputError as error:
        raise InputError(f"`{name}`: {error}") from error
