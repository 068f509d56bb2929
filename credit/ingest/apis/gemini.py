"""Google's generateContent, of Gemini and of Vertex AI: contents of parts in, candidates out.

https://ai.google.dev/api/generate-content
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from credit.errors import InputError
from credit.ingest.calls import REFUSED, Answer, Asked, Unusable
from credit.ingest.conversations import answer_of, asked_of_request
from credit.ingest.exchanges import Exchange, Record, answers_by_index, index_of, moment_of, text_in
from credit.ingest.fields import FieldError
from credit.ingest.json_documents import objects_in

SOURCE = "gemini"
NAME = "Gemini"
RECOGNISED_BY = "candidates, contents"
FIELDS = frozenset(
    {
        *("candidates", "contents", "systemInstruction", "usageMetadata", "modelVersion", "responseId", "createTime"),
        *("promptFeedback", "tools", "generationConfig", "model"),
    }
)

_BLOCKED = ("SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "RECITATION")


def matches(response: Record) -> bool:
    """Return True for a response, and for a piece of a streamed one."""
    is_blocked = "promptFeedback" in response and "usageMetadata" in response
    return isinstance(response.get("candidates"), list) or is_blocked


def read(request: Record, response: Record) -> Sequence[Exchange]:
    """Return the exchange.

    Raises:
        InputError: it cannot be used.
    """
    asked = _asked(request)
    feedback = response.get("promptFeedback")
    answers: dict[int, Answer]
    if not response.get("candidates") and isinstance(feedback, dict) and feedback.get("blockReason"):
        answers = {0: REFUSED}
    else:
        answers = answers_by_index([(item.get("index"), _answer(item)) for item in objects_in(response, "candidates")])
    try:
        moment = moment_of(response["createTime"]) if response.get("createTime") else None
    except FieldError as error:
        raise InputError(f"`createTime` {error}") from error
    model = text_in(response, "modelVersion") or text_in(request, "model")
    return [Exchange(answers, asked, text_in(response, "responseId"), model.rpartition("/")[2], moment)]


def _asked(request: Record) -> Asked:
    contents = request.get("contents")
    if contents is None:
        raise InputError("the request's `contents` are missing; log the request beside the response")
    turns = contents if isinstance(contents, list) else [contents]
    system = next((request[key] for key in ("systemInstruction", "system_instruction") if request.get(key)), None)
    parts = system.get("parts") if isinstance(system, dict) else system
    messages = [{**turn, "role": _role(turn)} if isinstance(turn, dict) else turn for turn in turns]
    try:
        return asked_of_request({"messages": messages, "system": parts, "tools": _tools(request)})
    except FieldError as error:
        raise InputError(str(error).replace("`messages`", "`contents`")) from error


def _role(turn: Mapping[str, object]) -> object:
    role = turn.get("role")
    if role == "model":
        return "assistant"
    return "user" if role in (None, "function") else role


def _tools(request: Record) -> list[object]:
    listed = [item.get("functionDeclarations") for item in objects_in(request, "tools")]
    return [function for functions in listed if isinstance(functions, list) for function in functions]


def _answer(candidate: Mapping[str, object]) -> Answer:
    content = candidate.get("content")
    if isinstance(content, dict) and isinstance(content.get("parts"), list):
        return answer_of({"content": content["parts"]})
    if candidate.get("finishReason") in _BLOCKED:
        return REFUSED
    return answer_of({"content": None}) if "finishReason" in candidate else Unusable("`content` is missing")


def joined(pieces: Sequence[Record]) -> Record:
    """Return the response made of a stream's pieces.

    Raises:
        InputError: the stream ends before an answer does.
    """
    found: dict[str, object] = {}
    candidates: dict[int, dict[str, object]] = {}
    for piece in pieces:
        found |= {name: value for name, value in piece.items() if name != "candidates"}
        for item in objects_in(piece, "candidates"):
            candidate = candidates.setdefault(index_of(item), {"content": {"parts": []}})
            content, whole = item.get("content"), candidate["content"]
            if isinstance(content, dict) and isinstance(whole, dict) and isinstance(content.get("parts"), list):
                whole["parts"] += content["parts"]
            if item.get("finishReason"):
                candidate["finishReason"] = item["finishReason"]
    if not all("finishReason" in candidate for candidate in candidates.values()):
        raise InputError("the stream ends before its answer does; what the model wrote after that is not known")
    return {**found, "candidates": [{**candidate, "index": index} for index, candidate in candidates.items()]}
