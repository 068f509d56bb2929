"""What each provider was paid in a calendar year, by the day of payment: data for tax forms, and no tax advice.

Tax offices ask for what was paid in a year, not for what was earned: a payout of December that the bank makes in
January is January's. A payment counts on the bank's value date, or where its result gave none on the day of recording.
What came back counts against the day on which it came back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import polars as pl
from sqlalchemy import ColumnElement, Connection, select

from credit.accounting.amounts import format_amount, format_amounts
from credit.errors import InvalidRequestError
from credit.ledger.accounts import AccountKind
from credit.ledger.balances import ProviderCurrency
from credit.ledger.journal import journal_lines
from credit.ledger.personal_data import Details, current_details
from credit.ledger.providers import providers
from credit.ledger.schema import account, ledger_entry, ledger_txn, payout, provider
from credit.ledger.transaction_kinds import ResultDetails, TransactionKind

NOTICE = "data for tax forms, by the day of payment; no tax advice"

AMOUNTS = ("gross", "paid", "withheld", "fees", "advances")
DETAILS = ("legal_name", "tax_id", "street", "building", "postcode", "town", "country")
YEAR_COLUMNS = (
    "year", "provider", "name", "currency", *AMOUNTS, "payments", "first_payment", "last_payment",
    "form_1099_misc_box_2",
)  # fmt: skip

ROYALTIES_FROM_MINOR = 1000
"""Royalties of 10 dollars or more in a year are reported in box 2 of Form 1099-MISC (IRS instructions, 2026)."""


@dataclass(slots=True)
class _Sums:
    """Minor units paid to a provider in a currency, and the days of the payments."""

    paid: int = 0
    withheld: int = 0
    fees: int = 0
    advances: int = 0
    days: list[str] = field(default_factory=list)

    @property
    def gross(self) -> int:
        """All that was paid to the provider, or to others on its account."""
        return self.paid + self.withheld + self.fees + self.advances


@dataclass(frozen=True, slots=True)
class _Payment:
    """A payout that the bank paid, or that came back (`sign` -1), on a day."""

    payout: int
    sign: int
    day: str


def year_totals(conn: Connection, year: int, *, details: bool = False) -> pl.DataFrame:
    """Return what each provider was paid in a year: columns `YEAR_COLUMNS`, by provider and currency.

    Amounts are decimal strings beside their currency. `paid` reached the provider; `withheld` and `fees` were taken
    from the same payouts; `advances` were paid before they were earned, so what recoups them is not paid again;
    `gross` is the sum. `payments` counts those made in the year, also such as came back. `form_1099_misc_box_2` is the
    gross in US dollars from ten dollars on, and empty otherwise.

    Args:
        conn: from `Ledger.read`.
        year: the calendar year.
        details: add the columns `DETAILS`, which are personal data, as they are now.

    Raises:
        InvalidRequestError: it is no year of four digits.
    """
    if not 1000 <= year <= 9999:
        raise InvalidRequestError(f"{year} is no year of four digits")
    found: dict[ProviderCurrency, _Sums] = {}
    payments = list(_payments(conn, year))
    taken = _taken(conn)
    rows = {row.id: row for row in _payouts(conn, {item.payout for item in payments})}
    for item in payments:
        row = rows[item.payout]
        sums = found.setdefault((row.key, row.currency), _Sums())
        sums.paid += item.sign * row.amount_minor
        for kind in (TransactionKind.WITHHOLDING, TransactionKind.FEES):
            amount = item.sign * taken.get(kind.key(period=row.period_id, provider=row.key, currency=row.currency), 0)
            if kind == TransactionKind.WITHHOLDING:
                sums.withheld += amount
            else:
                sums.fees += amount
        if item.sign > 0:
            sums.days.append(item.day)
    for key, currency, amount, day in _advances(conn, year):
        sums = found.setdefault((key, currency), _Sums())
        sums.advances += amount
        sums.days.append(day)
    names = {item.key: item.name for item in providers(conn)}
    table = []
    for (key, currency), sums in sorted(found.items()):
        amounts = format_amounts({name: getattr(sums, name) for name in AMOUNTS}, currency)
        reported = currency == "USD" and sums.gross >= ROYALTIES_FROM_MINOR
        whole = (
            str(year), key, names[key], currency, *amounts.values(), len(sums.days),
            min(sums.days, default=""), max(sums.days, default=""),
            format_amount(sums.gross, currency) if reported else "",
        )  # fmt: skip
        table.append((*whole, *(_personal(conn, key) if details else ())))
    columns = (*YEAR_COLUMNS, *(DETAILS if details else ()))
    schema = {name: pl.Int64 if name == "payments" else pl.String for name in columns}
    return pl.DataFrame(table, schema=schema, orient="row")


def _personal(conn: Connection, key: str) -> Iterable[str]:
    known = current_details(conn, key)
    now = known[1] if known else Details()
    return [getattr(now, name) for name in DETAILS]


def _payments(conn: Connection, year: int) -> Iterator[_Payment]:
    signs = {TransactionKind.PAYMENT_PAID: 1, TransactionKind.PAYMENT_RETURNED: -1}
    query = (
        select(ledger_txn.c.kind, ledger_txn.c.effective_on, ledger_txn.c.details_json)
        .where(ledger_txn.c.kind.in_([str(kind) for kind in signs]), *_in_year(year))
        .order_by(ledger_txn.c.id)
    )
    for kind, day, details_json in conn.execute(query):
        said = ResultDetails.read(details_json)
        if said is not None:
            yield _Payment(said.payout, signs[TransactionKind.named(kind)], day)


def _payouts(conn: Connection, wanted: set[int]) -> Iterator[Any]:
    query = select(payout.c.id, payout.c.period_id, payout.c.currency, payout.c.amount_minor, provider.c.key)
    for row in conn.execute(query.join_from(payout, provider)):
        if row.id in wanted:
            yield row


def _taken(conn: Connection) -> dict[str, int]:
    """Return the tax and fee that closes took from payouts, by the idempotency key of the transaction."""
    kinds = {TransactionKind.WITHHOLDING: AccountKind.WITHHOLDING, TransactionKind.FEES: AccountKind.FEES}
    query = journal_lines(ledger_txn.c.idempotency_key, ledger_entry.c.amount).where(
        ledger_txn.c.kind.in_([str(kind) for kind in kinds]), account.c.kind.in_([str(kind) for kind in kinds.values()])
    )
    return {key: amount for key, amount in conn.execute(query)}


def _advances(conn: Connection, year: int) -> Iterator[tuple[str, str, int, str]]:
    """Yield provider, currency, amount and day of each advance of a year that was not taken back."""
    undone = select(ledger_txn.c.reverses_txn_id).where(ledger_txn.c.reverses_txn_id.is_not(None))
    query = journal_lines(
        provider.c.key, ledger_entry.c.commodity, ledger_entry.c.amount, ledger_txn.c.effective_on, owners=True
    ).where(
        ledger_txn.c.kind == TransactionKind.ADVANCE,
        account.c.kind == AccountKind.ADVANCE,
        ledger_txn.c.id.not_in(undone),
        *_in_year(year),
    )
    for key, currency, amount, day in conn.execute(query.order_by(ledger_txn.c.id)):
        yield key, currency, -amount, day


def _in_year(year: int) -> tuple[ColumnElement[bool], ...]:
    return (ledger_txn.c.effective_on >= f"{year}-01-01", ledger_txn.c.effective_on <= f"{year}-12-31")
