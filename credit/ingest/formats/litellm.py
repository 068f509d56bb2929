"""LiteLLM's standard logging payloads, as its callbacks get them and its storage integrations write them.

https://docs.litellm.ai/docs/proxy/logging_spec
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from credit.errors import InputError
from credit.ingest.calls import FAILED, Call, Found, Skipped
from credit.ingest.fields import Identifier, InputModel, Messages, Name, UnixSeconds, validate
from credit.ingest.formats.openai_chat import answers_of_choices
from credit.ingest.spans import Reading

NAME = "litellm"
FIELDS = frozenset({"id", "call_type", "startTime", "status", "model", "messages", "response"})

_REDACTED = "redacted-by-litellm"
_CHATS = frozenset({"completion", "acompletion"})
_WRITERS = ("completion", "response", "message", "generate_content")
"""What is in the names of other calls that generate text."""


class _Response(InputModel):
    choices: list[dict[str, object]]


class _Payload(InputModel):
    id: Identifier
    start_time: UnixSeconds = Field(alias="startTime")
    model: Name
    messages: Messages
    response: _Response


def is_litellm(record: Mapping[str, object]) -> bool:
    """Whether a record is a standard logging payload."""
    return "call_type" in record and "startTime" in record


def parse_litellm(record: Mapping[str, object], reading: Reading) -> list[Found]:
    """Return the outputs of one call, one for each choice.

    Raises:
        InputError: the call cannot be used.
    """
    kind = record["call_type"]
    if record.get("status") == "failure":
        return [Skipped(FAILED)]
    if not isinstance(kind, str):
        raise InputError("`call_type` must be a text")
    if kind not in _CHATS:
        if any(word in kind for word in _WRITERS):
            raise InputError(f"`call_type` is {kind[:60]!r}; only chat completions can be read")
        return [Skipped("calls that generate no text")]
    call = validate(_Payload, record)
    answers, indexes = answers_of_choices(call.response.choices)
    if _REDACTED in answers or any(message.content == _REDACTED for message in call.messages):
        raise InputError("the texts were redacted by LiteLLM before it logged them (turn_off_message_logging)")
    source = reading.source or NAME
    return Call(source, call.id, call.start_time, call.model, messages=call.messages).outputs(answers, indexes)
