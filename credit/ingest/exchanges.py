"""Exchanges: a request to a model's server and the response, as loggers write the two.

A line holds both, side by side, each bare, inside a `body`, or as JSON text; or it is the response itself, with the
request's fields added to it. A streamed response is a text of server-sent events, JSON lines, or a list of its pieces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TypeAlias

from credit.errors import InputError
from credit.ingest.calls import Answer, Asked, Call, Entry, Skipped
from credit.ingest.conversations import asked_of_request
from credit.ingest.fields import FieldError, check_name, digest, timestamp, unix_seconds
from credit.ingest.json_documents import parse_json
from credit.records import CallIdentity

Record: TypeAlias = Mapping[str, object]

REQUESTS = ("request", "input", "request_body", "requestBody")
RESPONSES = ("response", "output", "response_body", "responseBody")
REQUEST_IDS = ("request_id", "requestId", "litellm_call_id", "x-request-id")
TIMES = (
    *("occurred_at", "timestamp", "@timestamp", "time", "ts", "created_at", "createdAt", "start_time", "startTime"),
    "request_time",
)
USERS = ("safety_identifier", "user")
FAILURES = ("error", "exception")
STATUSES = ("status_code", "status", "statusCode")
BESIDE = frozenset(
    (*REQUESTS, *RESPONSES, *REQUEST_IDS, *TIMES, *FAILURES, *STATUSES, *USERS, "id", "model", "messages", "path")
)
"""Fields beside request and response that are read."""

_LEAST_FAILURE = 400
_LARGEST_VOCABULARY = 1 << 31
_DATA = re.compile(r"^data:[ \t]*(\{.*\})[ \t]*$", re.MULTILINE)
_UNITS = (1, 1_000, 1_000_000, 1_000_000_000)
_YEAR_10000 = 253_402_300_800


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its response, read.

    Attributes:
        answers: what the model answered, by the index of the choice.
        asked: what it was asked.
        id: id of the response; empty: it has none.
        model: name of the model; empty: neither request nor response names it.
        occurred_at: time in the response, UTC; None: it has none.
    """

    answers: Mapping[int, Answer]
    asked: Asked
    id: str = ""
    model: str = ""
    occurred_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Sides:
    """Request and response of a record.

    Attributes:
        request: fields of the request; those of the record where it holds no request of its own.
        pieces: the response, or the pieces of a streamed one.
    """

    request: Record
    pieces: tuple[Record, ...]


def head_of_response(record: Record) -> Record:
    """Return the fields of a response inside a record, or of its first piece, as far as it takes to know its kind."""
    for name in RESPONSES:
        value = _body(record.get(name))
        if isinstance(value, dict):
            return value
        if isinstance(value, list | str) and (found := pieces_of(value, first=True)):
            return found[0]
    return {}


def sides_of(record: Record, *, bare: bool) -> Sides:
    """Return request and response of a record.

    Args:
        record: the record.
        bare: the record is the response itself.

    Raises:
        InputError: the request is no object.
    """
    request: Record = record
    for name in REQUESTS:
        value = _body(record.get(name))
        value = value if bare else _object(value)
        if isinstance(value, dict):
            request = value
            break
        if isinstance(value, list) and not bare:
            request = {"messages": value}
            break
        if value is not None and not bare:
            raise InputError(f"`{name}` must be a JSON object")
    if bare:
        return Sides(request, (record,))
    for name in RESPONSES:
        value = _body(record.get(name))
        if isinstance(value, dict):
            return Sides(request, (value,))
        if found := pieces_of(value):
            return Sides(request, tuple(found))
    raise InputError("the response is missing")


def _body(value: object) -> object:
    """Return a side without the envelope of a proxy."""
    if isinstance(value, dict) and "body" in value and not value.keys() & {"choices", "messages", "content"}:
        return value["body"]
    return value


def _object(value: object) -> object:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return parse_json(value)
        except InputError:
            return value
    return value


