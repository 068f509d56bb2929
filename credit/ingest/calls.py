"""What a logged call was asked and answered, in the ways in which the loggers of language models write it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from credit.errors import InputError
from credit.ingest.fields import FieldError, filled, messages_of, storable, text_of
from credit.ingest.json_documents import parse_json
from credit.records import LoggedOutput, Message

T = TypeVar("T")

CALLED_A_TOOL = "the model called a tool; only text can be valued"
REFUSED = "the model refused"
FAILED = "the call failed"
NO_CALL = "spans that are no call of a model"
TOLD_TWICE = "calls that another span tells of"

_TOOL_PARTS = ("tool_use", "server_tool_use", "tool_call")
_THOUGHTS = ("thinking", "redacted_thinking", "reasoning")
"""Parts that are no answer, whatever they hold."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why something in a log cannot be used: it is set aside."""

    reason: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """Why something in a log is no output, although nothing is wrong with it: it is counted."""

    reason: str


Answer = str | Refused | Skipped
Found = LoggedOutput | Refused | Skipped


@dataclass(frozen=True, slots=True)
class Piece:
    """What one of several spans in a record holds, with the span: what is set aside is that, and not all of them."""

    found: Found
    span: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Call:
    """What the outputs of one call share. `source` is the log's format, or what the user calls it."""

    source: str
    id: str
    occurred_at: datetime
    model: str
    prompt: str = ""
    messages: tuple[Message, ...] = ()

    def outputs(self, answers: Sequence[Answer], indexes: Sequence[int] | None = None) -> list[Found]:
        """Return one output for each answer; of several, the id gets the answer's index: `chatcmpl-1#0`."""
        numbers = range(len(answers)) if indexes is None else indexes
        found: list[Found] = []
        for number, answer in zip(numbers, answers, strict=True):
            if isinstance(answer, Skipped):
                found.append(answer)
            elif isinstance(answer, Refused):
                found.append(replace(answer, reason=f"choice {number}: {answer.reason}"))
            else:
                name = self.id if len(answers) == 1 else f"{self.id}#{number}"
                moment, model = self.occurred_at, self.model
                found.append(
                    LoggedOutput(self.source, name, moment, model, answer, prompt=self.prompt, messages=self.messages)
                )
        return found


def answer_of(message: object) -> Answer:
    """Return the text of an assistant's message, as OpenAI or Anthropic write it: `content` is a text or has parts."""
    if not isinstance(message, dict):
        return Refused("`message` is missing")
    if message.get("tool_calls") or message.get("function_call"):
        return Skipped(CALLED_A_TOOL)
    content = message.get("content")
    if content is None:
        return Skipped(REFUSED) if message.get("refusal") else Refused("`content` is null")
    if isinstance(content, list):
        return answer_of_parts(content, "text")
    return _filled(content)


def answer_of_parts(parts: Sequence[object], text_field: str) -> Answer:
    """Return the text of an answer's parts; a part of type `text` has it in `text_field`. Thoughts are no answer."""
    kinds = [part.get("type") if isinstance(part, dict) else None for part in parts]
    if any(kind in _TOOL_PARTS for kind in kinds):
        return Skipped(CALLED_A_TOOL)
    if "refusal" in kinds:
        return Skipped(REFUSED)
    spoken = [part for part, kind in zip(parts, kinds, strict=True) if kind not in _THOUGHTS]
    return _filled(as_text_parts(spoken, text_field))


def as_text_parts(parts: Sequence[object], text_field: str) -> list[object]:
    """Return parts as OpenAI writes them, with the text in `text`."""
    return [
        {"type": part.get("type"), "text": part.get(text_field)} if isinstance(part, dict) else part for part in parts
    ]


def _filled(content: object) -> Answer:
    try:
        return filled(text_of(content))
    except FieldError as error:
        return Refused(f"`content` {error}")


def answers_of(output: object) -> list[Answer]:
    """Return the answers in what a tracer logged as an output, with one for each choice.

    It is a text, a message, a list of messages (one for each choice), a response of OpenAI's API, or the JSON of one of
    these but the first.

    Raises:
        FieldError: it is something else.
    """
    output = _decoded(output)
    if isinstance(output, str):
        return [_filled(output)]
    if isinstance(output, dict) and isinstance(output.get("choices"), list):
        return [answer_of(choice.get("message") if isinstance(choice, dict) else None) for choice in output["choices"]]
    messages = output if isinstance(output, list) else [output]
    roles = [item.get("role") if isinstance(item, dict) else None for item in messages]
    if not roles or None in roles:
        raise FieldError("must be a text, a message, or a list of messages")
    if any(role != "assistant" for role in roles):
        raise FieldError("holds a message that is not the assistant's")
    return [answer_of(item) for item in messages]


def prompt_of(value: object) -> tuple[str, tuple[Message, ...]]:
    """Return what a tracer logged as an input: a plain prompt, or messages.

    It is a text, a list of messages, an object with `messages` (and `system`, as for Anthropic's API), or the JSON of
    one of these but the first.

    Raises:
        FieldError: it is something else.
    """
    value = _decoded(value)
    if isinstance(value, str):
        return storable(value), ()
    if isinstance(value, list):
        return "", messages_of(value)
    if isinstance(value, dict) and "messages" in value:
        return "", request_messages(value)
    raise FieldError("must be a text, messages, or an object with messages")


def request_messages(request: Mapping[str, object]) -> tuple[Message, ...]:
    """Return the messages of a request to a model, with what Anthropic's API takes as `system` before them.

    Raises:
        FieldError: they are missing, or hold what is no text.
    """
    if request.get("messages") is None:
        raise FieldError("`messages` is missing")
    try:
        messages = messages_of(request["messages"])
    except FieldError as error:
        raise FieldError(f"`messages` {error}") from error
    if request.get("system") is None:
        return messages
    try:
        return (Message("system", text_of(request["system"])), *messages)
    except FieldError as error:
        raise FieldError(f"`system` {error}") from error


def read(part: Callable[[object], T], value: object, name: str) -> T:
    """Read a field by `answers_of` or `prompt_of`.

    Raises:
        InputError: it cannot be read, or is missing.
    """
    if value is None:
        raise InputError(f"`{name}` is missing")
    try:
        return part(value)
    except FieldError as error:
        raise InputError(f"`{name}` {error}") from error


def _decoded(value: object) -> object:
    """Return what the JSON text of messages, or of an object that has some, stands for; any other value as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        found = parse_json(value)
    except InputError:
        return value
    items = found if isinstance(found, list) and found else [found]
    marks = ("role",) if isinstance(found, list) else ("role", "messages", "choices")
    return found if all(isinstance(item, dict) and any(mark in item for mark in marks) for item in items) else value
