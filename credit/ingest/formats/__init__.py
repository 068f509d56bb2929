"""The formats of logs, in the order in which a record is held against them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from credit.ingest.batch_requests import FIELDS as REQUEST_FIELDS
from credit.ingest.batch_requests import is_batch_request, parse_batch_request
from credit.ingest.calls import Found, Piece
from credit.ingest.formats import anthropic_batch, langfuse, litellm, mlflow, openai_batch, openai_chat, otlp, own
from credit.ingest.spans import Reading

Record = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Format:
    """How records of a format are told, and read.

    Attributes:
        title: what the format is called, and by which fields it is told, in words.
        is_of: whether a record is of this format, unless it is of one before it.
        parse: returns what a record holds; raises InputError if it cannot be used as a whole.
        fields: what it may hold that is read.
        names_unread: whether other fields are named, which in a log that people write may be misspelt. Those that
            programs write have many that matter to others.
        says_again: whether a log may tell of a call twice, under one id and at slightly other times: by the client and
            by a proxy, or by two tracers.
    """

    title: str
    is_of: Callable[[Record], bool]
    parse: Callable[[Record, Reading], Sequence[Found | Piece]]
    fields: frozenset[str]
    names_unread: bool = False
    says_again: bool = False


OWN = Format(
    "credit's own (completion, occurred_at)",
    own.is_own,
    own.parse_own,
    frozenset(own.FIELDS),
    names_unread=True,
)
FORMATS = (
    Format("requests of a batch (custom_id, body or params)", is_batch_request, parse_batch_request, REQUEST_FIELDS),
    Format(
        "results of an OpenAI batch (custom_id, response)",
        openai_batch.is_openai_result,
        openai_batch.parse_openai_result,
        openai_batch.FIELDS,
    ),
    Format(
        "results of an Anthropic batch (custom_id, result)",
        anthropic_batch.is_anthropic_result,
        anthropic_batch.parse_anthropic_result,
        anthropic_batch.FIELDS,
    ),
    Format(
        "LiteLLM (call_type, startTime)", litellm.is_litellm, litellm.parse_litellm, litellm.FIELDS, says_again=True
    ),
    Format("OpenTelemetry (resourceSpans)", otlp.is_otlp, otlp.parse_otlp, otlp.FIELDS, says_again=True),
    Format("MLflow (info, data)", mlflow.is_mlflow, mlflow.parse_mlflow, mlflow.FIELDS),
    Format("Langfuse (type, traceId, startTime)", langfuse.is_langfuse, langfuse.parse_langfuse, langfuse.FIELDS),
    Format(
        "OpenAI chat (request and response)",
        openai_chat.is_openai_chat,
        openai_chat.parse_openai_chat,
        openai_chat.FIELDS,
        names_unread=True,
    ),
    OWN,
)
KNOWN_FIELDS = frozenset[str]().union(*(known.fields for known in FORMATS))


def format_of(record: Record) -> Format | None:
    """Return the format of a record, or None."""
    return next((known for known in FORMATS if known.is_of(record)), None)
