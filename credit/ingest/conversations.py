"""Prompts and answers in the shapes of model servers and loggers, as one kind of messages and one kind of answer.

Messages come as those of OpenAI's chat completions, Anthropic's messages, OpenAI's Responses and OpenTelemetry's parts.
All become the messages of chat completions: models' chat templates are written for these. Calls of tools, results
of tools and earlier thoughts stand in a message's `extra`.

Thoughts are separated from the answer in one way, whoever logged them: in a field of their own, in parts, or between
the model's marks in the text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal

from credit.errors import InputError
from credit.ingest.calls import CALLED_A_TOOL, EMPTY, ONLY_THOUGHT, REFUSED, Answer, Asked, Said, Unusable
from credit.ingest.fields import FieldError, storable, turns_of
from credit.ingest.json_documents import parse_json
from credit.records import THOUGHT_MARKS, Message
from credit.storage import canonical_json

_TOOL_CALLS = ("tool_use", "server_tool_use", "tool_call", "function_call", "toolUse", "functionCall")
_TOOL_RESULTS = ("tool_result", "tool_call_response", "function_call_output", "toolResult")
_THOUGHTS = ("thinking", "redacted_thinking", "reasoning", "reasoning_text", "reasoningContent")
_TEXTS = ("text", "input_text", "output_text")
_TEXT_FIELDS = ("text", "content")
_THOUGHT_FIELDS = ("thinking", "text", "content", "reasoning")
_THOUGHTS_OF_MESSAGES = ("reasoning_content", "reasoning", "thinking")
"""Fields of an assistant's message with its thoughts: of vLLM and SGLang, of newer vLLM and OpenRouter, of Ollama."""
_HOLDERS = ("messages", "choices", "candidates", "output")
"""Fields of requests and responses with messages in them."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ROLES = {
    "HumanMessage": "user",
    "AIMessage": "assistant",
    "SystemMessage": "system",
    "ToolMessage": "tool",
    "human": "user",
    "ai": "assistant",
    "system": "system",
    "tool": "tool",
    "AIMessageChunk": "assistant",
}
"""Roles of LangChain's messages, by class and by type."""
_OPENED = re.compile(rf"\s*({'|'.join(re.escape(mark) for mark, _ in THOUGHT_MARKS)})")
_NOT_FOR_TEMPLATES = frozenset(
    {
        *("conversation", "messages", "tokenize", "add_generation_prompt", "continue_final_message", "chat_template"),
        *("return_dict", "return_tensors", "return_assistant_tokens_mask", "tokenizer_kwargs", "padding", "truncation"),
        *("max_length", "tools", "documents"),
    }
)
"""Arguments that the chat template's caller sets."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """Content of a message, apart: its text, its thoughts, the calls of tools in it, and results of tools by id."""

    text: str
    thoughts: str = ""
    calls: tuple[dict[str, object], ...] = ()
    results: tuple[tuple[str, str], ...] = ()
    refused: bool = False


def messages_of(value: object) -> tuple[Message, ...]:
    """Return the messages of a chat, from a list of them or its JSON text.

    Raises:
        FieldError: it is something else, or a message holds more than text and tools.
    """
    messages: list[Message] = []
    for number, item in enumerate(turns_of(value)):
        try:
            messages += _turns(plain_message(item))
        except FieldError as error:
            raise FieldError(f"{number}: {error}") from error
    return _joined(messages)


def _turns(item: Mapping[str, object]) -> list[Message]:
    """Return the messages of one entry; Anthropic's results of tools, several in a message, get one each."""
    kind = item.get("type")
    if kind in ("function_call", "function_call_output", "reasoning"):
        return _items_of_responses(item)
    role = item.get("role")
    if not isinstance(role, str) or not role or _CONTROL.search(role):
        raise FieldError("`role` must be a name, like user")
    content = item.get("parts") if "content" not in item else item["content"]
    calls = item.get("tool_calls")
    called = calls if isinstance(calls, list) else []
    # Servers say null for the text of a message that only calls tools.
    if content is None and (called or item.get("function_call") or role == "tool"):
        content = ""
    try:
        parts = _parts(content)
    except FieldError as error:
        raise FieldError(f"`content` {error}") from error
    if len(item) == 2 and isinstance(item.get("content"), str):  # the common case: a text, and nothing beside it
        return [_message(role, parts.text, {})]
    extra = _extra(item, called, parts)
    turns = [_message("tool", text, {"tool_call_id": number} if number else {}) for number, text in parts.results]
    without = not parts.text and "tool_calls" not in extra
    return turns if turns and without else [*turns, _message(role, parts.text, extra)]


