"""The issuer of statements: name, address and legal text, in versions; each counts until the next."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from credit.errors import LedgerError
from credit.ledger.clock import after_closes
from credit.ledger.database import serialise_writers
from credit.ledger.personal_data import keep_erasable
from credit.ledger.schema import issuer, next_id
from credit.ledger.seals import add_rows
from credit.ledger.values import is_storable, utc_moment, utc_text


@dataclass(frozen=True, slots=True)
class Issuer:
    """The issuer of statements; newlines separate the lines of `address`, and `legal` may be empty."""

    name: str
    address: str
    legal: str


@dataclass(frozen=True, slots=True)
class IssuerVersion:
    """A version of the issuer, with the moment from which statements name it."""

    version: int
    issuer: Issuer
    created_at: datetime


def set_issuer(conn: Connection, item: Issuer, *, now: datetime) -> IssuerVersion:
    """Name an issuer in all statements written from now on; the present issuer again changes nothing.

    Raises:
        LedgerError: name or address is missing, or a database cannot keep a text.
    """
    for what, text in (("name", item.name), ("address", item.address)):
        if not text.strip():
            raise LedgerError(f"who issues statements needs a name and an address: the {what} is empty")
    if not is_storable(item.name + item.address + item.legal):
        raise LedgerError("name, address or legal text holds a character that a database cannot keep")
    serialise_writers(conn)
    last = issuers(conn)[-1:]
    if last and last[0].issuer == item:
        return last[0]
    keep_erasable(conn, f"{item.name}\n{item.address}\n{item.legal}", "the issuer")
    version, moment = next_id(conn, issuer), utc_text(after_closes(conn, now))
    row = {"id": version, "name": item.name, "address": item.address, "legal": item.legal, "created_at": moment}
    add_rows(conn, issuer, [row])
    return IssuerVersion(version, item, utc_moment(moment))


def issuers(conn: Connection) -> list[IssuerVersion]:
    """Return every version of the issuer, in order."""
    return [
        IssuerVersion(row.id, Issuer(row.name, row.address, row.legal), utc_moment(row.created_at))
        for row in conn.execute(select(issuer).order_by(issuer.c.id))
    ]