def pieces_of(value: object, *, first: bool = False) -> list[Record]:
    """Return the objects in a response: one in JSON text, server-sent events, JSON lines, or a list of pieces.

    Args:
        value: a text or a list.
        first: the first one is enough.

    Returns:
        The objects; empty: there are none, or not all can be read.
    """
    if isinstance(value, list):
        found: list[Record] = []
        for item in value:
            inner = [item] if isinstance(item, dict) else pieces_of(item)
            if not inner:
                return []
            found += inner
        return found
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[", "data:", "event:", ":")):
        return []
    events = _DATA.findall(value)
    try:
        if events:
            texts = events[:1] if first else events
        elif value.lstrip().startswith("{"):
            lines = [line for line in value.splitlines() if line.strip()]
            whole = len(lines) == 1 or not all(line.rstrip().endswith("}") and line.startswith("{") for line in lines)
            texts = [value] if whole else lines[:1] if first else lines
        else:
            return pieces_of(parse_json(value), first=first) if value.lstrip().startswith("[") else []
        parsed = [parse_json(text) for text in texts]
    except InputError:
        return []
    return [piece for piece in parsed if isinstance(piece, dict)]


def has_failed(record: Record) -> bool:
    """Return True if a record says beside request and response that the call failed."""
    if any(record.get(name) for name in FAILURES):
        return True
    codes = [record[name] for name in STATUSES if name in record]
    codes += [side.get("status_code") for name in RESPONSES if isinstance(side := record.get(name), dict)]
    return any(isinstance(code, int) and code >= _LEAST_FAILURE for code in codes)


def time_beside(record: Record) -> datetime | None:
    """Return a logger's time beside request and response: ISO 8601, or a number since 1970.

    Raises:
        InputError: there is one that cannot be read.
    """
    for name in TIMES:
        if record.get(name) is not None:
            try:
                return moment_of(record[name])
            except FieldError as error:
                raise InputError(f"`{name}` {error}") from error
    return None


def moment_of(value: object) -> datetime:
    """Return a moment from ISO 8601 text, or a number of seconds, milli-, micro- or nanoseconds since 1970.

    The unit shows in the size: no two of them give a time between the years 2000 and 10000.

    Raises:
        FieldError: it is no such time.
    """
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        size = Decimal(value)
        unit = next((unit for unit in _UNITS if abs(size) < _YEAR_10000 * unit), 1)
        return unix_seconds(size / unit)
    return timestamp(value)


def id_beside(record: Record) -> str:
    """Return a request's id from a logger or gateway; empty: none."""
    for name in REQUEST_IDS:
        value = record.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return str(value)
    return ""


@dataclass(frozen=True, slots=True)
class Beside:
    """Facts in a log beside request and response, for APIs whose responses lack them.

    Attributes:
        id: id in the log; empty: none.
        model: name of the model; empty: none.
        occurred_at: time, UTC; None: none.
        identity: ids by which other loggers know the call.
        user: id of the user, as logged; empty: none.
        first: the log's own id, time and model go before those of the response.
    """

    id: str = ""
    model: str = ""
    occurred_at: datetime | None = None
    identity: CallIdentity = field(default=CallIdentity())
    first: bool = False
    user: str = ""


def calls_of(exchanges: Sequence[Exchange], beside: Beside, source: str) -> list[Entry]:
    """Return a call for each exchange.

    Raises:
        InputError: the time or the model is missing.
    """
    found: list[Entry] = []
    for exchange in exchanges:
        if all(isinstance(answer, Skipped) for answer in exchange.answers.values()):
            found += [answer for answer in exchange.answers.values() if isinstance(answer, Skipped)]
            continue
        ours, theirs = (exchange, beside) if not beside.first else (beside, exchange)
        moment, model = ours.occurred_at or theirs.occurred_at, ours.model or theirs.model
        if moment is None:
            raise InputError("the log does not say when the model answered; give it: --occurred-at TIME")
        if not model:
            raise InputError("the log does not name the model; give it: --model-name NAME")
        name = ours.id or theirs.id or _id_of_content(moment, model, exchange)
        number = f"#{min(exchange.answers)}" if len(exchanges) > 1 else ""
        known = beside.identity
        response = known.response or exchange.id
        identity = CallIdentity(known.trace, known.span, known.parent, response, known.request, known.choice)
        try:
            name, model = check_name(name + number), check_name(model)
        except FieldError as error:
            raise InputError(f"id or model {error}") from error
        answers, asked = exchange.answers, exchange.asked
        found.append(Call(name, moment, model, answers, asked, source=source, identity=identity, user=beside.user))
    return found


def _id_of_content(moment: datetime, model: str, exchange: Exchange) -> str:
    """Return an id for a call without one: a hash of its time, model, question and answer."""
    asked = exchange.asked
    texts: list[str] = [moment.isoformat(), model, asked.prompt, asked.template]
    texts += [text for turn in asked.messages for text in (turn.role, turn.content, turn.extra)]
    texts += [str(answer) for answer in exchange.answers.values()]
    if asked.ids and not (asked.prompt or asked.messages):
        texts.append(str(asked.ids))
    return f"content-{digest(*texts).hex()}"


def without_text(response: Record) -> Skipped | None:
    """Return what a response is if it can hold no generated text; None: it is none of the known kinds."""
    listed = next((response[name] for name in ("data", "results") if isinstance(response.get(name), list)), None)
    first = listed[0] if isinstance(listed, list) and listed else None
    kinds = (
        ("embedding", "embeddings", "embeddings"),
        ("embedding", "embedding", "embeddings"),
        ("flagged", "category_scores", "moderations"),
        ("relevance_score", "score", "rerankings"),
    )
    for one, other, kind in kinds:
        if one in response or other in response or (isinstance(first, dict) and (one in first or other in first)):
            return Skipped(f"{kind} hold no generated text")
    return None


def asked_in(request: Record) -> Asked:
    """Return the question in a request with `messages`.

    Raises:
        InputError: it cannot be read, or holds more than text and tools.
    """
    if request.get("messages") is None:
        raise InputError("the request's `messages` are missing; log the request beside the response")
    if request.get("continue_final_message"):
        raise InputError("the answer continues the request's last message, which cannot be repeated")
    try:
        return asked_of_request(request)
    except FieldError as error:
        raise InputError(str(error)) from error


def text_in(record: Record, name: str) -> str:
    """Return a field that is a text; empty where it is missing.

    Raises:
        InputError: it is something else.
    """
    value = record.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"`{name}` must be a text")
    return value


def ids_in(record: Record, name: str) -> tuple[int, ...]:
    """Return a field with token ids; empty where it is missing.

    Raises:
        InputError: it is something else.
    """
    value = record.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(type(item) is int and 0 <= item < _LARGEST_VOCABULARY for item in value):
        raise InputError(f"`{name}` must be a list of token ids")
    return tuple(value)


def index_of(piece: Record) -> int:
    """Return the index of the choice, candidate or block that a piece of a stream belongs to."""
    index = piece.get("index", 0)
    return index if isinstance(index, int) else 0


def answers_by_index(choices: Sequence[tuple[object, Answer]]) -> dict[int, Answer]:
    """Return answers by the indexes that their choices have; None stands for the place in the list.

    Raises:
        InputError: there are none, or two have one index.
    """
    if not choices:
        raise InputError("`choices` is empty")
    found: dict[int, Answer] = {}
    for place, (given, answer) in enumerate(choices):
        index = place if given is None else given
        if not isinstance(index, int) or isinstance(index, bool) or index < 0 or index in found:
            raise InputError("`choices` need indexes that are whole numbers and differ")
        found[index] = answer
    return found
