"""Input and output of a call as tracers log them: a text, messages, or request and response of a server's API."""

from __future__ import annotations

from credit.errors import InputError
from credit.ingest.apis import api_of, openai_chat, read_exchange
from credit.ingest.calls import Answer, read_part
from credit.ingest.conversations import answer_of, asked_of, decoded, plain_message, said
from credit.ingest.exchanges import Exchange
from credit.ingest.fields import FieldError
from credit.ingest.json_documents import objects_in


def read_traced(given: object, output: object, names: tuple[str, str]) -> Exchange:
    """Return the exchange of a call from a tracer's input and output.

    Args:
        given: the input; may be JSON within a text, as the output.
        output: the output.
        names: names of the two fields, for errors.

    Raises:
        InputError: one of them is missing or cannot be read.
    """
    if output is None:
        raise InputError(f"`{names[1]}` is missing")
    response = decoded(output)
    if isinstance(response, dict) and "role" not in response and not openai_chat.matches(response) and api_of(response):
        request = decoded(given)
        named = request if isinstance(request, dict) else {name: request for name in ("messages", "input", "contents")}
        _, (exchange, *_) = read_exchange(named, response)
        return exchange
    asked = read_part(asked_of, given, names[0])
    answers = read_part(answers_of, response, names[1])
    number = response.get("id") if isinstance(response, dict) and "choices" in response else None
    return Exchange(answers, asked, number if isinstance(number, str) else "")


def answers_of(output: object) -> dict[int, Answer]:
    """Return the answers in an output, by position: a text, a message, messages (one a choice) or choices.

    Raises:
        FieldError: it is something else.
    """
    if isinstance(output, str):
        return {0: said(output)}
    if isinstance(output, dict) and "choices" in output:
        try:
            return openai_chat.answers_of_choices(objects_in(output, "choices"))
        except InputError as error:
            raise FieldError(str(error)) from error
    if isinstance(output, dict) and isinstance(output.get("messages"), list):
        output = output["messages"]
    listed = output if isinstance(output, list) else [output]
    messages = [plain_message(item) for item in listed if isinstance(item, dict)]
    roles = [item.get("role") for item in messages]
    if not roles or None in roles or len(roles) < len(listed):
        raise FieldError("must be a text, a message, or a list of messages")
    if any(role != "assistant" for role in roles):
        raise FieldError("holds a message that is not the assistant's")
    return dict(enumerate(map(answer_of, messages)))
