"""A results file counts whole or not at all, and once."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from credit.errors import CreditError, InputError
from credit.ledger import balances
from credit.ledger.database import Ledger
from credit.ledger.payouts import batches
from credit.ledger.transactions import transaction, transactions
from credit.ledger.verify import verify
from credit.payments.export import ExportRequest, export_payments
from credit.payments.results import ConfirmReport, confirm_payments
from tests.payments.samples import NOW, SEPTEMBER


@pytest.fixture
def reference(owing: Ledger, out: Path) -> str:
    """Reference of a batch with payouts 1, 2 and 4; payout 3 is in a second batch."""
    export_payments(owing, ExportRequest(SEPTEMBER, "csv", out, "EUR"), now=NOW)
    export_payments(owing, ExportRequest(SEPTEMBER, "csv", out.with_suffix(".usd"), "USD"), now=NOW)
    with owing.read() as conn:
        return batches(conn)[0].reference


def confirm(
    ledger: Ledger, folder: Path, *lines: str, header: str = "payout_id,status,reference,reason"
) -> ConfirmReport:
    path = folder / "results.csv"
    path.write_text("\n".join([header, *lines]))
    return confirm_payments(ledger, path, batch_number=1, now=NOW)


def test_a_result_is_recorded_once(owing, reference, tmp_path):
    lines = (f"{reference}-1,paid,B-1,", f"{reference}-2,Failed,,account closed")
    assert confirm(owing, tmp_path, *lines) == ConfirmReport(1, 1, 0)
    head = verify(owing, None).chain_head
    assert confirm(owing, tmp_path, *lines) == ConfirmReport(0, 0, 2)
    assert verify(owing, None).chain_head == head
    assert confirm(owing, tmp_path, *lines, f"{reference}-4,paid,,") == ConfirmReport(1, 0, 2)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{}-9,paid,,", "there is no payout"),
        ("CR9-00000000-1,paid,,", "there is no payout"),
        ("1,paid,,", "not a payout's id"),
        ("{}-2,sent,,", "neither paid nor failed, nor returned"),
        ("{}-2,returned,R-1,", "came back needs a reason"),
        ("{}-2,returned,R-1,AC04", "only money that was paid is returned"),
        ("{}-2,failed,,", "needs a reason"),
        ("{}-1,failed,,no", "given before"),
        ("{}-2,paid,FR14 2004 1010 0505 0001 3M02 606,", "repeats the provider's iban"),
        ("{}-2,failed,,unknown to Bell Legal", "repeats the provider's legal name"),
        ("{}-2,paid," + "x" * 201 + ",", "longer than 200"),
        ("{}-2,paid", "cells|columns"),
    ],
)
def test_one_bad_row_and_nothing_is_recorded(owing, reference, tmp_path, line, match):
    head = verify(owing, None).chain_head
    with pytest.raises(InputError, match=match):
        confirm(owing, tmp_path, f"{reference}-1,paid,,", line.format(reference))
    assert verify(owing, None).chain_head == head


DATED = "payout_id,status,reference,reason,value_date,amount"
JANUARY = datetime(2027, 1, 10, 9, tzinfo=UTC)


def test_a_payment_counts_on_the_day_on_which_the_bank_made_it(owing, reference, tmp_path):
    """A payment of October that is confirmed in January is October's, in cash books, withholding and tax years."""
    lines = (f"{reference}-1,paid,B-1,,2026-10-07,123.45", f"{reference}-2,failed,,account closed,,")
    (tmp_path / "late.csv").write_text("\n".join([DATED, *lines]))
    assert confirm_payments(owing, tmp_path / "late.csv", now=JANUARY) == ConfirmReport(1, 1, 0)
    assert confirm_payments(owing, tmp_path / "late.csv", now=JANUARY) == ConfirmReport(0, 0, 2)
    with owing.read() as conn:
        found = {item.kind: item for item in transactions(conn)}
        said = transaction(conn, found["payment-paid"].id).details
    assert (found["payment-paid"].effective_on, found["payment-paid"].period) == ("2026-10-07", "2026-10")
    assert said["value_on"] == "2026-10-07"
    assert found["payment-failed"].effective_on == "2027-01-10"
    assert verify(owing, None).problems == ()


