"""Holds on providers' money, each with its reason: people place and release them, and nothing erases them.

A hold covers all money owed to a provider, the money in one currency, or the earnings of one collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, select

from credit.errors import LedgerError
from credit.ledger import schema
from credit.ledger.accounts import AccountKind
from credit.ledger.clock import after_closes
from credit.ledger.database import serialise_writers
from credit.ledger.personal_data import keep_erasable
from credit.ledger.providers import provider_id
from credit.ledger.rows import PROVIDER, add_records, read_row
from credit.ledger.schema import account, provider
from credit.ledger.seals import last_actor
from credit.ledger.values import check_currency, is_storable, utc_text
from credit.records import HOUSE, Group

Scope = tuple[str, str | None, str | None]
"""The cover of a hold: a provider's key, and a currency, a collection or neither."""


@dataclass(frozen=True, slots=True)
class HoldEvent:
    """The placing or release of a hold; without currency and collection it covers all money of the provider.

    `actor` is who did it, once it is read from the ledger.
    """

    provider: str
    currency: str | None
    action: Literal["hold", "release"]
    reason: str
    created_at: datetime
    collection: str | None = None
    actor: str | None = field(default=None, compare=False)

    @property
    def scope(self) -> Scope:
        """The cover of the hold."""
        return self.provider, self.currency, self.collection


def place_hold(
    conn: Connection,
    provider_key: str,
    currency: str | None,
    reason: str,
    *,
    collection: str | None = None,
    now: datetime,
) -> HoldEvent:
    """Hold back the payouts of a provider, in a currency or (None) in all; again changes nothing.

    With a collection, the hold covers only its earnings from now on: each close puts them into an account of their own,
    and the first close after the release takes them out again.

    Raises:
        LedgerError: another reason holds it already, the reason is missing, or the collection has no credits.
    """
    return _record(conn, (provider_key, currency, collection), "hold", reason, now)


def release_hold(
    conn: Connection,
    provider_key: str,
    currency: str | None,
    reason: str,
    *,
    collection: str | None = None,
    now: datetime,
) -> HoldEvent:
    """Release a hold, named by its provider, currency and collection; again changes nothing.

    Raises:
        LedgerError: there is no such hold, or the reason is missing.
    """
    return _record(conn, (provider_key, currency, collection), "release", reason, now)


def hold_history(
    conn: Connection, provider_key: str | None = None, *, until: datetime | None = None
) -> list[HoldEvent]:
    """Return every hold and release, of one provider or of all, in order; `until` a moment."""
    query = select(schema.hold, PROVIDER, last_actor(schema.hold)).join_from(schema.hold, provider)
    if provider_key is not None:
        query = query.where(schema.hold.c.provider_id == provider_id(conn, provider_key))
    if until is not None:
        query = query.where(schema.hold.c.created_at <= utc_text(until))
    return [read_row(HoldEvent, row) for row in conn.execute(query.order_by(schema.hold.c.id))]


def holds(
    conn: Connection, provider_key: str | None = None, *, until: datetime | None = None
) -> dict[Scope, HoldEvent]:
    """Return the standing holds, of one provider or of all, by their cover; or those of a moment."""
    last = {item.scope: item for item in hold_history(conn, provider_key, until=until)}
    return {scope: item for scope, item in last.items() if item.action == "hold"}


def hold_on(standing: Mapping[Scope, HoldEvent], provider_key: str, currency: str) -> HoldEvent | None:
    """Return the hold on a provider's money in a currency, or None; a hold on all currencies comes first."""
    return standing.get((provider_key, None, None)) or standing.get((provider_key, currency, None))


def held_collections(conn: Connection, *, until: datetime | None = None) -> dict[Group, HoldEvent]:
    """Return the standing holds of collections, or those of a moment."""
    standing = holds(conn, until=until)
    return {Group(key, name): item for (key, _, name), item in standing.items() if name is not None}


def _record(
    conn: Connection, scope: Scope, action: Literal["hold", "release"], reason: str, now: datetime
) -> HoldEvent:
    provider_key, currency, collection = scope
    what = f"{provider_key} ({collection or currency or 'all currencies'})"
    if not reason.strip() or not is_storable(reason):
        raise LedgerError(f"the {action} of {what} needs a reason, in words that a database can keep")
    if currency is not None:
        check_currency(currency)
    if currency is not None and collection is not None:
        raise LedgerError(f"a collection is held in all currencies: {collection!r} cannot be held in {currency} alone")
    if provider_key == HOUSE:
        raise LedgerError(f"{HOUSE!r} is never paid, so there is nothing to hold")
    serialise_writers(conn)
    last = {item.scope: item for item in hold_history(conn, provider_key)}.get(scope)
    if last is not None and last.action == action:
        if action == "release" or last.reason == reason:
            return last
        raise LedgerError(f"{what} is on hold already: {last.reason}; release it first: credit hold release")
    if last is None and action == "release":
        raise LedgerError(f"{what} is not on hold; list the holds: credit hold list")
    if collection is not None:  # a misspelt name would hold nothing
        _check_credited(conn, Group(provider_key, collection))
    keep_erasable(conn, reason, "the reason")
    event = HoldEvent(provider_key, currency, action, reason, after_closes(conn, now), collection)
    add_records(conn, schema.hold, [event])
    return event


def _check_credited(conn: Connection, group: Group) -> None:
    """Refuse a collection without credits: a misspelt name would hold nothing."""
    known = select(account.c.collection).where(
        account.c.provider_id == provider_id(conn, group.provider), account.c.kind == AccountKind.EARNED
    )
    names = sorted(str(name) for name in conn.execute(known).scalars())
    if group.collection not in names:
        raise LedgerError(
            f"nothing was credited yet to a collection {group.collection!r} of {group.provider}, so that there is"
            f" nothing to hold; its collections with credits are: {', '.join(names) or 'none'}; outputs are credited by"
            " credit compute"
        )
