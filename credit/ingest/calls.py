"""Calls of a model as logs tell of them: the one record that every log format is read as, and its texts.

A reader of a format returns entries. An entry is a `Call`, or `Skipped` (no output, and nothing wrong), or `Unusable`
(an output should be there and cannot be read). Loggers write prompts, messages and answers in a few shapes; the
functions of this module read them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from credit.errors import InputError
from credit.ingest.fields import FieldError, filled, messages_of, storable, text_of
from credit.ingest.json_documents import parse_json
from credit.records import MICRO, CallIdentity, LoggedOutput, Message

T = TypeVar("T")

_TOOL_PARTS = ("tool_use", "server_tool_use", "tool_call")
_THOUGHTS = ("thinking", "redacted_thinking", "reasoning")
"""Parts of an answer that are never paid for."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """Reason why part of a log should give an output and cannot. The part is quarantined."""

    reason: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """Reason why part of a log gives no output although nothing is wrong with it. It is counted."""

    reason: str


CALLED_A_TOOL = Skipped("the model called a tool; only text can be valued")
REFUSED = Skipped("the model refused")
FAILED = Skipped("the call failed")

Answer = str | Unusable | Skipped


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a model.

    Attributes:
        id: the log's name for the call, unique within `source`.
        occurred_at: start of the call, UTC.
        model: name of the model.
        answers: text of each choice by its index, or the reason why it has none.
        prompt: plain prompt; empty where there are messages.
        messages: chat prompt.
        weight_micro: weight of each output in micro-credits.
        source: scope of `id` where the record names one; empty: the format.
        identity: every id in the record that another logger of the same call may know. The ledger compares them, so
            that one call is one output.
        user: id of the user whom the model answered, as logged; empty: not logged. The ledger gets a pseudonym.
    """

    id: str
    occurred_at: datetime
    model: str
    answers: Mapping[int, Answer]
    prompt: str = ""
    messages: tuple[Message, ...] = ()
    weight_micro: int = MICRO
    source: str = field(default="", kw_only=True)
    identity: CallIdentity = field(default=CallIdentity(), kw_only=True)
    user: str = field(default="", kw_only=True)

    def outputs(self, source: str) -> list[LoggedOutput | Unusable | Skipped]:
        """Return one output for each answer; of several, the id ends in the answer's index: `chatcmpl-1#0`."""
        found: list[LoggedOutput | Unusable | Skipped] = []
        for index, answer in self.answers.items():
            if isinstance(answer, Skipped):
                found.append(answer)
                continue
            if isinstance(answer, Unusable):
                found.append(Unusable(f"choice {index}: {answer.reason}"))
                continue
            output = LoggedOutput(
                source=source,
                external_id=self.id if len(self.answers) == 1 else f"{self.id}#{index}",
                occurred_at=self.occurred_at,
                model=self.model,
                completion=answer,
                prompt=self.prompt,
                messages=self.messages,
                weight_micro=self.weight_micro,
                identity=replace(self.identity, choice=index) if index else self.identity,
            )
            found.append(output)
        return found


Entry = Call | Unusable | Skipped


@dataclass(frozen=True, slots=True)
class SpanEntry:
    """Entry of one of several spans in a record. Quarantine keeps this span instead of the whole record."""

    entry: Entry
    span: Mapping[str, object]
    identity: CallIdentity


def answer_of(message: object) -> Answer:
    """Return the text of an assistant's message in the shape of OpenAI or Anthropic: `content` is a text or parts."""
    if not isinstance(message, dict):
        return Unusable("`message` is missing")
    if message.get("tool_calls") or message.get("function_call"):
        return CALLED_A_TOOL
    content = message.get("content")
    if content is None:
        return REFUSED if message.get("refusal") else Unusable("`content` is null")
    if isinstance(content, list):
        return answer_of_parts(content, "text")
    return _filled(content)


