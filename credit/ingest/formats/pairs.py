"""Requests and responses side by side, as gateways, proxies and people's own code log them: one format for each API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from credit.errors import InputError
from credit.ingest.apis import ModelApi, read_sides, unknown_response
from credit.ingest.calls import FAILED, Entry, user_of
from credit.ingest.exchanges import (
    BESIDE,
    REQUESTS,
    RESPONSES,
    USERS,
    Beside,
    Record,
    Sides,
    calls_of,
    has_failed,
    head_of_response,
    id_beside,
    sides_of,
    time_beside,
    without_text,
)
from credit.ingest.spans import LogContext
from credit.records import CallIdentity


@dataclass(frozen=True, slots=True)
class PairReader:
    """Reader of requests and responses of one API."""

    api: ModelApi

    @property
    def FIELDS(self) -> frozenset[str]:  # noqa: N802 - as in the other readers
        """Names of the fields it reads."""
        return self.api.FIELDS | BESIDE

    def matches(self, record: Record) -> bool:
        """Return True if a record is a response of the API, or holds one."""
        return self.api.matches(record) or self.api.matches(head_of_response(record))

    def read(self, record: Record, context: LogContext) -> list[Entry]:
        """Return the call in a record.

        Raises:
            InputError: the call cannot be used.
        """
        if has_failed(record):
            return [FAILED]
        bare = self.api.matches(record)
        sides = sides_of(record, bare=bare)
        if any(piece.get("error") for piece in sides.pieces):
            return [FAILED]
        number = id_beside(record)
        if sides.request is record and number in context.requests:
            sides = sides_of({**record, REQUESTS[0]: context.requests.request(number)}, bare=bare)
        elif sides.request is not record:
            # A logger can lift some fields of the request out of it.
            lifted = {name: record[name] for name in ("messages", "model", "tools") if record.get(name) is not None}
            sides = Sides({**lifted, **sides.request}, sides.pieces)
        exchanges = read_sides(self.api, sides)
        beside = Beside(
            id="" if bare else _text(record, "id") or number,
            model=_text(sides.request, "model") or _text(record, "model") or context.model,
            occurred_at=None if exchanges[0].occurred_at else time_beside(record) or context.occurred_at,
            identity=CallIdentity(request=number),
            user=user_of(sides.request, *USERS) or user_of(record, *USERS),
        )
        return calls_of(exchanges, beside, self.api.SOURCE)


def _text(record: Record, name: str) -> str:
    value = record.get(name)
    return value if isinstance(value, str) else ""


# Of no known API.

FIELDS = BESIDE


def matches(record: Mapping[str, object]) -> bool:
    """Return True if a record looks like a request with its response."""
    return not record.keys().isdisjoint(RESPONSES) or bool(without_text(record))


def read(record: Mapping[str, object], _context: LogContext) -> list[Entry]:
    """Return the reason to skip a call: it failed, or its response holds no text.

    Raises:
        InputError: it is of no known API.
    """
    if has_failed(record):
        return [FAILED]
    head = head_of_response(record)
    for name in RESPONSES:
        if record.get(name) is not None and not head:
            raise InputError(f"`{name}` must be a JSON object")
    if head.get("error"):
        return [FAILED]
    skipped = without_text(record) or without_text(head)
    if skipped:
        return [skipped]
    raise InputError(unknown_response(head or record))
