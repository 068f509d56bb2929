"""Ollama's own API: `/api/chat` and `/api/generate`. Responses hold no id; the time is that of the answer.

`/api/generate` puts its prompt through the model's template as one message, unless the request says `raw`.
https://docs.ollama.com/api
"""

from __future__ import annotations

from collections.abc import Sequence

from credit.errors import InputError
from credit.ingest.calls import Asked
from credit.ingest.conversations import answer_of, said
from credit.ingest.exchanges import Exchange, Record, asked_in, text_in
from credit.ingest.fields import FieldError, InputModel, Name, Timestamp, storable, validate
from credit.records import Message

SOURCE = "ollama"
NAME = "Ollama"
RECOGNISED_BY = "done, message or response"
FIELDS = frozenset(
    {
        *("model", "created_at", "message", "response", "thinking", "done", "done_reason", "context", "messages"),
        *("prompt", "system", "raw", "tools", "total_duration", "load_duration", "prompt_eval_count", "eval_count"),
        *("prompt_eval_duration", "eval_duration"),
    }
)


class _OllamaResponse(InputModel):
    model: Name
    created_at: Timestamp


def matches(response: Record) -> bool:
    """Return True for a response, and for a piece of a streamed one."""
    return "done" in response and ("message" in response or isinstance(response.get("response"), str))


def read(request: Record, response: Record) -> Sequence[Exchange]:
    """Return the exchange.

    Raises:
        InputError: it cannot be used.
    """
    if response["done"] is not True:
        raise InputError("`done` is not true: this is a piece of an answer; log the whole")
    fields = validate(_OllamaResponse, response)
    if "message" in response:
        answer, asked = answer_of(response["message"]), asked_in(request)
    else:
        answer, asked = said(response["response"], text_in(response, "thinking")), _asked(request)
    return [Exchange({0: answer}, asked, model=fields.model, occurred_at=fields.created_at)]


def _asked(request: Record) -> Asked:
    for name in ("template", "suffix", "context", "images"):
        if request.get(name) and request.get("response") is None:
            raise InputError(f"the request has a `{name}`: what the model saw cannot be repeated from the log")
    if request.get("prompt") is None:
        raise InputError("the request's `prompt` is missing; log the request beside the response")
    try:
        prompt, system = storable(text_in(request, "prompt")), storable(text_in(request, "system"))
    except FieldError as error:
        raise InputError(f"`prompt` {error}") from error
    if request.get("raw"):
        return Asked(prompt)
    first = (Message("system", system),) if system else ()
    return Asked(messages=(*first, Message("user", prompt)))


def joined(pieces: Sequence[Record]) -> Record:
    """Return the response made of a stream's pieces.

    Raises:
        InputError: the stream ends before its answer does.
    """
    last = pieces[-1]
    if last.get("done") is not True:
        raise InputError("the stream ends before its answer does; what the model wrote after that is not known")
    if "message" not in last:
        return {**last, **{name: _joined(pieces, name) for name in ("response", "thinking")}}
    messages = [message for piece in pieces if isinstance(message := piece.get("message"), dict)]
    called = next((message["tool_calls"] for message in messages if message.get("tool_calls")), None)
    said_together = {name: _joined(messages, name) for name in ("content", "thinking")}
    return {**last, "message": {"role": "assistant", "tool_calls": called, **said_together}}


def _joined(pieces: Sequence[Record], name: str) -> str:
    return "".join(text for piece in pieces if isinstance(text := piece.get(name), str))
