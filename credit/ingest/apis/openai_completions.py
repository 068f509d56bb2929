"""Text completions in the shape of OpenAI's older API, which model servers still serve: a prompt and what follows it.

A prompt can be given as token ids. vLLM adds those of prompt and text where the request has `return_token_ids`.
https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from credit.errors import InputError
from credit.ingest.apis import openai_chat
from credit.ingest.calls import Answer, Asked, Unusable
from credit.ingest.conversations import said
from credit.ingest.exchanges import Exchange, Record, answers_by_index, ids_in, index_of
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
    if echo and any(asked.ids for asked in prompts):
        raise InputError("the request has `echo`, and its prompt is token ids: where the answer begins is not known")
    texts = [asked.prompt for asked in prompts]
    answers = answers_by_index([(item.get("index"), _answer(item, texts, echo)) for item in fields.choices])
    ids = {index: ids_in(item, "prompt_token_ids") for index, item in zip(answers, fields.choices, strict=True)}

    def seen(prompt: Asked, index: int) -> Asked:
        return replace(prompt, ids=ids[index] or prompt.ids)

    if len(prompts) == 1:
        return [Exchange(answers, seen(prompts[0], min(answers)), fields.id, fields.model, fields.created)]
    each, rest = divmod(len(answers), len(prompts))
    if rest or max(answers) >= len(answers):
        raise InputError(f"{len(prompts)} prompts have {len(answers)} choices; which belongs to which is not known")
    return [
        Exchange({index: answer}, seen(prompts[index // each], index), fields.id, fields.model, fields.created)
        for index, answer in sorted(answers.items())
    ]


def _prompts(request: Record) -> list[Asked]:
    """Return the prompts of a request: texts, or lists of token ids."""
    prompt = request.get("prompt")
    if prompt is None:
        raise InputError("the request's `prompt` is missing; log the request beside the response")
    is_one = not isinstance(prompt, list) or (bool(prompt) and all(type(item) is int for item in prompt))
    listed = [prompt] if is_one else prompt
    if not isinstance(listed, list) or not listed or not all(isinstance(item, str | list) for item in listed):
        raise InputError("`prompt` must be a text, token ids, or a list of those")
    try:
        return [
            Asked(storable(item)) if isinstance(item, str) else Asked(ids=ids_in({"prompt": item}, "prompt"))
            for item in listed
        ]
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
        # The ids of the text are then those of the prompt too.
        return said(text[len(repeated) :])
    return openai_chat.with_ids(said(text), choice)


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
            openai_chat.extend_ids(choice, item)
            if item.get("prompt_token_ids"):
                choice.setdefault("prompt_token_ids", item["prompt_token_ids"])
            if item.get("finish_reason") is not None:
                choice["finish_reason"] = item["finish_reason"]
    if not all("finish_reason" in choice for choice in choices.values()):
        raise InputError("the stream ends before its answer does; what the model wrote after that is not known")
    listed = [{**choice, "index": index} for index, choice in choices.items()]
    return {**openai_chat.head_of_stream(pieces), "object": "text_completion", "choices": listed}
