"""Corrections, advances and restatements: people post each once, with its reason; a period's statements show them."""

from __future__ import annotations

import hashlib
from datetime import date, datetime
from typing import NamedTuple

from sqlalchemy import Connection, select

from credit.errors import IdempotencyError, LedgerError
from credit.ledger.accounts import AccountKind
from credit.ledger.balances import balance, provider_balances
from credit.ledger.database import serialise_writers
from credit.ledger.journal import Entry, Posted, Posting, journal_lines, journal_sums, post, reverse
from credit.ledger.periods import last_closed, open_period_for
from credit.ledger.personal_data import keep_erasable
from credit.ledger.providers import unknown_provider
from credit.ledger.schema import account, ledger_entry, ledger_txn, provider
from credit.ledger.transaction_kinds import AdjustmentDetails, TransactionKind
from credit.ledger.values import check_currency, check_minor, first_day, is_storable
from credit.records import HOUSE, Correction, is_period, period_of

_ALWAYS = frozenset(kind for kind in TransactionKind if kind.reversible == "always")
_WHILE_OPEN = frozenset(kind for kind in TransactionKind if kind.reversible == "while open")
_OF_PAYMENTS = frozenset(kind for kind in TransactionKind if kind.posted_by == "payment")


class _Undoable(NamedTuple):
    """The facts of a transaction by which `undo` decides."""

    kind: str
    period_id: str
    hash: str


def corrections(conn: Connection, period: str) -> list[Correction]:
    """Return a period's movements on payable accounts and accounts of held earnings, in order of posting."""
    query = (
        journal_lines(*ledger_txn.c, provider.c.key.label("owner"), account.c.collection, owners=True)
        .add_columns(ledger_entry.c.commodity, ledger_entry.c.amount)
        .where(ledger_txn.c.period_id == period, account.c.kind.in_((AccountKind.PAYABLE, AccountKind.HELD)))
        .order_by(ledger_txn.c.id, ledger_entry.c.line_no)
    )
    return [
        Correction(
            provider=row.owner,
            currency=row.commodity,
            amount_minor=row.amount,
            txn_id=row.id,
            txn_hash=row.hash,
            kind=row.kind,
            reason=row.memo,
            cites=row.reverses_txn_id or _cited(row.details_json),
            collection=row.collection,
        )
        for row in conn.execute(query)
    ]


def _cited(details_json: str) -> int | None:
    """Return the transaction that an adjustment cites; None for any other transaction."""
    said = AdjustmentDetails.read(details_json)
    return None if said is None else said.cites


def adjust(
    conn: Connection,
    provider_key: str,
    amount_minor: int,
    currency: str,
    *,
    period: str,
    reason: str,
    cites: int | None = None,
    key: str | None = None,
    from_escrow: bool = False,
    now: datetime,
) -> Posted:
    """Move money between the house and a provider; the same call again returns the first result.

    With `from_escrow`, the money comes out of escrow and goes to a provider, or to the house.

    Args:
        conn: from `Ledger.write`.
        provider_key: the provider of the balance.
        amount_minor: minor units; more than 0 in the provider's favour and at the cost of the house.
        currency: ISO 4217 code.
        period: the open period; its statement shows the adjustment.
        reason: why, in words; printed on the statement.
        cites: the id of the corrected transaction.
        key: a name that tells apart two equal corrections.
        from_escrow: take the money from escrow instead of the house, which may then receive it.
        now: when the ledger records it.

    Raises:
        LedgerError: a reason or the provider is missing, the period is in the future, the cited transaction does not
            exist, or escrow holds less than the amount.
        PeriodClosedError: the period is closed.
    """
    where = f"an adjustment of {provider_key}"
    if not reason.strip() or not is_storable(reason):
        raise LedgerError(f"{where} needs a reason, in words that a database can keep: --reason")
    if not is_period(period) or period > period_of(now):
        raise LedgerError(f"{where} belongs into a month YYYY-MM that has begun, not into {period!r}")
    if not (from_escrow and provider_key == HOUSE):
        _check_payee(conn, provider_key, amount_minor, currency, where)
    if from_escrow and amount_minor <= 0:
        raise LedgerError(f"{where} out of escrow must be more than 0; only a close puts money into escrow")
    keep_erasable(conn, reason, "the reason")
    details = None if cites is None else AdjustmentDetails(cites, _undoable(conn, cites).hash)
    kind, escrow = TransactionKind.ADJUSTMENT, AccountKind.ESCROW.key()
    entries = (
        Entry(escrow if from_escrow else AccountKind.PAYABLE.key(HOUSE), currency, -amount_minor),
        Entry(AccountKind.PAYABLE.key(provider_key), currency, amount_minor),
    )
    said = f"{provider_key}:{currency}:{amount_minor}:{cites}:{_digest(reason)}{':escrow' if from_escrow else ''}"
    name = kind.key(of=period, said=said) if key is None else kind.key(of="key", said=key)
    posting = Posting(kind, period, first_day(period), name, entries, memo=reason, details=details)
    done = post(conn, posting, now=now)
    # After posting: the transaction is undone when escrow would be overdrawn, and a replay is never refused.
    left = balance(conn, escrow, currency) if from_escrow and not done.replayed else 0
    if left < 0:
        held = max(left + amount_minor, 0)
        raise LedgerError(f"{where}: escrow holds {held} {currency} (minor units), less than {amount_minor}")
    return done


