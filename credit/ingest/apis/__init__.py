"""The APIs of model servers: how each writes a request and its response.

An API is one file: `matches` recognises a response, or a piece of a streamed one, by its fields; `joined` puts the
pieces together; `read` turns request and response into an `Exchange`. To add one, write its file here and add it to
`APIS`. Every format that holds requests and responses then reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from credit.errors import InputError
from credit.ingest.apis import (
    anthropic,
    converse,
    gemini,
    llama_cpp,
    ollama,
    openai_chat,
    openai_completions,
    openai_responses,
    sglang,
)
from credit.ingest.exchanges import Exchange, Record, Sides


class ModelApi(Protocol):
    """Contents of the file of an API.

    Attributes:
        SOURCE: scope of the ids of its responses.
        NAME: its name for people; reasons of quarantined records begin with it.
        RECOGNISED_BY: the fields that tell it from others, in words.
        FIELDS: names of the fields of its requests and responses.
    """

    SOURCE: str
    NAME: str
    RECOGNISED_BY: str
    FIELDS: frozenset[str]

    def matches(self, response: Record, /) -> bool:
        """Return True for a response of this API, or for the first piece of a streamed one."""

    def joined(self, pieces: Sequence[Record], /) -> Record:
        """Return the response that pieces are of; raise InputError if its end is missing."""

    def read(self, request: Record, response: Record, /) -> Sequence[Exchange]:
        """Return the exchange, or several of a request with several prompts; raise InputError for an unusable one."""


APIS: tuple[ModelApi, ...] = (
    openai_chat,
    openai_completions,
    openai_responses,
    anthropic,
    ollama,
    llama_cpp,
    sglang,
    gemini,
    converse,
)


def api_of(response: Record) -> ModelApi | None:
    """Return the API of a response or of a piece of one; None: it is of no known one."""
    return next((api for api in APIS if api.matches(response)), None)


def read_sides(api: ModelApi, sides: Sides) -> Sequence[Exchange]:
    """Return the exchanges in request and response.

    Raises:
        InputError: they cannot be used.
    """
    first, *others = sides.pieces
    return api.read(sides.request, api.joined(sides.pieces) if others or _is_piece(first) else first)


def _is_piece(response: Record) -> bool:
    kind, written = response.get("type"), response.get("object")
    begun = isinstance(kind, str) and (kind.startswith("response.") or kind == "message_start")
    return begun or "messageStart" in response or (isinstance(written, str) and written.endswith(".chunk"))


def read_exchange(request: Record, response: Record) -> tuple[ModelApi, Sequence[Exchange]]:
    """Return the API of a response, and the exchanges in request and response.

    Raises:
        InputError: the response is of no known API, or the two cannot be used.
    """
    api = api_of(response)
    if api is None:
        raise InputError(unknown_response(response))
    return api, read_sides(api, Sides(request, (response,)))


def unknown_response(response: Record) -> str:
    """Return the reason why a response cannot be read, in words."""
    fields = ", ".join(sorted(str(name)[:40] for name in response)[:12]) or "nothing"
    known = ", ".join(api.NAME for api in APIS)
    return f"the response holds {fields}, which is no response of {known}"
