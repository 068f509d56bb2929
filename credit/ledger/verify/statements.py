"""Checks of statements and certificates: each text has its hash, and the things it names are still there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, select

from credit.ledger.indexes import certificates
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
    known = set()
    for item in certificates(conn):
        known.add(item.sha256)
        place = f"certificate {item.id}"
        if hashlib.sha256(item.body_json.encode()).hexdigest() != item.sha256:
            yield Problem(place, "its text does not have its stored hash")
            continue
        body = json.loads(item.body_json)
        if (body.get("index"), body.get("kind")) != (item.index_fingerprint, item.kind):
            yield Problem(place, "is about another index, or of another kind, than its row says")
    for number, body in _readable_bodies(conn):
        gone = sorted(set(_named_certificates(body)) - known)
        if gone:
            yield Problem(f"statement {number}", f"was made on certificate {gone[0][:16]}, which is gone")


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


def _named_certificates(body: dict[str, Any]) -> Iterator[str]:
    """Yield the hashes of a statement's certificates; none from a damaged list."""
    try:
        yield from [check["certificate"] for check in body["validation"]["checks"] if check["certificate"]]
    except (KeyError, TypeError):
        return
