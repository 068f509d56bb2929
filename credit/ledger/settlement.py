"""Settlement: balances at the start of a close, and reserves.

Each is the sum of entries up to a period. So a period opens with exactly the balance that the one before carried
forward, whatever later periods already hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from credit.ledger.accounts import AccountKind
from credit.ledger.database import serialise_writers
from credit.ledger.journal import journal_lines, journal_sums
from credit.ledger.rows import PROVIDER, add_records, read_row
from credit.ledger.schema import (
    account,
    ledger_entry,
    ledger_txn,
    provider,
    reserve,
)
from credit.ledger.transaction_kinds import TransactionKind

ProviderCurrency = tuple[str, str]
"""A provider's key and a currency: together they have a balance."""


@dataclass(frozen=True, slots=True)
class Reserve:
    """A part of a provider's earnings of a period, in minor units, held back until the close of `release_period`."""

    period: str
    provider: str
    currency: str
    amount_minor: int
    release_period: str
    txn_id: int


def provider_balances(
    conn: Connection, kind: AccountKind, *, before: str | None = None, through: str | None = None
) -> dict[ProviderCurrency, int]:
    """Return the balances of all providers' accounts of a kind, in minor units; zeros are left out.

    Args:
        conn: from `Ledger.read` or `Ledger.write`.
        kind: of the accounts.
        before: count only postings of periods before this one.
        through: count only postings of periods up to this one.
    """
    where = [account.c.kind == kind]
    if before is not None:
        where.append(ledger_txn.c.period_id < before)
    if through is not None:
        where.append(ledger_txn.c.period_id <= through)
    sums = journal_sums(conn, provider.c.key, ledger_entry.c.commodity, where=where, transactions=len(where) > 1)
    return {(key, currency): amount for key, currency, amount in sums if amount}


def held_balances(conn: Connection, *, before: str) -> dict[ProviderCurrency, dict[str, int]]:
    """Return the held earnings of collections before a period, by collection; zeros are left out."""
    by = (provider.c.key, ledger_entry.c.commodity, account.c.collection)
    where = (account.c.kind == AccountKind.HELD, ledger_txn.c.period_id < before)
    found: dict[ProviderCurrency, dict[str, int]] = {}
    for key, currency, collection, amount in journal_sums(conn, *by, where=where):
        if amount:
            found.setdefault((key, currency), {})[collection] = amount
    return found


def released_accounts(conn: Connection, *, after: str) -> set[tuple[str, str]]:
    """Return the accounts and currencies of held earnings that the closes after a period released."""
    query = journal_lines(account.c.key, ledger_entry.c.commodity).where(
        ledger_txn.c.kind == TransactionKind.COLLECTION_RELEASE,
        ledger_txn.c.period_id > after,
        account.c.kind == AccountKind.HELD,
    )
    return {(key, currency) for key, currency in conn.execute(query)}


def add_reserves(conn: Connection, items: Sequence[Reserve]) -> None:
    """Record the reserves of a close."""
    serialise_writers(conn)
    add_records(conn, reserve, items)


def reserves(conn: Connection, *, after: str | None, through: str) -> list[Reserve]:
    """Return the reserves due after one period and up to another, by provider, currency and period."""
    query = (
        select(reserve, PROVIDER)
        .join_from(reserve, provider)
        .where(reserve.c.release_period <= through)
        .order_by(provider.c.key, reserve.c.currency, reserve.c.period_id)
    )
    if after is not None:
        query = query.where(reserve.c.release_period > after)
    return [read_row(Reserve, row) for row in conn.execute(query)]
