"""Balances as of a day and as of what the ledger knew: nothing is stored, everything is summed from entries."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, select

from credit.errors import LedgerError
from credit.ledger.accounts import parse_account
from credit.ledger.schema import account, exact_sum, join_sum, ledger_entry, ledger_txn, provider
from credit.ledger.values import utc_text


@dataclass(frozen=True, slots=True)
class Balance:
    """What an account holds of a commodity: micro-credits, or minor units of a currency."""

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
    """Return an account's balance, derived from its entries; 0 for an account that has none.

    Args:
        conn: from `Ledger.read` or `Ledger.write`.
        account_key: the account.
        commodity: `CREDIT` or an ISO 4217 code.
        effective: count only what took effect on or before this day.
        recorded: count only what the ledger had recorded at or before this moment.
    """
    query = (
        select(*exact_sum(ledger_entry.c.amount))
        .join_from(ledger_entry, account, account.c.id == ledger_entry.c.account_id)
        .where(account.c.key == account_key, ledger_entry.c.commodity == commodity)
    )
    if effective is not None or recorded is not None:
        query = query.join(ledger_txn, ledger_txn.c.id == ledger_entry.c.txn_id)
    if effective is not None:
        query = query.where(ledger_txn.c.effective_on <= effective.isoformat())
    if recorded is not None:
        query = query.where(ledger_txn.c.recorded_at <= utc_text(recorded))
    high, low = conn.execute(query).one()
    return join_sum(high, low)


def balances(
    conn: Connection, whose: str, *, effective: date | None = None, recorded: datetime | None = None
) -> list[Balance]:
    """Return the balances of an account, or of all accounts of a provider, by account and commodity.

    What was recorded by a moment never changes afterwards: the same question with `recorded` in the past, as
    `credit.ledger.clock` has it, has the same answer for ever. Without it, a correction that takes effect on an earlier
    day changes what that day looks like.

    Args:
        conn: from `Ledger.read` or `Ledger.write`.
        whose: an account's key, or a provider's.
        effective: count only what took effect on or before this day.
        recorded: count only what the ledger had recorded at or before this moment.

    Returns:
        One balance for each account and commodity that ever had an entry by then, zeros included.

    Raises:
        LedgerError: there is neither such an account nor such a provider.
    """
    query = (
        select(account.c.key, ledger_entry.c.commodity, *exact_sum(ledger_entry.c.amount))
        .join_from(ledger_entry, account, account.c.id == ledger_entry.c.account_id)
        .join(ledger_txn, ledger_txn.c.id == ledger_entry.c.txn_id)
        .group_by(account.c.key, ledger_entry.c.commodity)
        .order_by(account.c.key, ledger_entry.c.commodity)
    )
    if ":" in whose:
        parse_account(whose)
        query = query.where(account.c.key == whose)
    else:
        owner = conn.execute(select(provider.c.id).where(provider.c.key == whose)).scalar()
        if owner is None:
            raise LedgerError(f"{whose!r} is neither a provider nor an account; see credit providers list")
        query = query.where(account.c.provider_id == owner)
    if effective is not None:
        query = query.where(ledger_txn.c.effective_on <= effective.isoformat())
    if recorded is not None:
        query = query.where(ledger_txn.c.recorded_at <= utc_text(recorded))
    return [Balance(key, commodity, join_sum(high, low)) for key, commodity, high, low in conn.execute(query)]
