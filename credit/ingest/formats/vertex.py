"""Request-response logs of Vertex AI: rows of its BigQuery table, exported as JSON, CSV or Parquet.

Request and response are those of Gemini, of Anthropic's messages, or of a server that speaks another known API.
https://docs.cloud.google.com/vertex-ai/generative-ai/docs/multimodal/request-response-logging
"""

from __future__ import annotations

from collections.abc import Mapping

from credit.errors import InputError
from credit.ingest.apis import api_of, read_sides, unknown_response
from credit.ingest.calls import FAILED, Entry
from credit.ingest.exchanges import Beside, Sides, calls_of, moment_of, pieces_of, without_text
from credit.ingest.fields import FieldError
from credit.ingest.spans import LogContext
from credit.records import CallIdentity

FIELDS = frozenset({"full_request", "full_response", "logging_time", "model", "request_id", "deployed_model_id"})


def matches(record: Mapping[str, object]) -> bool:
    """Return True if a record is a row of the table."""
    return "full_response" in record and "logging_time" in record


def read(record: Mapping[str, object], context: LogContext) -> list[Entry]:
    """Return the call of a row.

    Raises:
        InputError: it cannot be used.
    """
    pieces, requests = _objects(record, "full_response"), _objects(record, "full_request")
    if pieces[0].get("error"):
        return [FAILED]
    if skipped := without_text(pieces[0]):
        return [skipped]
    api = api_of(pieces[0])
    if api is None:
        raise InputError(unknown_response(pieces[0]))
    exchanges = read_sides(api, Sides(requests[0], tuple(pieces)))
    try:
        moment = moment_of(_in_utc(record.get("logging_time")))
    except FieldError as error:
        raise InputError(f"`logging_time` {error}") from error
    model, number = record.get("model"), record.get("request_id")
    name = model.rpartition("/")[2] if isinstance(model, str) else ""
    request = str(number) if isinstance(number, int | str) and not isinstance(number, bool) else ""
    beside = Beside(request, name or context.model, moment, CallIdentity(request=request))
    return calls_of(exchanges, beside, "")


def _objects(record: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    value = record.get(name)
    found: list[Mapping[str, object]] = [value] if isinstance(value, dict) else pieces_of(value)
    if not found:
        raise InputError(f"`{name}` is missing, or no JSON object")
    return found


def _in_utc(value: object) -> object:
    """Return a time of BigQuery, `2026-01-07 09:30:00.5 UTC`, in ISO 8601."""
    return value.replace(" UTC", "Z").replace(" ", "T", 1) if isinstance(value, str) else value
