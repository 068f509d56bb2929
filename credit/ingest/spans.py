"""Spans of tracers: calls of a model among them, and their places within one another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from credit.errors import InputError
from credit.ingest.batch_requests import BatchRequests
from credit.ingest.calls import FAILED, Entry, Skipped, SpanEntry, Unusable
from credit.records import CallIdentity, SpanLink

_NO_CALL = Skipped("spans that are no call of a model")


@dataclass(frozen=True, slots=True)
class LoggedSpan:
    """A span, as far as it decides whether there is a call to read.

    Attributes:
        trace: id of the trace.
        id: id of the span within the trace.
        parent: id of the span around it; empty: none.
        is_call: the tracer says that it is a call of a model.
        failed: the tracer says that it failed.
        answered: it holds an output.
    """

    trace: str
    id: str
    parent: str
    is_call: bool
    failed: bool
    answered: bool

    def identity(self, *, response: str = "") -> CallIdentity:
        """Return the identity of the call in the span; `response` is the id of its response."""
        return CallIdentity(self.trace, self.id, self.parent, response)


class SpansMet:
    """Spans from readers, so far unknown to the ledger.

    Two tracers in one process (of a framework and of its client, say) both write a span for one call, one within the
    other. The inner one is the call; the outer ones hold it. The ledger decides that, from the spans of all files.

    Attributes:
        last: the span met last; None before the first.
    """

    def __init__(self) -> None:
        self.last: LoggedSpan | None = None
        self._links: list[SpanLink] = []

    def reason_to_skip(self, span: LoggedSpan) -> Skipped | None:
        """Note a span, and return why it gives no call; None: read it.

        A call that neither failed nor has an output is to be read too: its reader says what is missing.
        """
        self.last = span
        is_call = span.is_call and span.answered and not span.failed
        if span.trace and span.id:
            self._links.append(SpanLink(span.trace, span.id, span.parent, is_call))
        if not span.is_call:
            return _NO_CALL
        return FAILED if span.failed else None

    def take(self) -> list[SpanLink]:
        """Return the spans met since the last time, those with ids."""
        taken, self._links = self._links, []
        return taken


@dataclass(slots=True)
class LogContext:
    """Facts beside a record for the reader of a log format.

    Attributes:
        requests: requests of batches, from all files of the command.
        occurred_at: time of outputs without one in their log.
        spans: spans met so far.
        model: name of the model, for outputs without one in their log; empty: not given.
        asked: messages of events that came before their answer, by trace and span.
    """

    requests: BatchRequests = field(default_factory=BatchRequests)
    occurred_at: datetime | None = None
    spans: SpansMet = field(default_factory=SpansMet)
    model: str = ""
    asked: dict[tuple[str, str], list[dict[str, object]]] = field(default_factory=dict)


def read_spans(
    spans: Iterable[Mapping[str, object]],
    read: Callable[[Mapping[str, object]], Entry],
    start: str,
    met: SpansMet,
) -> list[SpanEntry]:
    """Read the spans of one record; a bad one stops no other.

    Args:
        spans: in any order.
        read: reads one span; raises InputError if it cannot be used.
        start: name of the field with the start of a span; its text sorts as the moment does.
        met: notes of the reader.

    Returns:
        Entries in the order of their starts.
    """
    found = []
    for span in sorted(spans, key=lambda span: str(span.get(start))):
        met.last = None
        try:
            entry = read(span)
        except InputError as error:
            entry = Unusable(str(error))
        found.append(SpanEntry(entry, span, met.last.identity() if met.last else CallIdentity()))
    return found
