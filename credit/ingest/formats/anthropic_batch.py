"""Results of Anthropic's message batches.

A line is `{"custom_id", "result": {"type", "message"}}`. What was asked stands in the requests alone, under the same
`custom_id`, and when it was answered stands nowhere: neither results nor messages hold a time.
https://docs.anthropic.com/en/api/retrieving-message-batch-results
"""

from __future__ import annotations

from collections.abc import Mapping

from credit.errors import InputError
from credit.ingest.calls import FAILED, Call, Found, Skipped, answer_of
from credit.ingest.fields import Identifier, InputModel, Name, validate
from credit.ingest.spans import Reading

NAME = "anthropic-batch"
FIELDS = frozenset({"custom_id", "result"})


class _Kind(InputModel):
    type: str


class _Result(InputModel):
    custom_id: Identifier
    result: _Kind


class _Message(InputModel):
    id: Identifier
    model: Name
    content: list[object]


def is_anthropic_result(record: Mapping[str, object]) -> bool:
    """Whether a record is the result of a batch of Anthropic's."""
    return "custom_id" in record and "result" in record


def parse_anthropic_result(record: Mapping[str, object], reading: Reading) -> list[Found]:
    """Return the output of one result.

    Raises:
        InputError: the result cannot be used, its request is missing, or nobody says when it occurred.
    """
    found = validate(_Result, record)
    if found.result.type in {"errored", "canceled", "expired"}:
        return [Skipped(FAILED)]
    result = record["result"]
    message = result.get("message") if isinstance(result, dict) else None
    if found.result.type != "succeeded" or not isinstance(message, dict):
        raise InputError(f"a result of type {found.result.type[:60]!r} without a message")
    fields = validate(_Message, message)
    if reading.occurred_at is None:
        raise InputError(
            "a message batch does not say when it was answered; give its `ended_at`: --occurred-at 2026-01-07T09:30:00Z"
        )
    messages = reading.requests.messages(found.custom_id)
    call = Call(reading.source or NAME, fields.id, reading.occurred_at, fields.model, messages=messages)
    return call.outputs([answer_of(message)])