def pay_advance(
    conn: Connection,
    provider_key: str,
    amount_minor: int,
    currency: str,
    *,
    paid_on: date,
    reference: str,
    now: datetime,
) -> Posted:
    """Record an advance to a provider; a close sets later earnings in its currency off against it.

    The reference tells one advance from another: the same reference again returns the first result.

    Raises:
        LedgerError: the reference or the provider is missing, the day is in the future, or the amount is not above 0.
        IdempotencyError: another advance has the reference.
    """
    where = f"an advance to {provider_key}"
    if not reference.strip():
        raise LedgerError(f"{where} needs the reference of its payment: --reference")
    if paid_on > now.date():
        raise LedgerError(f"{where} cannot have been paid on {paid_on}: that day is still to come")
    if amount_minor < 0:
        raise LedgerError(f"{where} is {amount_minor} {currency} (minor units); it must be more than 0")
    _check_payee(conn, provider_key, amount_minor, currency, where)
    keep_erasable(conn, reference, "the reference")
    serialise_writers(conn)
    kind = TransactionKind.ADVANCE
    key = kind.key(provider=provider_key, currency=currency, reference=reference)
    first = conn.execute(select(ledger_txn.c.period_id).where(ledger_txn.c.idempotency_key == key)).scalar()
    entries = (
        Entry(AccountKind.ADVANCE.key(provider_key), currency, -amount_minor),
        Entry(AccountKind.EXTERNAL.key(), currency, amount_minor),
    )
    # A replay must name the period of the first call, which may have closed since.
    period = first or open_period_for(conn, paid_on)
    return post(conn, Posting(kind, period, paid_on, key, entries, memo=reference), now=now)


def undo(conn: Connection, txn_id: int, *, reason: str, now: datetime) -> Posted:
    """Reverse a transaction in its own period, or in the first open one after it; again returns the first result.

    `TransactionKind` says when a kind can be reversed. Credits and pools can while their period is open: after its
    close, an adjustment or a restatement corrects them.

    Raises:
        LedgerError: there is no such transaction, its kind cannot be reversed, or a close has recouped the advance.
        IdempotencyError: an earlier reversal has another reason.
    """
    serialise_writers(conn)
    header = _undoable(conn, txn_id)
    before = conn.execute(
        select(ledger_txn.c.id, ledger_txn.c.hash, ledger_txn.c.memo).where(ledger_txn.c.reverses_txn_id == txn_id)
    ).one_or_none()
    if before is not None:
        if before.memo == reason:
            return Posted(before.id, before.id, before.hash, replayed=True)
        raise IdempotencyError(f"transaction {txn_id} was reversed by {before.id} already: {before.memo}")
    closed = last_closed(conn)
    is_open = closed is None or header.period_id > closed
    if header.kind == TransactionKind.UNVALUED:
        raise LedgerError(f"transaction {txn_id} made an output unvalued; restore it: credit outputs restore --help")
    if header.kind == TransactionKind.PAYOUT:
        raise LedgerError(f"transaction {txn_id} is a payout and cannot be reversed; void it: credit pay void --help")
    if header.kind in _OF_PAYMENTS:
        raise LedgerError(
            f"transaction {txn_id} ({header.kind}) cannot be reversed; record the bank's result instead, also a payment"
            " that came back: credit pay confirm --help"
        )
    if header.kind not in _ALWAYS and not (header.kind in _WHILE_OPEN and is_open):
        state = "" if header.kind not in _WHILE_OPEN else f" of {header.period_id}, which is closed,"
        raise LedgerError(
            f"transaction {txn_id} ({header.kind}){state} cannot be reversed: other records build on it;"
            " correct its results: credit adjust --help, or credit restate --help"
        )
    keep_erasable(conn, reason, "the reason")
    period = open_period_for(conn, first_day(header.period_id))
    if header.kind == TransactionKind.ADVANCE:
        _check_not_recouped(conn, txn_id, period)
    elif header.kind == TransactionKind.RESTATEMENT:
        _check_nothing_held(conn, txn_id)
    return reverse(conn, txn_id, period=period, reason=reason, now=now)


