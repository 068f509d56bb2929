"""The workbook of a month, for people who close books in a spreadsheet: XLSX by XlsxWriter (the extra `xlsx`).

Amounts are numbers with the digits of their currency, and days are dates. A spreadsheet counts in doubles: an amount of
more than 15 digits would change, and stands as text. Texts from outside are texts, whatever they begin with.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import polars as pl
from sqlalchemy import Connection

from credit.accounting.amounts import currency_digits, format_amount, parse_amount
from credit.accounting.statement_lines import STATEMENT_LINES
from credit.errors import InvalidRequestError
from credit.ledger.periods import Period, existing_period
from credit.ledger.pools import standing_pools
from credit.ledger.values import first_day
from credit.records import MICRO
from credit.reporting.books import BookLine, book_lines
from credit.reporting.frames import BY_PROVIDER, MONEY_COLUMNS, PAYOUT_COLUMNS, Totals, payouts, totals
from credit.text import printable

MOST_ROWS = 1_048_575
"""Rows of a sheet below its headings; more do not fit into the file's format."""
_MOST_DIGITS = 15
"""Decimal digits that a double holds exactly."""
_WIDEST = 60
_CUT = "more rows than a sheet holds: credit pay export --format beancount has all"

Cell = Any
"""Text, number, date, or a pair of an amount in minor units and its currency."""


def workbook(conn: Connection, books_folder: Path, period: str) -> bytes:
    """Return the workbook of a period as XLSX: the same ledger gives the same bytes.

    Its sheets are a summary, the payouts, a roll-forward from opening to closing balances, the exceptions, the
    attribution by provider, and the journal. An open period has no payouts so far.

    Args:
        conn: from `Ledger.read`.
        books_folder: folder of the score books.
        period: the month, `YYYY-MM`.

    Raises:
        LedgerError: the ledger has no such period.
        IntegrityError: a score book or statement is missing or changed.
        InvalidRequestError: the extra `xlsx` is not installed.
    """
    if importlib.util.find_spec("xlsxwriter") is None:
        raise InvalidRequestError('a workbook needs an extra: pip install "credit[xlsx]"')
    import xlsxwriter

    found = existing_period(conn, period)
    is_closed = found.status == "closed"
    content = io.BytesIO()
    book = xlsxwriter.Workbook(content, {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False})
    # Fixed, so that the file does not depend on the moment of its making.
    book.set_properties({"title": f"credit {period}", "created": datetime.combine(first_day(period), time())})
    sheets = _Sheets(book)
    paid = payouts(conn, period) if is_closed else pl.DataFrame(schema=dict.fromkeys(PAYOUT_COLUMNS, pl.String))
    sums = totals(conn, books_folder, period, [BY_PROVIDER])
    sheets.add("Summary", ("", "Amount", "Currency"), _summary(conn, sums, found, paid))
    sheets.add("Payouts", [name.replace("_", " ") for name in PAYOUT_COLUMNS], _payout_rows(paid))
    sheets.add("Roll-forward", ("Line", "Amount", "Currency"), _roll_forward(paid))
    unpaid = paid.filter((pl.col("reason") != "") | ~pl.col("status").is_in(["pending", "exported", "paid"]))
    sheets.add("Exceptions", [name.replace("_", " ") for name in PAYOUT_COLUMNS], _payout_rows(unpaid))
    sheets.add("Attribution", _ATTRIBUTION, _attribution(sums))
    sheets.add("Journal", _JOURNAL, _journal(book_lines(conn, period)))
    book.close()
    return content.getvalue()


def _summary(conn: Connection, sums: Totals, found: Period, paid: pl.DataFrame) -> Iterator[Sequence[Cell]]:
    yield "Period", found.id, ""
    yield "Status", "open: nothing is final" if found.closed_at is None else "closed", ""
    if found.closed_at is not None:
        yield "Closed on (UTC)", found.closed_at.date(), ""
    yield "Outputs valued", sums.outputs, ""
    yield "Credits", sums.credit_micro / MICRO, ""
    for pool in standing_pools(conn, found.id):
        yield f"Pool {pool.reference}", (pool.net_minor, pool.currency), pool.currency
    for currency in paid["currency"].unique().sort():
        own = paid.filter(pl.col("currency") == currency)
        for name, said in (("payable", "Payable"), ("carried_forward", "Carried forward")):
            yield said, (_sum(own[name], currency), currency), currency
        yield "Providers paid", own.filter(pl.col("payable").str.strip_chars("0.") != "").height, currency


