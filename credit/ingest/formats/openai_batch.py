"""Results of OpenAI's batch API: its output and error files.

A line is `{"id", "custom_id", "response": {"status_code", "request_id", "body"}, "error"}`. The requests stand only in
the batch's input file, under the same `custom_id`. That id means nothing outside its batch (`request-1` is in most of
them), so the response's id names the call.
https://platform.openai.com/docs/guides/batch
"""

from __future__ import annotations

from collections.abc import Mapping

from credit.ingest.apis import read_exchange
from credit.ingest.calls import FAILED, Entry, user_of
from credit.ingest.exchanges import USERS, Beside, calls_of, without_text
from credit.ingest.fields import Identifier, InputModel, validate
from credit.ingest.spans import LogContext

FIELDS = frozenset({"id", "custom_id", "response", "error"})

_SUCCESS = 200


class _BatchResponse(InputModel):
    status_code: int
    body: dict[str, object]


class _OpenAIResult(InputModel):
    custom_id: Identifier
    response: _BatchResponse


def matches(record: Mapping[str, object]) -> bool:
    """Return True if a record is a result of an OpenAI batch."""
    return "custom_id" in record and "response" in record


def read(record: Mapping[str, object], context: LogContext) -> list[Entry]:
    """Return the calls of a result.

    Raises:
        InputError: the result cannot be used, or its request is missing.
    """
    if record.get("error") is not None:
        return [FAILED]
    result = validate(_OpenAIResult, record)
    if result.response.status_code != _SUCCESS:
        return [FAILED]
    body = result.response.body
    if skipped := without_text(body):
        return [skipped]
    request = context.requests.request(result.custom_id)
    if body.get("object") == "chat.completion":
        context.requests.asked(result.custom_id)  # names the place of a request that cannot be used
    _, exchanges = read_exchange(request, body)
    return calls_of(exchanges, Beside("", context.model, context.occurred_at, user=user_of(request, *USERS)), "")
