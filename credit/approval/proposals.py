"""Two pairs of eyes: an action is done at once, or one person proposes it and another approves.

A proposal holds a digest of all effects of the action at that moment. `give` computes it again, in the
transaction that does the action. Where something else would happen now, it refuses and names it. So a process that is
killed has done the action with its approval, or neither; of two people who approve at once, one does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from credit.approval.actions import ACTIONS, Action, Effect, Session, SetDetails
from credit.errors import CreditError, InvalidRequestError, LedgerError
from credit.ledger.approvals import (
    Approval,
    PersonalArguments,
    Proposal,
    add_proposal,
    check_second_person,
    decide,
    find_proposal,
    known_salt,
    next_row,
    personal_arguments,
    previewing,
    record_rule,
    required_actions,
)
from credit.ledger.database import Ledger
from credit.ledger.guards import SWITCH_OFF
from credit.ledger.journal import chain_head
from credit.ledger.seals import seal_head
from credit.storage import canonical_json

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class ProposalView:
    """A proposal as its approver sees it.

    Attributes:
        proposal: the proposal.
        decision: the decision on it; None while it waits.
        now: what it would do now, in lines; empty once it is decided.
        changed: why it cannot be approved as it was proposed; empty where it can, or is decided.
        personal: the personal data that it would record.
    """

    proposal: Proposal
    decision: Approval | None
    now: tuple[str, ...] = ()
    changed: str = ""
    personal: Mapping[str, str] | None = None


def perform(
    ledger: Ledger, action: Action[R], *, books: Path | None = None, now: datetime | None = None
) -> Effect[R] | Proposal:
    """Do an action; where it needs an approval, record and return a proposal.

    An action that would change nothing is answered as ever, without a proposal. The same proposal again is returned
    while it waits.

    Raises:
        CreditError: the action is refused; nothing was done, or proposed.
    """
    with ledger.write(sorting=True) as conn:
        session = Session(conn, books, now or datetime.now(UTC))
        if action.name not in required_actions(conn):
            return action.do(session)
        before = chain_head(conn), seal_head(conn)
        with previewing(conn, session.now):
            effect = action.do(session)
            after = chain_head(conn), seal_head(conn)
        return effect if after == before else _propose(session, action, effect)


def _propose(session: Session, action: Action[R], effect: Effect[R]) -> Proposal:
    told = action.personal()
    personal = (
        None
        if told is None
        else PersonalArguments(*told, known_salt(session.conn, action.name, action.arguments(), told[1]))
    )
    return add_proposal(
        session.conn,
        action.name,
        action.arguments(),
        summary=effect.lines,
        facts_sha256=_digest(effect, personal.salt if personal else ""),
        row_count=1,
        personal=personal,
        now=session.now,
    )


def give(ledger: Ledger, number: int, *, books: Path | None = None, now: datetime | None = None) -> Effect[Any] | None:
    """Approve a proposal and do its action, in one transaction; None if this actor has done so before.

    Raises:
        LedgerError: the actor proposed it, it is decided already, or something else would happen now.
    """
    with ledger.write(sorting=True) as conn:
        session = Session(conn, books, now or datetime.now(UTC))
        item, decision = find_proposal(conn, number)
        if decision is not None:
            if (decision.decision, decision.decided_by) == ("given", ledger.actor):
                return None
            raise LedgerError(f"proposal {number} was {decision.decision} by {decision.decided_by} before")
        check_second_person(conn, item)
        action, salt, changed = _again(session, item)
        if changed:
            raise LedgerError(f"{changed}; propose it again, and refuse this one: credit approve refuse {number}")
        decide(conn, item, "given", first_row=next_row(conn, item.action, action.arguments()), now=session.now)
        effect = action.do(session)
        if _digest(effect, salt) != item.facts_sha256:
            raise LedgerError(f"proposal {number} differs from its preview, so nothing was done; propose it again")
        return effect


def refuse(ledger: Ledger, number: int, *, reason: str, now: datetime | None = None) -> None:
    """Refuse a proposal, or withdraw one's own; it can never be approved then.

    Raises:
        LedgerError: it is decided already, or the reason is missing.
    """
    if not reason.strip():
        raise LedgerError(f"refusing proposal {number} needs a reason: --reason")
    with ledger.write() as conn:
        item, decision = find_proposal(conn, number)
        if decision is not None:
            if decision.decision == "refused":
                return
            raise LedgerError(f"proposal {number} was given by {decision.decided_by} before")
        decide(conn, item, "refused", reason=reason, now=now or datetime.now(UTC))


def view(ledger: Ledger, number: int, *, books: Path | None = None, now: datetime | None = None) -> ProposalView:
    """Return a proposal, and what it would do now; nothing of it stays."""
    with ledger.write(sorting=True) as conn:
        item, decision = find_proposal(conn, number)
        if decision is not None:
            return ProposalView(item, decision)
        session = Session(conn, books, now or datetime.now(UTC))
        try:
            action, _, changed = _again(session, item)
        except CreditError as error:
            return ProposalView(item, None, (), str(error))
        told = action.personal()
        return ProposalView(item, None, tuple(item.summary.splitlines()), changed, told[1] if told else None)


def require(ledger: Ledger, names: frozenset[str], *, now: datetime | None = None) -> frozenset[str]:
    """Let actions need an approval from now on; return those that did not before.

    Raises:
        InvalidRequestError: an action has no such name.
    """
    unknown = sorted(names - set(ACTIONS) | (names & {SWITCH_OFF}))
    if unknown:
        known = ", ".join(name for name in ACTIONS if name != SWITCH_OFF)
        raise InvalidRequestError(f"{unknown[0]!r} is no action; actions are {known}")
    with ledger.write() as conn:
        fresh = names - required_actions(conn)
        for name in sorted(fresh):
            record_rule(conn, name, required=True, now=now or datetime.now(UTC))
    return fresh


def _again(session: Session, item: Proposal) -> tuple[Action[Any], str, str]:
    """Return the action of a proposal, its salt, and in words its new effects since it was proposed."""
    personal: Mapping[str, str] = {}
    salt = ""
    if item.action == SetDetails.name:
        personal, salt = personal_arguments(session.conn, item)
    action = ACTIONS[item.action].read(json.loads(item.arguments_json), personal)
    try:
        with previewing(session.conn, session.now):
            effect = action.do(session)
    except CreditError as error:
        raise type(error)(f"proposal {item.id} cannot be done any more: {error}") from error
    if _digest(effect, salt) == item.facts_sha256:
        return action, salt, ""
    before, after = set(item.summary.splitlines()), set(effect.lines)
    said = [f"not any more: {line}" for line in sorted(before - after)]
    said += [f"now: {line}" for line in sorted(after - before)]
    return action, salt, f"proposal {item.id} would do something else now ({'; '.join(said) or 'its details differ'})"


def _digest(effect: Effect[Any], salt: str) -> str:
    return hashlib.sha256(canonical_json(["credit.proposal.1", salt, effect.facts]).encode()).hexdigest()
