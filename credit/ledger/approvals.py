"""Approvals: the actions of two people, waiting proposals, and the decisions on them.

A proposal holds the arguments of an action and a digest of all its effects. Another person approves it: the
ledger then does the action in the same transaction, or nothing. The database refuses an action without the approval it
needs (`guards`), an approval by the proposer, and on PostgreSQL one by the proposer's database role.

Whoever is alone can switch a requirement on, and not off: taking it back is itself an action that needs an approval.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Select, func, insert, select, text

from credit.errors import LedgerError
from credit.ledger.actor import actor_of
from credit.ledger.clock import recorded_moment
from credit.ledger.database import serialise_writers
from credit.ledger.guards import BY_ACTION, SWITCH_OFF
from credit.ledger.journal import chain_head
from credit.ledger.personal_data import keep_erasable
from credit.ledger.providers import provider_id
from credit.ledger.rows import add_records, read_row
from credit.ledger.schema import approval, approval_rule, ledger_txn, metadata, period, proposal, proposal_details
from credit.ledger.seals import row_number
from credit.ledger.sql import next_id
from credit.ledger.values import utc_text
from credit.storage import canonical_json

Decision = Literal["given", "refused"]


@dataclass(frozen=True, slots=True)
class ApprovalRule:
    """A requirement, from a transaction on: an action needs an approval, or needs none any more."""

    id: int
    action: str
    required: bool
    after_txn: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Proposal:
    """An action that somebody wants done.

    Attributes:
        id: its number.
        action: its name, as in `credit.ledger.guards`.
        arguments_json: the arguments, as canonical JSON; personal data stand apart, where they can be erased.
        summary: what it would do, in words for people.
        facts_sha256: digest of all its effects.
        row_count: the rows it would add to its table.
        proposed_by: the actor.
        role: the database role on PostgreSQL; None on SQLite.
        created_at: when.
    """

    id: int
    action: str
    arguments_json: str
    summary: str
    facts_sha256: str
    row_count: int
    proposed_by: str
    role: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Approval:
    """A decision on a proposal; `first_row` to `last_row` are the rows that an approval let in."""

    id: int
    proposal_id: int
    decision: Decision
    action: str
    first_row: int
    last_row: int
    after_txn: int
    decided_by: str
    role: str | None
    reason: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class PersonalArguments:
    """Personal data in the arguments of a proposal, and the salt of its digest; both go with an erasure."""

    provider: str
    values: Mapping[str, str]
    salt: str


def required_actions(conn: Connection) -> frozenset[str]:
    """Return the actions that need an approval now."""
    last = {row.action: row.required for row in conn.execute(select(approval_rule).order_by(approval_rule.c.id))}
    return frozenset({SWITCH_OFF, *(action for action, required in last.items() if required)})


def record_rule(conn: Connection, action: str, *, required: bool, now: datetime) -> None:
    """Record that an action needs an approval from now on, or none; the same again changes nothing.

    Raises:
        LedgerError: the database refuses to take a requirement back without an approval.
    """
    serialise_writers(conn)
    if (action in required_actions(conn)) != required:
        moment = recorded_moment(conn, now)
        rule = ApprovalRule(next_id(conn, approval_rule), action, required, chain_head(conn)[0], moment)
        add_records(conn, approval_rule, [rule])


@contextmanager
def previewing(conn: Connection, now: datetime) -> Iterator[None]:
    """Context that undoes its writes; in it, the database lets guarded actions go on.

    It rests on a row of `proposal` that can never be committed: see `schema.proposal`.
    """
    undone = conn.begin_nested()
    try:
        number = next_id(conn, proposal)
        row = {
            "id": number,
            "action": "preview",
            "arguments_json": "{}",
            "summary": "",
            "facts_sha256": "0" * 64,
            "row_count": 0,
            "proposed_by": "preview",
            "role": session_role(conn),
            "created_at": utc_text(now),
            "preview_of": number + 1,
        }
        conn.execute(insert(proposal), row)
        yield
    finally:
        undone.rollback()


def add_proposal(
    conn: Connection,
    action: str,
    arguments: Mapping[str, Any],
    *,
    summary: Sequence[str],
    facts_sha256: str,
    row_count: int,
    personal: PersonalArguments | None = None,
    now: datetime,
) -> Proposal:
    """Record a proposal; one with the same arguments and digest that waits already is returned instead.

    Raises:
        LedgerError: its arguments or its summary repeat personal data.
    """
    serialise_writers(conn)
    arguments_json = canonical_json(arguments)
    for known in waiting(conn):
        if (known.action, known.arguments_json, known.facts_sha256) == (action, arguments_json, facts_sha256):
            return known
    words = "\n".join(summary)
    keep_erasable(conn, arguments_json + words, "the proposal")
    item = Proposal(
        next_id(conn, proposal),
        action,
        arguments_json,
        words,
        facts_sha256,
        row_count,
        str(actor_of(conn)),
        session_role(conn),
        recorded_moment(conn, now),
    )
    owner = None if personal is None else provider_id(conn, personal.provider)
    add_records(conn, proposal, [item], provider_id=owner)
    if personal is not None:
        details = _PersonalRow(canonical_json(personal.values), personal.salt)
        add_records(conn, proposal_details, [details], id=item.id, provider_id=owner)
    return item


@dataclass(frozen=True, slots=True)
class _PersonalRow:
    body_json: str
    salt: str


def known_salt(conn: Connection, action: str, arguments: Mapping[str, Any], values: Mapping[str, str]) -> str:
    """Return the salt of the waiting proposal with the same personal data, or else a new one.

    Without it, the same proposal again would have another digest.
    """
    for item in waiting(conn):
        if (item.action, item.arguments_json) == (action, canonical_json(arguments)):
            row = conn.execute(select(proposal_details).where(proposal_details.c.id == item.id)).one_or_none()
            if row is not None and json.loads(row.body_json) == dict(values):
                return str(row.salt)
    return secrets.token_hex(32)


def personal_arguments(conn: Connection, item: Proposal) -> tuple[Mapping[str, str], str]:
    """Return the personal data of a proposal with their salt.

    Raises:
        LedgerError: they have been erased.
    """
    row = conn.execute(select(proposal_details).where(proposal_details.c.id == item.id)).one_or_none()
    if row is None:
        raise LedgerError(f"the details of proposal {item.id} were erased; refuse it: credit approve refuse {item.id}")
    return json.loads(row.body_json), row.salt


def proposals(conn: Connection) -> list[tuple[Proposal, Approval | None]]:
    """Return all proposals in order, each with the decision on it."""
    decided = {item.proposal_id: item for item in map(_approval, conn.execute(select(approval)))}
    found = [read_row(Proposal, row) for row in conn.execute(_proposals())]
    return [(item, decided.get(item.id)) for item in found]


def waiting(conn: Connection) -> list[Proposal]:
    """Return the proposals without a decision, in order."""
    return [item for item, decision in proposals(conn) if decision is None]


def find_proposal(conn: Connection, number: int) -> tuple[Proposal, Approval | None]:
    """Return a proposal with the decision on it; LedgerError if there is none of this number."""
    for item, decision in proposals(conn):
        if item.id == number:
            return item, decision
    raise LedgerError(f"there is no proposal {number}; list them: credit approve list")


def next_row(conn: Connection, action: str, arguments: Mapping[str, Any]) -> int:
    """Return the number of the first row an action would add to its table, or of the period it would close."""
    table = metadata.tables[BY_ACTION[action].table]
    if table is period:
        return row_number(arguments["period"])
    key = table.c.seq if table is ledger_txn else table.c.id
    return int(conn.execute(select(func.coalesce(func.max(key), 0))).scalar_one()) + 1


def decide(
    conn: Connection, item: Proposal, decision: Decision, *, first_row: int = 0, reason: str = "", now: datetime
) -> Approval:
    """Record the decision on a proposal; an approval comes before the action, in the same transaction.

    Raises:
        LedgerError: the proposal is decided already, or the database refuses an approval by the proposer.
    """
    serialise_writers(conn)
    if decision == "given":
        check_second_person(conn, item)
    keep_erasable(conn, reason, "the reason")
    made = Approval(
        next_id(conn, approval),
        item.id,
        decision,
        item.action,
        first_row,
        first_row + item.row_count - 1 if decision == "given" else 0,
        chain_head(conn)[0],
        str(actor_of(conn)),
        session_role(conn),
        reason,
        recorded_moment(conn, now),
    )
    add_records(conn, approval, [made])
    return made


def check_second_person(conn: Connection, item: Proposal) -> None:
    """Refuse the proposer as approver, by name or by database role; the database does so too.

    Raises:
        LedgerError: this connection's actor, or its role on PostgreSQL, made the proposal.
    """
    by, role = str(actor_of(conn)), session_role(conn)
    if by == item.proposed_by:
        raise LedgerError(
            f"{by} proposed {item.id} and cannot approve it; somebody else does:"
            f" credit --actor NAME approve give {item.id}"
        )
    if role is not None and role == item.role:
        raise LedgerError(
            f"proposal {item.id} was made under the database role {role}; whoever approves it connects under another"
            " one; credit roles prints such roles"
        )


def session_role(conn: Connection) -> str | None:
    """Return this session's login role on PostgreSQL; None on SQLite, which has no roles."""
    if conn.dialect.name == "sqlite":
        return None
    return str(conn.execute(text("SELECT session_user::text")).scalar_one())


def _approval(row: Any) -> Approval:
    return read_row(Approval, row)


def _proposals() -> Select[Any]:
    return select(proposal).where(proposal.c.preview_of.is_(None)).order_by(proposal.c.id)
