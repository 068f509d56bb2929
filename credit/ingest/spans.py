"""Spans of tracers: which of those within one another is the call, so that each call counts once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from credit.errors import InputError
from credit.ingest.batch_requests import BatchRequests
from credit.ingest.calls import FAILED, Entry, Skipped, SpanEntry, Unusable
from credit.ingest.fields import digest
from credit.records import CallIdentity

_NO_CALL = Skipped("spans that are no call of a model")
_TOLD_TWICE = Skipped("calls that another span tells of")


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
    """The spans of a file so far. Memory: about 300 bytes for each.

    Two tracers in one process (of a framework and of its client, say) both write a span for one call, one within the
    other. The inner one is the call; the outer ones wrap it. The order in the file does not matter, with one
    exception: an outer span that was handed out before the inner one came stands for those within it.
    """

    def __init__(self) -> None:
        self._parents: dict[bytes, bytes] = {}
        self._calls: set[bytes] = set()
        self._wrappers: set[bytes] = set()

    def reason_to_skip(self, span: LoggedSpan) -> Skipped | None:
        """Note a span, and return why it gives no call; None: read it.

        A call that neither failed nor has an output is to be read too: its reader says what is missing.
        """
        is_new = self._is_new_call(span)
        if not span.is_call:
            return _NO_CALL
        if span.failed:
            return FAILED
        return _TOLD_TWICE if span.answered and not is_new else None

    def _is_new_call(self, span: LoggedSpan) -> bool:
        """Note a span. Return True if it is a whole call, and no other span of the file tells of the same one."""
        key, above = digest(span.trace, span.id), digest(span.trace, span.parent)
        if span.parent:
            self._parents[key] = above
            if key in self._wrappers:
                self._wrap(above)
        whole = span.is_call and span.answered and not span.failed
        if not whole or key in self._wrappers or self._is_within_a_call(key):
            return False
        # The frameworks around it tell of the same call: from now on they count as wrappers.
        self._calls.add(key)
        if span.parent:
            self._wrap(above)
        return True

    def _wrap(self, key: bytes | None) -> None:
        while key is not None and key not in self._wrappers:
            self._wrappers.add(key)
            key = self._parents.get(key)

    def _is_within_a_call(self, key: bytes) -> bool:
        passed = {key}  # broken logs hold spans that are their own ancestors
        above = self._parents.get(key)
        while above is not None and above not in passed:
            if above in self._calls:
                return True
            passed.add(above)
            above = self._parents.get(above)
        return False


@dataclass(slots=True)
class LogContext:
    """Facts beside a record that a reader of a log format may need.

    Attributes:
        requests: requests of batches, from all files of the command.
        occurred_at: time of outputs whose log has none.
        spans: spans of the file so far.
    """

    requests: BatchRequests = field(default_factory=BatchRequests)
    occurred_at: datetime | None = None
    spans: SpansMet = field(default_factory=SpansMet)


def read_spans(
    spans: Iterable[Mapping[str, object]], read: Callable[[Mapping[str, object]], Entry], start: str
) -> list[SpanEntry]:
    """Read the spans of one record; a bad one stops no other.

    Inner spans start later than the outer ones. They are read first, so that `SpansMet` takes them for the calls.

    Args:
        spans: in any order.
        read: reads one span; raises InputError if it cannot be used.
        start: name of the field with the start of a span; its text sorts as the moment does.

    Returns:
        Entries in the order of their starts.
    """
    found = []
    # Reversed twice: spans that start together keep the order of the file.
    for span in sorted(reversed(list(spans)), key=lambda span: str(span.get(start)), reverse=True):
        try:
            entry = read(span)
        except InputError as error:
            entry = Unusable(str(error))
        found.append(SpanEntry(entry, span))
    return found[::-1]
