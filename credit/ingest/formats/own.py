"""credit's own format: one flat record for each output, in JSON, CSV or Parquet."""

from __future__ import annotations

from collections.abc import Mapping

from credit.errors import InputError
from credit.ingest.calls import Call, Entry
from credit.ingest.fields import (
    FilledText,
    Identifier,
    InputModel,
    Messages,
    Name,
    Text,
    Timestamp,
    WeightMicro,
    validate,
)
from credit.ingest.spans import LogContext
from credit.records import MICRO


class _OwnRecord(InputModel):
    id: Identifier
    occurred_at: Timestamp
    model: Name
    completion: FilledText
    prompt: Text | None = None
    messages: Messages | None = None
    weight: WeightMicro | None = None
    source: Name | None = None
    user: Identifier | None = None


NAMES = tuple(_OwnRecord.model_fields)
FIELDS = frozenset(NAMES)


def matches(record: Mapping[str, object]) -> bool:
    """Return True if a record has any of the format's fields."""
    return not record.keys().isdisjoint(FIELDS)


def read(record: Mapping[str, object], _context: LogContext) -> list[Entry]:
    """Return the call of a record.

    Raises:
        InputError: the record cannot be used.
    """
    # JSON and Parquet spell an absent value None; a field that is needed is then missing.
    fields = validate(_OwnRecord, {name: value for name, value in record.items() if value is not None})
    if fields.prompt and fields.messages:
        raise InputError("`prompt` and `messages` are both given; which of them the model saw would be a guess")
    call = Call(
        fields.id,
        fields.occurred_at,
        fields.model,
        {0: fields.completion},
        fields.prompt or "",
        fields.messages or (),
        MICRO if fields.weight is None else fields.weight,
        source=fields.source or "",
        user=fields.user or "",
    )
    return [call]
