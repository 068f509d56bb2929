"""Traces of MLflow 3, as `Trace.to_json` and `Trace.to_dict` write them.

A span's attributes are JSON in texts. A span of type CHAT_MODEL or LLM is a call of a model.
https://mlflow.org/docs/latest/genai/tracing/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
from credit.ingest.fields import Identifier, InputModel, Name, UnixNanos, span_id, validate
from credit.ingest.json_documents import parse_json
from credit.ingest.spans import Reading, pieces

NAME = "mlflow"
FIELDS = frozenset({"info", "data"})

_CALLS = ("CHAT_MODEL", "LLM")


class _Info(InputModel):
    trace_id: Name


class _Data(InputModel):
    spans: list[dict[str, object]]


class _Trace(InputModel):
    info: _Info
    data: _Data


class _Span(InputModel):
    span_id: Identifier
    started: UnixNanos = Field(alias="start_time_unix_nano")
    model: Name = Field(alias="mlflow.llm.model")


def is_mlflow(record: Mapping[str, object]) -> bool:
    """Whether a record is a trace."""
    info = record.get("info")
    return isinstance(info, dict) and "trace_id" in info and isinstance(record.get("data"), dict)


def parse_mlflow(record: Mapping[str, object], reading: Reading) -> Sequence[Found | Piece]:
    """Return the outputs of a trace's calls, one for each choice.

    Their ids are the trace's and the span's, since a trace can hold several calls.

    Raises:
        InputError: the trace is malformed.
    """
    trace = validate(_Trace, record)
    name = trace.info.trace_id
    found = pieces(trace.data.spans, lambda span: _outputs(name, span, reading), "start_time_unix_nano")
    return found or [Skipped("traces without spans")]


def _outputs(trace: str, span: Mapping[str, object], reading: Reading) -> list[Found]:
    attributes, status = span.get("attributes"), span.get("status")
    if not isinstance(attributes, dict):
        raise InputError("`attributes` is missing")
    output = _value(attributes, "mlflow.spanOutputs")
    is_call = _value(attributes, "mlflow.spanType") in _CALLS
    failed = isinstance(status, dict) and status.get("code") in ("STATUS_CODE_ERROR", "ERROR")
    name, parent = span_id(span.get("span_id")), span_id(span.get("parent_span_id"))
    told = output is not None and not failed
    is_told_of = reading.calls.span(trace, name, parent, is_call=is_call and told)
    if not is_call:
        return [Skipped(NO_CALL)]
    if failed:
        return [Skipped(FAILED)]
    if not told:
        raise InputError("`mlflow.spanOutputs` is missing; the call had not ended")
    if not is_told_of:
        return [Skipped(TOLD_TWICE)]
    model = _value(attributes, "mlflow.llm.model")
    fields = validate(_Span, {**span, "mlflow.llm.model": model})
    prompt, messages = read(prompt_of, _value(attributes, "mlflow.spanInputs"), "mlflow.spanInputs")
    call = Call(reading.source or NAME, f"{trace}:{name}", fields.started, fields.model, prompt, messages)
    return call.outputs(read(answers_of, output, "mlflow.spanOutputs"))


def _value(attributes: Mapping[str, object], name: str) -> object:
    """Return the value that the JSON text of an attribute stands for."""
    value = attributes.get(name)
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
    except InputError as error:
        raise InputError(f"`{name}`: {error}") from error
