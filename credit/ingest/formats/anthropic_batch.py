"""Results of Anthropic's message batches.

A line is `{"custom_id", "result": {"type", "message"}}`. The messages stand only in the requests, under the same
`custom_id`. Results and messages hold no time, so the user has to give it.
https://docs.anthropic.com/en/api/retrieving-message-batch-results
"""

from __future__ import annotations

from collections.abc import Mapping

from credit.errors import InputError
from credit.ingest.calls import FAILED, Call, Entry, answer_of
from credit.ingest.fields import Identifier, InputModel, Name, validate
from credit.ingest.spans import LogContext
from credit.records import CallIdentity

FIELDS = frozenset({"custom_id", "result"})


class _ResultKind(InputModel):
    type: str


class _AnthropicResult(InputModel):
    custom_id: Identifier
    result: _ResultKind


class _AnthropicMessage(InputModel):
    id: Identifier
    model: Name
    content: list[object]


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
    fields = validate(_AnthropicMessage, message)
    if context.occurred_at is None:
        raise InputError(
            "a message batch does not say when it was answered; give its `ended_at`: --occurred-at 2026-01-07T09:30:00Z"
        )
    messages = context.requests.messages(found.custom_id)
    answers, identity = {0: answer_of(message)}, CallIdentity(response=fields.id)
    return [Call(fields.id, context.occurred_at, fields.model, answers, messages=messages, identity=identity)]
