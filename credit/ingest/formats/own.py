"""credit's own format: one flat record for each output, in JSON, CSV or Parquet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import PlainValidator

from credit.errors import InputError
from credit.ingest.calls import Asked, Call, Entry, Said
from credit.ingest.conversations import messages_of, said
from credit.ingest.exchanges import REQUESTS, RESPONSES
from credit.ingest.fields import Identifier, InputModel, Name, Text, Timestamp, WeightMicro, validate
from credit.ingest.spans import LogContext
from credit.records import MICRO, Message


class _OwnRecord(InputModel):
    id: Identifier
    occurred_at: Timestamp
    model: Name
    completion: Text
    prompt: Text | None = None
    messages: Annotated[tuple[Message, ...], PlainValidator(messages_of)] | None = None
    thoughts: Text | None = None
    weight: WeightMicro | None = None
    source: Name | None = None
    user: Identifier | None = None


NAMES = tuple(_OwnRecord.model_fields)
FIELDS = frozenset(NAMES)


def matches(record: Mapping[str, object]) -> bool:
    """Return True if a record has the fields that no other format has."""
    return "completion" in record or ("occurred_at" in record and not record.keys() & {*REQUESTS, *RESPONSES})


def read(record: Mapping[str, object], _context: LogContext) -> list[Entry]:
    """Return the call of a record.

    Raises:
        InputError: the record cannot be used.
    """
    # JSON and Parquet spell an absent value None; a field that is needed is then missing.
    if None in record.values():
        record = {name: value for name, value in record.items() if value is not None}
    fields = validate(_OwnRecord, record)
    if fields.prompt and fields.messages:
        raise InputError("`prompt` and `messages` are both given; which of them the model saw would be a guess")
    answer = said(fields.completion, fields.thoughts or "")
    if not isinstance(answer, Said):
        return [answer]
    call = Call(
        fields.id,
        fields.occurred_at,
        fields.model,
        {0: answer},
        Asked(fields.prompt or "", fields.messages or ()),
        MICRO if fields.weight is None else fields.weight,
        source=fields.source or "",
        user=fields.user or "",
    )
    return [call]
