"""A period's books in the language of beancount, so anybody can check them with another program than ours.

They hold the period's money transactions, the balances before it, and an assertion of every balance after it:
`bean-check` recomputes all of them. Signs are beancount's: debts are negative. Credits are not money and stay out.
The language: https://beancount.github.io/docs/beancount_language_syntax.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from sqlalchemy import Connection

from credit.accounting.amounts import format_amount
from credit.ledger.accounts import AccountKind
from credit.ledger.database import Ledger
from credit.ledger.journal import journal_lines, journal_sums
from credit.ledger.periods import existing_period
from credit.ledger.schema import account, ledger_entry, ledger_txn
from credit.ledger.values import first_day, last_day
from credit.records import CREDIT

_STREAM = {"yield_per": 5000}


@dataclass(frozen=True, slots=True)
class BookLine:
    """An entry of money with its transaction; `amount_minor` has the ledger's sign."""

    txn_id: int
    kind: str
    memo: str
    day: date
    hash: str
    actor: str | None
    account: str
    currency: str
    amount_minor: int


def beancount_text(ledger: Ledger, period: str) -> str:
    """Return a period's books; once it is closed, the text stays the same.

    Raises:
        LedgerError: the ledger has no such period.
    """
    with ledger.read() as conn:
        existing_period(conn, period)
        opening = _balances(conn, before=period)
        lines = list(book_lines(conn, period))
    closing = dict(opening)
    for line in lines:
        key = (line.account, line.currency)
        closing[key] = closing.get(key, 0) + line.amount_minor
    before = first_day(period) - timedelta(days=1)
    parts = [f'option "title" "credit {period}"', ""]
    parts += [f"{before} open {account_name(key)}" for key in sorted({key for key, _ in closing})]
    parts += ["", *_opening(opening, before), *_transactions(lines, period)]
    after = last_day(period) + timedelta(days=1)
    parts += [
        # Without the tolerance of 0, beancount takes one of its own, and a cent could move unseen.
        f"{after} balance {account_name(key)}  {format_amount(-amount, currency)} ~ 0 {currency}"
        for (key, currency), amount in sorted(closing.items())
    ]
    return "\n".join(parts) + "\n"


def account_name(key: str) -> str:
    """Return the name of an account in beancount; no two accounts share one.

    A key of lower-case letters, digits, `-` and `_` becomes words that start with a capital or digit. beancount does
    not take `_`, which becomes `-U-`. Any other character of a collection's name becomes its Unicode number, in
    hexadecimal between hyphens.
    """
    if key == AccountKind.EXTERNAL:
        return "Assets:External"
    _, purpose, *owners = key.split(":")
    owner, _, stage = ":".join(owners).partition("/")
    # The rest goes into the purpose: an account that contains another one would count its balance, too.
    words = [f"{purpose}-{_escaped(stage)}" if stage else purpose, *([owner] if owner else [])]
    return ":".join(["Liabilities", *(_word(word) for word in words)])


def _word(text: str) -> str:
    plain = text.replace("_", "-U-")
    return plain[0].upper() + plain[1:]


def _escaped(text: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else f"-{ord(letter):x}-" for letter in text)


def _opening(balances: dict[tuple[str, str], int], day: date) -> Iterator[str]:
    if balances:
        # Without them, the books of one month would not agree with the ledger's balances.
        yield f'{day} * "opening balances"'
        for (key, currency), amount in sorted(balances.items()):
            yield f"  {account_name(key)}  {_shown(-amount, currency)}"
        yield ""


def _transactions(lines: list[BookLine], period: str) -> Iterator[str]:
    first, last = first_day(period), last_day(period)
    last_id = 0
    for line in lines:
        if line.txn_id != last_id:
            if last_id:
                yield ""
            # A transaction of an earlier month that came late counts from the first day of this period.
            said = f"{line.kind}: {line.memo}" if line.memo else line.kind
            yield f'{min(max(line.day, first), last)} * "{_in_quotes(said)}"'
            yield f"  transaction: {line.txn_id}"
            yield f'  hash: "{line.hash}"'
            yield f"  effective: {line.day}"
            if line.actor is not None:
                yield f'  actor: "{_in_quotes(line.actor)}"'
            last_id = line.txn_id
        yield f"  {account_name(line.account)}  {_shown(-line.amount_minor, line.currency)}"
    yield ""


def _in_quotes(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _shown(minor: int, currency: str) -> str:
    return f"{format_amount(minor, currency)} {currency}"


def _balances(conn: Connection, *, before: str) -> dict[tuple[str, str], int]:
    where = (ledger_txn.c.period_id < before, ledger_entry.c.commodity != CREDIT)
    sums = journal_sums(conn, account.c.key, ledger_entry.c.commodity, where=where)
    return {(key, currency): amount for key, currency, amount in sums if amount}


def book_lines(conn: Connection, period: str) -> Iterator[BookLine]:
    """Yield the entries of money of a period, in the order of the journal."""
    txn = ledger_txn.c
    columns = (txn.id, txn.kind, txn.memo, txn.effective_on, txn.hash, txn.actor)
    rows = conn.execute(
        journal_lines(*columns, account.c.key, ledger_entry.c.commodity, ledger_entry.c.amount)
        .where(ledger_txn.c.period_id == period, ledger_entry.c.commodity != CREDIT)
        .order_by(ledger_txn.c.id, ledger_entry.c.line_no),
        execution_options=_STREAM,
    )
    for number, kind, memo, day, digest, actor, key, currency, amount in rows:
        yield BookLine(number, kind, memo, date.fromisoformat(day), digest, actor, key, currency, amount)
