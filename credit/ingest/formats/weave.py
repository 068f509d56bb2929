"""Calls of W&B Weave: from its export and its service, as JSON or JSON lines, and `Call.to_dict()`.

Weave logs functions. One is a call of a model if a library's integration wraps it (`openai.chat.completions.create`),
if it says so (`@weave.op(kind="llm")`), or if it returns the response of a model's server. Functions around it hold it.
https://docs.wandb.ai/weave/guides/tracking/querying-calls
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from credit.errors import InputError
from credit.ingest.apis import api_of
from credit.ingest.calls import Entry, user_of
from credit.ingest.exchanges import USERS, Beside, calls_of, moment_of, without_text
from credit.ingest.fields import FieldError
from credit.ingest.json_documents import objects_in
from credit.ingest.spans import LogContext, LoggedSpan
from credit.ingest.traced import read_traced

FIELDS = frozenset(
    {
        *("id", "op_name", "trace_id", "parent_id", "started_at", "ended_at", "inputs", "output", "exception"),
        *("attributes", "summary", "wb_user_id"),
    }
)

_OP = re.compile(r"(?:weave[a-z-]*:///.*/op/)?([^:]+)")
"""Names of functions in the service, `weave:///team/project/op/NAME:VERSION`, and in tables."""
_LIBRARIES = re.compile(
    r"(openai|anthropic|litellm|groq|cerebras|mistralai|cohere|google\.genai|vertexai|huggingface_hub)\..*"
)
_NO_TEXT = re.compile(r".*(embed|moderation|count_tokens|rerank|classif|fill_mask|similarity|_to_image|image_).*")


def matches(record: Mapping[str, object]) -> bool:
    """Return True if a record is a call."""
    return "op_name" in record and "started_at" in record and "trace_id" in record


def read(record: Mapping[str, object], context: LogContext) -> list[Entry]:
    """Return the call of a model in a call of a function.

    Raises:
        InputError: it cannot be used.
    """
    output, inputs = record.get("output"), _object(record, "inputs")
    response = output if isinstance(output, dict) else {}
    span = LoggedSpan(
        _text(record, "trace_id"),
        _text(record, "id"),
        _text(record, "parent_id"),
        is_call=_is_call(record, response),
        failed=bool(record.get("exception")),
        answered=output is not None,
    )
    if skipped := context.spans.reason_to_skip(span) or without_text(response):
        return [skipped]
    if output is None:
        raise InputError("`output` is missing; the call had not ended")
    exchange = read_traced(inputs, _with_nulls(output), ("inputs", "output"))
    try:
        moment = moment_of(record["started_at"])
    except FieldError as error:
        raise InputError(f"`started_at` {error}") from error
    model = exchange.model or _text(response, "model") or _text(inputs, "model") or context.model
    user = user_of(inputs, *USERS) or user_of(record, "wb_user_id")
    identity = span.identity(response=exchange.id)
    return calls_of([exchange], Beside(span.id, model, moment, identity, first=True, user=user), "")


def _is_call(record: Mapping[str, object], response: Mapping[str, object]) -> bool:
    found = _OP.match(_text(record, "op_name"))
    name = found[1] if found else ""
    if _LIBRARIES.fullmatch(name):
        return not _NO_TEXT.fullmatch(name)
    about = _object(_object(record, "attributes"), "weave")
    return about.get("kind") == "llm" or api_of(response) is not None


def _with_nulls(output: object) -> object:
    """Return a response with the empty contents that Weave leaves out."""
    if not isinstance(output, dict) or "choices" not in output:
        return output
    choices = []
    for choice in objects_in(output, "choices"):
        content: dict[str, object] = {"content": None} if choice.get("finish_reason") else {}
        choices.append({**choice, "message": {**content, **_object(choice, "message")}})
    return {**output, "choices": choices}


def _object(record: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def _text(record: Mapping[str, object], name: str) -> str:
    value = record.get(name)
    return value if isinstance(value, str) else ""
