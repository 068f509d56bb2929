"""Spans of OpenTelemetry in OTLP's JSON, by the semantic conventions for generative AI (1.37 and later).

A document holds spans by resource and scope. Values are tagged with their type; messages are structured, or JSON in a
text. `gen_ai.operation.name` tells a call of a model from the spans of agents and tools around it.
https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding,
https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydantic import Field

from credit.errors import InputError
from credit.ingest.calls import Answer, Call, Entry, Skipped, SpanEntry, answer_of_parts, as_text_parts, user_of
from credit.ingest.fields import FieldError, InputModel, Name, UnixNanos, span_id, text_of, unix_nanos, validate
from credit.ingest.formats import langfuse
from credit.ingest.json_documents import parse_json
from credit.ingest.spans import LogContext, LoggedSpan, read_spans
from credit.records import Message

FIELDS = frozenset({"resourceSpans", "resourceLogs", "resourceMetrics"})

_CHATS = ("chat", "generate_content")
_CALLED = ("tool_call", "tool_call_response")
_LANGFUSE = "langfuse.observation."
_USERS = ("user.id", "enduser.id", "enduser.pseudo.id", "langfuse.user.id")
_READ = ("gen_ai.", "error.type", "llm.model_name", "llm.request.type", _LANGFUSE, *_USERS)
_OTHERS = frozenset(
    {"gen_ai.output.messages", "gen_ai.request.model", "gen_ai.response.model", "llm.model_name", "llm.request.type"}
)
"""Attributes of a call by other or older conventions, such as OpenInference's."""
_NO_CONTENT = (
    "`gen_ai.output.messages` is missing: content was not recorded; set"
    " OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental and"
    " OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=span_only"
)


class _OtlpSpan(InputModel):
    trace_id: Name = Field(alias="traceId")
    span_id: Name = Field(alias="spanId")
    started: UnixNanos = Field(alias="startTimeUnixNano")
    model: Name = Field(alias="gen_ai.response.model")
    id: Name | None = Field(alias="gen_ai.response.id", default=None)


def matches(record: Mapping[str, object]) -> bool:
    """Return True if a record is a document of OTLP."""
    return not FIELDS.isdisjoint(record)


def read(record: Mapping[str, object], context: LogContext) -> Sequence[Entry | SpanEntry]:
    """Return the calls of the spans in a document.

    Raises:
        InputError: the document is malformed.
    """
    found = read_spans(_spans(record), lambda span: _read_span(span, context), "startTimeUnixNano", context.spans)
    return found or [Skipped("documents without spans")]


def _spans(record: Mapping[str, object]) -> Iterator[dict[str, object]]:
    for resource in _list(record, "resourceSpans"):
        for scope in _list(resource, "scopeSpans"):
            yield from _list(scope, "spans")


def _list(owner: Mapping[str, object], name: str) -> list[dict[str, object]]:
    items = owner.get(name)
    if items is None:
        return []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InputError(f"`{name}` must be a list of objects")
    return items


def _read_span(record: Mapping[str, object], context: LogContext) -> Entry:
    attributes = _attributes(record)
    if _LANGFUSE + "type" in attributes:
        return langfuse.read_observation(_observation(record, attributes), context)
    operation, output = attributes.get("gen_ai.operation.name"), attributes.get("gen_ai.output.messages")
    span = LoggedSpan(
        span_id(record.get("traceId")),
        span_id(record.get("spanId")),
        span_id(record.get("parentSpanId")),
        is_call=operation in _CHATS,
        failed="error.type" in attributes or _has_failed(record),
        answered=output is not None,
    )
    skipped = context.spans.reason_to_skip(span)
    if operation is None and not _OTHERS.isdisjoint(attributes):
        raise InputError("`gen_ai.operation.name` is missing; only the conventions of 1.37 and later can be read")
    if operation == "text_completion":
        raise InputError("`gen_ai.operation.name` is 'text_completion'; only chats can be read")
    if skipped:
        return skipped
    if output is None:
        raise InputError(_NO_CONTENT)
    fields = validate(_OtlpSpan, {**record, **attributes})
    name, answers, asked = fields.id or f"{span.trace}:{span.id}", _answers(output), _asked(attributes)
    identity, user = span.identity(response=fields.id or ""), user_of(attributes, *_USERS)
    return Call(name, fields.started, fields.model, answers, messages=asked, identity=identity, user=user)


