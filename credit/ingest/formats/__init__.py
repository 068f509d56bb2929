"""The log formats, in the order in which a record is held against them.

A format is one file: `matches` recognises a record by its fields, `read` turns it into calls. To add one, write its
file here and add a row to `FORMATS`; `docs/logs.md` lists it for users, and `tests/ingest/logs` holds a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from credit.ingest import batch_requests
from credit.ingest.calls import Entry, SpanEntry
from credit.ingest.formats import anthropic_batch, langfuse, litellm, mlflow, openai_batch, openai_chat, otlp, own
from credit.ingest.spans import LogContext
from credit.records import OWN_SOURCE

Record = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class LogFormat:
    """A log format.

    Attributes:
        source: scope of the ids in such logs, unless the user or the record names another.
        title: its name, and in brackets the fields that it is recognised by.
        matches: returns True for a record of this format, unless it is of one before it in the table.
        read: returns the entries of a record; raises InputError if the record as a whole cannot be used.
        fields: names of the fields that are read.
        names_unread: report other fields. In a log that people write one may be misspelt; programs write many that
            matter to others.
        repeats: a log may tell of one call twice, under one id and at slightly different times: from the client and
            from a proxy, or from two tracers.
    """

    source: str
    title: str
    matches: Callable[[Record], bool]
    read: Callable[[Record, LogContext], Sequence[Entry | SpanEntry]]
    fields: frozenset[str]
    names_unread: bool = False
    repeats: bool = False


OWN = LogFormat(
    OWN_SOURCE,
    "credit's own (completion, occurred_at)",
    own.matches,
    own.read,
    frozenset(own.FIELDS),
    names_unread=True,
)
FORMATS = (
    LogFormat(
        "batch-requests",
        "requests of a batch (custom_id, body or params)",
        batch_requests.matches,
        batch_requests.read,
        batch_requests.FIELDS,
    ),
    LogFormat(
        "openai-batch",
        "results of an OpenAI batch (custom_id, response)",
        openai_batch.matches,
        openai_batch.read,
        openai_batch.FIELDS,
    ),
    LogFormat(
        "anthropic-batch",
        "results of an Anthropic batch (custom_id, result)",
        anthropic_batch.matches,
        anthropic_batch.read,
        anthropic_batch.FIELDS,
    ),
    LogFormat("litellm", "LiteLLM (call_type, startTime)", litellm.matches, litellm.read, litellm.FIELDS, repeats=True),
    LogFormat("otel", "OpenTelemetry (resourceSpans)", otlp.matches, otlp.read, otlp.FIELDS, repeats=True),
    LogFormat("mlflow", "MLflow (info, data)", mlflow.matches, mlflow.read, mlflow.FIELDS),
    LogFormat(langfuse.SOURCE, "Langfuse (type, traceId, startTime)", langfuse.matches, langfuse.read, langfuse.FIELDS),
    LogFormat(
        "openai",
        "OpenAI chat (request and response)",
        openai_chat.matches,
        openai_chat.read,
        openai_chat.FIELDS,
        names_unread=True,
    ),
    OWN,
)
KNOWN_FIELDS = frozenset[str]().union(*(known.fields for known in FORMATS))


def format_of(record: Record) -> LogFormat | None:
    """Return the format of a record; None: it is of no known one."""
    return next((known for known in FORMATS if known.matches(record)), None)
