"""Transactions as people read them: the list, and one with all its fields."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, exists, select

from credit.errors import LedgerError
from credit.ledger.actor import NOT_RECORDED, shown
from credit.ledger.journal import Entry, entries_of, journal_lines
from credit.ledger.providers import provider_id
from credit.ledger.schema import account, ledger_entry, ledger_txn
from credit.ledger.transaction_kinds import TransactionKind


@dataclass(frozen=True, slots=True)
class TransactionHeader:
    """A transaction without its entries.

    `reverses` and `reversed_by` are ids of other transactions. `actor` is None where none was recorded.
    """

    id: int
    kind: str
    period: str
    effective_on: str
    recorded_at: str
    entries: int
    memo: str
    reverses: int | None
    reversed_by: int | None
    actor: str | None


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction with its entries, details and hashes."""

    header: TransactionHeader
    entries: tuple[Entry, ...]
    details: Mapping[str, Any]
    idempotency_key: str
    input_sha256: str
    prev_hash: str
    hash: str


_undoing = ledger_txn.alias("undoing")
_COLUMNS = (
    ledger_txn.c.id,
    ledger_txn.c.kind,
    ledger_txn.c.period_id,
    ledger_txn.c.effective_on,
    ledger_txn.c.recorded_at,
    ledger_txn.c.entry_count,
    ledger_txn.c.memo,
    ledger_txn.c.reverses_txn_id,
    _undoing.c.id.label("reversed_by"),
    ledger_txn.c.actor,
)


def transactions(
    conn: Connection,
    *,
    period: str | None = None,
    provider: str | None = None,
    kind: str | None = None,
    actor: str | None = None,
    limit: int | None = None,
) -> list[TransactionHeader]:
    """Return transactions in the order of the chain; of more than `limit` (at least 1), the last ones.

    Args:
        conn: from `Ledger.read` or `Ledger.write`.
        period: only transactions of this month `YYYY-MM`.
        provider: only transactions with an entry in an account of this provider.
        kind: only transactions of this kind, such as `adjustment`.
        actor: only transactions of this actor; `NOT_RECORDED` for those without.
        limit: the largest number to return; None for all.

    Raises:
        LedgerError: the provider is unknown, or no transaction is of the kind or actor.
    """
    query = select(*_COLUMNS).outerjoin(_undoing, _undoing.c.reverses_txn_id == ledger_txn.c.id)
    if period is not None:
        query = query.where(ledger_txn.c.period_id == period)
    if kind is not None:
        known = sorted(conn.execute(select(ledger_txn.c.kind).distinct()).scalars())
        if kind not in known:
            raise LedgerError(f"no transaction is of the kind {kind!r}; there are: {', '.join(known) or 'none at all'}")
        query = query.where(ledger_txn.c.kind == kind)
    if actor is not None:
        query = query.where(_by(conn, actor))
    if provider is not None:
        own = select(account.c.id).where(account.c.provider_id == provider_id(conn, provider))
        moved = (ledger_entry.c.txn_id == ledger_txn.c.id) & ledger_entry.c.account_id.in_(own)
        query = query.where(exists().where(moved))
    last = query.order_by(ledger_txn.c.id.desc()).limit(limit)
    return [TransactionHeader(*row) for row in reversed(conn.execute(last).all())]


def _by(conn: Connection, actor: str) -> ColumnElement[bool]:
    """Return the condition for transactions of an actor; LedgerError if there are none."""
    known = [shown(found) for found in conn.execute(select(ledger_txn.c.actor).distinct()).scalars()]
    if actor not in known:
        raise LedgerError(
            f"no transaction is of the actor {actor!r}; there are: {', '.join(sorted(known)) or 'none at all'}"
        )
    return ledger_txn.c.actor.is_(None) if actor == NOT_RECORDED else ledger_txn.c.actor == actor


def transaction(conn: Connection, txn_id: int) -> Transaction:
    """Return a transaction with its entries in their order.

    Raises:
        LedgerError: there is none of this id.
    """
    beside = (
        ledger_txn.c.details_json,
        ledger_txn.c.idempotency_key,
        ledger_txn.c.input_sha256,
        ledger_txn.c.prev_hash,
        ledger_txn.c.hash,
    )
    row = conn.execute(
        select(*_COLUMNS, *beside)
        .outerjoin(_undoing, _undoing.c.reverses_txn_id == ledger_txn.c.id)
        .where(ledger_txn.c.id == txn_id)
    ).one_or_none()
    if row is None:
        raise LedgerError(f"there is no transaction {txn_id}; list them: credit transactions")
    headed, (details, *rest) = row[: len(_COLUMNS)], row[len(_COLUMNS) :]
    return Transaction(TransactionHeader(*headed), entries_of(conn, txn_id), json.loads(details), *rest)


def reversed_transactions(conn: Connection) -> frozenset[int]:
    """Return the ids of all reversed transactions."""
    query = select(ledger_txn.c.reverses_txn_id).where(ledger_txn.c.reverses_txn_id.is_not(None))
    return frozenset(conn.execute(query).scalars())


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
