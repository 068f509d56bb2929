"""Guarded actions: those for which a ledger can demand the approval of a second person.

`GUARDS` is the one table of them: an action, the table whose new (or closed) rows are its effect, and the number of
such a row. The rules of the database and the checks of `verify` come from it. `credit.approval.actions` has a row of
the same name for each, which says how to do it.

An approval covers the numbers `first_row` to `last_row` of that table, all beyond those that are there. So it serves
once, in the database transaction that gives it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from credit.ledger.transaction_kinds import CLOSE_KINDS, TransactionKind

SWITCH_OFF = "switch-off"
"""The action that takes a requirement back; it always needs an approval."""
FX_RATE = "fx-rate"

_MONTH = "CAST(replace(NEW.id, '-', '') AS BIGINT)"


@dataclass(frozen=True, slots=True)
class Guard:
    """An action and its rows: `row` is the number of the new row, `when` the condition on it (None: all rows)."""

    action: str
    table: str
    row: str = "NEW.id"
    when: str | None = None
    event: Literal["INSERT", "UPDATE"] = "INSERT"


def _posts(action: str, kind: TransactionKind) -> Guard:
    return Guard(action, "ledger_txn", "NEW.seq", f"NEW.kind = '{kind}'")


GUARDS = (
    Guard("pool", "pool"),
    Guard("terms", "contract_term"),
    Guard("details", "personal_event", when="NEW.action = 'set'"),
    _posts("adjustment", TransactionKind.ADJUSTMENT),
    _posts("advance", TransactionKind.ADVANCE),
    _posts("remittance", TransactionKind.REMITTANCE),
    _posts("reversal", TransactionKind.REVERSAL),
    Guard("close", "period", _MONTH, "NEW.status = 'closed'", "UPDATE"),
    Guard("payment-export", "payout_batch"),
    Guard("void", "payout_void"),
    # A release lets money out. Holding it back must not wait for anybody.
    Guard("hold-release", "hold", when="NEW.action = 'release'"),
    Guard(FX_RATE, "fx_rate"),
    Guard(SWITCH_OFF, "approval_rule", when="NEW.required = 0"),
)

BY_ACTION = {guard.action: guard for guard in GUARDS}

_LAST_RULE = "SELECT r.required FROM approval_rule AS r WHERE r.action = '{}' ORDER BY r.id DESC LIMIT 1"
_COVERED = "EXISTS (SELECT 1 FROM approval AS a WHERE a.decision = 'given' AND a.action = '{}' AND {})"
_PREVIEW = "EXISTS (SELECT 1 FROM proposal WHERE preview_of IS NOT NULL)"


def refusals() -> Iterator[tuple[str, Literal["INSERT", "UPDATE"], str, str]]:
    """Yield table, event, message and condition of each refusal of an action that was not approved.

    A preview does what it shows and is undone: the database lets it go on, and never commit (see `schema.proposal`).
    """
    for guard in GUARDS:
        covered = f"{guard.row} BETWEEN a.first_row AND a.last_row"
        yield guard.table, guard.event, _message(guard.action), _uncovered(guard.action, guard.when, covered)
    # The money of an action whose row comes after it, in the same database transaction.
    for action, kinds, covered in (
        ("pool", ("pool",), "a.last_row > (SELECT coalesce(max(id), 0) FROM pool)"),
        ("close", sorted(CLOSE_KINDS), "a.first_row = CAST(replace(NEW.period_id, '-', '') AS BIGINT)"),
        ("payment-export", ("payment-export",), "a.last_row > (SELECT coalesce(max(id), 0) FROM payout_batch)"),
        ("void", ("payout-void",), "a.last_row > (SELECT coalesce(max(id), 0) FROM payout_void)"),
    ):
        names = ", ".join(f"'{kind}'" for kind in kinds)
        yield "ledger_txn", "INSERT", _message(action), _uncovered(action, f"NEW.kind IN ({names})", covered)


def _uncovered(action: str, when: str | None, covered: str) -> str:
    parts = [when] if when else []
    if action != SWITCH_OFF:
        parts.append(f"coalesce(({_LAST_RULE.format(action)}), 0) = 1")
    return " AND ".join([*parts, f"NOT {_COVERED.format(action, covered)}", f"NOT {_PREVIEW}"])


def _message(action: str) -> str:
    return f"{action} needs the approval of a second person; propose it by its own command, then credit approve give"
