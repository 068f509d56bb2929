"""The books: the journal of money and the trial balance, for accountants, and in the language of beancount.

Signs are those of accounts: a debit is positive, so debts are negative; the ledger's own sign is the other one. Credits
are not money and stay out. For beancount the books hold the transactions of some periods, the balances before them,
and an assertion of every balance at the end of each: `bean-check` recomputes all of them.
The language: https://beancount.github.io/docs/beancount_language_syntax.html.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby

import polars as pl
from sqlalchemy import Connection, select

from credit.accounting.amounts import format_amount, money_text
from credit.errors import InvalidRequestError
from credit.ledger.accounts import parse_account
from credit.ledger.database import Ledger
from credit.ledger.journal import journal_lines, journal_sums
from credit.ledger.periods import existing_period, periods
from credit.ledger.schema import account, ledger_entry, ledger_txn
from credit.ledger.values import first_day, last_day
from credit.records import CREDIT
from credit.reporting.chart_of_accounts import AccountMap, account_name

_STREAM = {"yield_per": 5000}

_reversed = ledger_txn.alias("reversed")

Balances = dict[tuple[str, str], int]
"""Balances in minor units with the ledger's sign, by name in the chart and currency."""

JOURNAL_COLUMNS = (
    "date", "period", "account", "name", "debit", "credit", "currency", "provider", "kind", "reason", "batch",
    "transaction", "ledger_account", "hash",
)  # fmt: skip
TRIAL_COLUMNS = ("account", "name", "currency", "opening", "debit", "credit", "closing")


@dataclass(frozen=True, slots=True)
class BookLine:
    """An entry of money with its transaction; `amount_minor` has the ledger's sign.

    `name` is the account's in the chart, `account` its key in the ledger. `day` is the day of the effect, `booked_on`
    the nearest day in the period: a transaction of an earlier month that came late counts from the period's first.
    """

    txn_id: int
    kind: str
    memo: str
    day: date
    hash: str
    actor: str | None
    period: str
    batch: int | None
    account: str
    name: str
    currency: str
    amount_minor: int

    @property
    def booked_on(self) -> date:
        """The day in the period on which it counts."""
        return min(max(self.day, first_day(self.period)), last_day(self.period))


def beancount_text(ledger: Ledger, period: str, since: str | None = None) -> str:
    """Return the books of the periods from `since` to a period; once that is closed, the text stays the same.

    Args:
        ledger: the ledger.
        period: the last period.
        since: the first one; None for that period alone, empty for the first of the ledger.

    Raises:
        LedgerError: the ledger has no such period.
    """
    first = period if since is None else since
    with ledger.read() as conn:
        months = _months(conn, first, period)
        opening = _balances(conn, before=first)
        lines = [line for name in months for line in book_lines(conn, name)]
    before = first_day(months[0]) - timedelta(days=1)
    names = sorted({name for name, _ in opening} | {line.name for line in lines})
    title = period if months == [period] else f"{months[0]} to {period}"
    parts = [f'option "title" "credit {title}"', ""]
    parts += [f"{before} open {name}" for name in names]
    parts += ["", *_opening(opening, before)]
    balances = dict(opening)
    by_month = {name: list(own) for name, own in groupby(lines, lambda line: line.period)}
    for name in months:
        own = by_month.get(name, [])
        for line in own:
            key = (line.name, line.currency)
            balances[key] = balances.get(key, 0) + line.amount_minor
        parts += _transactions(own)
        after = last_day(name) + timedelta(days=1)
        parts += [
            # Without the tolerance of 0, beancount takes one of its own, and a cent could move unseen.
            f"{after} balance {key}  {format_amount(-amount, currency)} ~ 0 {currency}"
            for (key, currency), amount in sorted(balances.items())
        ]
    return "\n".join(parts) + "\n"


def journal(conn: Connection, period: str, since: str | None, codes: AccountMap) -> pl.DataFrame:
    """Return the entries of money of some periods: columns `JOURNAL_COLUMNS`, in the order of the journal.

    Amounts are decimal strings beside their currency; one of `debit` and `credit` is empty. `account` is the code in
    the chart that `codes` maps to, `name` the name in this one.

    Args:
        conn: from `Ledger.read`.
        period: the last period.
        since: the first one; None for the first of the ledger.
        codes: of another chart.

    Raises:
        LedgerError: the ledger has no such period.
        InputError: an account has no code.
    """
    rows = [
        (
            line.booked_on.isoformat(),
            line.period,
            codes.code(line.name),
            line.name,
            format_amount(-line.amount_minor, line.currency) if line.amount_minor < 0 else "",
            format_amount(line.amount_minor, line.currency) if line.amount_minor > 0 else "",
            line.currency,
            parse_account(line.account).provider or "",
            line.kind,
            line.memo,
            "" if line.batch is None else str(line.batch),
            line.txn_id,
            line.account,
            line.hash,
        )
        for name in _months(conn, since, period)
        for line in book_lines(conn, name)
    ]
    schema = {name: pl.Int64 if name == "transaction" else pl.String for name in JOURNAL_COLUMNS}
    return pl.DataFrame(rows, schema=schema, orient="row")


