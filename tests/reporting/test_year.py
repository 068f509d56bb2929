"""A year's totals count by the day of payment, and what came back counts against the day on which it did."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from credit.errors import InvalidRequestError
from credit.ledger import journal, providers
from credit.ledger.corrections import pay_advance, undo
from credit.ledger.database import Ledger
from credit.ledger.journal import Entry, Posting
from credit.payments.export import ExportRequest, export_payments
from credit.payments.results import confirm_payments
from credit.records import Provider
from credit.reporting.year import year_totals
from tests.payments.samples import NOW, SEPTEMBER, know_details, owe

MARCH = datetime(2027, 3, 1, 9, tzinfo=UTC)


def confirm(ledger: Ledger, folder: Path, *lines: str) -> None:
    path = folder / "results.csv"
    path.write_text("\n".join(["payout_id,status,reference,reason,value_date", *lines]))
    confirm_payments(ledger, path, now=MARCH)


@pytest.fixture
def paid(ledger: Ledger, tmp_path: Path) -> Ledger:
    """September's payouts, paid in December and January; ada's after tax and a fee, bell's came back in February."""
    with ledger.write() as conn:
        providers.import_providers(conn, [Provider("ada", "Ada")], now=NOW)
        for kind, account, amount in (("withholding", "money:withholding:ada", 1000), ("fees", "money:fees", 50)):
            lines = (Entry("money:external", "EUR", -amount), Entry(account, "EUR", amount))
            posting = Posting(kind, SEPTEMBER, date(2026, 9, 30), f"{kind}:{SEPTEMBER}:ada:EUR", lines)
            journal.post(conn, posting, now=NOW)
    owe(ledger)
    know_details(ledger)
    with ledger.write() as conn:
        pay_advance(conn, "bell", 950, "USD", paid_on=date(2026, 10, 1), reference="t-1", now=NOW)
        wrong = pay_advance(conn, "bell", 77, "USD", paid_on=date(2026, 10, 1), reference="t-2", now=NOW)
        undo(conn, wrong.txn_id, reason="never left", now=NOW)
    out = tmp_path / "pay.csv"
    for currency in ("EUR", "USD"):
        export_payments(ledger, ExportRequest(SEPTEMBER, "csv", out.with_suffix(f".{currency}"), currency), now=NOW)
    names = [
        line.split(",")[0]
        for currency in ("EUR", "USD")
        for line in out.with_suffix(f".{currency}").read_text().splitlines()[1:]
    ]
    ada, bell, cho, bell_usd = names
    confirm(
        ledger,
        tmp_path,
        f"{ada},paid,,,2026-12-31",
        f"{bell},paid,,,2026-12-30",
        f"{cho},paid,,,2027-01-02",
        f"{bell_usd},paid,,,2026-11-01",
    )
    confirm(ledger, tmp_path, f"{bell},returned,,account closed,2027-02-01")
    return ledger


def rows(ledger: Ledger, year: int) -> dict[tuple[str, str], list[str]]:
    with ledger.read() as conn:
        frame = year_totals(conn, year)
    columns = ("gross", "paid", "withheld", "fees", "advances", "payments", "form_1099_misc_box_2")
    return {
        (row["provider"], row["currency"]): [str(row[name]) for name in columns] for row in frame.iter_rows(named=True)
    }


def test_a_payment_counts_in_the_year_in_which_the_bank_made_it(paid):
    assert rows(paid, 2026) == {
        ("ada", "EUR"): ["133.95", "123.45", "10.00", "0.50", "0.00", "1", ""],
        ("bell", "EUR"): ["0.01", "0.01", "0.00", "0.00", "0.00", "1", ""],
        # 0.99 paid and 9.50 in advance; an advance that was taken back counts nowhere.
        ("bell", "USD"): ["10.49", "0.99", "0.00", "0.00", "9.50", "2", "10.49"],
    }
    assert rows(paid, 2027) == {
        ("bell", "EUR"): ["-0.01", "-0.01", "0.00", "0.00", "0.00", "0", ""],
        ("cho_7", "EUR"): ["1000000.00", "1000000.00", "0.00", "0.00", "0.00", "1", ""],
    }
    assert rows(paid, 2025) == {}


def test_personal_data_stand_in_it_only_if_asked_for(paid):
    with paid.read() as conn:
        assert "tax_id" not in year_totals(conn, 2026).columns
        ada = year_totals(conn, 2026, details=True).row(0, named=True)
        with pytest.raises(InvalidRequestError, match="no year of four digits"):
            year_totals(conn, 26)
    assert (ada["legal_name"], ada["tax_id"], ada["country"]) == ("Ada Legal", "TAX-ada", "DE")
    assert (ada["first_payment"], ada["last_payment"]) == ("2026-12-31", "2026-12-31")
