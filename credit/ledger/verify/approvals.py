"""Checks of approvals: every action that needed one has it, from another person and from before it happened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Table, func, literal_column, select, text

from credit.ledger.approvals import Approval, ApprovalRule, Proposal, proposals
from credit.ledger.guards import GUARDS, SWITCH_OFF, Guard
from credit.ledger.rows import read_row
from credit.ledger.schema import approval, approval_rule, ledger_txn, metadata, proposal, seal
from credit.ledger.seals import last_actor
from credit.ledger.verify.report import Problem


@dataclass(frozen=True, slots=True)
class _GuardedRow:
    """A row of a guarded table: `place` for people, its number, and its place in the order of its chain."""

    place: str
    number: int
    order: int


def check_decisions(conn: Connection) -> Iterator[Problem]:
    """Yield each approval by the proposer, of another action or of other rows, and each name that its seal denies."""
    for table, column in ((proposal, proposal.c.proposed_by), (approval, approval.c.decided_by)):
        rows = conn.execute(select(table.c.id, column, last_actor(table)).order_by(table.c.id))
        for number, named, sealed in rows:
            if named != sealed:
                yield Problem(f"{table.name} {number}", f"names {named}; its seal names {sealed}")
    for item, decision in proposals(conn):
        if decision is not None and decision.decision == "given":
            fault = _fault(item, decision)
            if fault is not None:
                yield Problem(f"approval {decision.id}", fault)
    for number in conn.execute(select(proposal.c.id).where(proposal.c.preview_of.is_not(None))).scalars():
        yield Problem(f"proposal {number}", "is a preview, which credit never keeps")


def _fault(item: Proposal, decision: Approval) -> str | None:
    if decision.decided_by == item.proposed_by:
        return f"of proposal {item.id} was given by {item.proposed_by}, who proposed it"
    if decision.role is not None and decision.role == item.role:
        return f"of proposal {item.id} was given under the database role {item.role}, which proposed it"
    if (decision.action, decision.last_row - decision.first_row + 1) != (item.action, item.row_count):
        return f"does not cover what proposal {item.id} says"
    return None


def check_approved(conn: Connection) -> Iterator[Problem]:
    """Yield each row without the earlier approval it needed, and each approval without its rows."""
    rules = [read_row(ApprovalRule, row) for row in conn.execute(select(approval_rule).order_by(approval_rule.c.id))]
    given = [decision for _, decision in proposals(conn) if decision is not None and decision.decision == "given"]
    if not rules and not given:
        return
    rule_order, approval_order = _sealed(conn, approval_rule), _sealed(conn, approval)
    for guard in GUARDS:
        in_journal = guard.table == ledger_txn.name
        spans = [
            (item, item.after_txn if in_journal else approval_order.get(item.id, 0))
            for item in given
            if item.action == guard.action
        ]
        switched = [
            (rule.after_txn if in_journal else rule_order.get(rule.id, 0), rule.required)
            for rule in rules
            if rule.action == guard.action
        ]
        seen: set[int] = set()
        for row in _rows(conn, guard):
            seen.add(row.number)
            covering = [order for item, order in spans if item.first_row <= row.number <= item.last_row]
            if covering and min(covering) >= row.order:
                yield Problem(row.place, f"was approved ({guard.action}) after it was done")
            elif not covering and _needed(guard, row, switched):
                yield Problem(row.place, f"needed the approval of a second person ({guard.action}), and has none")
        for item, _ in spans:
            if not seen.issuperset(range(item.first_row, item.last_row + 1)):
                yield Problem(f"approval {item.id}", f"was given, and its {guard.action} is not there")


def _needed(guard: Guard, row: _GuardedRow, switched: list[tuple[int, bool]]) -> bool:
    """Return True if an approval was required when a row was written."""
    if guard.action == SWITCH_OFF:
        return True
    before = [required for order, required in switched if order < row.order]
    return bool(before) and before[-1]


def _rows(conn: Connection, guard: Guard) -> Iterator[_GuardedRow]:
    """Yield the rows that a guard is about, by its own condition, in their order."""
    table = metadata.tables[guard.table]
    order = {} if table is ledger_txn else _sealed(conn, table)
    number: ColumnElement[int] = literal_column(guard.row.replace("NEW.", ""))
    query = select(table.c.id, number.label("number")).order_by(table.c.id)
    if guard.when is not None:
        query = query.where(text(guard.when.replace("NEW.", "")))
    for key, row in conn.execute(query):
        yield _GuardedRow(f"{table.name} {key}", row, row if table is ledger_txn else order.get(row, 0))


def _sealed(conn: Connection, table: Table) -> dict[int, int]:
    """Return the last seal of each row of a table, by the row's number."""
    query = select(seal.c.row_id, func.max(seal.c.id)).where(seal.c.table_name == table.name).group_by(seal.c.row_id)
    return {number: last for number, last in conn.execute(query)}