def _observation(span: Mapping[str, object], attributes: Mapping[str, object]) -> dict[str, object]:
    """Return the observation that Langfuse makes of a span of its own client."""
    said = {key.removeprefix(_LANGFUSE): value for key, value in attributes.items() if key.startswith(_LANGFUSE)}
    try:
        started = unix_nanos(span.get("startTimeUnixNano")).isoformat()
    except FieldError as error:
        raise InputError(f"`startTimeUnixNano` {error}") from error
    return {
        "id": span_id(span.get("spanId")),
        "traceId": span_id(span.get("traceId")),
        "parentObservationId": span_id(span.get("parentSpanId")),
        "type": str(said["type"]).upper(),
        "startTime": started,
        "level": said.get("level"),
        "model": said.get("model.name"),
        "input": said.get("input"),
        "output": said.get("output"),
        "userId": user_of(attributes, *_USERS),
    }


def _has_failed(span: Mapping[str, object]) -> bool:
    status = span.get("status")
    return isinstance(status, dict) and status.get("code") in (2, "STATUS_CODE_ERROR")


def _attributes(span: Mapping[str, object]) -> dict[str, object]:
    """Return the attributes of a span that matter here, as plain values."""
    return {
        str(item.get("key")): _plain(item.get("value"))
        for item in _list(span, "attributes")
        if str(item.get("key")).startswith(_READ)
    }


def _plain(value: object) -> object:
    """Return a tagged value without its tags: "a" for `{"stringValue": "a"}`; lists and objects for structures."""
    if not isinstance(value, dict) or len(value) != 1:
        return None
    ((kind, content),) = value.items()
    if kind == "arrayValue":
        return [_plain(item) for item in _list(content, "values")] if isinstance(content, dict) else None
    if kind == "kvlistValue":
        pairs = _list(content, "values") if isinstance(content, dict) else []
        return {str(pair.get("key")): _plain(pair.get("value")) for pair in pairs}
    return content


def _messages(value: object, name: str) -> list[tuple[str, list[object]]]:
    """Return role and parts of each message."""
    value = parse_json(value) if isinstance(value, str) else value
    if not isinstance(value, list):
        raise InputError(f"`{name}` must be a list of messages")
    found = []
    for item in value:
        role, parts = (item.get("role"), item.get("parts")) if isinstance(item, dict) else (None, None)
        if not isinstance(role, str) or not role.isprintable() or not role or not isinstance(parts, list):
            raise InputError(f"`{name}` must be a list of messages, each with role and parts")
        found.append((role, parts))
    return found


def _asked(attributes: Mapping[str, object]) -> tuple[Message, ...]:
    system = attributes.get("gen_ai.system_instructions")
    system = parse_json(system) if isinstance(system, str) else system
    if system is not None and not isinstance(system, list):
        raise InputError("`gen_ai.system_instructions` must be a list of parts")
    asked = [("system", system)] if system else []
    if attributes.get("gen_ai.input.messages") is None:
        raise InputError("`gen_ai.input.messages` is missing; what was asked was not recorded")
    asked += _messages(attributes["gen_ai.input.messages"], "gen_ai.input.messages")
    return tuple(Message(role, _text(number, parts)) for number, (role, parts) in enumerate(asked))


def _text(number: int, parts: list[object]) -> str:
    if any(isinstance(part, dict) and part.get("type") in _CALLED for part in parts):
        raise InputError(f"`gen_ai.input.messages` {number}: calls of tools are not supported yet")
    try:
        return text_of(as_text_parts(parts, "content"))
    except FieldError as error:
        raise InputError(f"`gen_ai.input.messages` {number}: {error}") from error


def _answers(output: object) -> dict[int, Answer]:
    messages = _messages(output, "gen_ai.output.messages")
    if not messages:
        raise InputError("`gen_ai.output.messages` is empty")
    return {index: answer_of_parts(parts, "content") for index, (_, parts) in enumerate(messages)}
