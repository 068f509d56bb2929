"""The books of a period in beancount's language balance, and beancount finds no fault with them."""

from __future__ import annotations

import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from beancount.loader import load_file
from hypothesis import given
from hypothesis import strategies as st

from credit.errors import InputError, InvalidRequestError
from credit.ledger import balances, pools
from credit.ledger.corrections import adjust, pay_advance, undo
from credit.ledger.database import Ledger
from credit.ledger.remittances import remit
from credit.payments.export import ExportRequest, export_payments
from credit.payments.results import confirm_payments
from credit.reporting.books import beancount_text, journal, trial_balance
from credit.reporting.chart_of_accounts import AccountMap, account_name, read_account_map
from tests.payments.samples import NOW, SEPTEMBER, know_details, owe


def bean_check(path: Path) -> None:
    found = subprocess.run(
        [Path(sys.executable).with_name("bean-check"), path], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_the_books_pass_bean_check(ledger, tmp_path):
    owe(ledger)
    know_details(ledger)
    out = tmp_path / "payments.csv"
    export_payments(ledger, ExportRequest(SEPTEMBER, "csv", out, "EUR"), now=NOW)
    reference = out.read_text().splitlines()[1].split(",")[0]
    (tmp_path / "results.csv").write_text(f"payout_id,status\n{reference},paid\n")
    confirm_payments(ledger, tmp_path / "results.csv", now=NOW)
    for period in (SEPTEMBER, "2026-10"):
        books = tmp_path / f"{period}.beancount"
        books.write_text(beancount_text(ledger, period))
        bean_check(books)
    text = (tmp_path / "2026-10.beancount").read_text()
    assert "2026-11-01 balance Liabilities:Payout-exported:Cho-U-7  -1000000.00 ~ 0 EUR" in text
    assert "2026-11-01 balance Liabilities:Payout-exported:Ada  0.00 ~ 0 EUR" in text


def test_a_cent_that_moved_is_found_and_a_correction_says_why(ledger, tmp_path):
    owe(ledger)
    with ledger.write() as conn:
        adjust(conn, "ada", 125, "EUR", period="2026-10", reason='a "late" licence', now=NOW)
    books = tmp_path / "books.beancount"
    text = beancount_text(ledger, "2026-10")
    assert '* "adjustment: a \\"late\\" licence"' in text
    books.write_text(text)
    bean_check(books)
    moved = text.replace("1.25 EUR", "1.26 EUR")  # on both sides: the transaction itself still balances
    assert moved.count("1.26 EUR") == 2
    for altered, found in ((moved, True), (moved.replace(" ~ 0 ", " "), False)):
        books.write_text(altered)
        _, errors, _ = load_file(str(books))
        assert bool(errors) == found, "a cent is within beancount's own tolerance"


def test_the_books_name_the_actor_of_each_transaction(database_url, tmp_path):
    actor = 'an"na\\ben'
    with Ledger.open(database_url, actor=actor) as ledger:
        owe(ledger)
        books = tmp_path / "books.beancount"
        books.write_text(beancount_text(ledger, SEPTEMBER))
    bean_check(books)
    entries, errors, _ = load_file(str(books))
    assert not errors
    assert {item.meta.get("actor") for item in entries if "transaction" in item.meta} == {actor}


KEYS = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True)


@given(KEYS, KEYS)
def test_no_two_accounts_share_a_name(one, two):
    names = {account_name(f"money:payable:{key}") for key in (one, two)}
    assert len(names) == len({one, two})
    assert all(re.fullmatch(r"Liabilities:Payable:[A-Z0-9][A-Za-z0-9-]*", name) for name in names)


def lived(ledger: Ledger, tmp_path: Path) -> None:
    """Months with pools, advances, corrections, payments, remittances and reversals, in two currencies."""
    owe(ledger)
    know_details(ledger)
    out = tmp_path / "payments.csv"
    export_payments(ledger, ExportRequest(SEPTEMBER, "csv", out, "EUR"), now=NOW)
    first, *_ = [line.split(",")[0] for line in out.read_text().splitlines()[1:]]
    (tmp_path / "results.csv").write_text(f"payout_id,status\n{first},paid\n")
    confirm_payments(ledger, tmp_path / "results.csv", now=NOW)
    paid_on = NOW.date()
    with ledger.write() as conn:
        pools.add_pool(conn, "2026-10", "EUR", 5000, 0, "main", NOW)
        mistaken = pools.add_pool(conn, "2026-10", "EUR", 700, 0, "twice", NOW)
        undo(conn, mistaken.txn_id, reason="entered twice", now=NOW)
        pools.add_pool(conn, "2026-11", "USD", 900, 0, "main", NOW)
        adjust(conn, "ada", -125, "EUR", period="2026-10", reason="counted twice", now=NOW)
        remit(conn, "house", 25, "EUR", paid_on=paid_on, reference="to the owner", now=NOW)
        pay_advance(conn, "bell", 300, "USD", paid_on=paid_on, reference="transfer-1", now=NOW)


