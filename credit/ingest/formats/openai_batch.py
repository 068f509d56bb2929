"""Results of OpenAI's batch API, as its output and error files hold them.

A line is `{"id", "custom_id", "response": {"status_code", "request_id", "body"}, "error"}`, with a chat completion as
the body. What was asked stands in the batch's input file alone, under the same `custom_id`. That id says nothing beyond
its batch (`request-1` is in most of them), so the output is known by the completion's.
https://platform.openai.com/docs/guides/batch
"""

from __future__ import annotations

from collections.abc import Mapping

from credit.ingest.calls import FAILED, Found, Skipped
from credit.ingest.fields import Identifier, InputModel, validate
from credit.ingest.formats.openai_chat import completion_outputs
from credit.ingest.spans import Reading

NAME = "openai-batch"
FIELDS = frozenset({"id", "custom_id", "response", "error"})

_SUCCESS = 200


class _Response(InputModel):
    status_code: int
    body: dict[str, object]


class _Result(InputModel):
    custom_id: Identifier
    response: _Response


def is_openai_result(record: Mapping[str, object]) -> bool:
    """Whether a record is the result of a batch of OpenAI's."""
    return "custom_id" in record and "response" in record


def parse_openai_result(record: Mapping[str, object], reading: Reading) -> list[Found]:
    """Return the outputs of one result, one for each choice.

    Raises:
        InputError: the result cannot be used, or its request is missing.
    """
    if record.get("error") is not None:
        return [Skipped(FAILED)]
    result = validate(_Result, record)
    if result.response.status_code != _SUCCESS:
        return [Skipped(FAILED)]
    messages = reading.requests.messages(result.custom_id)
    return completion_outputs(result.response.body, messages, reading.source or NAME)
