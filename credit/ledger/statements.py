"""What providers were told about a period: numbered versions of exact text, each with its hash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from credit.ledger.catalog import provider_id
from credit.ledger.engine import serialise_writers
from credit.ledger.schema import next_id, provider, statement
from credit.ledger.seals import add_rows
from credit.ledger.values import utc_moment, utc_text


@dataclass(frozen=True, slots=True)
class Statement:
    """What a provider was told about a period: the exact text, and its SHA-256."""

    period: str
    provider: str
    version: int
    sha256: str
    body_json: str
    created_at: datetime


def add_statement(conn: Connection, name: str, provider_key: str, body_json: str, *, now: datetime) -> Statement:
    """Record the next version of a provider's statement; the text of the last version again returns that one."""
    serialise_writers(conn)
    owner = provider_id(conn, provider_key)
    digest = hashlib.sha256(body_json.encode()).hexdigest()
    last = conn.execute(
        select(statement)
        .where(statement.c.period_id == name, statement.c.provider_id == owner)
        .order_by(statement.c.version.desc())
        .limit(1)
    ).one_or_none()
    if last is not None and last.sha256 == digest:
        return Statement(name, provider_key, last.version, digest, last.body_json, utc_moment(last.created_at))
    version = 1 if last is None else last.version + 1
    item = Statement(name, provider_key, version, digest, body_json, utc_moment(utc_text(now)))
    row = {"id": next_id(conn, statement), "period_id": name, "provider_id": owner, "version": item.version}
    add_rows(conn, statement, [{**row, "sha256": digest, "body_json": body_json, "created_at": utc_text(now)}])
    return item


def statements(conn: Connection, name: str) -> list[Statement]:
    """Return every version of every statement of a period, by provider's key and version."""
    rows = conn.execute(
        select(statement, provider.c.key)
        .join_from(statement, provider)
        .where(statement.c.period_id == name)
        .order_by(provider.c.key, statement.c.version)
    )
    return [
        Statement(row.period_id, row.key, row.version, row.sha256, row.body_json, utc_moment(row.created_at))
        for row in rows
    ]