def sums(frame: pl.DataFrame, *columns: str) -> dict[tuple[str, str], Decimal]:
    """The sum of columns by account's name and currency, without zeros."""
    found: dict[tuple[str, str], Decimal] = {}
    for row in frame.iter_rows(named=True):
        amounts = [Decimal(row[name] or 0) * sign for name, sign in zip(columns, (1, -1), strict=False)]
        key = (row["name"], row["currency"])
        found[key] = found.get(key, Decimal(0)) + sum(amounts)
    return {key: amount for key, amount in found.items() if amount}


def test_journal_trial_balance_and_beancount_have_the_totals_of_the_ledger(ledger, tmp_path):
    lived(ledger, tmp_path)
    with ledger.read() as conn:
        entries = journal(conn, "2026-11", None, AccountMap({}))
        trial = trial_balance(conn, "2026-11", "2026-10", AccountMap({}))
        whose = {name: balances.balances(conn, name) for name in entries["ledger_account"].unique()}
    booked = sums(entries, "debit", "credit")
    assert booked == sums(trial, "closing")
    # The ledger's own totals, account by account; `money:external` is the expense and the bank together.
    told: dict[tuple[str, str], Decimal] = {}
    for key, found in whose.items():
        for item in found:
            name = "outside" if key == "money:external" else account_name(key)
            told[name, item.commodity] = -Decimal(item.amount) / 100
    outside = {"Expenses:Royalties": "outside", "Assets:Bank": "outside"}
    merged: dict[tuple[str, str], Decimal] = {}
    for (name, currency), amount in booked.items():
        key = (outside.get(name, name), currency)
        merged[key] = merged.get(key, Decimal(0)) + amount
    assert {key: amount for key, amount in merged.items() if amount} == {
        key: amount for key, amount in told.items() if amount
    }
    assert booked["Expenses:Royalties", "EUR"] == Decimal("50.00"), "a pool that was taken back is no expense"
    assert booked["Income:House", "EUR"] == Decimal("-1.00")
    assert booked["Assets:Advance:Bell", "USD"] == Decimal("3.00")
    for currency in ("EUR", "USD"):
        own = trial.filter(pl.col("currency") == currency)
        assert sum(map(Decimal, own["debit"])) == sum(map(Decimal, own["credit"])) > 0
        assert sum(map(Decimal, own["opening"])) == sum(map(Decimal, own["closing"])) == 0
    books = tmp_path / "books.beancount"
    books.write_text(beancount_text(ledger, "2026-11", ""))
    bean_check(books)
    found, errors, _ = load_file(str(books))
    assert not errors
    checked = {(item.account, item.amount.currency): item.amount.number for item in found if hasattr(item, "tolerance")}
    assert {key: amount for key, amount in checked.items() if amount} == booked, "the last assertions are the totals"


def test_months_are_put_together_in_one_file_or_begin_with_their_opening_balances(ledger, tmp_path):
    lived(ledger, tmp_path)
    for since, openings in (("", 0), ("2026-10", 1)):
        text = beancount_text(ledger, "2026-11", since)
        assert text.count('"opening balances"') == openings
        assert text.count(" open Assets:Bank\n") == 1
        assert text.count("balance Liabilities:Payout:Cho-U-7") == (3 if not since else 2), "at the end of every month"
        (tmp_path / "books.beancount").write_text(text)
        bean_check(tmp_path / "books.beancount")
    with pytest.raises(InvalidRequestError, match="2026-12 is after 2026-11"):
        beancount_text(ledger, "2026-11", "2026-12")


def test_a_mapping_file_gives_the_codes_of_another_chart_and_leaves_no_account_out(ledger, tmp_path):
    lived(ledger, tmp_path)
    chart = tmp_path / "chart.csv"
    lines = ["account,code", "Liabilities,1600", "Liabilities:Payable:Ada,1601", "Assets:Bank,1200", "Expenses,4900"]
    chart.write_text("\n".join([*lines, "Income:House,8000"]))
    with ledger.read() as conn:
        with pytest.raises(InputError, match="has no code for Assets:Advance:Bell; add a line for it"):
            journal(conn, "2026-10", None, read_account_map(chart))
        chart.write_text("\n".join([*lines, "Income:House,8000", "Assets,1000"]))
        entries = journal(conn, "2026-10", "2026-10", read_account_map(chart))
        trial = trial_balance(conn, "2026-10", "2026-10", read_account_map(chart))
    codes = dict(entries.select("name", "account").iter_rows())
    assert codes["Liabilities:Payable:Ada"] == "1601"
    assert codes["Liabilities:Payout-exported:Ada"] == "1600"
    assert codes["Assets:Advance:Bell"] == "1000"
    assert set(entries["period"]) == {"2026-10"}
    (wrong,) = entries.filter(pl.col("reason") == "counted twice", pl.col("provider") == "ada").iter_rows(named=True)
    assert (wrong["debit"], wrong["credit"], wrong["kind"]) == ("1.25", "", "adjustment")
    (left,) = entries.filter(pl.col("kind") == "payment-paid", pl.col("account") == "1200").iter_rows(named=True)
    assert (left["credit"], left["batch"], left["date"]) == ("123.45", "1", "2026-10-05")
    assert set(trial["account"]) == {"1000", "1200", "1600", "1601", "4900", "8000"}
    chart.write_text("account,code\nIncome,1\nIncome,2\n")
    with pytest.raises(InputError, match="Income is mapped already, to 1"):
        read_account_map(chart)
