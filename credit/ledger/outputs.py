"""Logged outputs of models, each once, and the pending ones among them: logged, not valued yet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, exists, func, select, true

from credit.ledger.schema import compute_run, model, output, score_book, unvalued, valuation
from credit.ledger.values import month_bounds, utc_moment, utc_text
from credit.records import OWN_SOURCE, LoggedOutput, Message, output_name
from credit.storage import canonical_json, quoted

_BATCH = 500


@dataclass(frozen=True, slots=True)
class StoredOutput:
    """An output in the ledger; without prompt and completion if it was `purged`."""

    id: int
    output: LoggedOutput
    purged: bool = False


def content_sha256(item: LoggedOutput, context: str = "") -> str:
    """Return the SHA-256 of an output, its identity included: of a JSON array of its fields.

    Empty pseudonyms and salts are left out: an output from before them keeps its hash.

    Args:
        item: the output.
        context: its `context_json`, if that is at hand.
    """
    keyed = (("user", item.user), ("text", item.text), ("salt", item.salt))
    pseudonyms = "".join([f',["{name}",{quoted(value)}]' for name, value in keyed if value])
    named = f'{quoted(item.source)},{quoted(item.external_id)},"{utc_text(item.occurred_at)}",{quoted(item.model)}'
    said = f"{quoted(item.prompt)},{context or context_json(item)},{quoted(item.completion)}"
    whole = f'["credit.output.1",{named},{said},{item.weight_micro}{pseudonyms}]'
    return hashlib.sha256(whole.encode()).hexdigest()


def context_json(item: LoggedOutput) -> str:
    """Return the canonical JSON of what the model saw beside the prompt: its messages, as lists of role and content.

    An object with the messages stands for them where there is more: thoughts, what the chat template got beside the
    messages, or token ids. So they are kept, hashed and deleted with the messages, and older outputs keep their hash.
    """
    turns = ",".join([
        f"[{quoted(turn.role)},{quoted(turn.content)}{f',{quoted(turn.extra)}' if turn.extra else ''}]"
        for turn in item.messages
    ])  # fmt: skip
    if not (item.thoughts or item.template or item.prompt_ids or item.completion_ids):
        return f"[{turns}]"
    ids = (("completion_ids", item.completion_ids), ("prompt_ids", item.prompt_ids))
    listed = {name: canonical_json(numbers) for name, numbers in ids if numbers}
    texts = (("template", item.template), ("thoughts", item.thoughts))
    said = {"messages": f"[{turns}]", **listed, **{name: quoted(text) for name, text in texts if text}}
    return "{" + ",".join([f'"{name}":{said[name]}' for name in sorted(said)]) + "}"


def pending_outputs(conn: Connection, model_name: str, after_id: int, limit: int) -> list[StoredOutput]:
    """Return pending outputs of a model, by ascending id, after `after_id`."""
    query = (
        _stored()
        .where(model.c.name == model_name, output.c.id > after_id, _pending())
        .order_by(output.c.id)
        .limit(limit)
    )
    return [_to_stored(row) for row in conn.execute(query)]


def pending_count(
    conn: Connection,
    *,
    model_name: str | None = None,
    since: str | None = None,
    through: str | None = None,
    weighty: bool = False,
) -> int:
    """Count the pending outputs: all, or those from the month `since` on and up to the end of the month `through`.

    An output of a closed month counts in the first open one. So a close asks for everything before the end of its
    period, not only for its own month. `weighty` leaves out outputs of weight 0, `model_name` those of other models.
    """
    query = select(func.count()).select_from(output)
    if model_name is not None:
        query = query.join(model).where(model.c.name == model_name)
    return int(conn.execute(_waiting(query, since, through, weighty)).scalar_one())


def pending_names(conn: Connection, *, through: str | None = None, limit: int | None = None) -> list[str]:
    """Return the names of the pending outputs with a weight, by id."""
    query = _waiting(select(output.c.source, output.c.external_id), None, through, weighty=True)
    return [output_name(*row) for row in conn.execute(query.order_by(output.c.id).limit(limit))]


def last_pseudonym(conn: Connection) -> str:
    """Return a pseudonym in the newest output, to compare its key; empty if there is none."""
    newest = select(output.c.text_hmac, output.c.user_hmac).order_by(output.c.id.desc()).limit(1)
    row = conn.execute(newest).one_or_none()
    return "" if row is None else row.text_hmac or row.user_hmac or ""


def has_outputs(conn: Connection, period: str) -> bool:
    """Return True if the month has logged outputs, valued or not."""
    low, high = month_bounds(period)
    query = select(exists().where(output.c.occurred_at >= low, output.c.occurred_at < high))
    return bool(conn.execute(query).scalar_one())


def outputs_by_id(conn: Connection, ids: Sequence[int]) -> list[StoredOutput]:
    """Return the outputs with these ids, in their order; unknown ids are left out."""
    found: list[StoredOutput] = []
    for start in range(0, len(ids), _BATCH):
        query = _stored().where(output.c.id.in_(ids[start : start + _BATCH])).order_by(output.c.id)
        found += [_to_stored(row) for row in conn.execute(query)]
    return found


def output_names(conn: Connection, model_name: str) -> dict[int, str]:
    """Return the names of a model's outputs, by id."""
    query = select(output.c.id, output.c.source, output.c.external_id).join_from(output, model)
    rows = conn.execute(query.where(model.c.name == model_name).order_by(output.c.id))
    return {number: output_name(source, external_id) for number, source, external_id in rows}


