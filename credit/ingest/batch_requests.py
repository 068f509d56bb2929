"""Requests of batches. The results of a batch name them by `custom_id` and do not repeat their messages.

A request for OpenAI's batch API is a line `{"custom_id", "method", "url", "body"}` of its input file; one for
Anthropic's is `{"custom_id", "params"}`, in lines, or in the `requests` of the call that made the batch.
https://platform.openai.com/docs/guides/batch, https://docs.anthropic.com/en/api/creating-message-batches
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from credit.errors import InputError
from credit.ingest.calls import Entry, Skipped, request_messages
from credit.ingest.fields import FieldError
from credit.ingest.files import Parsed, read_rows
from credit.records import Message, Place

FIELDS = frozenset({"custom_id", "method", "url", "body", "params", "requests"})


@dataclass(frozen=True, slots=True)
class _BatchRequest:
    """Messages of a request, or the reason why they cannot be used, and its place."""

    place: Place
    messages: tuple[Message, ...] = ()
    problem: str = ""


class BatchRequests:
    """Requests by `custom_id`. Memory: about as much as the files that hold them."""

    def __init__(self) -> None:
        self._found: dict[str, _BatchRequest] = {}

    def __len__(self) -> int:
        return len(self._found)

    def add(self, record: Mapping[str, object], place: Place) -> None:
        """Add the requests of a record that `matches`; pass over anything else in it."""
        for custom_id, asked in _requests(record):
            request = _request(asked, place)
            before = self._found.get(custom_id)
            if before is not None and (before.messages, before.problem) != (request.messages, request.problem):
                places = f"{before.place} and {place}"
                problem = f"is another one at {places}; give the files of each batch in a call of their own"
                request = _BatchRequest(place, problem=problem)
            self._found[custom_id] = request

    def messages(self, custom_id: str) -> tuple[Message, ...]:
        """Return the messages of a request.

        Raises:
            InputError: there is no such request, more than one, or one that cannot be used.
        """
        request = self._found.get(custom_id)
        if request is None:
            raise InputError(
                f"the request {custom_id!r} is missing; give the batch's input file in the same call, in any order"
            )
        if request.problem:
            raise InputError(f"the request {custom_id!r} {request.problem}")
        return request.messages


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
    """Return True if a record holds requests of a batch."""
    if "custom_id" in record:
        return "body" in record or "params" in record
    return isinstance(record.get("requests"), list)


def read(_record: Mapping[str, object], _context: object) -> list[Entry]:
    """Return that requests hold no output."""
    return [Skipped("requests of a batch, which belong to its results")]


def _requests(record: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, object]]]:
    listed = record.get("requests")
    for item in listed if isinstance(listed, list) else [record]:
        if not isinstance(item, dict):
            continue
        custom_id, asked = item.get("custom_id"), item.get("params", item.get("body"))
        if isinstance(custom_id, str) and isinstance(asked, dict):
            yield custom_id, asked


def _request(asked: Mapping[str, object], place: Place) -> _BatchRequest:
    try:
        return _BatchRequest(place, messages=request_messages(asked))
    except FieldError as error:
        return _BatchRequest(place, problem=f"at {place} cannot be used: {error}")
