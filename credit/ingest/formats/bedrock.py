"""Model invocation logs of Amazon Bedrock, as it writes them to S3 and CloudWatch.

A record holds request and response as the API of the model has them: Converse, Anthropic's messages, chat completions,
or a prompt and its generation (imported models). A large body is in a file of its own, which the record names.
https://docs.aws.amazon.com/bedrock/latest/userguide/model-invocation-logging.html
"""

from __future__ import annotations

from collections.abc import Mapping

from credit.errors import InputError
from credit.ingest.apis import api_of, read_sides, unknown_response
from credit.ingest.calls import FAILED, Asked, Entry
from credit.ingest.conversations import said
from credit.ingest.exchanges import Beside, Exchange, Sides, calls_of, pieces_of, time_beside, without_text
from credit.ingest.spans import LogContext
from credit.records import CallIdentity

FIELDS = frozenset({"schemaType", "timestamp", "requestId", "operation", "modelId", "input", "output", "errorCode"})


def matches(record: Mapping[str, object]) -> bool:
    """Return True if a record is a model invocation log."""
    return record.get("schemaType") == "ModelInvocationLog"


def read(record: Mapping[str, object], context: LogContext) -> list[Entry]:
    """Return the call of a record.

    Raises:
        InputError: it cannot be used.
    """
    if record.get("errorCode"):
        return [FAILED]
    pieces = _body(record, "output")
    if skipped := without_text(pieces[0]):
        return [skipped]
    request, api = _body(record, "input")[0], api_of(pieces[0])
    if api is not None:
        exchanges = read_sides(api, Sides(request, tuple(pieces)))
    elif isinstance(pieces[0].get("generation"), str) and isinstance(request.get("prompt"), str):
        texts = [piece["generation"] for piece in pieces if isinstance(piece.get("generation"), str)]
        exchanges = [Exchange({0: said("".join(map(str, texts)))}, Asked(str(request["prompt"])))]
    else:
        raise InputError(unknown_response(pieces[0]))
    model, number = record.get("modelId"), record.get("requestId")
    name = model.rpartition("/")[2] if isinstance(model, str) else ""
    identity = CallIdentity(request=number if isinstance(number, str) else "")
    beside = Beside(identity.request, name or context.model, time_beside(record), identity, first=True)
    return calls_of(exchanges, beside, "")


def _body(record: Mapping[str, object], side: str) -> list[Mapping[str, object]]:
    holder = record.get(side)
    fields = holder if isinstance(holder, dict) else {}
    body = fields.get(f"{side}BodyJson")
    found: list[Mapping[str, object]] = [body] if isinstance(body, dict) else pieces_of(body)
    if not found:
        elsewhere = fields.get(f"{side}BodyS3Path")
        where = f"; it is in {str(elsewhere)[:200]}: put it in its place" if elsewhere else ""
        raise InputError(f"`{side}.{side}BodyJson` is missing{where}")
    return found