def _extra(item: Mapping[str, object], called: Sequence[object], parts: _Parts) -> dict[str, object]:
    """Return the other fields of a message for the chat template."""
    functions = [*map(_tool_call, called), *parts.calls]
    if not functions and isinstance(item.get("function_call"), dict):
        functions = [_tool_call(item["function_call"])]
    extra: dict[str, object] = {"tool_calls": functions} if functions else {}
    if thoughts := parts.thoughts or _thoughts_beside(item):
        extra["reasoning_content"] = thoughts
    for name in ("tool_call_id", "name"):
        if isinstance(item.get(name), str) and item[name]:
            extra[name] = item[name]
    if isinstance(item.get("tool_name"), str):
        extra["name"] = item["tool_name"]
    return extra


def plain_message(item: Mapping[str, object]) -> Mapping[str, object]:
    """Return a message of LangChain in the shape of chat completions, and any other as it is."""
    inner, path = item.get("kwargs", item.get("data")), item.get("id")
    if isinstance(inner, dict) and isinstance(path, list) and path and item.get("type") == "constructor":
        return {**inner, "role": _ROLES.get(str(path[-1]).removesuffix("Chunk"), inner.get("role", ""))}
    kind = item.get("type")
    if "role" not in item and isinstance(kind, str) and kind in _ROLES:
        inner = inner if isinstance(inner, dict) else item
        return {**inner, "role": _ROLES[kind]}
    return item


def _items_of_responses(item: Mapping[str, object]) -> list[Message]:
    """Return the message of an item of OpenAI's Responses that is no message."""
    if item["type"] == "reasoning":
        return []
    if item["type"] == "function_call":
        return [_message("assistant", "", {"tool_calls": [_tool_call(item)]})]
    output, number = item.get("output"), item.get("call_id")
    text = output if isinstance(output, str) else _parts(output).text
    return [_message("tool", storable(text), {"tool_call_id": number} if isinstance(number, str) else {})]


