"""Runs of LangSmith: from its client and API, and rows of its bulk exports in Parquet.

A run of type `llm` is a call; its inputs and outputs are messages of LangChain or request and response of a server's
API, and JSON texts in an export. Times are UTC, also where they do not say so.
https://docs.langchain.com/langsmith/run-data-format, https://docs.langchain.com/langsmith/data-export
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from credit.errors import InputError
from credit.ingest.calls import Entry, user_of
from credit.ingest.exchanges import Beside, calls_of, pieces_of
from credit.ingest.fields import FieldError, span_id, timestamp
from credit.ingest.spans import LogContext, LoggedSpan
from credit.ingest.traced import read_traced

FIELDS = frozenset(
    {"id", "run_type", "inputs", "outputs", "error", "status", "start_time", "trace_id", "parent_run_id", "extra"}
)

_NO_CALLS = ("chain", "tool", "retriever", "embedding", "prompt", "parser")
_MODELS = ("ls_model_name", "model_name", "model")


def matches(record: Mapping[str, object]) -> bool:
    """Return True if a record is a run."""
    return "run_type" in record and "start_time" in record and "id" in record


def read(record: Mapping[str, object], context: LogContext) -> list[Entry]:
    """Return the call of a run.

    Raises:
        InputError: it cannot be used.
    """
    outputs = _object(record, "outputs")
    span = LoggedSpan(
        span_id(record.get("trace_id")),
        span_id(record.get("id")),
        span_id(record.get("parent_run_id")),
        is_call=record["run_type"] not in _NO_CALLS,
        failed=bool(record.get("error")) or record.get("status") == "error",
        answered=bool(outputs),
    )
    if skipped := context.spans.reason_to_skip(span):
        return [skipped]
    if record["run_type"] != "llm":
        raise InputError(f"`run_type` is {str(record['run_type'])[:60]!r}, which is not known")
    if not outputs:
        raise InputError("`outputs` is empty; the run had not ended")
    extra = _object(record, "extra")
    exchange = read_traced(_asked(_object(record, "inputs")), _answered(outputs), ("inputs", "outputs"))
    metadata = extra.get("metadata")
    named = metadata if isinstance(metadata, dict) else {}
    parameters = extra.get("invocation_params")
    models = {**(parameters if isinstance(parameters, dict) else {}), **named}
    model = next((str(models[name]) for name in _MODELS if isinstance(models.get(name), str)), context.model)
    identity = span.identity(response=exchange.id or _response_id(outputs))
    user = user_of(named, "user_id", "user")
    return calls_of([exchange], Beside(span.id, model, _started(record), identity, first=True, user=user), "")


def _object(record: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = record.get(name)
    found = pieces_of(value) if isinstance(value, str) else [value]
    return found[0] if found and isinstance(found[0], dict) else {}


def _asked(inputs: Mapping[str, object]) -> object:
    """Return what was asked; LangChain has a list of chats, of one, and a list of prompts."""
    messages, prompts = inputs.get("messages"), inputs.get("prompts")
    if isinstance(messages, list) and len(messages) == 1 and isinstance(messages[0], list):
        return {**inputs, "messages": messages[0]}
    return prompts[0] if isinstance(prompts, list) and len(prompts) == 1 else inputs


def _answered(outputs: Mapping[str, object]) -> object:
    """Return what was answered; LangChain has a list of generations for each chat."""
    generations = outputs.get("generations")
    if isinstance(generations, list) and len(generations) == 1 and isinstance(generations[0], list):
        return [
            item.get("message", {"role": "assistant", "content": item.get("text")})
            for item in generations[0]
            if isinstance(item, dict)
        ]
    output = outputs.get("output")
    return output if isinstance(output, dict | str) and len(outputs) == 1 else outputs


def _response_id(outputs: Mapping[str, object]) -> str:
    """Return the id of the response that LangChain keeps with the first message; empty: none."""
    found: object = outputs.get("generations")
    for step in (0, 0, "message", "kwargs", "response_metadata", "id"):
        if isinstance(found, list) and isinstance(step, int):
            found = found[step] if found else None
        else:
            found = found.get(step) if isinstance(found, dict) else None
    return found if isinstance(found, str) else ""


def _started(record: Mapping[str, object]) -> datetime:
    value = record.get("start_time")
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        return timestamp(value.replace(tzinfo=value.tzinfo or UTC) if isinstance(value, datetime) else value)
    except FieldError as error:
        raise InputError(f"`start_time` {error}") from error
    except ValueError as error:
        raise InputError("`start_time` is not an ISO 8601 time") from error
