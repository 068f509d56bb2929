"""Checks of statements, certificates and reviews: each text has its hash, and what it names is still there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, select

from credit.ledger.indexes import RegisteredCertificate, RegisteredReview, certificates, reviews
from credit.ledger.journal import in_chain
from credit.ledger.schema import provider, statement
from credit.ledger.seals import has_seal
from credit.ledger.verify.report import Problem

_STREAM = {"yield_per": 100}


def check_statements(conn: Connection) -> Iterator[Problem]:
    """Yield each statement with a text of another hash, provider or period than its row says."""
    query = select(statement, provider.c.key).join_from(statement, provider).order_by(statement.c.id)
    for row in conn.execute(query, execution_options=_STREAM):
        if hashlib.sha256(row.body_json.encode()).hexdigest() != row.sha256:
            yield Problem(f"statement {row.id}", "its text does not have its stored hash")
            continue
        body = json.loads(row.body_json)
        if "provider" in body and (body["period"], body["provider"]["key"]) != (row.period_id, row.key):
            yield Problem(f"statement {row.id}", f"is filed under {row.key} and {row.period_id}; its text is not")


def check_certificates(conn: Connection) -> Iterator[Problem]:
    """Yield each altered certificate, and each statement made on a missing one."""
    yield from _check_texts(conn, "certificate", "checks", certificates(conn))


def check_reviews(conn: Connection) -> Iterator[Problem]:
    """Yield each altered review of an index's data, and each statement made on a missing one."""
    yield from _check_texts(conn, "review", "reviews", reviews(conn))


def _check_texts(
    conn: Connection, noun: str, named: str, items: Sequence[RegisteredCertificate] | Sequence[RegisteredReview]
) -> Iterator[Problem]:
    """Check texts about indexes, which statements list as `named` in their validation, each by its hash as `noun`."""
    known = set()
    for item in items:
        known.add(item.sha256)
        place = f"{noun} {item.id}"
        if hashlib.sha256(item.body_json.encode()).hexdigest() != item.sha256:
            yield Problem(place, "its text does not have its stored hash")
            continue
        body = json.loads(item.body_json)
        if (body.get("index"), body.get("kind")) != (item.index_fingerprint, item.kind):
            yield Problem(place, "is about another index, or of another kind, than its row says")
    for number, body in _readable_bodies(conn):
        gone = sorted(set(_named(body, named, noun)) - known)
        if gone:
            yield Problem(f"statement {number}", f"was made on {noun} {gone[0][:16]}, which is gone")


def check_heads(conn: Connection) -> Iterator[Problem]:
    """Yield each statement with a head missing from its chain: somebody cut the tail off."""
    for number, body in _readable_bodies(conn):
        for name, known in (("chain_head", in_chain), ("seal_head", has_seal)):
            head = body.get(name)
            # A statement made in an empty chain carries 64 zeros.
            if isinstance(head, str) and head.strip("0") and not known(conn, head):
                fault = f"was made at {name.replace('_', ' ')} {head[:16]}, which is gone: its chain's tail was cut off"
                yield Problem(f"statement {number}", fault)


def _readable_bodies(conn: Connection) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield id and content of each statement; pass over damaged texts, because their hashes tell."""
    query = select(statement.c.id, statement.c.body_json).order_by(statement.c.id)
    for number, text in conn.execute(query, execution_options=_STREAM):
        try:
            body = json.loads(text)
        except ValueError:
            continue
        if isinstance(body, dict):
            yield number, body


def _named(body: dict[str, Any], named: str, noun: str) -> Iterator[str]:
    """Yield the hashes of a statement's certificates or reviews; none from an old statement or a damaged list."""
    try:
        yield from [check[noun] for check in body["validation"][named] if check[noun]]
    except (KeyError, TypeError):
        return
