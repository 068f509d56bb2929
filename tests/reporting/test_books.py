"""The books of a period in beancount's language balance, and beancount finds no fault with them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from beancount.loader import load_file
from hypothesis import given
from hypothesis import strategies as st

from credit.ledger.corrections import adjust
from credit.ledger.database import Ledger
from credit.payments.export import ExportRequest, export_payments
from credit.payments.results import confirm_payments
from credit.reporting.books import account_name, beancount_text
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
