"""Requests of Helicone: from its API (one, or a page of them) and from its export tool, in JSON or JSON lines.

A request holds the bodies of request and response as they were sent, if the export was asked for them
(`--include-body`). Otherwise it names the place where Helicone keeps the two.
https://docs.helicone.ai/rest/request/post-v1requestquery-clickhouse
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from credit.errors import InputError
from credit.ingest.apis import api_of, read_sides, unknown_response
from credit.ingest.calls import FAILED, Entry, SpanEntry, Unusable, user_of
from credit.ingest.exchanges import USERS, Beside, Sides, calls_of, moment_of, pieces_of, without_text
from credit.ingest.fields import FieldError
from credit.ingest.spans import LogContext
from credit.records import CallIdentity

_TIME, _STATUS = "request_created_at", "response_status"
_BODIES = ("request_body", "response_body")
_MODELS = ("response_model", "model_override", "request_model", "model")
_USERS = ("request_user_id", "helicone_user")
FIELDS = frozenset({_TIME, _STATUS, *_BODIES, *_MODELS, *_USERS, "request_id", "signed_body_url", "data"})

_LEAST_FAILURE = 400


def matches(record: Mapping[str, object]) -> bool:
    """Return True if a record is a request, or a page of them."""
    return _is_request(record) or any(map(_is_request, _page(record)))


def _is_request(record: Mapping[str, object]) -> bool:
    return _TIME in record and "request_id" in record


def _page(record: Mapping[str, object]) -> list[dict[str, object]]:
    """Return the requests of an answer of the API: one in `data`, or a list."""
    data = record.get("data") if "error" in record else None
    return [item for item in (data if isinstance(data, list) else [data]) if isinstance(item, dict)]


def read(record: Mapping[str, object], context: LogContext) -> Sequence[Entry | SpanEntry]:
    """Return the calls of a request or of a page of them.

    Raises:
        InputError: a request that is alone cannot be used.
    """
    if _is_request(record):
        return _read_request(record, context)
    found: list[SpanEntry] = []
    for item in _page(record):
        try:
            entries = _read_request(item, context)
        except InputError as error:
            entries = [Unusable(str(error))]
        found += [SpanEntry(entry, item, CallIdentity()) for entry in entries]
    return found


def _read_request(record: Mapping[str, object], context: LogContext) -> list[Entry]:
    status = record.get(_STATUS)
    # Below 0: it was cancelled, or its time was over.
    if isinstance(status, int) and (status >= _LEAST_FAILURE or status < 0):
        return [FAILED]
    (request, *_), pieces = (_body(record, name) for name in _BODIES)
    if pieces[0].get("error"):
        return [FAILED]
    if skipped := without_text(pieces[0]):
        return [skipped]
    api = api_of(pieces[0])
    if api is None:
        raise InputError(unknown_response(pieces[0]))
    exchanges = read_sides(api, Sides(request, tuple(pieces)))
    try:
        moment = moment_of(record[_TIME])
    except FieldError as error:
        raise InputError(f"`{_TIME}` {error}") from error
    named = (record[name] for name in _MODELS if isinstance(record.get(name), str) and record[name])
    number = str(record["request_id"] or "")
    beside = Beside(
        id=number,
        model=exchanges[0].model or str(next(named, context.model)),
        occurred_at=moment,
        identity=CallIdentity(request=number),
        first=True,
        user=user_of(record, *_USERS) or user_of(request, *USERS),
    )
    return calls_of(exchanges, beside, "")


def _body(record: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    body = record.get(name)
    if isinstance(body, dict) and isinstance(body.get("streamed_data"), list | str):
        body = body["streamed_data"]
    found: list[Mapping[str, object]] = [body] if isinstance(body, dict) else pieces_of(body)
    if not found or not found[0]:
        raise InputError(f"`{name}` is missing; export it with --include-body")
    return found