def _payout_rows(paid: pl.DataFrame) -> Iterator[Sequence[Cell]]:
    for row in paid.iter_rows(named=True):
        currency = row["currency"]
        yield [
            (parse_amount(row[name], currency, allow_negative=True), currency) if name in MONEY_COLUMNS else row[name]
            for name in PAYOUT_COLUMNS
        ]


def _roll_forward(paid: pl.DataFrame) -> Iterator[Sequence[Cell]]:
    """Yield the sum of every line over all providers, by currency: they add up from opening to closing."""
    for currency in paid["currency"].unique().sort():
        own = paid.filter(pl.col("currency") == currency)
        for line in STATEMENT_LINES:
            sign = -1 if line.name == "payable" else line.sign
            yield line.heading.capitalize(), (sign * _sum(own[line.name], currency), currency), currency


def _sum(cells: pl.Series, currency: str) -> int:
    """Return the sum of a column of amounts, in minor units."""
    return sum(parse_amount(cell, currency, allow_negative=True) for cell in cells)


_ATTRIBUTION = (
    "provider", "outputs", "influence (nats)", "support (nats)", "effect (nats)", "credits", "share", "share low",
    "share high", "rank low", "rank high",
)  # fmt: skip


def _attribution(sums: Totals) -> Iterator[Sequence[Cell]]:
    for row in sums.frames[BY_PROVIDER].iter_rows(named=True):
        yield [value / MICRO if name == "credit_micro" else value for name, value in row.items()]


_JOURNAL = ("transaction", "day", "kind", "why", "actor", "account", "amount", "currency", "hash")


def _journal(lines: Iterable[BookLine]) -> Iterator[Sequence[Cell]]:
    for line in lines:
        amount = (line.amount_minor, line.currency)
        yield (
            line.txn_id,
            line.day,
            line.kind,
            line.memo,
            line.actor or "",
            line.account,
            amount,
            line.currency,
            line.hash,
        )


class _Sheets:
    """Sheets of a workbook, each with its headings in a first row that stays in sight."""

    def __init__(self, book: Any) -> None:
        self._book = book
        self._heading = book.add_format({"bold": True, "bottom": 1})
        self._day = book.add_format({"num_format": "yyyy-mm-dd"})
        self._money: dict[int, Any] = {}

    def add(self, name: str, headings: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        """Add a sheet; what does not fit into one is left out, and the last row says so."""
        sheet = self._book.add_worksheet(name)
        sheet.freeze_panes(1, 0)
        widths = [len(text) for text in headings]
        for column, text in enumerate(headings):
            sheet.write_string(0, column, text, self._heading)
        for number, row in enumerate(rows, start=1):
            if number == MOST_ROWS:
                sheet.write_string(
                    number, 0, "more rows than a sheet holds: credit pay export --format beancount has all"
                )
                break
            for column, cell in enumerate(row):
                widths[column] = max(widths[column], self._write(sheet, number, column, cell))
        for column, width in enumerate(widths):
            sheet.set_column(column, column, min(width + 2, _WIDEST))

    def _write(self, sheet: Any, row: int, column: int, cell: Cell) -> int:
        """Write a cell, and return the number of its characters."""
        match cell:
            case None | "":
                return 0
            case (minor, currency):
                digits = currency_digits(currency)
                text = format_amount(minor, currency)
                if len(text.strip("-").replace(".", "")) > _MOST_DIGITS:
                    sheet.write_string(row, column, text)
                else:
                    sheet.write_number(row, column, float(text), self._amounts(digits))
                return len(text) + len(text) // 3
            case date():
                sheet.write_datetime(row, column, datetime.combine(cell, time()), self._day)
                return 10
            case int() | float():
                sheet.write_number(row, column, cell)
                return 10
            case _:
                text = printable(str(cell))
                sheet.write_string(row, column, text)
                return len(text)

    def _amounts(self, digits: int) -> Any:
        if digits not in self._money:
            form = "#,##0" + ("." + "0" * digits if digits else "")
            self._money[digits] = self._book.add_format({"num_format": form})
        return self._money[digits]
