"""The product's own format for outputs: one flat record each, in JSON Lines, CSV or Parquet."""

from __future__ import annotations

from collections.abc import Mapping

from credit.errors import InputError
from credit.ingest.calls import Found
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
from credit.ingest.spans import Reading
from credit.records import MICRO, OWN_SOURCE, LoggedOutput


class _Fields(InputModel):
    id: Identifier
    occurred_at: Timestamp
    model: Name
    completion: FilledText
    prompt: Text | None = None
    messages: Messages | None = None
    weight: WeightMicro | None = None
    source: Name | None = None


FIELDS = tuple(_Fields.model_fields)


def parse_own(record: Mapping[str, object], reading: Reading) -> list[Found]:
    """Return the output that a record of the own format holds.

    Raises:
        InputError: the record cannot be used.
    """
    # None is how JSON and Parquet spell an absent value; a field that is needed is then missing.
    fields = validate(_Fields, {name: value for name, value in record.items() if value is not None})
    if fields.prompt and fields.messages:
        raise InputError("`prompt` and `messages` are both given; which of them the model saw would be a guess")
    return [
        LoggedOutput(
            source=reading.source or fields.source or OWN_SOURCE,
            external_id=fields.id,
            occurred_at=fields.occurred_at,
            model=fields.model,
            completion=fields.completion,
            prompt=fields.prompt or "",
            messages=fields.messages or (),
            weight_micro=MICRO if fields.weight is None else fields.weight,
        )
    ]


def is_own(record: Mapping[str, object]) -> bool:
    """Whether a record has any of the format's fields."""
    return not record.keys().isdisjoint(FIELDS)