def trial_balance(conn: Connection, period: str, since: str | None, codes: AccountMap) -> pl.DataFrame:
    """Return the sums of every account over some periods: columns `TRIAL_COLUMNS`, by code, name and currency.

    `opening` and `closing` are positive for debits. In each currency each of the two sums to 0, and debits are as much
    as credits. Arguments and errors are those of `journal`.
    """
    months = _months(conn, since, period)
    opening = _balances(conn, before=months[0])
    debited: Balances = {}
    credited: Balances = {}
    for name in months:
        for line in book_lines(conn, name):
            sums = credited if line.amount_minor > 0 else debited
            key = (line.name, line.currency)
            sums[key] = sums.get(key, 0) + abs(line.amount_minor)
    rows = []
    for key in {*opening, *debited, *credited}:
        before, debit, credit = -opening.get(key, 0), debited.get(key, 0), credited.get(key, 0)
        amounts = (before, debit, credit, before + debit - credit)
        rows.append((codes.code(key[0]), *key, *(format_amount(minor, key[1]) for minor in amounts)))
    return pl.DataFrame(sorted(rows), schema=dict.fromkeys(TRIAL_COLUMNS, pl.String), orient="row")


def _months(conn: Connection, since: str | None, period: str) -> list[str]:
    """Return the periods of the ledger from one to another."""
    existing_period(conn, period)
    if since is not None and since > period:
        raise InvalidRequestError(f"{since} is after {period}: name the earlier month with --since")
    return [item.id for item in periods(conn) if (since or "") <= item.id <= period]


def _opening(balances: Balances, day: date) -> Iterator[str]:
    if balances:
        # Without them, the books of one month would not agree with the ledger's balances.
        yield f'{day} * "opening balances"'
        for (name, currency), amount in sorted(balances.items()):
            yield f"  {name}  {money_text(-amount, currency)}"
        yield ""


def _transactions(lines: list[BookLine]) -> Iterator[str]:
    last_id = 0
    for line in lines:
        if line.txn_id != last_id:
            if last_id:
                yield ""
            said = f"{line.kind}: {line.memo}" if line.memo else line.kind
            yield f'{line.booked_on} * "{_in_quotes(said)}"'
            yield f"  transaction: {line.txn_id}"
            yield f'  hash: "{line.hash}"'
            yield f"  effective: {line.day}"
            if line.batch is not None:
                yield f"  batch: {line.batch}"
            if line.actor is not None:
                yield f'  actor: "{_in_quotes(line.actor)}"'
            last_id = line.txn_id
        yield f"  {line.name}  {money_text(-line.amount_minor, line.currency)}"
    yield ""


def _in_quotes(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _balances(conn: Connection, *, before: str) -> Balances:
    """Return the balances of money before a period that are not 0."""
    where = (ledger_txn.c.period_id < before, ledger_entry.c.commodity != CREDIT)
    by = (account.c.key, ledger_entry.c.commodity, ledger_txn.c.kind, ledger_txn.c.reverses_txn_id)
    # The kind of what was reversed tells where a reversal counts; reversals are few.
    undoing = select(_reversed.c.id, _reversed.c.kind).join(ledger_txn, ledger_txn.c.reverses_txn_id == _reversed.c.id)
    kinds = {number: kind for number, kind in conn.execute(undoing)}
    found: Balances = {}
    for key, currency, kind, undone, amount in journal_sums(conn, *by, where=where):
        name = account_name(key, kinds.get(undone, kind))
        found[name, currency] = found.get((name, currency), 0) + amount
    return {key: amount for key, amount in found.items() if amount}


def book_lines(conn: Connection, period: str) -> Iterator[BookLine]:
    """Yield the entries of money of a period, in the order of the journal."""
    txn = ledger_txn.c
    columns = (txn.id, txn.kind, txn.memo, txn.effective_on, txn.hash, txn.actor, txn.details_json, _reversed.c.kind)
    query = (
        journal_lines(*columns, account.c.key, ledger_entry.c.commodity, ledger_entry.c.amount)
        .outerjoin(_reversed, _reversed.c.id == txn.reverses_txn_id)
        .where(ledger_txn.c.period_id == period, ledger_entry.c.commodity != CREDIT)
        .order_by(ledger_txn.c.id, ledger_entry.c.line_no)
    )
    # Closed also where the reader stops halfway: PostgreSQL would keep its cursor.
    with conn.execute(query, execution_options=_STREAM) as rows:
        for number, kind, memo, day, digest, actor, details, undone, key, currency, amount in rows:
            yield BookLine(
                number,
                kind,
                memo,
                date.fromisoformat(day),
                digest,
                actor,
                period,
                json.loads(details).get("batch"),
                key,
                account_name(key, undone or kind),
                currency,
                amount,
            )
