"""Chats as a model sees them: its template, messages with tools, and the thoughts before its answer.

Thoughts are context: the model saw them when it wrote the answer, and they are not valued. They stand where the model's
own template puts them, or else between the marks that it uses.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from credit.errors import InputError
from credit.records import THOUGHT_MARKS, LoggedOutput, Message

ChatMessage = dict[str, object]

TEMPLATE_SECONDS = 5.0
"""Computing time for the chat template of one conversation, at most. A template is a program of the model's maker."""

TEMPLATE_BYTES = 512 * 1024 * 1024
"""Memory for it, at most."""

TEMPLATE_STOPS = 10
"""Conversations in a row that a template does not finish within these limits. It gets no more after them."""

TEMPLATE_GROWTH = 100
"""Most characters that a template makes of each one of the messages, which count as 1000 more than they have."""

_CLOCK = """{% macro strftime_now(format) %}
{%- set text = namespace(value=format) -%}
{%- for code, value in time_codes.items() %}{% set text.value = text.value.replace(code, value) %}{% endfor -%}
{{- text.value -}}
{% endmacro %}
"""
"""Head of a chat template that asks for the time: transformers would tell it the time of the run."""

_TIME_CODES = tuple(f"%{flag}{letter}" for letter in "aAbBcdHIjmMpSuUwWxXyYZ" for flag in ("", "-"))

_SET_BY_US = ("conversation", "tokenize", "add_generation_prompt", "chat_template", "time_codes")


class ChatTemplate:
    """The chat template of a tokenizer: a program of the model's maker, with bounded time, memory and text."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._stops = 0

    def render(
        self, messages: Sequence[ChatMessage], now: datetime, given: Mapping[str, object], *, generate: bool
    ) -> str:
        """Return a conversation as text, at a time for templates that ask for it.

        Args:
            messages: the conversation.
            now: the time.
            given: further input, such as `tools`.
            generate: end with the beginning of an answer.

        Raises:
            InputError: there is no template, or it refuses the messages, takes too long or too much memory, or writes
                too much.
        """
        if not getattr(self._tokenizer, "chat_template", None):
            raise InputError("the model has no chat template; give prompt and completion instead of messages")
        if self._stops >= TEMPLATE_STOPS:
            raise InputError(
                f"the model's chat template was not done within its limits for {TEMPLATE_STOPS} conversations in a "
                "row; give prompt and completion instead, or another template"
            )
        try:
            with _bounded_time(TEMPLATE_SECONDS), _bounded_memory(TEMPLATE_BYTES):
                template: str = self._tokenizer.get_chat_template(tools=given.get("tools"))
                dated = "strftime_now" in template
                text: str = self._tokenizer.apply_chat_template(
                    list(messages),
                    chat_template=_CLOCK + template if dated else template,
                    tokenize=False,
                    add_generation_prompt=generate,
                    time_codes={code: now.strftime(code) for code in _TIME_CODES} if dated else None,
                    **given,
                )
        except _TemplateStopped:
            self._stops += 1
            raise InputError(
                f"the model's chat template is not done after {TEMPLATE_SECONDS:g} seconds; give prompt and completion "
                "instead, or another template"
            ) from None
        except MemoryError:
            self._stops += 1
            raise InputError(
                f"the model's chat template takes more than {TEMPLATE_BYTES >> 20} MiB of memory; give prompt and "
                "completion instead, or another template"
            ) from None
        except ImportError:  # a library of the templates is missing: no chat's fault
            raise
        except Exception as error:
            # A template is a program. It raises on chats that its model was not trained on, as on a system message.
            raise InputError(
                f"the model's chat template refuses these messages ({error}); give prompt and completion instead"
            ) from error
        self._stops = 0
        if len(text) > TEMPLATE_GROWTH * (1000 + len(str(messages)) + len(str(given))):
            raise InputError(
                f"the model's chat template makes {len(text)} characters of these messages; give prompt and completion "
                "instead, or another template"
            )
        return text


def template_messages(messages: Sequence[Message]) -> list[ChatMessage]:
    """Return messages as chat templates take them.

    Raises:
        InputError: the other fields of a message are no JSON object.
    """
    return [{**_fields(message.extra), "role": message.role, "content": message.content} for message in messages]


def template_arguments(template: str) -> dict[str, object]:
    """Return the template's further input beside the messages of an output or record, such as `tools`.

    Raises:
        InputError: they are no JSON object.
    """
    return {name: value for name, value in _fields(template).items() if name not in _SET_BY_US}


def _fields(text: str) -> dict[str, object]:
    try:
        found = json.loads(text) if text else {}
    except ValueError as error:
        raise InputError(f"the fields for the chat template are no JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError("the fields for the chat template are no JSON object")
    return found


def with_thoughts(prompt: str, output: LoggedOutput, template: str, render: Callable[[ChatMessage], str] | None) -> str:
    """Return the text before an answer with thoughts: the prompt, the thoughts and what stands around them.

    Args:
        prompt: the text before everything that the model wrote.
        output: the output.
        template: the model's chat template; empty: none.
        render: renders the chat with this message of the assistant at its end, and may raise InputError; None: there
            is no chat.
    """
    thoughts, answer = output.thoughts, output.completion
    if render is not None:
        said: ChatMessage = {"role": "assistant", "content": answer, "reasoning_content": thoughts}
        try:
            whole = render({**said, "thinking": thoughts})
        except InputError:
            whole = ""
        begin = whole.find(thoughts, len(prompt)) if whole.startswith(prompt) else -1
        end = whole.rfind(answer) if begin >= 0 else -1
        if end >= begin + len(thoughts) and begin >= 0:
            return whole[:end]
    opening, closing = next((marks for marks in THOUGHT_MARKS if marks[1] in template), THOUGHT_MARKS[0])
    opened = prompt.rstrip().endswith(opening)
    return f"{prompt}{'' if opened else opening + chr(10)}{thoughts}\n{closing}\n\n"


def without_open_mark(before: str, completion: str) -> str:
    """Return a completion without the mark that opens its thoughts, if the text before it ends with the mark."""
    opening = next((mark for mark, _ in THOUGHT_MARKS if before.rstrip().endswith(mark)), None)
    return completion if opening is None else completion.removeprefix(f"{opening}\n")


class _TemplateStopped(BaseException):
    """The time of a template is over. It is no Exception: jinja swallows these while it compiles."""


@contextmanager
def _bounded_time(seconds: float) -> Iterator[None]:
    """Context that raises `_TemplateStopped` after `seconds` of the process's own time.

    It does so in the main thread alone, on POSIX. A signal stops more than a thread could: it comes through
    also while Python multiplies huge numbers.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "ITIMER_VIRTUAL"):
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _TemplateStopped

    handler = signal.signal(signal.SIGVTALRM, stop)
    remaining, interval = signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, remaining, interval)
        signal.signal(signal.SIGVTALRM, handler)


@contextmanager
def _bounded_memory(size: int) -> Iterator[None]:
    """Context in which this process gets at most `size` bytes more than it has; MemoryError refuses the rest.

    It does so in the main thread alone, on Linux. The system keeps the limit: one step of a template can make a text
    of any length.
    """
    if threading.current_thread() is not threading.main_thread() or sys.platform != "linux":
        yield
        return
    import resource

    held = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    before, most = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [held + size, *(limit for limit in (before, most) if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, most))
