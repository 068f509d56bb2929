"""Results of Anthropic's message batches.

A line is `{"custom_id", "result": {"type", "message"}}`. The messages stand only in the requests, under the same
`custom_id`. Results and messages hold no time, so the user has to give it.
https://docs.anthropic.com/en/api/retrieving-message-batch-results
"""

from __future__ import annotations

from collections.abc import Mapping

from credit.errors import InputError
from credit.ingest.apis import anthropic
from credit.ingest.calls import FAILED, Entry
from credit.ingest.exchanges import Beside, calls_of
from credit.ingest.fields import Identifier, InputModel, validate
from credit.ingest.spans import LogContext

FIELDS = frozenset({"custom_id", "result"})


class _ResultKind(InputModel):
    type: str


class _AnthropicResult(InputModel):
    custom_id: Identifier
    result: _ResultKind


def matches(record: Mapping[str, object]) -> bool:
    """Return True if a record is a result of an Anthropic batch."""
    return "custom_id" in record and "result" in record


def read(record: Mapping[str, object], context: LogContext) -> list[Entry]:
    """Return the call of a result.

    Raises:
        InputError: the result cannot be used, its request is missing, or the user gave no time.
    """
    found = validate(_AnthropicResult, record)
    if found.result.type in {"errored", "canceled", "expired"}:
        return [FAILED]
    result = record["result"]
    message = result.get("message") if isinstance(result, dict) else None
    if found.result.type != "succeeded" or not isinstance(message, dict):
        raise InputError(f"a result of type {found.result.type[:60]!r} without a message")
    exchange = anthropic.exchange(message, context.requests.asked(found.custom_id))
    if context.occurred_at is None:
        raise InputError(
            "a message batch does not say when it was answered; give its `ended_at`: --occurred-at 2026-01-07T09:30:00Z"
        )
    return calls_of([exchange], Beside(occurred_at=context.occurred_at), "")
