"""The workbook of a month, opened by another library than the one that wrote it: every number is the ledger's."""

from __future__ import annotations

import io
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from openpyxl import load_workbook

from credit.accounting.amounts import format_amount
from credit.ledger import terms
from credit.ledger.corrections import adjust
from credit.ledger.database import Ledger
from credit.records import Provider, Terms
from credit.reporting.books import book_lines
from credit.reporting.frames import MONEY_COLUMNS, attribution, payouts
from credit.reporting.workbook import workbook
from tests.reporting import ledgers
from tests.reporting.ledgers import NOW, OCTOBER, at

SHEETS = ["Summary", "Payouts", "Roll-forward", "Exceptions", "Attribution", "Journal"]


def opened(ledger: Ledger, books: Path) -> dict[str, list[dict[str, Any]]]:
    """Every sheet as rows by their headings."""
    with ledger.read() as conn:
        content = workbook(conn, books, OCTOBER)
        assert workbook(conn, books, OCTOBER) == content, "the same ledger gives the same bytes"
    found = {}
    for sheet in load_workbook(io.BytesIO(content)):
        headings, *rows = sheet.iter_rows(values_only=True)
        assert sheet.freeze_panes == "A2"
        found[sheet.title] = [dict(zip(headings, row, strict=True)) for row in rows]
    return found


def close_to_the_cent(cell: object, amount: str) -> bool:
    return isinstance(cell, int | float) and Decimal(str(cell)) == Decimal(amount)


@pytest.fixture
def closed(month: Ledger) -> Ledger:
    """A month with withholding, a balance below its minimum, and an adjustment with a hostile reason."""
    with month.write() as conn:
        terms.agree(conn, "ada", "EUR", Terms(withholding_ppm=100_000), at(1, 1).date(), now=NOW)
        terms.agree(conn, "bell", "EUR", Terms(minimum_payout_minor=10_000_000), at(1, 1).date(), now=NOW)
        adjust(conn, "ada", 1_234_567, "EUR", period=OCTOBER, reason="=HYPERLINK(1)", now=NOW)
    ledgers.close(month, OCTOBER, net_minor=1_000_001)
    return month


def test_every_amount_is_a_number_and_the_ledgers(closed, books):
    sheets = opened(closed, books)
    assert list(sheets) == SHEETS
    with closed.read() as conn:
        paid, lines = payouts(conn, OCTOBER), list(book_lines(conn, OCTOBER))
        credited = attribution(conn, books, OCTOBER, "provider")
    assert len(sheets["Payouts"]) == paid.height
    for row, shown in zip(paid.iter_rows(named=True), sheets["Payouts"], strict=True):
        for name in MONEY_COLUMNS:
            assert close_to_the_cent(shown[name.replace("_", " ")], row[name])
    assert [row["amount"] for row in sheets["Journal"]] == [
        float(format_amount(line.amount_minor, line.currency)) for line in lines
    ]
    assert {type(row["day"]) for row in sheets["Journal"]} == {datetime}
    assert [row["credits"] for row in sheets["Attribution"]] == [micro / 1e6 for micro in credited["credit_micro"]]


def test_the_roll_forward_adds_up_from_opening_to_closing(closed, books):
    *moved, closing = opened(closed, books)["Roll-forward"]
    assert (moved[0]["Line"], closing["Line"]) == ("Opening", "Carried forward")
    assert round(sum(row["Amount"] for row in moved), 2) == closing["Amount"] > 0
    assert {row["Line"]: row["Amount"] for row in moved}["Withholding"] < 0


def test_exceptions_are_what_is_not_paid_with_the_reason(closed, books):
    (row,) = opened(closed, books)["Exceptions"]
    assert row["provider"] == "bell"
    assert "below the minimum payout of 100000.00 EUR" in row["reason"]


def test_text_that_looks_like_a_formula_is_text(closed, books):
    with closed.read() as conn:
        book = load_workbook(io.BytesIO(workbook(conn, books, OCTOBER)))
    cells = [cell for row in book["Journal"].iter_rows() for cell in row if str(cell.value).startswith("=")]
    assert [cell.data_type for cell in cells] == ["s", "s"]


def test_an_open_month_has_no_payouts_and_says_so(month, books):
    sheets = opened(month, books)
    assert sheets["Summary"][1]["Amount"] == "open: nothing is final"
    assert sheets["Payouts"] == sheets["Roll-forward"] == []
    assert sheets["Attribution"]


def test_an_amount_that_a_spreadsheet_would_change_is_text(ledger, books):
    ledgers.add(ledger, [Provider("ada", "Ada")])
    ledgers.value(ledger, books, [ledgers.Valued("o", at(10, 1), {ledgers.ADA: (1.0, 1_000_000)})])
    ledgers.close(ledger, OCTOBER, net_minor=9_007_199_254_740_993)
    (row,) = opened(ledger, books)["Payouts"]
    assert row["earned"] == "90071992547409.93"