def _joined(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return messages with consecutive calls of tools in one, as models make them and templates expect them."""
    found: list[Message] = []
    for message in messages:
        before = found[-1] if found else None
        if before and before.role == message.role == "assistant" and message.extra and not message.content:
            ours, theirs = _object(before.extra), _object(message.extra)
            if theirs.keys() == {"tool_calls"}:
                calls = [*_list(ours.get("tool_calls")), *_list(theirs["tool_calls"])]
                found[-1] = _message("assistant", before.content, {**ours, "tool_calls": calls})
                continue
        found.append(message)
    return tuple(found)


def _object(text: str) -> dict[str, object]:
    found = parse_json(text) if text else {}
    return found if isinstance(found, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _message(role: str, content: str, extra: Mapping[str, object]) -> Message:
    return Message(storable(role), content, plain_json(extra) if extra else "")


def _tool_call(call: object) -> dict[str, object]:
    """Return a call of a tool in the shape of chat completions, its arguments as an object, as templates expect it."""
    if not isinstance(call, dict):
        raise FieldError("holds a call of a tool that is no object")
    inner = call.get("function")
    function = inner if isinstance(inner, dict) else call
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise FieldError("holds a call of a tool without a name")
    names = ("arguments", "input", "args")
    given: object = next((function[key] for key in names if function.get(key) is not None), {})
    if isinstance(given, str):
        # A model can write what is no JSON. The template then gets the text.
        with suppress(InputError):
            given = parse_json(given) if given.strip() else {}
    found: dict[str, object] = {"type": "function", "function": {"name": name, "arguments": given}}
    number = next((call[key] for key in ("call_id", "id", "toolUseId") if isinstance(call.get(key), str)), "")
    return {"id": number, **found} if number else found


def _parts(content: object) -> _Parts:
    """Return the content of a message, apart.

    Raises:
        FieldError: it holds a part that is neither text nor thought nor tool.
    """
    if isinstance(content, str):
        return _Parts(storable(content))
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        raise FieldError("must be a text or a list of text parts")
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, object]] = []
    results: list[tuple[str, str]] = []
    refused = False
    for part in content:
        kind, inner = _kind(part)
        if kind in _TEXTS:
            texts.append(_string(inner, _TEXT_FIELDS))
        elif kind in _THOUGHTS:
            thoughts.append(_thought(inner))
        elif kind in _TOOL_CALLS:
            calls.append(_tool_call(inner))
        elif kind in _TOOL_RESULTS:
            results.append(_tool_result(inner))
        elif kind == "refusal":
            refused = True
        else:
            raise FieldError("holds a part that is not text; only text can be valued")
    return _Parts("".join(texts), "\n".join(filter(None, thoughts)), tuple(calls), tuple(results), refused)


def _kind(part: object) -> tuple[object, Mapping[str, object]]:
    """Return the kind of a part and its fields; Bedrock's and Gemini's have the kind as the name of their one field."""
    if isinstance(part, str):
        return "text", {"text": part}
    if not isinstance(part, dict):
        return None, {}
    if "type" in part:
        return part["type"], part
    if part.get("thought") is True:
        return "thinking", part
    for name in ("toolUse", "toolResult", "reasoningContent", "functionCall", "functionResponse"):
        inner = part.get(name)
        if isinstance(inner, dict):
            return "toolResult" if name == "functionResponse" else name, inner
    return ("text", part) if isinstance(part.get("text"), str) else (None, part)


def _string(part: Mapping[str, object], names: Sequence[str]) -> str:
    text = next((part[name] for name in names if isinstance(part.get(name), str)), None)
    if not isinstance(text, str):
        raise FieldError("holds a part that is not text; only text can be valued")
    return storable(text)


def _thought(part: Mapping[str, object]) -> str:
    """Return a thought; empty where it is encrypted or summarised, so the log does not hold it."""
    inner = part.get("reasoningText")
    part = inner if isinstance(inner, dict) else part
    content = part.get("content")
    if isinstance(content, list):
        return "\n".join(_string(item, _TEXT_FIELDS) for item in content if isinstance(item, dict))
    return next((storable(str(part[name])) for name in _THOUGHT_FIELDS if isinstance(part.get(name), str)), "")


def _tool_result(part: Mapping[str, object]) -> tuple[str, str]:
    """Return the id of the call of a tool, and its result as a text."""
    number = next(
        (part[key] for key in ("tool_use_id", "toolUseId", "call_id", "id") if isinstance(part.get(key), str)), ""
    )
    names = ("content", "response", "result", "output")
    content = next((part[name] for name in names if part.get(name) is not None), "")
    if isinstance(content, str):
        return str(number), storable(content)
    try:
        return str(number), _parts(content).text
    except FieldError:
        return str(number), plain_json(content)


def plain_json(value: object) -> str:
    """Return the canonical JSON of a value from a log; its fractions, read as decimals, are doubles again.

    Raises:
        FieldError: it holds what databases cannot store.
    """
    try:
        return storable(canonical_json(_plain(value)))
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, FieldError):
            raise
        raise FieldError(f"cannot be stored: {error}") from error


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {storable(str(name)): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return storable(value) if isinstance(value, str) else value


def asked_of_request(request: Mapping[str, object]) -> Asked:
    """Return the question of a request in the shape of chat completions or of Anthropic's messages.

    Raises:
        FieldError: its messages are missing, or hold more than text and tools.
    """
    if request.get("messages") is None:
        raise FieldError("`messages` is missing")
    try:
        messages = messages_of(request["messages"])
    except FieldError as error:
        raise FieldError(f"`messages` {error}") from error
    system = request.get("system")
    if system is not None:
        try:
            messages = (Message("system", _parts(system).text), *messages)
        except FieldError as error:
            raise FieldError(f"`system` {error}") from error
    return Asked(messages=messages, template=template_of(request))


def template_of(request: Mapping[str, object]) -> str:
    """Return a request's further input to the chat template, as canonical JSON: tools and arguments.

    Raises:
        FieldError: an argument would replace the template, or what its caller sets.
    """
    found: dict[str, object] = {}
    if isinstance(request.get("tools"), list) and request["tools"] and request.get("tool_choice") != "none":
        found["tools"] = [_tool(tool) for tool in _list(request["tools"])]
    given = request.get("chat_template_kwargs")
    if isinstance(given, dict):
        if clash := sorted(_NOT_FOR_TEMPLATES & given.keys()):
            raise FieldError(f"`chat_template_kwargs` sets {clash[0]}, which cannot be repeated")
        found |= given
    if request.get("chat_template"):
        raise FieldError("`chat_template` is another than the model's; what the model saw cannot be repeated")
    return plain_json(found) if found else ""


def tools_of(value: object) -> list[object]:
    """Return the descriptions of tools, from a list of them, whole or each as JSON text (CSV, Parquet).

    Raises:
        FieldError: it is something else.
    """
    try:
        found = parse_json(value or "[]") if isinstance(value, str) else value
        listed = found if isinstance(found, list) else [None]
        tools = [parse_json(tool) if isinstance(tool, str) else tool for tool in listed]
    except InputError as error:
        raise FieldError(str(error)) from error
    if not all(isinstance(tool, dict) for tool in tools):
        raise FieldError("must be a list of tools, each an object")
    return tools


def _tool(tool: object) -> object:
    """Return the description of a tool in the shape of chat completions."""
    if not isinstance(tool, dict) or isinstance(tool.get("function"), dict) or "name" not in tool:
        return tool
    parameters = tool.get("parameters", tool.get("input_schema"))
    said = {"name": tool["name"], "description": tool.get("description"), "parameters": parameters}
    return {"type": "function", "function": {name: value for name, value in said.items() if value is not None}}


def asked_of(value: object) -> Asked:
    """Return the question, from a tracer's input.

    The input is a text, a list of messages, or a request with `messages`. All but the text may be JSON within a text.

    Raises:
        FieldError: it is something else.
    """
    value = decoded(value)
    if isinstance(value, str):
        return Asked(storable(value))
    if isinstance(value, list):
        return Asked(messages=messages_of(value))
    if isinstance(value, dict) and "messages" in value:
        return asked_of_request(value)
    if isinstance(value, dict) and "role" in value:
        return Asked(messages=messages_of([value]))
    if isinstance(value, dict) and isinstance(value.get("prompt"), str):
        return Asked(storable(value["prompt"]))
    raise FieldError("must be a text, messages, or an object with messages")


def answer_of(message: object) -> Answer:
    """Return the answer in an assistant's message, in any of the shapes."""
    if not isinstance(message, dict):
        return Unusable("`message` is missing")
    if "content" not in message and "parts" not in message and not _calls_a_tool(message):
        return REFUSED if message.get("refusal") else Unusable("`content` is missing")
    content = message.get("content") if "content" in message else message.get("parts")
    try:
        parts = _Parts("") if content is None else _parts(content)
        beside = _thoughts_beside(message)
    except FieldError as error:
        return Unusable(f"`content` {error}")
    thoughts = "\n".join(filter(None, (beside, parts.thoughts)))
    called = bool(parts.calls) or _calls_a_tool(message)
    refused = parts.refused or bool(message.get("refusal"))
    return said(parts.text, thoughts, called=called, refused=refused)


def said(text: object, thoughts: str = "", *, called: bool = False, refused: bool = False) -> Answer:
    """Return the answer in a text that a model wrote, with its thoughts if the log has them apart from it.

    Args:
        text: the text; thoughts between the model's marks are taken out of it.
        thoughts: thoughts that the log has apart.
        called: the model also called a tool.
        refused: the log says that the text is a refusal.
    """
    if not isinstance(text, str):
        return Unusable("`content` must be a text")
    try:
        inner, answer = _without_thoughts(storable(text))
        thoughts = storable("\n".join(filter(None, (thoughts.strip(), inner))))
    except FieldError as error:
        return Unusable(f"`content` {error}")
    # The blank lines between thoughts and answer belong to neither.
    if thoughts:
        answer = answer.lstrip()
    if answer and not answer.isspace() and not refused:
        return Said(answer, thoughts)
    if refused:
        return REFUSED
    if called:
        return CALLED_A_TOOL
    return ONLY_THOUGHT if thoughts else EMPTY


def _without_thoughts(text: str) -> tuple[str, str]:
    """Return the thoughts at the beginning of a text, and the answer after them.

    A template can open the thoughts in the prompt; then only their closing mark is in the text.
    """
    opened = _OPENED.match(text)
    for opening, closing in THOUGHT_MARKS:
        if opened and opened[1] != opening:
            continue
        begin = opened.end() if opened else 0
        end = text.find(closing, begin)
        if end >= 0 and (opened or opening not in text[:end]):
            return text[begin:end].strip(), text[end + len(closing) :].lstrip()
        # Never closed: the model was stopped while it thought, and gave no answer.
        if opened:
            return text[begin:].strip(), ""
    return "", text


def _calls_a_tool(message: Mapping[str, object]) -> bool:
    return bool(message.get("tool_calls") or message.get("function_call"))


def _thoughts_beside(message: Mapping[str, object]) -> str:
    for name in _THOUGHTS_OF_MESSAGES:
        if isinstance(message.get(name), str) and message[name]:
            return storable(str(message[name])).strip()
    return ""


def decoded(value: object) -> object:
    """Return messages, or an object that holds some, from their JSON text; return any other value as it is.

    A model can write JSON as its answer. So only the shapes of messages and responses count.
    """
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        found = parse_json(value)
    except InputError:
        return value
    if isinstance(found, list):
        return found if found and all(map(_is_item, found)) and any("role" in item for item in found) else value
    if not isinstance(found, dict):
        return value
    return found if _is_item(found) or any(isinstance(found.get(name), list) for name in _HOLDERS) else value


def _is_item(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    is_message = isinstance(value.get("role"), str) and not value.keys().isdisjoint(("content", "parts", "tool_calls"))
    return is_message or value.get("type") in ("function_call", "function_call_output", "reasoning")
