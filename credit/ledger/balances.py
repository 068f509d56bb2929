"""Balances of accounts as of a day, and as of a moment of recording; the ledger stores none and adds up entries."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import ColumnElement, Connection, select

from credit.errors import LedgerError
from credit.ledger.accounts import AccountKind, parse_account
from credit.ledger.journal import journal_lines, journal_sums
from credit.ledger.schema import account, ledger_entry, ledger_txn, provider
from credit.ledger.transaction_kinds import TransactionKind
from credit.ledger.values import utc_text

ProviderCurrency = tuple[str, str]
"""A provider's key and a currency: together they have a balance."""


@dataclass(frozen=True, slots=True)
class Balance:
    """The balance of an account in a commodity, in micro-credits or minor units of a currency."""

    account: str
    commodity: str
    amount: int


def balance(
    conn: Connection,
    account_key: str,
    commodity: str,
    *,
    effective: date | None = None,
    recorded: datetime | None = None,
) -> int:
    """Return an account's balance, the sum of its entries; 0 for an account without any.

    Args:
        conn: from `Ledger.read` or `Ledger.write`.
        account_key: the account.
        commodity: `CREDIT` or an ISO 4217 code.
        effective: count only transactions in effect on or before this day.
        recorded: count only transactions that the ledger recorded at or before this moment.
    """
    as_of = _as_of(effective, recorded)
    where = (account.c.key == account_key, ledger_entry.c.commodity == commodity, *as_of)
    ((total,),) = journal_sums(conn, where=where, transactions=bool(as_of))
    return int(total)


def balances(
    conn: Connection, whose: str, *, effective: date | None = None, recorded: datetime | None = None
) -> list[Balance]:
    """Return the balances of an account, or of all accounts of a provider, by account and commodity.

    With `recorded` in the past, the same question has the same answer for ever (`credit.ledger.clock` says why).
    Without it, a later correction can change the balance of an earlier day.

    Args:
        conn: from `Ledger.read` or `Ledger.write`.
        whose: an account's key, or a provider's.
        effective: count only transactions in effect on or before this day.
        recorded: count only transactions that the ledger recorded at or before this moment.

    Returns:
        One balance for each account and commodity that ever had an entry by then, zeros included.

    Raises:
        LedgerError: there is neither such an account nor such a provider.
    """
    # Every account's key has a colon, and no provider's.
    if ":" in whose:
        parse_account(whose)
        own = account.c.key == whose
    else:
        owner = conn.execute(select(provider.c.id).where(provider.c.key == whose)).scalar()
        if owner is None:
            raise LedgerError(f"{whose!r} is neither a provider nor an account; see credit providers list")
        own = account.c.provider_id == owner
    where = (own, *_as_of(effective, recorded))
    return [Balance(*row) for row in journal_sums(conn, account.c.key, ledger_entry.c.commodity, where=where)]


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


def _as_of(effective: date | None, recorded: datetime | None) -> list[ColumnElement[bool]]:
    """Return the conditions for transactions in effect by a day and recorded by a moment."""
    conditions: list[ColumnElement[bool]] = []
    if effective is not None:
        conditions.append(ledger_txn.c.effective_on <= effective.isoformat())
    if recorded is not None:
        conditions.append(ledger_txn.c.recorded_at <= utc_text(recorded))
    return conditions
