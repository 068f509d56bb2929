"""Text completions in the shape of OpenAI's older API, which model servers still serve: a prompt and what follows it.

https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from credit.errors import InputError
from credit.ingest.apis import openai_chat
from credit.ingest.calls import Answer, Asked, Unusable
from credit.ingest.conversations import said
from credit.ingest.exchanges import Exchange, Record, answers_by_index, index_of
from credit.ingest.fields import FieldError, Identifier, InputModel, Name, UnixTime, storable, validate
from credit.ingest.json_documents import objects_in

SOURCE = openai_chat.SOURCE
NAME = "OpenAI completions"
RECOGNISED_BY = "choices with a text"
FIELDS = frozenset({"id", "object", "created", "model", "choices", "usage", "prompt", "echo", "n", "suffix"})


class _TextCompletion(InputModel):
    id: Identifier
    created: UnixTime
    model: Name
    choices: list[dict[str, object]]


def matches(response: Record) -> bool:
    """Return True for a text completion, and for a piece of a streamed one."""
    return "choices" in response and not openai_chat.matches(response)


def read(request: Record, response: Record) -> Sequence[Exchange]:
    """Return an exchange for each prompt; a request can hold several.

    Raises:
        InputError: it cannot be used.
    """
    prompts = _prompts(request)
    fields = validate(_TextCompletion, response)
    if request.get("suffix"):
        raise InputError("the request has a `suffix`: the model saw more than its prompt")
    echo = bool(request.get("echo"))
    answers = answers_by_index([(item.get("index"), _answer(item, prompts, echo)) for item in fields.choices])
    if len(prompts) == 1:
        return [Exchange(answers, Asked(prompts[0]), fields.id, fields.model, fields.created)]
    each, rest = divmod(len(answers), len(prompts))
    if rest or max(answers) >= len(answers):
        raise InputError(f"{len(prompts)} prompts have {len(answers)} choices; which belongs to which is not known")
    return [
        Exchange({index: answer}, Asked(prompts[index // each]), fields.id, fields.model, fields.created)
        for index, answer in sorted(answers.items())
    ]


def _prompts(request: Record) -> list[str]:
    prompt = request.get("prompt")
    if prompt is None:
        raise InputError("the request's `prompt` is missing; log the request beside the response")
    listed = prompt if isinstance(prompt, list) else [prompt]
    texts = [item for item in listed if isinstance(item, str)]
    if not listed or len(texts) < len(listed):
        raise InputError("`prompt` must be a text; token ids cannot be read: log the text")
    try:
        return [storable(item) for item in texts]
    except FieldError as error:
        raise InputError(f"`prompt` {error}") from error


def _answer(choice: Mapping[str, object], prompts: Sequence[str], echo: bool) -> Answer:
    text = choice.get("text")
    if not isinstance(text, str):
        return Unusable("`text` is missing")
    if echo:
        repeated = next((prompt for prompt in prompts if text.startswith(prompt)), None)
        if repeated is None or len(prompts) > 1:
            return Unusable("the request has `echo`, and the text does not begin with its prompt")
        text = text[len(repeated) :]
    return said(text)


def joined(pieces: Sequence[Record]) -> Record:
    """Return the completion made of a stream's pieces.

    Raises:
        InputError: the stream ends before an answer does.
    """
    choices: dict[int, dict[str, object]] = {}
    for piece in pieces:
        for item in objects_in(piece, "choices"):
            choice = choices.setdefault(index_of(item), {"text": ""})
            choice["text"] = f"{choice['text']}{item['text'] if isinstance(item.get('text'), str) else ''}"
            if item.get("finish_reason") is not None:
                choice["finish_reason"] = item["finish_reason"]
    if not all("finish_reason" in choice for choice in choices.values()):
        raise InputError("the stream ends before its answer does; what the model wrote after that is not known")
    listed = [{**choice, "index": index} for index, choice in choices.items()]
    return {**openai_chat.head_of_stream(pieces), "object": "text_completion", "choices": listed}
