"""Models, the attribution indexes registered under their names, and the certificates and reviews of these."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Select, Table, func, select

from credit.errors import IntegrityError, LedgerError
from credit.ledger.database import serialise_writers
from credit.ledger.rows import read_row
from credit.ledger.schema import attribution_index, certificate, index_location, model, review
from credit.ledger.seals import add_rows
from credit.ledger.sql import next_id
from credit.ledger.values import utc_text
from credit.records import MANIFEST

CertificateKind = Literal["retraining", "quick"]
ReviewKind = Literal["overlap", "membership"]


@dataclass(frozen=True, slots=True)
class RegisteredIndex:
    """A registered attribution index; `path` is its last registered place."""

    id: int
    model: str
    fingerprint: str
    path: str
    manifest_json: str
    registered_at: datetime


def register_index(
    conn: Connection, model_name: str, fingerprint: str, path: str, manifest_json: str, now: datetime
) -> RegisteredIndex:
    """Register an attribution index under its model's name in logs; the same call again changes nothing.

    The fingerprint identifies an index. A new path is added and holds from then on. So is the old path when another
    index took it in between: an index that was changed and changed back is the newest again.

    Raises:
        LedgerError: the index has another model name.
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
    # A new place, or a place that another index had since: both make this index the newest.
    if _last(conn, index_location.c.path, index_location.c.index_id == number) != path or (
        _last(conn, index_location.c.index_id, index_location.c.path == path) != number
    ):
        place = {"id": next_id(conn, index_location), "index_id": number, "path": path, "registered_at": moment}
        add_rows(conn, index_location, [place])
    return next(item for item in indexes(conn) if item.id == number)


def indexes(conn: Connection) -> list[RegisteredIndex]:
    """Return every registered index, in the order of their last new places."""
    newest = select(func.max(index_location.c.id)).group_by(index_location.c.index_id)
    index = attribution_index.c
    query = (
        select(index.id, index.fingerprint, index.manifest_json, index.registered_at)
        .add_columns(model.c.name.label("model"), index_location.c.path)
        .join_from(attribution_index, model)
        .join(index_location, index_location.c.index_id == index.id)
        .where(index_location.c.id.in_(newest))
    )
    return [read_row(RegisteredIndex, row) for row in conn.execute(query.order_by(index_location.c.id))]


def indexes_in_place(conn: Connection) -> list[RegisteredIndex]:
    """Return the registered indexes in their last known places, without removed and replaced ones."""
    last = {item.path: item for item in indexes(conn)}  # in the order of registration: a later one replaced the earlier
    return [item for path, item in last.items() if (Path(path) / MANIFEST).is_file()]


def manifest_fault(item: RegisteredIndex) -> str | None:
    """Return in words how the manifest in an index's folder differs from the registered one; None if it does not."""
    if (Path(item.path) / MANIFEST).read_bytes() == item.manifest_json.encode():
        return None
    return f"is not the registered manifest of {item.model} ({item.fingerprint[:12]}...)"


def refuse_altered_manifests(conn: Connection, fingerprints: Collection[str]) -> None:
    """Refuse indexes with altered manifests; an index that is gone is passed over.

    Raises:
        IntegrityError: a manifest was altered; nobody should be paid by it.
    """
    for item in indexes_in_place(conn):
        fault = manifest_fault(item) if item.fingerprint in fingerprints else None
        if fault is not None:
            place = Path(item.path) / MANIFEST
            raise IntegrityError(f"{place}: {fault}; nobody is paid by an altered index: find out who changed it")


def models(conn: Connection) -> dict[str, int]:
    """Return the ids of all models with an index, by their names in logs."""
    return {name: number for name, number in conn.execute(select(model.c.name, model.c.id).order_by(model.c.name))}


def model_id(conn: Connection, name: str) -> int:
    """Return a model's id; LedgerError when the name has no index."""
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
    """Return a column of the last place under a condition."""
    return conn.execute(select(column).where(where).order_by(index_location.c.id.desc()).limit(1)).scalar()


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
    digest = _add_text(conn, certificate, index_fingerprint, kind, body_json, now)
    return next(item for item in certificates(conn) if item.sha256 == digest)


def certificates(conn: Connection) -> list[RegisteredCertificate]:
    """Return every certificate in the order of registration."""
    return [read_row(RegisteredCertificate, row) for row in conn.execute(_with_index(certificate))]


@dataclass(frozen=True, slots=True)
class RegisteredReview:
    """A registered review of an index's data; `body_json` is a `credit.fidelity.reviews.IndexReview`."""

    id: int
    index_fingerprint: str
    kind: ReviewKind
    sha256: str
    body_json: str
    registered_at: datetime


def register_review(
    conn: Connection, index_fingerprint: str, kind: ReviewKind, body_json: str, now: datetime
) -> RegisteredReview:
    """Register the review of an index; the same text again returns the first registration.

    Raises:
        LedgerError: the ledger does not know the index.
    """
    digest = _add_text(conn, review, index_fingerprint, kind, body_json, now)
    return next(item for item in reviews(conn) if item.sha256 == digest)


def reviews(conn: Connection) -> list[RegisteredReview]:
    """Return every review in the order of registration."""
    return [read_row(RegisteredReview, row) for row in conn.execute(_with_index(review))]


def _with_index(table: Table) -> Select[Any]:
    """Return the query for the texts about indexes in a table, each with the fingerprint of its index."""
    query = select(table, attribution_index.c.fingerprint.label("index_fingerprint"))
    return query.join_from(table, attribution_index).order_by(table.c.id)


def _add_text(conn: Connection, table: Table, index_fingerprint: str, kind: str, body_json: str, now: datetime) -> str:
    """Add a text about an index unless the table has it; return its SHA-256."""
    serialise_writers(conn)
    query = select(attribution_index.c.id).where(attribution_index.c.fingerprint == index_fingerprint)
    index_id = conn.execute(query).scalar()
    if index_id is None:
        raise LedgerError(
            f"the ledger does not know the index {index_fingerprint[:16]}; register it: credit compute --index DIR"
        )
    digest = hashlib.sha256(body_json.encode()).hexdigest()
    if conn.execute(select(table.c.id).where(table.c.sha256 == digest)).scalar() is None:
        row = {"id": next_id(conn, table), "index_id": index_id, "kind": kind, "sha256": digest}
        add_rows(conn, table, [{**row, "body_json": body_json, "registered_at": utc_text(now)}])
    return digest
