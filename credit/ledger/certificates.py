"""Certificates: the exact text of each validation of an index, with its hash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, select

from credit.errors import LedgerError
from credit.ledger.database import serialise_writers
from credit.ledger.rows import read_row
from credit.ledger.schema import attribution_index, certificate, next_id
from credit.ledger.seals import add_rows
from credit.ledger.values import utc_moment, utc_text

CertificateKind = Literal["retraining", "quick"]


@dataclass(frozen=True, slots=True)
class RegisteredCertificate:
    """A registered certificate of an index."""

    id: int
    index_fingerprint: str
    kind: CertificateKind
    sha256: str
    body_json: str
    registered_at: datetime


def register_certificate(
    conn: Connection, index_fingerprint: str, kind: CertificateKind, body_json: str, now: datetime
) -> RegisteredCertificate:
    """Register the certificate of an index; the same text again returns the first registration.

    Raises:
        LedgerError: the ledger does not know the index.
    """
    serialise_writers(conn)
    query = select(attribution_index.c.id).where(attribution_index.c.fingerprint == index_fingerprint)
    index_id = conn.execute(query).scalar()
    if index_id is None:
        raise LedgerError(
            f"the ledger does not know the index {index_fingerprint[:16]}; register it: credit compute --index DIR"
        )
    digest = hashlib.sha256(body_json.encode()).hexdigest()
    found = next((item for item in certificates(conn) if item.sha256 == digest), None)
    if found is not None:
        return found
    number = next_id(conn, certificate)
    row = {"id": number, "index_id": index_id, "kind": kind, "sha256": digest, "body_json": body_json}
    add_rows(conn, certificate, [{**row, "registered_at": utc_text(now)}])
    return RegisteredCertificate(number, index_fingerprint, kind, digest, body_json, utc_moment(utc_text(now)))


def certificates(conn: Connection) -> list[RegisteredCertificate]:
    """Return every certificate in the order of registration."""
    rows = conn.execute(
        select(certificate, attribution_index.c.fingerprint.label("index_fingerprint"))
        .join_from(certificate, attribution_index)
        .order_by(certificate.c.id)
    )
    return [read_row(RegisteredCertificate, row) for row in rows]
