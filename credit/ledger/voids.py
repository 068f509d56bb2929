"""Voids: payouts that must never be paid, and where their money goes instead."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, select

from credit.errors import LedgerError
from credit.ledger.accounts import AccountKind
from credit.ledger.clock import recorded_moment
from credit.ledger.database import serialise_writers
from credit.ledger.journal import Entry, Posted, Posting, entries_of, post
from credit.ledger.payouts import Payout, payouts
from credit.ledger.periods import open_period_for
from credit.ledger.personal_data import keep_erasable
from credit.ledger.rows import add_records
from credit.ledger.schema import ledger_txn, payout_void
from credit.ledger.transaction_kinds import TransactionKind, VoidDetails
from credit.ledger.values import is_storable, utc_text
from credit.records import HOUSE, VoidTo


@dataclass(frozen=True, slots=True)
class Void:
    """A payout that is never paid; `txn_id` is the transaction that moved its money."""

    payout_id: int
    goes_to: VoidTo
    reason: str
    txn_id: int


def target_account(goes_to: VoidTo, provider_key: str) -> str:
    """Return the account that a void gives the money to."""
    if goes_to == "escrow":
        return AccountKind.ESCROW.key()
    return AccountKind.PAYABLE.key(HOUSE if goes_to == "house" else provider_key)


def void_payout(
    conn: Connection,
    period: str,
    provider_key: str,
    currency: str,
    *,
    reason: str,
    goes_to: VoidTo = "provider",
    now: datetime,
) -> Posted:
    """Void a payout that has not left, or came back; the same call again returns the first result.

    Tax and fee that the close took from it were taken for a payment, and go the same way. Where the tax was remitted
    already, the provider's account of withholding becomes negative: a claim, set off by the next remittance.

    Args:
        conn: from `Ledger.write`.
        period: the closed period of the payout.
        provider_key: its provider.
        currency: its currency.
        reason: why, in words; the provider's next statement prints it if the money is its own.
        goes_to: the balance of the provider, which a later close pays; the house; or escrow, for whoever claims it.
        now: when the ledger records it.

    Raises:
        LedgerError: there is no such payout, a bank was told to pay it, it was voided in another way, or there is no
            reason.
    """
    where = f"the payout of {provider_key} for {period} in {currency}"
    if not reason.strip() or not is_storable(reason):
        raise LedgerError(f"to void {where} needs a reason, in words that a database can keep: --reason")
    serialise_writers(conn)
    found = [item for item in payouts(conn, period) if (item.provider, item.currency) == (provider_key, currency)]
    if not found:
        raise LedgerError(f"{where} does not exist; see credit report payouts {period}")
    (item,) = found
    before = void_of(conn, item.id)
    if before is not None:
        if (before.goes_to, before.reason) != (goes_to, reason):
            raise LedgerError(
                f"{where} was voided by transaction {before.txn_id}, and its money went to the {before.goes_to}:"
                f" {before.reason}"
            )
        digest = conn.execute(select(ledger_txn.c.hash).where(ledger_txn.c.id == before.txn_id)).scalar_one()
        return Posted(before.txn_id, before.txn_id, digest, replayed=True)
    if item.status not in {"pending", "failed"}:
        remedy = "; if the bank did not pay it, record that first: credit pay confirm FILE"
        raise LedgerError(f"{where} is {item.status}{remedy if item.status == 'exported' else ''}")
    keep_erasable(conn, reason, "the reason")
    parts = [(AccountKind.PAYOUT.key(provider_key), item.amount_minor), *_taken(conn, item)]
    entries = [Entry(account, currency, -amount) for account, amount in parts]
    entries.append(Entry(target_account(goes_to, provider_key), currency, sum(amount for _, amount in parts)))
    kind, day = TransactionKind.PAYOUT_VOID, now.astimezone(UTC).date()
    key, details = kind.key(payout=item.id), VoidDetails(item.id, goes_to)
    posting = Posting(kind, open_period_for(conn, day), day, key, tuple(entries), memo=reason, details=details)
    done = post(conn, posting, now=now)
    row = Void(item.id, goes_to, reason, done.txn_id)
    add_records(conn, payout_void, [row], recorded_at=utc_text(recorded_moment(conn, now)))
    return done


def void_of(conn: Connection, payout_id: int) -> Void | None:
    """Return the void of a payout; None without one."""
    row = conn.execute(select(payout_void).where(payout_void.c.payout_id == payout_id)).one_or_none()
    return None if row is None else Void(row.payout_id, row.goes_to, row.reason, row.txn_id)


def _taken(conn: Connection, item: Payout) -> list[tuple[str, int]]:
    """Return the tax and the fee that the close took from a payout, each with its account."""
    found = []
    for kind in (TransactionKind.WITHHOLDING, TransactionKind.FEES):
        key = kind.key(period=item.period, provider=item.provider, currency=item.currency)
        txn_id = conn.execute(select(ledger_txn.c.id).where(ledger_txn.c.idempotency_key == key)).scalar()
        if txn_id is not None:
            account = kind.counterpart.key(item.provider)
            found += [(account, line.amount) for line in entries_of(conn, txn_id) if line.account == account]
    return found
