"""Entries of a transaction, as the checks of closes and payouts ask for them."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, Select

from credit.ledger.journal import journal_lines
from credit.ledger.schema import account, ledger_entry, ledger_txn
from credit.ledger.transaction_kinds import TransactionKind


def amounts_posted(
    txn_id: ColumnElement[int] | int, key: ColumnElement[str] | str, commodity: ColumnElement[str] | str
) -> Select[tuple[int]]:
    """Return the query for the amounts that a transaction put into an account, in one commodity."""
    lines = journal_lines(ledger_entry.c.amount, transactions=False)
    return lines.where(ledger_entry.c.txn_id == txn_id, account.c.key == key, ledger_entry.c.commodity == commodity)


def amounts_by_account(conn: Connection, txn_id: int, kind: TransactionKind) -> dict[str, int]:
    """Return the amount that a transaction put into each account; nothing where it is of another kind."""
    query = journal_lines(account.c.key, ledger_entry.c.amount)
    rows = conn.execute(query.where(ledger_entry.c.txn_id == txn_id, ledger_txn.c.kind == kind))
    return {key: amount for key, amount in rows}
