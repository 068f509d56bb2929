"""Who can be credited, and which models and attribution indexes there are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, select, update

from credit.errors import LedgerError
from credit.ledger.schema import account, attribution_index, index_location, model, next_id, provider
from credit.ledger.seals import add_rows, seal_row
from credit.ledger.values import is_storable, utc_moment, utc_text
from credit.records import HOUSE, Provider, is_provider_key

Change = Literal["added", "changed", "unchanged"]

_AT_ONCE = 500
"""Providers looked up and written at a time."""


@dataclass(frozen=True, slots=True)
class RegisteredIndex:
    """An attribution index that the ledger knows; `path` is where it was registered last."""

    id: int
    model: str
    fingerprint: str
    path: str
    manifest_json: str
    registered_at: datetime


def add_provider(conn: Connection, item: Provider, now: datetime) -> Change:
    """Add a provider, or rename it when its key is known.

    Raises:
        LedgerError: the key is none, or the kind differs and the provider has been credited.
    """
    return import_providers(conn, [item], now)[item.key]


def import_providers(conn: Connection, items: Iterable[Provider], now: datetime) -> dict[str, Change]:
    """Add or rename many providers, all or none; return what happened to each key, last of all.

    Raises:
        LedgerError: a key is none, or a kind differs and the provider has been credited.
    """
    changes: dict[str, Change] = {}
    rest = iter(items)
    while some := list(islice(rest, _AT_ONCE)):
        keys = {_checked(item).key for item in some}
        rows = conn.execute(select(provider).where(provider.c.key.in_(keys)))
        known = {row.key: Provider(row.key, row.name, row.kind) for row in rows}
        # A key that comes again in the same batch finds what it was given before.
        fresh: dict[str, Provider] = {}
        for item in some:
            before = fresh.get(item.key) or known.get(item.key)
            if item.key not in known:
                fresh[item.key] = item
                changes[item.key] = "added" if before is None else "unchanged" if before == item else "changed"
            elif before == item:
                changes[item.key] = "unchanged"
            else:
                _change(conn, known[item.key], item)
                known[item.key], changes[item.key] = item, "changed"
        first, moment = next_id(conn, provider), utc_text(now)
        rows_of_new = [
            {"id": first + offset, "key": item.key, "name": item.name, "kind": item.kind, "created_at": moment}
            for offset, item in enumerate(fresh.values())
        ]
        add_rows(conn, provider, rows_of_new)
    return changes


def _checked(item: Provider) -> Provider:
    if not is_provider_key(item.key):
        raise LedgerError(f"{item.key!r} is not a provider's key; keys are [a-z0-9][a-z0-9_-]{{0,63}}")
    if item.key == HOUSE and item.kind != "house":
        raise LedgerError(f"{HOUSE!r} is the reserved key of the house; give the provider another key")
    if not is_storable(item.name):
        raise LedgerError(f"the name of {item.key} holds a character that a database cannot keep")
    return item


def _change(conn: Connection, before: Provider, item: Provider) -> None:
    number = provider_id(conn, item.key)
    if before.kind != item.kind and _credited(conn, number):
        raise LedgerError(
            f"provider {item.key} has been credited as kind {before.kind!r} and cannot become {item.kind!r};"
            " add a provider with another key"
        )
    conn.execute(update(provider).where(provider.c.id == number).values(name=item.name, kind=item.kind))
    seal_row(conn, provider, number)


def providers(conn: Connection) -> list[Provider]:
    """Return every provider, the house included, sorted by key."""
    rows = conn.execute(select(provider.c.key, provider.c.name, provider.c.kind).order_by(provider.c.key))
    return [Provider(key, name, kind) for key, name, kind in rows]


def provider_id(conn: Connection, key: str) -> int:
    """Return a provider's id; LedgerError when it is unknown."""
    found = conn.execute(select(provider.c.id).where(provider.c.key == key)).scalar()
    if found is None:
        raise LedgerError(f"unknown provider {key!r}; add it first: credit providers add {key} NAME")
    return int(found)


def register_index(
    conn: Connection, model_name: str, fingerprint: str, path: str, manifest_json: str, now: datetime
) -> RegisteredIndex:
    """Register an attribution index under the name that logs call its model; again does nothing.

    An index is its fingerprint. Its path is only where it lay when it was registered: registered from another
    path, or from one where another index lay since, the place is appended and holds from then on. So an index that was
    changed and changed back is the newest again.

    Raises:
        LedgerError: the index is registered for another model name.
    """
    found = conn.execute(
        select(attribution_index.c.id, model.c.name)
        .join_from(attribution_index, model)
        .where(attribution_index.c.fingerprint == fingerprint)
    ).one_or_none()
    if found is not None and found.name != model_name:
        raise LedgerError(
            f"the index at {path} is registered for the model {found.name!r} and cannot serve {model_name!r} too;"
            " build one with its own --name"
        )
    moment = utc_text(now)
    if found is None:
        number = next_id(conn, attribution_index)
        row = {"id": number, "model_id": _ensure_model(conn, model_name), "fingerprint": fingerprint}
        add_rows(conn, attribution_index, [{**row, "manifest_json": manifest_json, "registered_at": moment}])
    else:
        number = found.id
    if _last(conn, index_location.c.path, index_location.c.index_id == number) != path or (
        _last(conn, index_location.c.index_id, index_location.c.path == path) != number
    ):
        place = {"id": next_id(conn, index_location), "index_id": number, "path": path, "registered_at": moment}
        add_rows(conn, index_location, [place])
    return next(item for item in indexes(conn) if item.id == number)


def indexes(conn: Connection) -> list[RegisteredIndex]:
    """Return every registered index, in the order in which each was last found in a new place."""
    query = select(attribution_index, model.c.name.label("model")).join_from(attribution_index, model)
    rows = {row.id: row for row in conn.execute(query)}
    order = select(index_location.c.index_id, index_location.c.path).order_by(index_location.c.id)
    places: dict[int, str] = {}
    for number, path in conn.execute(order):
        places.pop(number, None)
        places[number] = path
    return [
        RegisteredIndex(number, row.model, row.fingerprint, path, row.manifest_json, utc_moment(row.registered_at))
        for number, path in places.items()
        for row in [rows[number]]
    ]


def models(conn: Connection) -> dict[str, int]:
    """Return the id of every model that has an index, by the name that logs call it."""
    return {name: number for name, number in conn.execute(select(model.c.name, model.c.id).order_by(model.c.name))}


def model_id(conn: Connection, name: str) -> int:
    """Return a model's id; LedgerError when no index is registered under the name."""
    found = conn.execute(select(model.c.id).where(model.c.name == name)).scalar()
    if found is None:
        raise LedgerError(f"unknown model {name!r}; index it first: credit index MODEL DATA --out DIR --name {name}")
    return int(found)


def _ensure_model(conn: Connection, name: str) -> int:
    found = conn.execute(select(model.c.id).where(model.c.name == name)).scalar()
    if found is not None:
        return int(found)
    number = next_id(conn, model)
    add_rows(conn, model, [{"id": number, "name": name}])
    return number


def _last(conn: Connection, column: ColumnElement[Any], where: ColumnElement[bool]) -> Any:
    """Return a column of the last place of an index that meets a condition."""
    return conn.execute(select(column).where(where).order_by(index_location.c.id.desc()).limit(1)).scalar()


def _credited(conn: Connection, number: int) -> bool:
    return conn.execute(select(account.c.id).where(account.c.provider_id == number).limit(1)).scalar() is not None
