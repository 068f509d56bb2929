"""LiteLLM: standard logging payloads, as its callbacks and storage integrations get them, and rows of its spend logs.

A payload has `startTime` in seconds since 1970, a row of the spend logs as a text (in UTC, also where it says no zone).
A row holds messages and response only with `store_prompts_in_spend_logs`, and cuts long texts.
https://docs.litellm.ai/docs/proxy/logging_spec, https://docs.litellm.ai/docs/proxy/db_info
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from credit.errors import InputError
from credit.ingest.apis import api_of, openai_completions, unknown_response
from credit.ingest.calls import FAILED, Call, Entry, Said, Skipped, user_of
from credit.ingest.exchanges import Beside, calls_of, moment_of, pieces_of, without_text
from credit.ingest.fields import FieldError
from credit.ingest.spans import LogContext
from credit.ingest.traced import read_traced
from credit.records import CallIdentity

_USERS = ("end_user", "user")
FIELDS = frozenset(
    {
        *("id", "request_id", "litellm_call_id", "call_type", "startTime", "status", "model", "messages", "response"),
        *("proxy_server_request", "model_parameters", *_USERS),
    }
)

_BESIDE = ("tools", "tool_choice", "system", "instructions")
_REDACTED = "redacted-by-litellm"
_TRUNCATED = re.compile(r"\(?litellm_truncated skipped \d+ chars")
_NO_TEXT = Skipped("calls that generate no text")
_WITHOUT_TEXT = re.compile(
    r"_?a?(embedding|image_\w+|moderation|speech|rerank|search|\w*video\w*|\w*vector_store\w*|\w*container\w*"
    r"|\w*batch|\w*fine_tuning_jobs?|\w*sandbox|(create|get|delete)_assistants?|(create|get)_thread|_?add_message"
    r"|get_messages|(get|delete|cancel)_responses|list_input_items|file_\w+|create_file|list_mcp_tools|create_skill"
    r"|create_realtime_client_secret|health_check|ingest|query)"
)
"""Types of calls that can generate no text. Every other type is read if it holds messages and a text."""


def matches(record: Mapping[str, object]) -> bool:
    """Return True if a record is a standard logging payload, or a row of the spend logs."""
    return "call_type" in record and "startTime" in record


def read(record: Mapping[str, object], context: LogContext) -> list[Entry]:
    """Return the call of a payload or row.

    Raises:
        InputError: the call cannot be used.
    """
    kind = record["call_type"]
    if record.get("status") == "failure":
        return [FAILED]
    if not isinstance(kind, str):
        raise InputError("`call_type` must be a text")
    if _WITHOUT_TEXT.fullmatch(kind):
        return [_NO_TEXT]
    response = _response(record, kind)
    if skipped := without_text(response):
        return [skipped]
    exchange = read_traced(_request(record, kind, response), response, ("messages", "response"))
    model, number = record.get("model"), record.get("id", record.get("request_id"))
    beside = Beside(
        id=number if isinstance(number, str) else "",
        model=model if isinstance(model, str) else context.model,
        occurred_at=_started(record["startTime"]),
        identity=CallIdentity(response=_text(response, "id"), request=_text(record, "litellm_call_id")),
        first=True,
        user=user_of(record, *_USERS),
    )
    if not beside.id:
        raise InputError("`id` is missing")
    calls = calls_of([exchange], beside, "")
    _check_texts(calls)
    return calls


def _response(record: Mapping[str, object], kind: str) -> Mapping[str, object]:
    value = record.get("response")
    pieces = _pieces(value)
    if pieces and pieces[0].keys() == {"response"}:
        pieces = _pieces(pieces[0]["response"])  # of a pass-through
    if not pieces or not pieces[0]:
        if value == _REDACTED:
            raise InputError(_redacted())
        raise InputError(
            f"`response` is empty in a call of type {kind[:60]!r}; spend logs keep it with store_prompts_in_spend_logs"
        )
    if api_of(pieces[0]) is None and not without_text(pieces[0]) and "role" not in pieces[0]:
        raise InputError(f"`call_type` is {kind[:60]!r}, and {unknown_response(pieces[0])}")
    return pieces[0]


def _pieces(value: object) -> Sequence[Mapping[str, object]]:
    return pieces_of(value) if isinstance(value, str) else [value] if isinstance(value, dict) else []


def _request(record: Mapping[str, object], kind: str, response: Mapping[str, object]) -> object:
    """Return the question: the request of the proxy's client if it is there, else `messages`."""
    request = record.get("proxy_server_request")
    found = pieces_of(request) if isinstance(request, str) else [request]
    whole = found[0] if found and isinstance(found[0], dict) else {}
    whole = body if isinstance(body := whole.get("body"), dict) else whole
    if _is_request(whole):
        return whole
    messages, given = record.get("messages"), record.get("model_parameters")
    if not messages:
        raise InputError(
            f"`messages` is empty in a call of type {kind[:60]!r}; spend logs keep it with store_prompts_in_spend_logs"
        )
    beside = {name: given[name] for name in _BESIDE if given.get(name)} if isinstance(given, dict) else {}
    # A prompt stands there as the message of a user; so does the whole request of a pass-through, as JSON.
    listed = messages if isinstance(messages, list) else [messages]
    prompts = [item.get("content") if isinstance(item, dict) else item for item in listed]
    if kind.endswith("pass_through_endpoint") and len(prompts) == 1 and (found := pieces_of(prompts[0])):
        if not _is_request(found[0]):
            raise InputError("`messages` hold no request of a known API")
        return found[0]
    if openai_completions.matches(response):
        return {**beside, "prompt": prompts}
    return {**beside, "messages": messages, "input": messages}


def _is_request(value: Mapping[str, object]) -> bool:
    return any(value.get(name) for name in ("messages", "input", "prompt", "contents"))


def _started(value: object) -> datetime:
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise InputError("`startTime` must be an ISO 8601 time, or seconds since 1970") from None
        value = moment.replace(tzinfo=UTC).isoformat() if moment.tzinfo is None else value
    try:
        return moment_of(value)
    except FieldError as error:
        raise InputError(f"`startTime` {error}") from error


def _check_texts(entries: Iterable[Entry]) -> None:
    texts = [text for entry in entries if isinstance(entry, Call) for text in _texts(entry)]
    if _REDACTED in texts:
        raise InputError(_redacted())
    if any(_TRUNCATED.search(text) for text in texts):
        raise InputError(
            "LiteLLM cut a text before it logged it (litellm_truncated); let it keep them whole: "
            "MAX_STRING_LENGTH_PROMPT_IN_DB"
        )


def _texts(call: Call) -> Iterator[str]:
    yield from (call.asked.prompt, call.asked.template)
    for message in call.asked.messages:
        yield from (message.content, message.extra)
    for answer in call.answers.values():
        if isinstance(answer, Said):
            yield from (answer.text, answer.thoughts)


def _redacted() -> str:
    return "the texts were redacted by LiteLLM before it logged them (turn_off_message_logging)"


def _text(record: Mapping[str, object], name: str) -> str:
    value = record.get(name)
    return value if isinstance(value, str) else ""
