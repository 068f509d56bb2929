"""Spans by the conventions of OpenInference: in OTLP (read by `otlp`), and rows of Phoenix's DataFrame of spans.

Attributes have flat names, `llm.input_messages.0.message.role`. A row has a column for each attribute, with structures
in them, which are JSON texts in CSV. A span of kind LLM is a call of a model; other kinds are not.
https://arize-ai.github.io/openinference/spec/semantic_conventions.html
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from credit.errors import InputError
from credit.ingest.attributes import nested
from credit.ingest.calls import Entry, user_of
from credit.ingest.conversations import decoded
from credit.ingest.exchanges import Beside, Exchange, calls_of
from credit.ingest.fields import FieldError, span_id, timestamp
from credit.ingest.json_documents import parse_json
from credit.ingest.spans import LogContext, LoggedSpan
from credit.ingest.traced import read_traced

KIND = "openinference.span.kind"
_PREFIX = "attributes."
_COLUMNS = ("name", "span_kind", "parent_id", "start_time", "end_time", "status_code", "events")
_READ = (
    *(KIND, "input.value", "output.value", "llm.input_messages", "llm.output_messages", "llm.model_name", "llm.tools"),
    *("llm.prompts", "llm.choices", "llm.response.model_name", "llm.request.model_name", "user.id"),
)
FIELDS = frozenset(
    {*_COLUMNS, "context.span_id", "context.trace_id", "context", "attributes", *(_PREFIX + name for name in _READ)}
)
_KINDS = frozenset({"CHAIN", "TOOL", "AGENT", "RETRIEVER", "EMBEDDING", "RERANKER", "GUARDRAIL", "EVALUATOR", "PROMPT"})
_MODELS = ("llm.model_name", "llm.response.model_name", "llm.request.model_name")


def matches(record: Mapping[str, object]) -> bool:
    """Return True if a record is a row of Phoenix's DataFrame of spans, or a span as its client gives it."""
    has_context = "context.span_id" in record or isinstance(record.get("context"), dict)
    return has_context and "start_time" in record and ("span_kind" in record or "attributes" in record)


def read(record: Mapping[str, object], context: LogContext) -> list[Entry]:
    """Return the call of a row.

    Raises:
        InputError: it cannot be used.
    """
    inner, attributes = record.get("context"), record.get("attributes")
    ids = inner if isinstance(inner, dict) else {}
    said = dict(attributes) if isinstance(attributes, dict) else {}
    columns = {name: value for name, value in record.items() if name.startswith(_PREFIX)}
    said |= {name.removeprefix(_PREFIX): _value(name, value) for name, value in columns.items()}
    said[KIND] = said.get(KIND) or record.get("span_kind")
    said = {name: value for name, value in said.items() if value is not None}
    span = span_of(
        said,
        span_id(ids.get("trace_id", record.get("context.trace_id"))),
        span_id(ids.get("span_id", record.get("context.span_id"))),
        span_id(record.get("parent_id")),
        failed=str(record.get("status_code")).upper() == "ERROR",
    )
    return [read_span(said, span, _started(record.get("start_time")), context)]


def _value(column: str, value: object) -> object:
    """Return the value of a column; structures are JSON texts in CSV. Input and output stay as they are."""
    if not isinstance(value, str) or not column.startswith(_PREFIX + "llm.") or not value.startswith(("[", "{")):
        return value
    try:
        return parse_json(value)
    except InputError:
        return value


def _started(value: object) -> datetime:
    if isinstance(value, str):
        value = value.replace(" ", "T", 1)
    if isinstance(value, datetime) and value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    try:
        return timestamp(value)
    except FieldError as error:
        raise InputError(f"`start_time` {error}") from error


def span_of(attributes: Mapping[str, object], trace: str, span: str, parent: str, *, failed: bool) -> LoggedSpan:
    """Return a span, as far as it decides whether there is a call to read."""
    answered = nested(attributes, "llm.output_messages") is not None or attributes.get("output.value") is not None
    answered = answered or nested(attributes, "llm.choices") is not None
    is_call = str(attributes.get(KIND)).upper() not in _KINDS
    return LoggedSpan(trace, span, parent, is_call=is_call, failed=failed, answered=answered)


def read_span(attributes: Mapping[str, object], span: LoggedSpan, started: datetime, context: LogContext) -> Entry:
    """Return the call of a span.

    Raises:
        InputError: it cannot be used.
    """
    if skipped := context.spans.reason_to_skip(span):
        return skipped
    if attributes.get(KIND) != "LLM":
        raise InputError(f"`{KIND}` is {str(attributes.get(KIND))[:60]!r}, which is not known")
    model = next((str(attributes[name]) for name in _MODELS if isinstance(attributes.get(name), str)), context.model)
    if not model:
        raise InputError("`llm.model_name` is missing; give the model: --model-name NAME")
    exchange = _exchange(attributes)
    identity, user = span.identity(response=exchange.id), user_of(attributes, "user.id")
    beside = Beside(f"{span.trace}:{span.id}", model, started, identity, first=True, user=user)
    return calls_of([exchange], beside, "")[0]


def _exchange(attributes: Mapping[str, object]) -> Exchange:
    whole = decoded(attributes.get("output.value"))
    number = whole.get("id") if isinstance(whole, dict) else None
    found = _exchange_of_fields(attributes)
    return Exchange(found.answers, found.asked, number if isinstance(number, str) else found.id)


def _exchange_of_fields(attributes: Mapping[str, object]) -> Exchange:
    """Return the exchange in messages, in a prompt with its continuation, or in the span's input and output."""
    given, output = nested(attributes, "llm.input_messages"), nested(attributes, "llm.output_messages")
    if isinstance(given, list) and isinstance(output, list):
        request = {"messages": [_message(item) for item in given], "tools": _tools(attributes)}
        answered = [_message(item) for item in output]
        return read_traced(request, answered or None, ("llm.input_messages", "llm.output_messages"))
    prompts, choices = nested(attributes, "llm.prompts"), nested(attributes, "llm.choices")
    if isinstance(prompts, list) and isinstance(choices, list) and len(prompts) == len(choices) == 1:
        prompt, text = _inner(prompts[0], "prompt", "text"), _inner(choices[0], "completion", "text")
        return read_traced(prompt, text, ("llm.prompts", "llm.choices"))
    names = ("input.value", "output.value")
    return read_traced(attributes.get(names[0]), attributes.get(names[1]), names)


def _message(item: object) -> dict[str, object]:
    """Return a message in the shape of chat completions."""
    message = item.get("message") if isinstance(item, dict) else None
    if not isinstance(message, dict):
        raise InputError("`llm.input_messages` must be a list of messages")
    calls = [call.get("tool_call") for call in _objects(message.get("tool_calls"))]
    parts = [part.get("message_content") for part in _objects(message.get("contents"))]
    found = {name: message[name] for name in ("role", "content", "tool_call_id", "name") if name in message}
    if "content" not in found and (parts or not calls):
        found["content"] = parts or None
    return {**found, "tool_calls": calls} if calls else found


def _objects(value: object) -> list[dict[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _inner(item: object, *path: str) -> object:
    for name in path:
        item = item.get(name) if isinstance(item, dict) else None
    return item


def _tools(attributes: Mapping[str, object]) -> list[object]:
    found = []
    for item in _objects(nested(attributes, "llm.tools")):
        schema = _inner(item, "tool", "json_schema")
        found.append(parse_json(schema) if isinstance(schema, str) else schema)
    return found
