"""OpenTelemetry in OTLP's JSON: spans and log events of calls of a model.

A document holds spans, or log records, by resource and scope. Values are tagged with their type. Conventions differ in
where the texts are:

- 1.37 and later: `gen_ai.input.messages` and `gen_ai.output.messages`, structured or JSON in a text, as attributes of
  the span, or of an event `gen_ai.client.inference.operation.details` in the span or in the log;
- before: an event for each message (`gen_ai.user.message`, ...) and for each answer (`gen_ai.choice`), in the log or in
  the span, or `gen_ai.prompt.0.content` and `gen_ai.completion.0.content` as attributes of the span (OpenLLMetry);
- OpenInference, and Langfuse's client, have attributes of their own.

https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding,
https://opentelemetry.io/docs/specs/semconv/gen-ai/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from credit.errors import InputError
from credit.ingest.attributes import attributes_of, log_records_of, nested, plain, spans_of
from credit.ingest.calls import Answer, Asked, Entry, Skipped, SpanEntry, Unusable, read_part, user_of
from credit.ingest.conversations import answer_of, asked_of, asked_of_request, decoded
from credit.ingest.exchanges import Beside, Exchange, calls_of
from credit.ingest.fields import FieldError, span_id, unix_nanos
from credit.ingest.formats import langfuse, openinference
from credit.ingest.json_documents import objects_in, parse_json
from credit.ingest.spans import LogContext, LoggedSpan, read_spans
from credit.records import CallIdentity

FIELDS = frozenset({"resourceSpans", "resourceLogs", "resourceMetrics"})

_CALLS = ("chat", "generate_content", "text_completion")
_NO_CALLS = (
    *("embeddings", "execute_tool", "invoke_agent", "create_agent", "invoke_workflow", "retrieval", "plan"),
    *("create_memory_store", "search_memory", "update_memory", "upsert_memory", "delete_memory"),
)
"""Operations that are no call of a model, by the conventions."""
_WRAPPERS = ("workflow", "task", "agent", "tool")
_USERS = ("user.id", "enduser.id", "enduser.pseudo.id", "langfuse.user.id")
_LANGFUSE = "langfuse.observation."
_INPUT, _OUTPUT, _SYSTEM = "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions"
_DETAILS, _CHOICE = "gen_ai.client.inference.operation.details", "gen_ai.choice"
_OLD_EVENTS = {"gen_ai.content.prompt": "gen_ai.prompt", "gen_ai.content.completion": "gen_ai.completion"}
_SIGNS = (
    *("gen_ai.request.model", "gen_ai.response.model", "gen_ai.system", "gen_ai.provider.name", "llm.request.type"),
    *("llm.model_name", "ai.model.id"),
)
"""Attributes that calls have by other or unknown conventions too."""
_MODELS = ("gen_ai.response.model", "gen_ai.request.model", "llm.model_name")
_NO_CONTENT = (
    "`gen_ai.output.messages` is missing: content was not recorded here. If log events have it, give their file; else"
    " set OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental and"
    " OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=span_only"
)
_ASKED_FIRST = Skipped("events with what was asked, which belong to an answer")
_NO_EVENT = Skipped("log records that are no event of a call of a model")


def matches(record: Mapping[str, object]) -> bool:
    """Return True if a record is a document of OTLP."""
    return not FIELDS.isdisjoint(record)


def read(record: Mapping[str, object], context: LogContext) -> Sequence[Entry | SpanEntry]:
    """Return the calls of the spans and log events in a document.

    Raises:
        InputError: the document is malformed.
    """
    found = read_spans(spans_of(record), lambda span: _read_span(span, context), "startTimeUnixNano", context.spans)
    found += [_read_event(event, context) for event in log_records_of(record)]
    if found:
        return found
    return [Skipped("metrics" if "resourceMetrics" in record else "documents without spans and log records")]


def _read_span(record: Mapping[str, object], context: LogContext) -> Entry:
    attributes = attributes_of(record)
    ids = (span_id(record.get("traceId")), span_id(record.get("spanId")), span_id(record.get("parentSpanId")))
    failed = "error.type" in attributes or _has_failed(record)
    if _LANGFUSE + "type" in attributes:
        return langfuse.read_observation(_observation(record, attributes), context)
    if openinference.KIND in attributes:
        span = openinference.span_of(attributes, *ids, failed=failed)
        return openinference.read_span(attributes, span, _started(record, "startTimeUnixNano"), context)
    content = attributes if _OUTPUT in attributes else _content_of_span(record, attributes)
    span = LoggedSpan(
        *ids, is_call=_is_call(attributes, content), failed=failed, answered=content.get(_OUTPUT) is not None
    )
    if skipped := context.spans.reason_to_skip(span):
        return skipped
    if not span.answered:
        raise InputError(_NO_CONTENT)
    return _call({**attributes, **content}, span, _started(record, "startTimeUnixNano"), context)


def _is_call(attributes: Mapping[str, object], content: Mapping[str, object]) -> bool:
    """Return True unless the conventions say that a span is something else."""
    operation = attributes.get("gen_ai.operation.name")
    if operation in _NO_CALLS or attributes.get("traceloop.span.kind") in _WRAPPERS:
        return False
    if operation in _CALLS or _OUTPUT in content:
        return True
    return operation is not None or any(name in attributes for name in _SIGNS)


def _content_of_span(record: Mapping[str, object], attributes: Mapping[str, object]) -> Mapping[str, object]:
    """Return question and answer, where a span has them elsewhere than in the attributes of today."""
    asked, answered = nested(attributes, "gen_ai.prompt"), nested(attributes, "gen_ai.completion")
    messages: list[object] = []
    choices: list[object] = []
    for event in objects_in(record, "events"):
        name, said = str(event.get("name")), attributes_of(event)
        if name == _DETAILS:
            return said
        if name in _OLD_EVENTS:
            value = decoded(said.get(_OLD_EVENTS[name]))
            asked, answered = (value, answered) if name.endswith("prompt") else (asked, value)
        elif name == _CHOICE:
            choices.append(_answered(said))
        elif name.startswith("gen_ai.") and name.endswith(".message"):
            messages.append({"role": name.split(".")[1], **said})
    found = {_INPUT: messages or asked, _OUTPUT: choices or answered}
    return {name: value for name, value in found.items() if value is not None}


def _answered(said: Mapping[str, object]) -> object:
    """Return the message in an event of an answer."""
    message = decoded(said.get("message"))
    found = message if isinstance(message, dict) else said
    return {"role": "assistant", **found}


def _read_event(record: Mapping[str, object], context: LogContext) -> SpanEntry:
    context.spans.last = None
    try:
        entry = _entry_of_event(record, context)
    except InputError as error:
        entry = Unusable(str(error))
    last = context.spans.last
    return SpanEntry(entry, record, last.identity() if last else CallIdentity())


def _entry_of_event(record: Mapping[str, object], context: LogContext) -> Entry:
    attributes = attributes_of(record)
    name = record.get("eventName") or attributes.get("event.name")
    if not isinstance(name, str) or not name.startswith("gen_ai."):
        return _NO_EVENT
    body = plain(record.get("body"))
    said = {**attributes, **(body if isinstance(body, dict) else {})}
    if name.endswith(".message"):
        key = span_id(record.get("traceId")), span_id(record.get("spanId"))
        context.asked.setdefault(key, []).append({"role": name.split(".")[1], "content": None, **said})
        return _ASKED_FIRST
    return _event_of_answer(record, name, said, context) if name in (_DETAILS, _CHOICE) else _NO_EVENT


def _event_of_answer(record: Mapping[str, object], name: str, said: Mapping[str, object], context: LogContext) -> Entry:
    """Return the call in an event with an answer: all of it, or one after the events with its messages."""
    key = span_id(record.get("traceId")), span_id(record.get("spanId"))
    operation = said.get("gen_ai.operation.name")
    answered = name == _CHOICE or said.get(_OUTPUT) is not None
    span = LoggedSpan(*key, "", is_call=operation not in _NO_CALLS, failed="error.type" in said, answered=answered)
    if skipped := context.spans.reason_to_skip(span):
        return skipped
    is_timed = record.get("timeUnixNano") not in (None, 0, "0")
    moment = _started(record, "timeUnixNano" if is_timed else "observedTimeUnixNano")
    if name == _DETAILS:
        if not answered:
            raise InputError(_NO_CONTENT)
        return _call(said, span, moment, context)
    if key not in context.asked:
        raise InputError("the events with what was asked are missing before this answer; give them in the same file")
    index = said.get("index", 0)
    index = int(index) if isinstance(index, str) and index.isascii() and index.isdigit() else index
    exchange = Exchange(
        {index if isinstance(index, int) else 0: answer_of(_answered(said))},
        read_part(asked_of, context.asked[key], "gen_ai.*.message"),
    )
    return _entry(exchange, _name(span, index), moment, span.identity(), said, context)


def _name(span: LoggedSpan, index: object) -> str:
    return f"{span.trace}:{span.id}" + (f"#{index}" if index else "")


def _model(attributes: Mapping[str, object], context: LogContext) -> str:
    return next((str(attributes[name]) for name in _MODELS if isinstance(attributes.get(name), str)), context.model)


def _call(said: Mapping[str, object], span: LoggedSpan, moment: datetime, context: LogContext) -> Entry:
    number = said.get("gen_ai.response.id")
    response = number if isinstance(number, str) else ""
    exchange = Exchange(_answers(said[_OUTPUT]), _asked(said))
    identity = span.identity(response=response)
    return _entry(exchange, response or _name(span, 0), moment, identity, said, context)


def _entry(
    exchange: Exchange,
    name: str,
    moment: datetime,
    identity: CallIdentity,
    said: Mapping[str, object],
    context: LogContext,
) -> Entry:
    model, user = _model(said, context), user_of(said, *_USERS)
    return calls_of([exchange], Beside(name, model, moment, identity, first=True, user=user), "")[0]


def _observation(span: Mapping[str, object], attributes: Mapping[str, object]) -> dict[str, object]:
    """Return the observation that Langfuse makes of a span of its own client."""
    said = {key.removeprefix(_LANGFUSE): value for key, value in attributes.items() if key.startswith(_LANGFUSE)}
    return {
        "id": span_id(span.get("spanId")),
        "traceId": span_id(span.get("traceId")),
        "parentObservationId": span_id(span.get("parentSpanId")),
        "type": str(said["type"]).upper(),
        "startTime": _started(span, "startTimeUnixNano").isoformat(),
        "level": said.get("level"),
        "model": said.get("model.name"),
        "input": said.get("input"),
        "output": said.get("output"),
        "userId": user_of(attributes, *_USERS),
    }


def _started(record: Mapping[str, object], name: str) -> datetime:
    try:
        return unix_nanos(record.get(name))
    except FieldError as error:
        raise InputError(f"`{name}` {error}") from error


def _has_failed(span: Mapping[str, object]) -> bool:
    status = span.get("status")
    return isinstance(status, dict) and status.get("code") in (2, "STATUS_CODE_ERROR")


def _asked(said: Mapping[str, object]) -> Asked:
    if said.get(_INPUT) is None:
        raise InputError(f"`{_INPUT}` is missing; what was asked was not recorded")
    value = said[_INPUT]
    if isinstance(value, str) and said.get("gen_ai.operation.name") == "text_completion" and decoded(value) is value:
        return Asked(value)
    messages = _listed(value, _INPUT)
    system = said.get(_SYSTEM)
    system = _parsed(system)
    tools = said.get("gen_ai.tool.definitions")
    request = {"messages": messages, "system": system or None, "tools": _parsed(tools)}
    try:
        return asked_of_request(request)
    except FieldError as error:
        words = str(error).replace("`messages`", f"`{_INPUT}`").replace("`system`", f"`{_SYSTEM}`")
        raise InputError(words) from error


def _parsed(value: object) -> object:
    """Return a value from its JSON text, if it is one."""
    try:
        return parse_json(value) if isinstance(value, str) else value
    except InputError:
        return value


def _listed(value: object, name: str) -> list[dict[str, object]]:
    try:
        found = parse_json(value) if isinstance(value, str) else value
    except InputError as error:
        raise InputError(f"`{name}`: {error}") from error
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise InputError(f"`{name}` must be a list of messages, each with role and parts")
    return found


def _answers(output: object) -> dict[int, Answer]:
    messages = _listed(output, _OUTPUT)
    if not messages:
        raise InputError(f"`{_OUTPUT}` is empty")
    return {index: answer_of(message) for index, message in enumerate(messages)}