def restatements(conn: Connection, period: str) -> list[int]:
    """Return the transactions of all restatements of a period, reversed ones too."""
    prefix = TransactionKind.RESTATEMENT.key(period=period, number="")
    query = select(ledger_txn.c.id).where(ledger_txn.c.idempotency_key.startswith(prefix, autoescape=True))
    return list(conn.execute(query.order_by(ledger_txn.c.id)).scalars())


def restated_money(conn: Connection, period: str) -> dict[tuple[str, str], int]:
    """Return the minor units that standing restatements of a period moved, by account and currency."""
    found = restatements(conn, period)
    # A reversal counts with the restatement that it takes back: together they moved nothing.
    undoing = select(ledger_txn.c.id).where(ledger_txn.c.reverses_txn_id.in_(found))
    moving = [*found, *conn.execute(undoing).scalars()]
    where = (ledger_entry.c.txn_id.in_(moving),)
    sums = journal_sums(conn, account.c.key, ledger_entry.c.commodity, where=where, transactions=False)
    return {(key, currency): amount for key, currency, amount in sums}


def transaction_in_words(conn: Connection, txn_id: int) -> str:
    """Return the kind and the period of a transaction, in words.

    Raises:
        LedgerError: there is no such transaction.
    """
    header = _undoable(conn, txn_id)
    return f"{header.kind} of {header.period_id}"


def _check_payee(conn: Connection, provider_key: str, amount_minor: int, currency: str, where: str) -> None:
    kind = conn.execute(select(provider.c.kind).where(provider.c.key == provider_key)).scalar()
    if kind is None:
        raise unknown_provider(conn, provider_key)
    if kind == "house":
        raise LedgerError(f"{where} makes no sense: its earnings are the house's")
    check_currency(currency)
    check_minor(amount_minor, currency, where)
    if amount_minor == 0:
        raise LedgerError(f"{where} of nothing makes no sense")


def _check_not_recouped(conn: Connection, txn_id: int, period: str) -> None:
    """Refuse to reverse, in a period, an advance larger than the rest of the provider's advances by then."""
    owner, currency, amount = conn.execute(
        journal_lines(provider.c.key, ledger_entry.c.commodity, ledger_entry.c.amount, owners=True).where(
            ledger_entry.c.txn_id == txn_id, account.c.kind == AccountKind.ADVANCE
        )
    ).one()
    left = provider_balances(conn, AccountKind.ADVANCE, through=period).get((owner, currency), 0)
    if left > amount:
        raise LedgerError(
            f"transaction {txn_id} cannot be reversed: of this advance, or one before it, {left - amount} {currency}"
            " (minor units) have been recouped; give them back with credit adjust"
        )


def _check_nothing_held(conn: Connection, txn_id: int) -> None:
    """Refuse to reverse a restatement of a collection on hold: a later close may have released and paid the money."""
    of_held = (ledger_entry.c.txn_id == txn_id) & (account.c.kind == AccountKind.HELD)
    held = conn.execute(journal_lines(account.c.key).where(of_held)).scalar()
    if held is not None:
        raise LedgerError(
            f"transaction {txn_id} cannot be reversed: it moved money on hold, now or then ({held}); take it back by"
            " another restatement, with the policy or index from before: credit restate --help"
        )


def _undoable(conn: Connection, txn_id: int) -> _Undoable:
    columns = (ledger_txn.c.kind, ledger_txn.c.period_id, ledger_txn.c.hash)
    found = conn.execute(select(*columns).where(ledger_txn.c.id == txn_id)).one_or_none()
    if found is None:
        raise LedgerError(f"there is no transaction {txn_id}; list them: credit transactions")
    return _Undoable(*found)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
