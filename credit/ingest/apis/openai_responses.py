"""OpenAI's Responses: items in, items out.

A response of a server repeats the request's `instructions` and `tools`, and a request can refer to an earlier response
instead of repeating its items: what the model saw is then not in the record.
https://platform.openai.com/docs/api-reference/responses/object
"""

from __future__ import annotations

from collections.abc import Sequence

from credit.errors import InputError
from credit.ingest.calls import FAILED, Answer, Asked, Unusable
from credit.ingest.conversations import answer_of, asked_of_request
from credit.ingest.exchanges import Exchange, Record, moment_of, text_in
from credit.ingest.fields import FieldError, Identifier, InputModel, Name, validate
from credit.ingest.json_documents import objects_in
from credit.records import Message

SOURCE = "openai"
NAME = "OpenAI Responses"
RECOGNISED_BY = "object of response, output"
FIELDS = frozenset(
    {
        *("id", "object", "created_at", "model", "status", "output", "input", "instructions", "tools", "usage"),
        *("previous_response_id", "conversation", "error", "incomplete_details", "completed_at", "metadata"),
    }
)

_ENDS = ("response.completed", "response.incomplete", "response.failed")


class _Response(InputModel):
    id: Identifier
    model: Name
    created_at: object = None


def matches(response: Record) -> bool:
    """Return True for a response, and for an event of a streamed one."""
    kind = response.get("type")
    return response.get("object") == "response" or (isinstance(kind, str) and kind.startswith("response."))


def joined(pieces: Sequence[Record]) -> Record:
    """Return the response in the last event of a stream.

    Raises:
        InputError: the stream ends before its answer does.
    """
    for piece in reversed(pieces):
        response = piece.get("response")
        if piece.get("type") in _ENDS and isinstance(response, dict):
            return response
    if len(pieces) == 1 and pieces[0].get("object") == "response":
        return pieces[0]
    raise InputError("the stream ends before its answer does; what the model wrote after that is not known")


def read(request: Record, response: Record) -> Sequence[Exchange]:
    """Return the exchange.

    Raises:
        InputError: it cannot be used.
    """
    fields = validate(_Response, response)
    status = response.get("status")
    if status in ("failed", "cancelled") or response.get("error"):
        return [Exchange({0: FAILED}, Asked(), fields.id, fields.model)]
    if status not in (None, "completed", "incomplete"):
        raise InputError(f"`status` is {str(status)[:60]!r}: the response was logged before its answer")
    try:
        moment = None if fields.created_at is None else moment_of(fields.created_at)
    except FieldError as error:
        raise InputError(f"`created_at` {error}") from error
    return [Exchange({0: _answer(response)}, _asked(request, response), fields.id, fields.model, moment)]


def _asked(request: Record, response: Record) -> Asked:
    for name in ("previous_response_id", "conversation", "prompt"):
        if request.get(name) or response.get(name):
            raise InputError(f"the request has a `{name}`: the log does not hold all that the model saw")
    given = request.get("input")
    if given is None:
        raise InputError("the request's `input` is missing; log the request beside the response")
    turns = [{"role": "user", "content": given}] if isinstance(given, str) else given
    tools = request.get("tools", response.get("tools"))
    try:
        asked = asked_of_request({"messages": turns, "tools": tools, "tool_choice": request.get("tool_choice")})
    except FieldError as error:
        raise InputError(str(error).replace("`messages`", "`input`")) from error
    instructions = text_in(request, "instructions") or text_in(response, "instructions")
    first = (Message("system", instructions),) if instructions else ()
    return Asked(messages=(*first, *asked.messages), template=asked.template)


def _answer(response: Record) -> Answer:
    parts: list[object] = []
    called = False
    for item in objects_in(response, "output"):
        kind, content = item.get("type"), item.get("content")
        if kind in ("message", "reasoning"):
            # A reasoning item can hold a summary alone. The model saw its thoughts and not that, so it is left out.
            parts += content if isinstance(content, list) else []
        elif isinstance(kind, str) and kind.endswith("_call"):
            called = True
        else:
            return Unusable(f"`output` holds a {str(kind)[:60]!r}, which is not known")
    return answer_of({"content": parts, "tool_calls": called})