def test_a_fee_that_banks_kept_is_recorded_and_makes_up_the_amount(owing, reference, tmp_path):
    def told(cells: str) -> ConfirmReport:
        (tmp_path / "short.csv").write_text(f"{DATED},fee\n{reference}-{cells}")
        return confirm_payments(owing, tmp_path / "short.csv", now=JANUARY)

    for cells, match in (
        ("1,paid,B-1,,,120.00,3.44", r"left with 123.45 EUR, not 120.00 and a fee of 3.44; ask the bank"),
        ("1,paid,B-1,,,120.00,", "if banks kept it as a fee, a column fee says so"),
        ("1,paid,B-1,,,,3.45", "beside the amount that was paid"),
        ("1,failed,,closed,,120.00,3.45", "a fee belongs to a payment"),
        ("1,paid,B-1,,,120.00,3.455", "3 decimal digits"),
    ):
        with pytest.raises(InputError, match=match):
            told(cells)
    assert told("1,paid,B-1,,,120.00,3.45") == ConfirmReport(1, 0, 0)
    assert told("1,paid,B-1,,,120.00,3.45") == ConfirmReport(0, 0, 1)
    with owing.read() as conn:
        (paid,) = [transaction(conn, item.id) for item in transactions(conn) if item.kind == "payment-paid"]
        assert balances.balance(conn, "money:payout:ada/exported", "EUR") == 0
    assert paid.details["fee_minor"] == 345
    assert verify(owing, None).problems == ()


@pytest.mark.parametrize(
    ("cells", "match"),
    [
        ("2026-10-04,", "the value date 2026-10-04 is not between 2026-10-05, when it left, and 2027-01-10"),
        ("2027-01-11,", "the value date 2027-01-11 is not between"),
        ("7.10.2026,", "is not a day; write YYYY-MM-DD"),
        (",120.99", r"payout CR1-\w+-1 left with 123.45 EUR, not 120.99; ask the bank for the difference"),
        (",one", "is not an amount"),
    ],
)
def test_a_result_of_another_day_or_amount_is_refused(owing, reference, tmp_path, cells, match):
    head = verify(owing, None).chain_head
    (tmp_path / "late.csv").write_text(f"{DATED}\n{reference}-1,paid,B-1,,{cells}")
    with pytest.raises(InputError, match=match):
        confirm_payments(owing, tmp_path / "late.csv", now=JANUARY)
    assert verify(owing, None).chain_head == head


def test_results_of_another_batch_are_refused(owing, reference, tmp_path):
    with owing.read() as conn:
        other = batches(conn)[1].reference
    with pytest.raises(InputError, match="is in batch 2, not in batch 1"):
        confirm(owing, tmp_path, f"{other}-3,paid,,")


def test_another_result_than_the_recorded_one_is_refused(owing, reference, tmp_path):
    confirm(owing, tmp_path, f"{reference}-1,paid,B-1,")
    with pytest.raises(
        InputError, match="recorded as paid, not as failed; if the money came back, its status is returned"
    ):
        confirm(owing, tmp_path, f"{reference}-1,failed,,no")
    with pytest.raises(InputError, match="another reference"):
        confirm(owing, tmp_path, f"{reference}-1,paid,B-2,")


def test_what_was_paid_and_came_back_is_owed_again_and_can_leave_again(owing, reference, tmp_path):
    def holds(*accounts: str) -> list[int]:
        with owing.read() as conn:
            return [balances.balance(conn, account, "EUR") for account in accounts]

    accounts = ("money:external", "money:payout:ada/exported", "money:payout:ada")
    before = holds(*accounts)
    paid, back = f"{reference}-1,paid,B-1,", f"{reference}-1,returned,R-9,account closed"
    confirm(owing, tmp_path, paid)
    assert holds(*accounts) == [before[0] + 12_345, before[1] - 12_345, before[2]]
    assert confirm(owing, tmp_path, back) == ConfirmReport(0, 0, 0, returned=1)
    assert holds(*accounts) == [before[0], before[1] - 12_345, before[2] + 12_345]
    for line in (paid, back):
        assert confirm(owing, tmp_path, line) == ConfirmReport(0, 0, 1)
    with pytest.raises(InputError, match="another reference"):
        confirm(owing, tmp_path, f"{reference}-1,returned,R-8,account closed")
    with pytest.raises(InputError, match="recorded as returned, not as failed"):
        confirm(owing, tmp_path, f"{reference}-1,failed,,no")
    again = export_payments(owing, ExportRequest(SEPTEMBER, "csv", tmp_path / "again", "EUR", retry=True), now=NOW)
    assert [(item.provider, item.amount_minor) for item in again.payouts] == [("ada", 12_345)]
    assert confirm(owing, tmp_path, back) == ConfirmReport(0, 0, 1)
    assert holds(*accounts) == before
    assert verify(owing, None).problems == ()


def test_what_failed_does_not_come_back(owing, reference, tmp_path):
    confirm(owing, tmp_path, f"{reference}-1,failed,,account closed")
    with pytest.raises(InputError, match="is recorded as failed: only money that was paid is returned"):
        confirm(owing, tmp_path, f"{reference}-1,returned,,account closed")


def test_a_file_without_results_or_with_unknown_columns_is_refused(owing, reference, tmp_path):
    with pytest.raises(CreditError, match="holds no results"):
        confirm(owing, tmp_path)
    with pytest.raises(CreditError, match="no column 'colour'"):
        confirm(owing, tmp_path, f"{reference}-1,paid,red", header="payout_id,status,colour")
