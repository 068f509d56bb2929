"""Statements and their issuer.

A statement is the exact text for a provider and a period, in numbered versions, each with its hash. The issuer is the
name, address and legal text on them, in versions too; each counts until the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from sqlalchemy import Connection, and_, func, select

from credit.errors import IntegrityError, LedgerError
from credit.ledger.clock import after_closes
from credit.ledger.database import serialise_writers
from credit.ledger.personal_data import keep_erasable
from credit.ledger.providers import provider_id
from credit.ledger.rows import PROVIDER, add_records, read_row
from credit.ledger.schema import issuer, provider, statement
from credit.ledger.seals import add_rows
from credit.ledger.sql import next_id
from credit.ledger.values import is_storable, utc_moment, utc_text

STATEMENTS_AT_ONCE = 500
"""Statements written at a time: bounds memory."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A version of a provider's statement for a period: the exact text, and its SHA-256."""

    period: str
    provider: str
    version: int
    sha256: str
    body_json: str
    created_at: datetime


def add_statements(conn: Connection, name: str, told: Iterable[tuple[str, str]], *, now: datetime) -> list[int]:
    """Record the next version of some providers' statements, each a pair of the provider's key and the text.

    Returns:
        The version of each; the last text again is the last version.

    Raises:
        LedgerError: a provider is unknown.
    """
    serialise_writers(conn)
    found: list[int] = []
    items = iter(told)
    while some := dict(islice(items, STATEMENTS_AT_ONCE)):
        found += _add_some(conn, name, some, utc_text(now))
    return found


def _add_some(conn: Connection, name: str, told: Mapping[str, str], moment: str) -> list[int]:
    owners, last = _owners(conn, name, list(told))
    first = next_id(conn, statement)
    versions: list[int] = []
    rows: list[dict[str, object]] = []
    for key, body_json in told.items():
        digest = hashlib.sha256(body_json.encode()).hexdigest()
        version, known = last.get(key, (0, ""))
        # The same text again is the same version: a close that runs again changes no statement.
        if known != digest:
            version += 1
            row = {"id": first + len(rows), "period_id": name, "provider_id": owners[key], "version": version}
            rows.append({**row, "sha256": digest, "body_json": body_json, "created_at": moment})
        versions.append(version)
    add_rows(conn, statement, rows)
    return versions


def _owners(conn: Connection, name: str, keys: list[str]) -> tuple[dict[str, int], dict[str, tuple[int, str]]]:
    """Return the ids of some providers, and version and hash of their last statements."""
    of_period = (statement.c.provider_id == provider.c.id) & (statement.c.period_id == name)
    rows = conn.execute(
        select(provider.c.key, provider.c.id, statement.c.version, statement.c.sha256)
        .outerjoin_from(provider, statement, of_period)
        .where(provider.c.key.in_(keys))
        .order_by(statement.c.version)
    ).all()
    owners = {row.key: row.id for row in rows}
    for key in keys:
        if key not in owners:
            provider_id(conn, key)  # which says that there is none
    return owners, {row.key: (row.version, row.sha256) for row in rows if row.version is not None}


def statements(conn: Connection, name: str) -> list[Statement]:
    """Return every version of every statement of a period, by provider's key and version."""
    query = select(statement, PROVIDER).join_from(statement, provider).where(statement.c.period_id == name)
    rows = conn.execute(query.order_by(provider.c.key, statement.c.version))
    return [read_row(Statement, row) for row in rows]


def earlier_statements(conn: Connection, name: str) -> Iterator[Statement]:
    """Yield the last version of each statement of the period before, and of earlier ones of the same calendar year.

    They come by period.

    Raises:
        IntegrityError: a statement does not have its stored SHA-256.
    """
    last = select(func.max(statement.c.period_id)).where(statement.c.period_id < name).scalar_subquery()
    of_year = (statement.c.period_id >= f"{name[:4]}-01") & (statement.c.period_id < name)
    newest = (
        select(statement.c.period_id, statement.c.provider_id, func.max(statement.c.version).label("version"))
        .where(of_year | (statement.c.period_id == last))
        .group_by(statement.c.period_id, statement.c.provider_id)
        .subquery()
    )
    same = [statement.c[column] == newest.c[column] for column in ("period_id", "provider_id", "version")]
    query = select(statement, PROVIDER).join_from(statement, newest, and_(*same)).join(provider)
    ordered = query.order_by(statement.c.period_id, statement.c.provider_id)
    with conn.execute(ordered, execution_options={"yield_per": STATEMENTS_AT_ONCE}) as rows:
        for row in rows:
            item = read_row(Statement, row)
            refuse_altered(item)
            yield item


def refuse_altered(item: Statement) -> None:
    """Raise IntegrityError for a statement that does not have its stored SHA-256."""
    if hashlib.sha256(item.body_json.encode()).hexdigest() != item.sha256:
        where = f"statement {item.version} of {item.provider} for {item.period}"
        raise IntegrityError(f"{where} is not what was stored; run credit verify")


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
            raise LedgerError(f"the issuer of statements needs a name and an address: the {what} is empty")
    if not is_storable(item.name + item.address + item.legal):
        raise LedgerError("name, address or legal text holds a character that a database cannot keep")
    serialise_writers(conn)
    last = issuers(conn)[-1:]
    if last and last[0].issuer == item:
        return last[0]
    keep_erasable(conn, f"{item.name}\n{item.address}\n{item.legal}", "the issuer")
    version, moment = next_id(conn, issuer), utc_text(after_closes(conn, now))
    add_records(conn, issuer, [item], created_at=moment)
    return IssuerVersion(version, item, utc_moment(moment))


def issuers(conn: Connection) -> list[IssuerVersion]:
    """Return every version of the issuer, in order."""
    query = select(issuer, issuer.c.id.label("version")).order_by(issuer.c.id)
    return [read_row(IssuerVersion, row) for row in conn.execute(query)]
