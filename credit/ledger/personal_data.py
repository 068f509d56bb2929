"""Personal data of providers: names, addresses and bank details, in the one table that can be erased.

Everything else in the ledger stays for ever, so personal data must not get into a memo, a reason, a reference or the
name of a file. Each change of the details is a new version. Older versions stay, because a payment file is made again
from its own version, until an erasure removes all of them at once. After it the ledger still tells that details were
set, and when and why they were erased. Each version's seal stays too; without the salt, which is erased, nobody can
match a guess with it.

The display name of a provider stands in statements, which never change, so it is not personal data in this sense.
Give a person a display name that may stay.
"""

from __future__ import annotations

import secrets
from dataclasses import astuple, dataclass, fields
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, delete, select

from credit.errors import LedgerError
from credit.ledger.database import serialise_writers
from credit.ledger.providers import provider_id
from credit.ledger.rows import PROVIDER, add_records, read_row
from credit.ledger.schema import payout, personal_event, proposal_details, provider, provider_pii
from credit.ledger.sql import next_id
from credit.ledger.values import is_storable

Receiver = Literal["", "person", "institution"]

_SHORTEST_SECRET = 4
"""Shorter values, such as a country or the number of a building, identify nobody in a text."""


_IDENTIFIERS = ("email", "iban", "paypal", "tax_id")
"""Details that identify one person and are no ordinary word."""


@dataclass(frozen=True, slots=True)
class Details:
    """The details for paying a provider; an empty text means unknown.

    Attributes:
        legal_name: of the person or institution.
        account_holder: the name as its bank has it, where that differs; Latin letters for SEPA.
        receiver: `person` or `institution`.
        email: where a payment service writes to.
        street: the name of the street.
        building: the number of the building.
        postcode: postal code.
        town: town.
        country: ISO 3166 code of two letters.
        iban: account, without spaces.
        bic: the bank, where the IBAN does not tell.
        paypal: email of the PayPal account.
        tax_id: as the tax office knows it.
    """

    legal_name: str = ""
    account_holder: str = ""
    receiver: Receiver = ""
    email: str = ""
    street: str = ""
    building: str = ""
    postcode: str = ""
    town: str = ""
    country: str = ""
    iban: str = ""
    bic: str = ""
    paypal: str = ""
    tax_id: str = ""

    def __repr__(self) -> str:
        """Name the known fields, never their values: a repr ends up in logs."""
        known = [item.name for item in fields(self) if getattr(self, item.name)]
        return f"Details({', '.join(known)})"

    @property
    def holder(self) -> str:
        """The name of the payee."""
        return self.account_holder or self.legal_name


@dataclass(frozen=True, slots=True)
class PersonalEvent:
    """A setting of a provider's details, or their erasure with its reason."""

    id: int
    provider: str
    action: Literal["set", "erased"]
    reason: str
    recorded_at: datetime


_FIELDS = tuple(item.name for item in fields(Details))


def set_details(conn: Connection, provider_key: str, details: Details, *, now: datetime) -> int:
    """Record a version of a provider's details and return its id; the last version again changes nothing.

    Raises:
        LedgerError: the provider is unknown or of kind house, or a database cannot keep a text.
    """
    serialise_writers(conn)
    owner = provider_id(conn, provider_key)
    kind = conn.execute(select(provider.c.kind).where(provider.c.id == owner)).scalar_one()
    if kind == "house":
        raise LedgerError(f"{provider_key} is of kind house and is not paid; it has no details")
    if not is_storable("".join(astuple(details))):
        raise LedgerError(f"the details of {provider_key} hold a character that a database cannot keep")
    last = current_details(conn, provider_key)
    if last is not None and last[1] == details:
        return last[0]
    number = next_id(conn, personal_event)
    add_records(conn, personal_event, [PersonalEvent(number, provider_key, "set", "", now)])
    # Fresh salt for each version: equal details must not have equal seals.
    add_records(conn, provider_pii, [details], id=number, provider_id=owner, salt=secrets.token_hex(32))
    return number


