"""The log formats, in the order in which a record is held against them.

A format is one file: `matches` recognises a record by its fields, `read` turns it into calls. To add one, write its
file here and add a row to `FORMATS`; `docs/logs.md` lists it for users, and `tests/ingest/logs` holds a sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from credit.ingest import batch_requests
from credit.ingest.apis import APIS
from credit.ingest.calls import Entry, SpanEntry
from credit.ingest.formats import (
    anthropic_batch,
    bedrock,
    helicone,
    langfuse,
    langsmith,
    litellm,
    mlflow,
    openai_batch,
    openinference,
    otlp,
    own,
    pairs,
    vertex,
    weave,
)
from credit.ingest.spans import LogContext
from credit.records import OWN_SOURCE

Record = Mapping[str, object]


class FormatReader(Protocol):
    """Contents of the file of a format.

    Attributes:
        FIELDS: names of the fields it reads.
    """

    @property
    def FIELDS(self) -> frozenset[str]: ...  # noqa: D102, N802  # described above; a constant of a module

    def matches(self, record: Record, /) -> bool:
        """Return True for a record of this format, unless it is of one before it in the table."""

    def read(self, record: Record, context: LogContext, /) -> Sequence[Entry | SpanEntry]:
        """Return the entries of a record; raise InputError if the record as a whole cannot be used."""


@dataclass(frozen=True, slots=True)
class LogFormat:
    """A log format.

    Attributes:
        source: scope of the ids in such logs, unless the user or the record names another.
        name: its name for people; reasons of quarantined records begin with it.
        recognised_by: the fields that tell it from others, in words.
        reader: its file.
        names_unread: report other fields. In a log that people write one may be misspelt; programs write many that
            matter to others.
    """

    source: str
    name: str
    recognised_by: str
    reader: FormatReader
    names_unread: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.recognised_by})"


OWN = LogFormat(OWN_SOURCE, "credit's own format", "completion, occurred_at", own, names_unread=True)
FORMATS = (
    LogFormat("batch-requests", "requests of a batch", "custom_id, body or params", batch_requests),
    LogFormat("openai-batch", "OpenAI batch", "custom_id, response", openai_batch),
    LogFormat("anthropic-batch", "Anthropic batch", "custom_id, result", anthropic_batch),
    LogFormat("litellm", "LiteLLM", "call_type, startTime", litellm),
    LogFormat("otel", "OpenTelemetry", "resourceSpans", otlp),
    LogFormat("openinference", "Phoenix", "context.span_id, span_kind", openinference),
    LogFormat("bedrock", "Bedrock", "schemaType of ModelInvocationLog", bedrock),
    LogFormat("vertex", "Vertex AI", "full_response, logging_time", vertex),
    LogFormat("langsmith", "LangSmith", "run_type, start_time", langsmith),
    LogFormat("mlflow", "MLflow", "info and data, or spans", mlflow),
    LogFormat("helicone", "Helicone", "request_id, request_created_at", helicone),
    LogFormat("weave", "Weave", "op_name, started_at", weave),
    LogFormat(langfuse.SOURCE, "Langfuse", "type, traceId, startTime", langfuse),
    *(LogFormat(api.SOURCE, api.NAME, api.RECOGNISED_BY, pairs.PairReader(api), names_unread=True) for api in APIS),
    OWN,
    LogFormat("pairs", "request and response", "request, response", pairs),
)
KNOWN_FIELDS = frozenset[str]().union(*(log.reader.FIELDS for log in FORMATS))


def format_of(record: Record) -> LogFormat | None:
    """Return the format of a record; None: it is of no known one."""
    if "completion" in record and "occurred_at" in record:
        return OWN
    return next((log for log in FORMATS if log.reader.matches(record)), None)
