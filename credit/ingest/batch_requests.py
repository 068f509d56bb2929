"""Requests that a log holds apart from their responses: those of batches, and lines of their own.

The results of a batch name their requests by `custom_id` and do not repeat them. A request for OpenAI's batch API is a
line `{"custom_id", "method", "url", "body"}` of its input file; one for Anthropic's is `{"custom_id", "params"}`, in
lines, or in the `requests` of the call that made the batch. Other loggers write a line `{"request_id", "request"}`, and
one with the response later.
https://platform.openai.com/docs/guides/batch, https://docs.anthropic.com/en/api/creating-message-batches
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from credit.errors import InputError
from credit.ingest.apis import api_of
from credit.ingest.calls import Asked, Entry, Skipped
from credit.ingest.exchanges import REQUEST_IDS, RESPONSES, asked_in, id_beside
from credit.ingest.files import Parsed, read_rows
from credit.records import Place

FIELDS = frozenset({"custom_id", "method", "url", "body", "params", "requests", "request", *REQUEST_IDS})


@dataclass(frozen=True, slots=True)
class _BatchRequest:
    """Fields of a request and its place; or the reason why they cannot be used."""

    place: Place
    fields: Mapping[str, object]
    problem: str = ""


class BatchRequests:
    """Requests by `custom_id` or `request_id`. Memory: a few times as much as the files that hold them."""

    def __init__(self) -> None:
        self._found: dict[str, _BatchRequest] = {}

    def __len__(self) -> int:
        return len(self._found)

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def add(self, record: Mapping[str, object], place: Place) -> None:
        """Add the requests of a record that `matches`; pass over anything else in it."""
        for name, fields in _requests(record):
            request = _BatchRequest(place, fields)
            before = self._found.get(name)
            if before is not None and (before.fields != fields or before.problem):
                places = f"{before.place} and {place}"
                problem = f"is another one at {places}; give the files of each batch in a call of their own"
                request = _BatchRequest(place, fields, problem)
            self._found[name] = request

    def request(self, name: str) -> Mapping[str, object]:
        """Return the fields of a request.

        Raises:
            InputError: there is no such request, or more than one.
        """
        request = self._found.get(name)
        if request is None:
            raise InputError(
                f"the request {name!r} is missing; give the batch's input file in the same call, in any order"
            )
        if request.problem:
            raise InputError(f"the request {name!r} {request.problem}")
        return request.fields

    def asked(self, name: str) -> Asked:
        """Return the question in a request with messages.

        Raises:
            InputError: there is no such request, more than one, or one that cannot be used.
        """
        fields = self.request(name)
        place = self._found[name].place
        if fields.get("messages") is None:
            raise InputError(f"the request {name!r} at {place} cannot be used: `messages` is missing")
        try:
            return asked_in(fields)
        except InputError as error:
            raise InputError(f"the request {name!r} at {place} cannot be used: {error}") from error


def read_batch_requests(paths: Iterable[Path]) -> BatchRequests:
    """Collect the requests in those files whose first record is one; pass over a file that cannot be read."""
    found = BatchRequests()
    for path in paths:
        try:
            _add_all(found, path)
        except InputError:
            continue  # the reader of its outputs reports it
    return found


def _add_all(found: BatchRequests, path: Path) -> None:
    begun = False
    for row in read_rows(path, FIELDS, Counter()):
        if isinstance(row, Parsed):
            if matches(row.record):
                begun = True
                found.add(row.record, row.place)
            elif not begun:
                return


def matches(record: Mapping[str, object]) -> bool:
    """Return True if a record holds requests without their responses."""
    if "custom_id" in record:
        return "body" in record or "params" in record
    if isinstance(record.get("requests"), list):
        return True
    alone = isinstance(record.get("request"), dict) and record.keys().isdisjoint(RESPONSES)
    return alone and bool(id_beside(record)) and api_of(record) is None


def read(_record: Mapping[str, object], _context: object) -> list[Entry]:
    """Return the reason not to read requests as outputs."""
    return [Skipped("requests, which belong to their responses")]


def _requests(record: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, object]]]:
    listed = record.get("requests")
    for item in listed if isinstance(listed, list) else [record]:
        if not isinstance(item, dict):
            continue
        name = item.get("custom_id") or id_beside(item)
        fields = next((item[key] for key in ("params", "body", "request") if key in item), None)
        if isinstance(name, str) and isinstance(fields, dict):
            yield name, fields.get("body", fields) if isinstance(fields.get("body"), dict) else fields
