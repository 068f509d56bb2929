"""Logs of OpenAI's chat completions API, as common loggers write them.

A line holds the request (for its `messages`) and the response. They stand side by side as `request` and
`response`, `input` and `output`, or `request_body` and `response_body`, each bare or inside a `body`; or the line
is the response itself, with the `messages` or the `request` added to it.
https://platform.openai.com/docs/api-reference/chat/object
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from credit.errors import InputError
from credit.ingest.calls import FAILED, Answer, Call, Found, Skipped, answer_of
from credit.ingest.fields import Identifier, InputModel, Messages, Name, UnixTime, validate
from credit.ingest.spans import Reading
from credit.records import Message

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


def parse_openai_chat(record: Mapping[str, object], reading: Reading) -> list[Found]:
    """Return the outputs of one logged call, one for each choice.

    Raises:
        InputError: the whole call cannot be used.
    """
    response = _part(record, _RESPONSES)
    if response.get("error"):
        return [Skipped(FAILED)]
    request = _part(record, _REQUESTS)
    if request.get("messages") is None:
        request = record
    if request.get("messages") is None:
        raise InputError("the request's `messages` are missing; log the request beside the response")
    return completion_outputs(response, validate(_Request, request).messages, reading.source or NAME)


def completion_outputs(response: Mapping[str, object], messages: tuple[Message, ...], source: str) -> list[Found]:
    """Return the outputs of a response of the API, one for each choice.

    Raises:
        InputError: it is no whole chat completion.
    """
    kind = response.get("object")
    if kind is not None and kind != "chat.completion":
        raise InputError(f"the response is a {str(kind)[:60]!r}; only whole chat.completion objects can be read")
    fields = validate(_Response, response)
    call = Call(source, fields.id, fields.created, fields.model, messages=messages)
    return call.outputs(*answers_of_choices(fields.choices))


def answers_of_choices(choices: Sequence[Mapping[str, object]]) -> tuple[list[Answer], list[int]]:
    """Return the answers of the choices of a completion, and their indexes.

    Raises:
        InputError: there are none, or their indexes do not tell them apart.
    """
    if not choices:
        raise InputError("`choices` is empty")
    indexes = [choice.get("index", position) for position, choice in enumerate(choices)]
    whole = [index for index in indexes if isinstance(index, int) and not isinstance(index, bool)]
    if len(set(whole)) < len(indexes):
        raise InputError("`choices` need indexes that are whole numbers and differ")
    return [answer_of(choice.get("message")) for choice in choices], whole


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