def current_details(conn: Connection, provider_key: str) -> tuple[int, Details] | None:
    """Return the last version of a provider's details with its id, or None when there are none."""
    query = (
        select(provider_pii)
        .join(provider, provider.c.id == provider_pii.c.provider_id)
        .where(provider.c.key == provider_key)
        .order_by(provider_pii.c.id.desc())
        .limit(1)
    )
    row = conn.execute(query).one_or_none()
    return None if row is None else (row.id, read_row(Details, row))


def details_version(conn: Connection, version: int) -> Details | None:
    """Return a version of a provider's details, or None after its erasure."""
    row = conn.execute(select(provider_pii).where(provider_pii.c.id == version)).one_or_none()
    return None if row is None else read_row(Details, row)


def erase_details(conn: Connection, provider_key: str, *, reason: str, now: datetime) -> int:
    """Erase all versions of a provider's details; return their number.

    The bytes are gone from the database file only after `Ledger.scrub`.

    Raises:
        LedgerError: the provider is unknown, the reason is missing or repeats personal data, or a payout of the
            provider is with a bank and not confirmed.
    """
    serialise_writers(conn)
    owner = provider_id(conn, provider_key)
    if not reason.strip() or not is_storable(reason):
        raise LedgerError(f"erasing the details of {provider_key} needs a reason; it stays on record")
    versions = list(conn.execute(select(provider_pii.c.id).where(provider_pii.c.provider_id == owner)).scalars())
    proposed = select(proposal_details.c.id).where(proposal_details.c.provider_id == owner)
    versions += conn.execute(proposed).scalars()
    if not versions:
        return 0
    leak = personal_field_in(conn, provider_key, reason)
    if leak is not None:
        raise LedgerError(f"the reason repeats the {leak}, and the reason stays; word it without")
    # The file of a payment under way can be made again only from these details.
    under_way = select(payout.c.id).where(payout.c.provider_id == owner, payout.c.status == "exported").limit(1)
    number = conn.execute(under_way).scalar()
    if number is not None:
        raise LedgerError(
            f"payout {number} of {provider_key} is with the bank; confirm it first: credit pay confirm FILE"
        )
    event = PersonalEvent(next_id(conn, personal_event), provider_key, "erased", reason, now)
    add_records(conn, personal_event, [event])
    for table in (provider_pii, proposal_details):
        conn.execute(delete(table).where(table.c.provider_id == owner))
    return len(versions)


def personal_field_in(conn: Connection, provider_key: str, text: str) -> str | None:
    """Return the name of a detail of the provider that `text` repeats, or None.

    Callers ask before they record a text that stays for ever.
    """
    plain = _plain(text)
    query = select(provider_pii).join(provider).where(provider.c.key == provider_key).order_by(provider_pii.c.id)
    for row in conn.execute(query):
        for name in _FIELDS:
            value = _plain(getattr(row, name))
            if name != "receiver" and len(value) >= _SHORTEST_SECRET and value in plain:
                return name.replace("_", " ")
    return None


def keep_erasable(conn: Connection, text: str, what: str) -> None:
    """Refuse a permanent text that repeats an IBAN, email, PayPal account or tax number of any provider.

    Raises:
        LedgerError: it does; the message names the field and the provider, never the value.
    """
    # Without spaces and case: an IBAN is often written in groups of four.
    plain = _plain(text)
    fields_of = [provider_pii.c[name] for name in _IDENTIFIERS]
    query = select(provider.c.key, *fields_of).join_from(provider_pii, provider).order_by(provider_pii.c.id)
    for key, *values in conn.execute(query):
        for name, value in zip(_IDENTIFIERS, map(_plain, values), strict=True):
            if len(value) >= _SHORTEST_SECRET and value in plain:
                raise LedgerError(
                    f"{what} holds the {name.replace('_', ' ')} of {key}; personal data must stay erasable, so word it"
                    " without"
                )


def personal_events(conn: Connection, provider_key: str) -> list[PersonalEvent]:
    """Return the settings and erasures of a provider's details, in order."""
    query = select(personal_event, PROVIDER).join_from(personal_event, provider)
    query = query.where(personal_event.c.provider_id == provider_id(conn, provider_key))
    return [read_row(PersonalEvent, row) for row in conn.execute(query.order_by(personal_event.c.id))]


def _plain(text: str) -> str:
    return "".join(text.split()).casefold()
