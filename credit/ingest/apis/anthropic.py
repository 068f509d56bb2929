"""Anthropic's messages, as its own service and vLLM, SGLang and LiteLLM serve them. A message holds no time.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from collections.abc import Sequence

from credit.errors import InputError
from credit.ingest.calls import Asked
from credit.ingest.conversations import answer_of
from credit.ingest.exchanges import Exchange, Record, asked_in, index_of
from credit.ingest.fields import Identifier, InputModel, Name, validate

SOURCE = "anthropic"
NAME = "Anthropic messages"
RECOGNISED_BY = "type of message, content"
FIELDS = frozenset(
    {
        *("id", "type", "role", "content", "model", "stop_reason", "stop_sequence", "usage", "messages", "system"),
        *("tools", "max_tokens", "container"),
    }
)


class _AnthropicMessage(InputModel):
    id: Identifier
    model: Name
    content: list[object]


def matches(response: Record) -> bool:
    """Return True for a message, and for the first event of a streamed one."""
    kind = response.get("type")
    return (kind == "message" and "content" in response and response.get("role") == "assistant") or (
        kind == "message_start" and "message" in response
    )


def read(request: Record, response: Record) -> Sequence[Exchange]:
    """Return the exchange.

    Raises:
        InputError: it cannot be used.
    """
    asked = asked_in(request)
    if asked.messages and asked.messages[-1].role == "assistant":
        raise InputError("the answer continues the request's last message, which cannot be repeated")
    return [exchange(response, asked)]


def exchange(response: Record, asked: Asked) -> Exchange:
    """Return the exchange of a message and its question.

    Raises:
        InputError: it is no whole message.
    """
    fields = validate(_AnthropicMessage, response)
    return Exchange({0: answer_of(response)}, asked, fields.id, fields.model)


def joined(pieces: Sequence[Record]) -> Record:
    """Build the message from a stream's events.

    Raises:
        InputError: the stream ends before its answer does.
    """
    message: dict[str, object] = {}
    blocks: dict[int, dict[str, object]] = {}
    for event in pieces:
        kind, block = event.get("type"), blocks.setdefault(index_of(event), {})
        if kind == "message_start" and isinstance(inner := event.get("message"), dict):
            message = {**inner}
        elif kind == "content_block_start" and isinstance(inner := event.get("content_block"), dict):
            block |= inner
        elif kind == "content_block_delta" and isinstance(inner := event.get("delta"), dict):
            for name in ("text", "thinking"):
                if isinstance(inner.get(name), str):
                    block[name] = f"{block.get(name) or ''}{inner[name]}"
        elif kind == "message_stop":
            return {**message, "content": [block for block in blocks.values() if block]}
    if len(pieces) == 1 and matches(pieces[0]):
        return pieces[0]
    raise InputError("the stream ends before its answer does; what the model wrote after that is not known")
