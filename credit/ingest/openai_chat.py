"""Logs of OpenAI's chat completions API, as common loggers write them.

A line holds the request (for its `messages`) and the response. They stand side by side as `request` and
`response`, `input` and `output`, or `request_body` and `response_body`, each bare or inside a `body`; or the line
is the response itself, with the `messages` or the `request` added to it.
https://platform.openai.com/docs/api-reference/chat/object
"""

from __future__ import annotations

from collections.abc import Mapping

from credit.errors import InputError
from credit.ingest.fields import FieldError, Identifier, InputModel, Messages, Name, UnixTime, filled, text_of, validate
from credit.records import LoggedOutput

NAME = "openai"

_REQUESTS = ("request", "input", "request_body")
_RESPONSES = ("response", "output", "response_body")
_RESPONSE_FIELDS = (
    "id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier", "metadata"
)  # fmt: skip
FIELDS = frozenset((*_REQUESTS, *_RESPONSES, *_RESPONSE_FIELDS, "messages"))


class _Request(InputModel):
    messages: Messages


class _Response(InputModel):
    id: Identifier
    created: UnixTime
    model: Name
    choices: list[dict[str, object]]


def is_openai_chat(record: Mapping[str, object]) -> bool:
    """Whether a record looks like a logged chat completion."""
    if "choices" in record or "response" in record or "response_body" in record:
        return True
    output = record.get("output")
    return isinstance(output, dict) and "choices" in output


def parse_openai_chat(record: Mapping[str, object], source: str | None) -> list[LoggedOutput | str]:
    """Return the outputs of one logged call, one for each choice: an output, or why the choice cannot be used.

    With several choices, the id gets the choice's index: `chatcmpl-1#0`, `chatcmpl-1#1`.

    Raises:
        InputError: the whole call cannot be used.
    """
    response = _part(record, _RESPONSES)
    kind = response.get("object")
    if response.get("error"):
        raise InputError("the response is an error, not a completion")
    if kind is not None and kind != "chat.completion":
        raise InputError(f"the response is a {str(kind)[:60]!r}; only whole chat.completion objects can be read")
    request = _part(record, _REQUESTS)
    if request.get("messages") is None:
        request = record
    if request.get("messages") is None:
        raise InputError("the request's `messages` are missing; log the request beside the response")
    messages = validate(_Request, request).messages
    call = validate(_Response, response)
    if not call.choices:
        raise InputError("`choices` is empty")
    indexes = [choice.get("index", position) for position, choice in enumerate(call.choices)]
    if not all(type(index) is int for index in indexes) or len({*map(str, indexes)}) < len(indexes):
        raise InputError("`choices` need indexes that are whole numbers and differ")
    outputs: list[LoggedOutput | str] = []
    for index, choice in zip(indexes, call.choices, strict=True):
        try:
            completion = _completion(choice)
        except FieldError as error:
            outputs.append(f"choice {index}: {error}")
            continue
        external_id = call.id if len(indexes) == 1 else f"{call.id}#{index}"
        outputs.append(
            LoggedOutput(source or NAME, external_id, call.created, call.model, completion, messages=messages)
        )
    return outputs


def _part(record: Mapping[str, object], names: tuple[str, ...]) -> Mapping[str, object]:
    """Return the request or response within a line; the line itself when it is not nested."""
    for name in names:
        if record.get(name) is None:
            continue
        part = record[name]
        body = part.get("body", part) if isinstance(part, dict) else None
        if not isinstance(body, dict):
            raise InputError(f"`{name}` must be a JSON object")
        return body
    return record


def _completion(choice: Mapping[str, object]) -> str:
    message = choice.get("message")
    if not isinstance(message, dict):
        raise FieldError("`message` is missing")
    if message.get("tool_calls") or message.get("function_call"):
        raise FieldError("the model called a tool; only text can be valued")
    content = message.get("content")
    if content is None:
        raise FieldError("the model refused" if message.get("refusal") else "`content` is null")
    try:
        return filled(text_of(content))
    except FieldError as error:
        raise FieldError(f"`content` {error}") from error
