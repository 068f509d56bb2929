"""SGLang's own API, `/generate`: a text as the model saw it, and its continuation.

Chats go through the server's OpenAI-compatible API. Responses hold neither time nor the name of the model.
https://docs.sglang.ai/basic_usage/native_api.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from credit.errors import InputError
from credit.ingest.calls import Asked, Said
from credit.ingest.conversations import said
from credit.ingest.exchanges import Exchange, Record, ids_in, text_in
from credit.ingest.fields import FieldError, storable

SOURCE = "sglang"
NAME = "SGLang"
RECOGNISED_BY = "text, meta_info"
FIELDS = frozenset({"text", "meta_info", "output_ids", "input_ids", "index", "sampling_params", "model"})


def matches(response: Record) -> bool:
    """Return True for a response, and for a piece of a streamed one."""
    return isinstance(response.get("meta_info"), dict) and ("text" in response or "output_ids" in response)


def read(request: Record, response: Record) -> Sequence[Exchange]:
    """Return the exchange.

    Raises:
        InputError: it cannot be used.
    """
    meta = response["meta_info"]
    if not isinstance(meta, dict) or meta.get("finish_reason") is None:
        raise InputError("`meta_info.finish_reason` is missing: this is a piece of an answer; log the whole")
    text, ids = request.get("text", request.get("prompt")), ids_in(request, "input_ids")
    if request is response or not (isinstance(text, str) or ids):
        raise InputError("the request's `text` is missing, or no text; log the request beside the response")
    try:
        asked = Asked(storable(text) if isinstance(text, str) else "", ids=ids)
    except FieldError as error:
        raise InputError(f"`text` {error}") from error
    model, answer = text_in(request, "model") or text_in(response, "model"), said(response.get("text"))
    if isinstance(answer, Said):
        answer = replace(answer, ids=ids_in(response, "output_ids"))
    return [Exchange({0: answer}, asked, text_in(meta, "id"), model)]


def joined(pieces: Sequence[Record]) -> Record:
    """Return the last piece of a stream: each repeats the text before it."""
    return pieces[-1]
