"""OpenAI's chat completions, as vLLM, SGLang, llama.cpp, Ollama and most gateways serve them too.

vLLM adds the ids of tokens where the request has `return_token_ids`.
https://platform.openai.com/docs/api-reference/chat/object
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from credit.errors import InputError
from credit.ingest.calls import Answer, Said, Unusable
from credit.ingest.conversations import answer_of
from credit.ingest.exchanges import Exchange, Record, answers_by_index, asked_in, ids_in, index_of
from credit.ingest.fields import Identifier, InputModel, Name, UnixTime, validate
from credit.ingest.json_documents import objects_in

SOURCE = "openai"
NAME = "OpenAI chat"
RECOGNISED_BY = "choices with a message"
FIELDS = frozenset(
    {
        *("id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier", "metadata"),
        *("messages", "tools", "tool_choice", "chat_template_kwargs", "prompt_token_ids"),
    }
)

_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")


class _ChatCompletion(InputModel):
    id: Identifier
    created: UnixTime
    model: Name
    choices: list[dict[str, object]]


def matches(response: Record) -> bool:
    """Return True for a chat completion, and for a piece of a streamed one."""
    kind, choices = response.get("object"), response.get("choices")
    if "choices" not in response or kind == "text_completion":
        return False
    if isinstance(kind, str) and kind.startswith("chat.completion"):
        return True
    first = choices[0] if isinstance(choices, list) and choices else None
    return not (isinstance(first, dict) and "text" in first and "message" not in first)


def read(request: Record, response: Record) -> Sequence[Exchange]:
    """Return the exchange.

    Raises:
        InputError: it cannot be used.
    """
    kind = response.get("object")
    if kind is not None and kind != "chat.completion":
        raise InputError(f"the response is a {str(kind)[:60]!r}; only whole chat.completion objects can be read")
    asked = asked_in(request)
    fields = validate(_ChatCompletion, response)
    asked = replace(asked, ids=ids_in(response, "prompt_token_ids"))
    return [Exchange(answers_of_choices(fields.choices), asked, fields.id, fields.model, fields.created)]


def answers_of_choices(choices: Sequence[Mapping[str, object]]) -> dict[int, Answer]:
    """Return the answers in the choices of a completion, by index.

    Raises:
        InputError: there are none, or two have one index.
    """
    return answers_by_index([(choice.get("index"), _answer(choice)) for choice in choices])


def _answer(choice: Mapping[str, object]) -> Answer:
    message = choice.get("message")
    if isinstance(message, dict) and "content" not in message and choice.get("finish_reason") is None:
        return Unusable("`message` has no `content`")
    return with_ids(answer_of(message), choice)


def with_ids(answer: Answer, choice: Mapping[str, object]) -> Answer:
    """Return an answer with the token ids of its choice, if it has some.

    Raises:
        InputError: they are no list of ids.
    """
    return replace(answer, ids=ids_in(choice, "token_ids")) if isinstance(answer, Said) else answer


def joined(pieces: Sequence[Record]) -> Record:
    """Return the completion made of a stream's pieces.

    Raises:
        InputError: the stream ends before an answer does.
    """
    if len(pieces) == 1:
        raise InputError("the response is a 'chat.completion.chunk'; only whole chat.completion objects can be read")
    choices: dict[int, dict[str, object]] = {}
    for piece in pieces:
        for item in objects_in(piece, "choices"):
            delta = item.get("delta")
            choice = choices.setdefault(index_of(item), {"message": {"role": "assistant", "content": None}})
            message = choice["message"]
            if isinstance(delta, dict) and isinstance(message, dict):
                _extend(message, delta)
            extend_ids(choice, item)
            if item.get("finish_reason") is not None:
                choice["finish_reason"] = item["finish_reason"]
    if not all("finish_reason" in choice for choice in choices.values()):
        raise InputError("the stream ends before its answer does; what the model wrote after that is not known")
    listed = [{**choice, "index": index} for index, choice in choices.items()]
    return {**head_of_stream(pieces), "object": "chat.completion", "choices": listed}


def extend_ids(choice: dict[str, object], piece: Mapping[str, object]) -> None:
    """Add the token ids of a stream's piece to its choice."""
    before, more = choice.get("token_ids"), piece.get("token_ids")
    if isinstance(more, list):
        choice["token_ids"] = [*(before if isinstance(before, list) else []), *more]


def head_of_stream(pieces: Iterable[Record]) -> dict[str, object]:
    """Return id, time, model and prompt tokens of a stream; some servers leave them out of its first piece or last."""
    found: dict[str, object] = {}
    for piece in pieces:
        names = ("id", "created", "model", "prompt_token_ids")
        found |= {name: piece[name] for name in names if piece.get(name) and name not in found}
    return found


def _extend(message: dict[str, object], delta: Mapping[str, object]) -> None:
    for name in _TEXTS:
        if isinstance(delta.get(name), str):
            message[name] = str(message.get(name) or "") + str(delta[name])
    # The calls matter only as far as there are some: an answer that is one holds no text.
    for name in ("tool_calls", "function_call"):
        if delta.get(name):
            message[name] = delta[name]
