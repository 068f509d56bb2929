"""Chat completions of OpenAI's API, as common loggers write them.

A line holds the request (for its `messages`) and the response. They stand side by side as `request` and
`response`, `input` and `output`, or `request_body` and `response_body`, each bare or inside a `body`; or the line
is the response itself, with the `messages` or the `request` added to it.
https://platform.openai.com/docs/api-reference/chat/object
"""

from __future__ import annotations

from collections.abc import Mapping

from credit.errors import InputError
from credit.ingest.calls import FAILED, Call, Entry, answers_of_choices, user_of
from credit.ingest.fields import Identifier, InputModel, Messages, Name, UnixTime, validate
from credit.ingest.spans import LogContext
from credit.records import CallIdentity, Message

_REQUESTS = ("request", "input", "request_body")
_RESPONSES = ("response", "output", "response_body")
_RESPONSE_FIELDS = (
    "id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier", "metadata"
)  # fmt: skip
_USERS = ("safety_identifier", "user")
FIELDS = frozenset((*_REQUESTS, *_RESPONSES, *_RESPONSE_FIELDS, "messages", *_USERS))


class _ChatRequest(InputModel):
    messages: Messages


class _ChatCompletion(InputModel):
    id: Identifier
    created: UnixTime
    model: Name
    choices: list[dict[str, object]]


def matches(record: Mapping[str, object]) -> bool:
    """Return True if a record looks like a logged chat completion."""
    if "choices" in record or "response" in record or "response_body" in record:
        return True
    output = record.get("output")
    return isinstance(output, dict) and "choices" in output


def read(record: Mapping[str, object], _context: LogContext) -> list[Entry]:
    """Return the call in a line.

    Raises:
        InputError: the whole call cannot be used.
    """
    response = _side(record, _RESPONSES)
    if response.get("error"):
        return [FAILED]
    request = _side(record, _REQUESTS)
    if request.get("messages") is None:
        request = record
    if request.get("messages") is None:
        raise InputError("the request's `messages` are missing; log the request beside the response")
    user = user_of(request, *_USERS) or user_of(record, *_USERS)
    return [completion_call(response, validate(_ChatRequest, request).messages, user)]


def completion_call(response: Mapping[str, object], messages: tuple[Message, ...], user: str = "") -> Call:
    """Return the call of a response to messages.

    Raises:
        InputError: the response is no whole chat completion.
    """
    kind = response.get("object")
    if kind is not None and kind != "chat.completion":
        raise InputError(f"the response is a {str(kind)[:60]!r}; only whole chat.completion objects can be read")
    fields = validate(_ChatCompletion, response)
    answers, identity = answers_of_choices(fields.choices), CallIdentity(response=fields.id)
    return Call(fields.id, fields.created, fields.model, answers, messages=messages, identity=identity, user=user)


def _side(record: Mapping[str, object], names: tuple[str, ...]) -> Mapping[str, object]:
    """Return the request or response within a line, or the line itself where it is not nested."""
    for name in names:
        if record.get(name) is None:
            continue
        side = record[name]
        body = side.get("body", side) if isinstance(side, dict) else None
        if not isinstance(body, dict):
            raise InputError(f"`{name}` must be a JSON object")
        return body
    return record
