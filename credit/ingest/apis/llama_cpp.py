"""The own API of llama.cpp's server, `/completion`: a prompt as the model saw it, and its continuation.

Responses repeat the prompt and hold neither id nor time. Chats go through the server's OpenAI-compatible API.
https://github.com/ggml-org/llama.cpp/tree/master/tools/server
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from credit.errors import InputError
from credit.ingest.calls import Asked, Said
from credit.ingest.conversations import said
from credit.ingest.exchanges import Exchange, Record, ids_in, text_in
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
    given, shown = request.get("prompt"), response.get("prompt")
    prompt = given if isinstance(given, str) else shown
    ids = ids_in(request, "prompt") if isinstance(given, list) else ()
    if not (isinstance(prompt, str) or ids):
        raise InputError("`prompt` is missing, or neither text nor tokens; log the request beside the response")
    try:
        asked = Asked(storable(prompt) if isinstance(prompt, str) else "", ids=ids)
    except FieldError as error:
        raise InputError(f"`prompt` {error}") from error
    model, answer = text_in(response, "model") or text_in(request, "model"), said(response["content"])
    if isinstance(answer, Said):
        answer = replace(answer, ids=ids_in(response, "tokens"))
    return [Exchange({0: answer}, asked, model=model)]


def joined(pieces: Sequence[Record]) -> Record:
    """Return the response made of a stream's pieces.

    Raises:
        InputError: the stream ends before its answer does.
    """
    last = pieces[-1]
    if last.get("stop") is not True:
        raise InputError("the stream ends before its answer does; what the model wrote after that is not known")
    tokens = [token for piece in pieces if isinstance(found := piece.get("tokens"), list) for token in found]
    content = "".join(text for piece in pieces if isinstance(text := piece.get("content"), str))
    return {**last, "content": content, "tokens": tokens}