def named_outputs(conn: Connection) -> Iterator[str]:
    """Yield the name of every output, by id."""
    query = select(output.c.source, output.c.external_id).order_by(output.c.id)
    for row in conn.execute(query, execution_options={"yield_per": 10_000}):
        yield output_name(*row)


def output_called(conn: Connection, name: str) -> StoredOutput | None:
    """Return the output of this name, or None."""
    row = conn.execute(called(_stored(), name)).one_or_none()
    return None if row is None else _to_stored(row)


def valued_by(conn: Connection, output_id: int) -> int | None:
    """Return the id of the index behind the last valuation of an output, or None."""
    query = select(valuation.c.index_id).where(valuation.c.output_id == output_id)
    return conn.execute(query.order_by(valuation.c.score_book_id.desc()).limit(1)).scalar()


def valuing_policy(conn: Connection, output_id: int) -> str | None:
    """Return the policy (JSON) behind the last valuation of an output, or None."""
    query = (
        select(compute_run.c.policy_json)
        .join_from(valuation, score_book, score_book.c.id == valuation.c.score_book_id)
        .join(compute_run, compute_run.c.id == score_book.c.compute_run_id)
        .where(valuation.c.output_id == output_id)
    )
    return conn.execute(query.order_by(valuation.c.score_book_id.desc()).limit(1)).scalar()


def called(query: Select[Any], name: str) -> Select[Any]:
    """Restrict a query over outputs to one name; the id of an output in the own format may hold a colon."""
    source, _, external_id = name.partition(":")
    own = (output.c.source == OWN_SOURCE) & (output.c.external_id == name)
    other = (output.c.source == source) & (output.c.external_id == external_id)
    return query.where(own | other).order_by(own.desc()).limit(1)


def changed_outputs(conn: Connection, condition: ColumnElement[bool] | None = None) -> Iterator[int]:
    """Yield the ids of outputs with another content than their stored hash says, in order; of all, or of some.

    A purged output has no content: any text left in it is a change. Its other columns are sealed with its purge.
    """
    query = _stored().where(true() if condition is None else condition).order_by(output.c.id)
    for row in conn.execute(query, execution_options={"yield_per": 1000}):
        if row.purge_id is not None:
            if row.prompt or row.messages_json or row.completion or row.salt:
                yield row.id
            continue
        try:
            digest = content_sha256(_to_stored(row).output)
        except (KeyError, TypeError, ValueError):  # no moment, or no messages
            digest = ""
        if digest != row.content_sha256:
            yield row.id


def _stored() -> Select[tuple[object, ...]]:
    return select(output, model.c.name.label("model")).join_from(output, model)


def _to_stored(row: Row[tuple[object, ...]]) -> StoredOutput:
    context = json.loads(row.messages_json or "[]")
    more = context if isinstance(context, dict) else {"messages": context}
    item = LoggedOutput(
        source=row.source,
        external_id=row.external_id,
        occurred_at=utc_moment(row.occurred_at),
        model=row.model,
        completion=row.completion,
        prompt=row.prompt,
        messages=tuple(Message(*turn) for turn in more["messages"]),
        weight_micro=row.weight_micro,
        user=row.user_hmac or "",
        text=row.text_hmac or "",
        thoughts=more.get("thoughts", ""),
        template=more.get("template", ""),
        prompt_ids=tuple(more.get("prompt_ids", ())),
        completion_ids=tuple(more.get("completion_ids", ())),
        salt=row.salt or "",
    )
    return StoredOutput(row.id, item, row.purge_id is not None)


def is_unvalued() -> ColumnElement[bool]:
    """Return the condition for an output taken out as unvalued and not restored."""
    newest = (
        select(unvalued.c.action)
        .where(unvalued.c.output_id == output.c.id)
        .order_by(unvalued.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    return func.coalesce(newest, "restored") == "unvalued"


def _pending() -> ColumnElement[bool]:
    return and_(~exists().where(valuation.c.output_id == output.c.id), ~is_unvalued())


def _waiting(query: Select[Any], since: str | None, through: str | None, weighty: bool) -> Select[Any]:
    query = query.where(_pending())
    if since is not None:
        query = query.where(output.c.occurred_at >= month_bounds(since)[0])
    if through is not None:
        query = query.where(output.c.occurred_at < month_bounds(through)[1])
    return query.where(output.c.weight_micro > 0) if weighty else query
