"""Chats for the templates of models: messages with tools, and the thoughts that a model wrote before its answer.

Thoughts are context: the model saw them when it wrote the answer, and they are not valued. They stand where the model's
own template puts them, or else between the marks that it uses.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from credit.errors import InputError
from credit.records import THOUGHT_MARKS, LoggedOutput, Message

ChatMessage = dict[str, object]

_SET_BY_US = ("conversation", "tokenize", "add_generation_prompt", "chat_template", "time_codes")


def template_messages(messages: Sequence[Message]) -> list[ChatMessage]:
    """Return messages as chat templates take them.

    Raises:
        InputError: the other fields of a message are no JSON object.
    """
    return [{**_fields(message.extra), "role": message.role, "content": message.content} for message in messages]


def template_arguments(output: LoggedOutput) -> dict[str, object]:
    """Return the template's further input beside the messages of an output, such as `tools`.

    Raises:
        InputError: they are no JSON object.
    """
    return {name: value for name, value in _fields(output.template).items() if name not in _SET_BY_US}


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