def answer_of_parts(parts: Sequence[object], text_field: str) -> Answer:
    """Return the text of an answer in parts. A part of type `text` has it in `text_field`; thoughts are left out."""
    kinds = [part.get("type") if isinstance(part, dict) else None for part in parts]
    if any(kind in _TOOL_PARTS for kind in kinds):
        return CALLED_A_TOOL
    if "refusal" in kinds:
        return REFUSED
    spoken = [part for part, kind in zip(parts, kinds, strict=True) if kind not in _THOUGHTS]
    return _filled(as_text_parts(spoken, text_field))


def as_text_parts(parts: Sequence[object], text_field: str) -> list[object]:
    """Return parts in OpenAI's shape, with the text in `text`."""
    return [
        {"type": part.get("type"), "text": part.get(text_field)} if isinstance(part, dict) else part for part in parts
    ]


def _filled(content: object) -> Answer:
    try:
        return filled(text_of(content))
    except FieldError as error:
        return Unusable(f"`content` {error}")


def answers_of_choices(choices: Sequence[Mapping[str, object]]) -> dict[int, Answer]:
    """Return the answers in the choices of an OpenAI completion, by index.

    Raises:
        InputError: there are none, or two have one index.
    """
    if not choices:
        raise InputError("`choices` is empty")
    indexes = [choice.get("index", position) for position, choice in enumerate(choices)]
    whole = [index for index in indexes if isinstance(index, int) and not isinstance(index, bool)]
    if len(set(whole)) < len(indexes):
        raise InputError("`choices` need indexes that are whole numbers and differ")
    return {index: answer_of(choice.get("message")) for index, choice in zip(whole, choices, strict=True)}


def answers_of(output: object) -> dict[int, Answer]:
    """Return the answers in the output that a tracer logged, by position.

    The output is a text, a message, a list of messages (one for each choice) or a response of OpenAI's API. All but
    the text may be JSON within a text.

    Raises:
        FieldError: it is something else.
    """
    output = _decoded(output)
    if isinstance(output, str):
        return {0: _filled(output)}
    if isinstance(output, dict) and isinstance(output.get("choices"), list):
        messages = [choice.get("message") if isinstance(choice, dict) else None for choice in output["choices"]]
        return dict(enumerate(map(answer_of, messages)))
    messages = output if isinstance(output, list) else [output]
    roles = [item.get("role") if isinstance(item, dict) else None for item in messages]
    if not roles or None in roles:
        raise FieldError("must be a text, a message, or a list of messages")
    if any(role != "assistant" for role in roles):
        raise FieldError("holds a message that is not the assistant's")
    return dict(enumerate(map(answer_of, messages)))


def prompt_of(value: object) -> tuple[str, tuple[Message, ...]]:
    """Return the plain prompt and the messages in the input that a tracer logged; one of the two is empty.

    The input is a text, a list of messages, or an object with `messages` (and `system`, as in Anthropic's API). All but
    the text may be JSON within a text.

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
    """Return the messages of a request, after the `system` text of Anthropic's API if there is one.

    Raises:
        FieldError: they are missing, or hold more than text.
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


def user_of(record: Mapping[str, object], *names: str) -> str:
    """Return the user's id in the first field that holds one, a text or a whole number; empty where none does."""
    for name in names:
        value = record.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value.strip():
            return value
    return ""


def read_part(part: Callable[[object], T], value: object, name: str) -> T:
    """Read a field of a trace by `answers_of` or `prompt_of`.

    Raises:
        InputError: the field is missing or cannot be read.
    """
    if value is None:
        raise InputError(f"`{name}` is missing")
    try:
        return part(value)
    except FieldError as error:
        raise InputError(f"`{name}` {error}") from error


def _decoded(value: object) -> object:
    """Return messages, or an object that holds some, from their JSON text; return any other value as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        found = parse_json(value)
    except InputError:
        return value
    items = found if isinstance(found, list) and found else [found]
    marks = ("role",) if isinstance(found, list) else ("role", "messages", "choices")
    return found if all(isinstance(item, dict) and any(mark in item for mark in marks) for item in items) else value
