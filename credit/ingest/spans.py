"""What the formats of logs share while a file is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b

from credit.errors import InputError
from credit.ingest.batch_requests import BatchRequests
from credit.ingest.calls import Found, Piece, Refused
from credit.records import LoggedOutput


class Calls:
    """Tells which calls a log tells of twice, so that they count once. Memory: about 300 bytes for every span.

    Two tracers in one process (a framework's and its client's, say) both write a span for the same call, one within the
    other. The inner one is the call, the outer ones its wrappers; which of them a file has first does not matter but
    for this: an outer one that was handed out already stands for those within it.
    """

    def __init__(self) -> None:
        self._parents: dict[bytes, bytes] = {}
        self._calls: set[bytes] = set()
        self._wrappers: set[bytes] = set()
        self._said: dict[bytes, bytes] = {}

    def span(self, trace: str, span: str, parent: str, *, is_call: bool) -> bool:
        """Note a span; return whether it is a call that no other span of the file tells of."""
        key, above = _digest(trace, span), _digest(trace, parent)
        if parent:
            self._parents[key] = above
            if key in self._wrappers:
                self._wrap(above)
        if not is_call or key in self._wrappers or self._is_within_a_call(key):
            return False
        self._calls.add(key)
        if parent:
            self._wrap(above)
        return True

    def _wrap(self, key: bytes | None) -> None:
        while key is not None and key not in self._wrappers:
            self._wrappers.add(key)
            key = self._parents.get(key)

    def _is_within_a_call(self, key: bytes) -> bool:
        seen = {key}
        above = self._parents.get(key)
        while above is not None and above not in seen:
            if above in self._calls:
                return True
            seen.add(above)
            above = self._parents.get(above)
        return False

    def is_said_again(self, output: LoggedOutput) -> bool:
        """Whether an output of this id and text came before in the file, at whatever time; if none did, note it."""
        key, said = _digest(output.source, output.external_id), _digest(output.model, output.completion)
        if key in self._said:
            return self._said[key] == said
        self._said[key] = said
        return False


@dataclass(slots=True)
class Reading:
    """What is known beside a record.

    Attributes:
        source: what the ids are unique within; None: the format's name, or what the record says.
        requests: requests of batches, from all files of the call.
        occurred_at: when outputs occurred whose log does not say so.
        calls: the calls of the file so far.
    """

    source: str | None = None
    requests: BatchRequests = field(default_factory=BatchRequests)
    occurred_at: datetime | None = None
    calls: Calls = field(default_factory=Calls)


def pieces(
    spans: Iterable[Mapping[str, object]], outputs: Callable[[Mapping[str, object]], list[Found]], start: str
) -> list[Piece]:
    """Return what the spans of a record hold; one that cannot be used is refused, and stops no other.

    Spans within others start later, and are read before them, so that `Calls` takes them for the calls.

    Args:
        spans: in any order.
        outputs: reads one; raises InputError if it cannot be used.
        start: the field with the moment at which it started, which sorts as its text does.
    """
    found: list[list[Piece]] = []
    for span in sorted(reversed(list(spans)), key=lambda span: str(span.get(start)), reverse=True):
        try:
            items = outputs(span)
        except InputError as error:
            items = [Refused(str(error))]
        found.append([Piece(item, span) for item in items])
    return [piece for some in reversed(found) for piece in some]


def _digest(*parts: str) -> bytes:
    return blake2b("\0".join(parts).encode(errors="surrogatepass"), digest_size=16).digest()
