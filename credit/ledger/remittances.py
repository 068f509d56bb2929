"""Remittances: money that leaves the books other than by a payout.

| of | to | out of |
|---|---|---|
| withholding | a tax office | `money:withholding:<provider>` |
| fees | whoever carries out the payments | `money:fees` |
| house | the owner | `money:payable:house` |

The database refuses a remittance of more than there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Literal

from sqlalchemy import Connection, or_, select

from credit.errors import IdempotencyError, LedgerError
from credit.ledger.accounts import AccountKind
from credit.ledger.balances import balance
from credit.ledger.database import serialise_writers
from credit.ledger.journal import Entry, Posted, Posting, entries_of, journal_sums, post
from credit.ledger.periods import open_period_for
from credit.ledger.personal_data import keep_erasable
from credit.ledger.providers import provider_id
from credit.ledger.schema import account, ledger_entry, ledger_txn, provider
from credit.ledger.transaction_kinds import RemittanceDetails, TransactionKind
from credit.ledger.values import check_currency, check_minor, check_period
from credit.records import HOUSE

Remitted = Literal["withholding", "fees", "house"]


def withholding_due(conn: Connection, currency: str, *, through: str | None = None) -> dict[str, int]:
    """Return the withheld tax that was not remitted yet, in minor units by provider; zeros are left out.

    Args:
        conn: from `Ledger.read` or `Ledger.write`.
        currency: ISO 4217 code.
        through: count only what the closes of periods up to this one withheld.
    """
    where = [account.c.kind == AccountKind.WITHHOLDING, ledger_entry.c.commodity == currency]
    if through is not None:
        # A remittance of tax withheld by then is posted later, and still counts.
        where.append(or_(ledger_txn.c.period_id <= through, ledger_txn.c.kind != TransactionKind.WITHHOLDING))
    return {key: amount for key, amount in journal_sums(conn, provider.c.key, where=where) if amount}


def remit(
    conn: Connection,
    of: Remitted,
    amount_minor: int,
    currency: str,
    *,
    paid_on: date,
    reference: str,
    through: str | None = None,
    provider_key: str | None = None,
    now: datetime,
) -> Posted:
    """Record a payment of withheld tax, of fees, or to the owner; the same reference again returns the first result.

    Args:
        conn: from `Ledger.write`.
        of: where the money comes from.
        amount_minor: minor units. All the tax that is due, unless `provider_key` names whose it is: the ledger must
            know what is left of each provider's.
        currency: ISO 4217 code.
        paid_on: the day of the payment.
        reference: of the payment; tells one remittance from another.
        through: of withholding, only what periods up to this one withheld.
        provider_key: of withholding, that of one provider; then also a part of it.
        now: when the ledger records it.

    Raises:
        LedgerError: the reference is missing, the day is in the future, or there is less than the amount, or of
            withholding more.
        IdempotencyError: another remittance has the reference.
    """
    where = f"a remittance of {of}"
    check_currency(currency)
    if not reference.strip():
        raise LedgerError(f"{where} needs the reference of its payment: --reference")
    if paid_on > now.date():
        raise LedgerError(f"{where} cannot have been paid on {paid_on}: that day is still to come")
    if of != "withholding" and (through or provider_key):
        raise LedgerError(f"{where} is of no period and no provider: leave out --through and --provider")
    check_minor(amount_minor, currency, where)
    if amount_minor <= 0:
        raise LedgerError(f"{where} is of {_shown(amount_minor, currency)}; it must be more than 0")
    if through is not None:
        check_period(through)
    keep_erasable(conn, reference, "the reference")
    serialise_writers(conn)
    details = RemittanceDetails(of, through, provider_key)
    key = TransactionKind.REMITTANCE.key(of=of, currency=currency, reference=reference)
    first = _first(conn, key, Entry(AccountKind.EXTERNAL.key(), currency, amount_minor), paid_on, details)
    if first is not None:
        return first
    if of == "withholding":
        taken = _withheld(conn, amount_minor, currency, through, provider_key)
    else:
        from_account = AccountKind.FEES.key() if of == "fees" else AccountKind.PAYABLE.key(HOUSE)
        held = balance(conn, from_account, currency)
        if amount_minor > held:
            raise LedgerError(
                f"{where}: {_shown(amount_minor, currency)} is more than the {_shown(held, currency)} there"
            )
        taken = {from_account: amount_minor}
    entries = [Entry(name, currency, -amount) for name, amount in sorted(taken.items())]
    entries.append(Entry(AccountKind.EXTERNAL.key(), currency, amount_minor))
    period = open_period_for(conn, paid_on)
    kind = TransactionKind.REMITTANCE
    return post(conn, Posting(kind, period, paid_on, key, tuple(entries), reference, details), now=now)


def _withheld(
    conn: Connection, amount_minor: int, currency: str, through: str | None, provider_key: str | None
) -> Mapping[str, int]:
    """Return the accounts that a remittance of withholding is taken from, each with its amount."""
    due = withholding_due(conn, currency, through=through)
    by = f"through {through}" if through else "by now"
    if provider_key is not None:
        provider_id(conn, provider_key)
        there = due.get(provider_key, 0)
        if amount_minor > there:
            raise LedgerError(
                f"a remittance of withholding: {_shown(amount_minor, currency)} is more than the"
                f" {_shown(there, currency)} withheld from {provider_key} {by} and not remitted"
            )
        return {AccountKind.WITHHOLDING.key(provider_key): amount_minor}
    total = sum(due.values())
    if amount_minor != total:
        raise LedgerError(
            f"a remittance of withholding: {_shown(total, currency)} was withheld {by} and not remitted, not"
            f" {_shown(amount_minor, currency)}; name the last month that it covers, --through, or whose tax it is,"
            " --provider"
        )
    return {AccountKind.WITHHOLDING.key(name): amount for name, amount in due.items()}


def _first(conn: Connection, key: str, paid: Entry, paid_on: date, details: RemittanceDetails) -> Posted | None:
    """Return the remittance that has the key already; refuse one that says something else."""
    columns = (ledger_txn.c.id, ledger_txn.c.hash, ledger_txn.c.effective_on, ledger_txn.c.details_json)
    found = conn.execute(select(*columns).where(ledger_txn.c.idempotency_key == key)).one_or_none()
    if found is None:
        return None
    # By its last entry: what was due by provider is another amount today.
    same = entries_of(conn, found.id)[-1] == paid and found.effective_on == paid_on.isoformat()
    if not same or RemittanceDetails.read(found.details_json) != details:
        raise IdempotencyError(
            f"the reference belongs to transaction {found.id} with another amount, day or purpose; if that one is"
            f" wrong, take it back: credit reverse {found.id}; and give another payment a reference of its own"
        )
    return Posted(found.id, found.id, found.hash, replayed=True)


def _shown(minor: int, currency: str) -> str:
    return f"{minor} {currency} (minor units)"
