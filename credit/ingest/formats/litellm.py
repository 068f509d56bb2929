"""Standard logging payloads of LiteLLM, as its callbacks get them and its storage integrations write them.

https://docs.litellm.ai/docs/proxy/logging_spec
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from credit.errors import InputError
from credit.ingest.calls import FAILED, Call, Entry, Skipped, answers_of_choices, user_of
from credit.ingest.fields import Identifier, InputModel, Messages, Name, UnixSeconds, validate
from credit.ingest.spans import LogContext
from credit.records import CallIdentity

_USERS = ("end_user", "user")
FIELDS = frozenset({"id", "call_type", "startTime", "status", "model", "messages", "response", *_USERS})

_REDACTED = "redacted-by-litellm"
_CHATS = frozenset({"completion", "acompletion"})
_WRITERS = ("completion", "response", "message", "generate_content")
"""Pieces of the names of other calls that generate text."""


class _PayloadResponse(InputModel):
    choices: list[dict[str, object]]


class _Payload(InputModel):
    id: Identifier
    start_time: UnixSeconds = Field(alias="startTime")
    model: Name
    messages: Messages
    response: _PayloadResponse


def matches(record: Mapping[str, object]) -> bool:
    """Return True if a record is a standard logging payload."""
    return "call_type" in record and "startTime" in record


def read(record: Mapping[str, object], _context: LogContext) -> list[Entry]:
    """Return the call of a payload.

    Raises:
        InputError: the call cannot be used.
    """
    kind = record["call_type"]
    if record.get("status") == "failure":
        return [FAILED]
    if not isinstance(kind, str):
        raise InputError("`call_type` must be a text")
    if kind not in _CHATS:
        if any(word in kind for word in _WRITERS):
            raise InputError(f"`call_type` is {kind[:60]!r}; only chat completions can be read")
        return [Skipped("calls that generate no text")]
    call = validate(_Payload, record)
    answers = answers_of_choices(call.response.choices)
    if _REDACTED in answers.values() or any(message.content == _REDACTED for message in call.messages):
        raise InputError("the texts were redacted by LiteLLM before it logged them (turn_off_message_logging)")
    identity = CallIdentity(response=call.id)
    user = user_of(record, *_USERS)
    return [Call(call.id, call.start_time, call.model, answers, messages=call.messages, identity=identity, user=user)]
