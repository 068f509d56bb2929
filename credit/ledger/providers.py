"""Providers: the contributors of training data, by their keys, and the house."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from difflib import get_close_matches
from itertools import islice
from typing import Literal

from sqlalchemy import Connection, select, update

from credit.errors import LedgerError
from credit.ledger.schema import account, provider
from credit.ledger.seals import add_rows, seal_row
from credit.ledger.sql import next_id
from credit.ledger.values import is_storable, utc_text
from credit.records import HOUSE, Provider, is_provider_key
from credit.text import invisible_character

Change = Literal["added", "changed", "unchanged"]

_AT_ONCE = 500
"""Providers read and written at a time."""


def add_provider(conn: Connection, item: Provider, now: datetime) -> Change:
    """Add a provider, or rename the provider of this key.

    Raises:
        LedgerError: the key has the wrong form, or the kind of a provider with credits would change.
    """
    return import_providers(conn, [item], now)[item.key]


def import_providers(conn: Connection, items: Iterable[Provider], now: datetime) -> dict[str, Change]:
    """Add or rename many providers, all or none; return the last change of each key.

    Raises:
        LedgerError: a key has the wrong form, or the kind of a provider with credits would change.
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
    if found := invisible_character(item.name):
        raise LedgerError(f"the name of {item.key} holds the invisible character {found}; take it out")
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


def provider_ids(conn: Connection, keys: Iterable[str]) -> dict[str, int]:
    """Return the ids of providers by key; LedgerError if one of them is unknown."""
    found: dict[str, int] = {}
    rest = iter(sorted(set(keys)))
    while some := list(islice(rest, _AT_ONCE)):
        query = select(provider.c.key, provider.c.id).where(provider.c.key.in_(some))
        found |= {key: number for key, number in conn.execute(query)}
        for key in some:
            if key not in found:
                raise unknown_provider(conn, key)
    return found


def provider_id(conn: Connection, key: str) -> int:
    """Return a provider's id; LedgerError if it is unknown."""
    return provider_ids(conn, [key])[key]


def unknown_provider(conn: Connection, key: str) -> LedgerError:
    """Return the error for a key that no provider has; it names the keys most like it."""
    keys = conn.execute(select(provider.c.key)).scalars().all()
    near = get_close_matches(key.lower(), keys, n=3, cutoff=0.7)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return LedgerError(f"unknown provider {key!r}; {hint}add it first: credit providers add {key} NAME")


def _credited(conn: Connection, number: int) -> bool:
    return conn.execute(select(account.c.id).where(account.c.provider_id == number).limit(1)).scalar() is not None
