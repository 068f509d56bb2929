"""Balances as of a day and as of what the ledger knew: nothing is stored, everything is summed from entries."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import ColumnElement, Connection, select

from credit.errors import LedgerError
from credit.ledger.accounts import parse_account
from credit.ledger.journal import journal_sums
from credit.ledger.schema import account, ledger_entry, ledger_txn, provider
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
    as_of = _as_of(effective, recorded)
    where = (account.c.key == account_key, ledger_entry.c.commodity == commodity, *as_of)
    ((total,),) = journal_sums(conn, where=where, transactions=bool(as_of))
    return int(total)


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


def _as_of(effective: date | None, recorded: datetime | None) -> list[ColumnElement[bool]]:
    """Return the conditions for what took effect by a day, and was recorded by a moment."""
    conditions: list[ColumnElement[bool]] = []
    if effective is not None:
        conditions.append(ledger_txn.c.effective_on <= effective.isoformat())
    if recorded is not None:
        conditions.append(ledger_txn.c.recorded_at <= utc_text(recorded))
    return conditions
