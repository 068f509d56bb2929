"""The own API of llama.cpp's server, `/completion`: a prompt as the model saw it, and its continuation.

Responses repeat the prompt and hold neither id nor time. Chats go through the server's OpenAI-compatible API.
https://github.com/ggml-org/llama.cpp/tree/master/tools/server
"""

from __future__ import annotations

from collections.abc import Sequence

from credit.errors import InputError
from credit.ingest.calls import Asked
from credit.ingest.conversations import said
from credit.ingest.exchanges import Exchange, Record, text_in
from credit.ingest.fields import FieldError, storable

SOURCE = "llama.cpp"
NAME = "llama.cpp"
RECOGNISED_BY = "content, tokens_predicted"
FIELDS = frozenset(
    {
        *("content", "prompt", "model", "stop", "stop_type", "tokens_predicted", "tokens_evaluated", "timings"),
        *("generation_settings", "index", "id_slot", "tokens", "truncated", "has_new_line", "stopping_word"),
        *("tokens_cached",),
    }
)


def matches(response: Record) -> bool:
    """Return True for a response, and for a piece of a streamed one."""
    return "content" in response and ("tokens_predicted" in response or "generation_settings" in response)


def read(request: Record, response: Record) -> Sequence[Exchange]:
    """Return the exchange.

    Raises:
        InputError: it cannot be used.
    """
    if response.get("stop") is not True:
        raise InputError("`stop` is not true: this is a piece of an answer; log the whole")
    prompt = request.get("prompt", response.get("prompt"))
    if not isinstance(prompt, str):
        raise InputError("`prompt` is missing, or no text; log the request beside the response")
    try:
        asked = Asked(storable(prompt))
    except FieldError as error:
        raise InputError(f"`prompt` {error}") from error
    model = text_in(response, "model") or text_in(request, "model")
    return [Exchange({0: said(response["content"])}, asked, model=model)]


def joined(pieces: Sequence[Record]) -> Record:
    """Return the response made of a stream's pieces.

    Raises:
        InputError: the stream ends before its answer does.
    """
    last = pieces[-1]
    if last.get("stop") is not True:
        raise InputError("the stream ends before its answer does; what the model wrote after that is not known")
    return {**last, "content": "".join(text for piece in pieces if isinstance(text := piece.get("content"), str))}
