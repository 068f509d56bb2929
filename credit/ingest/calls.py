"""Calls of a model as logs tell of them: the one record that every log format is read as.

A reader of a format returns entries. An entry is a `Call`, or `Skipped` (the log says that there is no generated text),
or `Unusable` (an output should be there and cannot be read). `conversations` reads the texts of a call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from credit.errors import InputError
from credit.ingest.fields import FieldError
from credit.ingest.pseudonyms import PseudonymKey
from credit.records import MICRO, CallIdentity, LoggedOutput, Message

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unusable:
    """Reason why part of a log should give an output and cannot. The part is quarantined."""

    reason: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """Reason why part of a log gives no output although nothing is wrong with it. It is counted."""

    reason: str


CALLED_A_TOOL = Skipped("the answer is a call of a tool")
EMPTY = Skipped("the answer is empty")
FAILED = Skipped("the call failed")
ONLY_THOUGHT = Skipped("the model thought and did not begin its answer")
REFUSED = Skipped("the model refused")


@dataclass(frozen=True, slots=True)
class Said:
    """An answer: the text, and as far as the log has them the model's thoughts before it and the ids of all tokens."""

    text: str
    thoughts: str = ""
    # Calls without an id are named by a hash of what this shows of itself, and keep their names.
    ids: tuple[int, ...] = field(default=(), repr=False)


Answer = Said | Unusable | Skipped


@dataclass(frozen=True, slots=True)
class Asked:
    """Context of a call: a plain prompt or messages, and what the chat template got beside them, as JSON.

    `ids` are the tokens that the model saw, where the log has them; they can stand there without a text.
    """

    prompt: str = ""
    messages: tuple[Message, ...] = ()
    template: str = ""
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a model.

    Attributes:
        id: the log's name for the call, unique within `source`.
        occurred_at: start of the call, UTC.
        model: name of the model.
        answers: text of each choice by its index, or the reason why it has none.
        asked: what the model was asked.
        weight_micro: weight of each output in micro-credits.
        source: scope of `id` where the record names one; empty: the format.
        identity: every id in the record that another logger of the same call may know. The ledger compares them, so
            one call is one output.
        user: id of the user whom the model answered, as logged; empty: not logged. The ledger gets a pseudonym.
    """

    id: str
    occurred_at: datetime
    model: str
    answers: Mapping[int, Answer]
    asked: Asked = Asked()
    weight_micro: int = MICRO
    source: str = field(default="", kw_only=True)
    identity: CallIdentity = field(default=CallIdentity(), kw_only=True)
    user: str = field(default="", kw_only=True)

    def outputs(self, source: str, key: PseudonymKey | None = None) -> list[LoggedOutput | Unusable | Skipped]:
        """Return one output for each answer; of several, the id ends in the answer's index: `chatcmpl-1#0`.

        Args:
            source: scope of the ids.
            key: makes the pseudonyms of users and texts; without it, outputs have none.
        """
        found: list[LoggedOutput | Unusable | Skipped] = []
        asked, user = self.asked, key.user(self.user) if key else ""
        for index, answer in self.answers.items():
            if isinstance(answer, Skipped):
                found.append(answer)
                continue
            if isinstance(answer, Unusable):
                found.append(Unusable(f"choice {index}: {answer.reason}"))
                continue
            name = self.id if len(self.answers) == 1 else f"{self.id}#{index}"
            output = LoggedOutput(
                source=source,
                external_id=name,
                occurred_at=self.occurred_at,
                model=self.model,
                completion=answer.text,
                prompt=asked.prompt,
                messages=asked.messages,
                weight_micro=self.weight_micro,
                thoughts=answer.thoughts,
                template=asked.template,
                prompt_ids=asked.ids,
                completion_ids=answer.ids,
                identity=replace(self.identity, choice=index) if index else self.identity,
                user=user,
                text=key.text(self.model, asked.prompt, asked.messages, answer.text, asked.ids) if key else "",
                salt=key.salt(source, name) if key else "",
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
    """Read a field of a record by a function that raises FieldError.

    Raises:
        InputError: the field is missing or cannot be read.
    """
    if value is None:
        raise InputError(f"`{name}` is missing")
    try:
        return part(value)
    except FieldError as error:
        raise InputError(f"`{name}` {error}") from error
