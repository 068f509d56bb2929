"""What is owed leaves once, in files that say exactly what the ledger says."""

from __future__ import annotations

import csv
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from credit.errors import InputError, IntegrityError, InvalidRequestError, LedgerError
from credit.ledger import holds, pools
from credit.ledger.balances import balance
from credit.ledger.database import Ledger
from credit.ledger.payouts import batch_items, batches, payouts
from credit.ledger.transactions import transactions
from credit.ledger.verify import verify
from credit.payments.details import set_provider_details
from credit.payments.export import ExportReport, ExportRequest, export_payments
from credit.payments.results import confirm_payments
from tests.payments.samples import IBANS, NOW, OWED, PAYER, SEPTEMBER
from tests.processes import FORKS

BRAZIL = "BR1800360305000010009795493C1"
"""An IBAN of a country that takes no part in SEPA."""


def request(to: Path, **changes: object) -> ExportRequest:
    return replace(ExportRequest(SEPTEMBER, "csv", to, "EUR"), **changes)


def export(ledger: Ledger, out: Path, **changes: object) -> ExportReport:
    return export_payments(ledger, request(out, **changes), now=NOW)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def statuses(ledger: Ledger) -> dict[tuple[str, str], str]:
    with ledger.read() as conn:
        return {(item.provider, item.currency): item.status for item in payouts(conn, SEPTEMBER)}


def confirm(ledger: Ledger, path: Path, status: str, *numbers: int) -> None:
    """Record the same result for some payouts of the last batch."""
    with ledger.read() as conn:
        items = batch_items(conn, batches(conn)[-1])
    lines = [f"{item.reference},{status},no such account" for item in items if item.payout.id in numbers]
    path.write_text("\n".join(["payout_id,status,reason", *lines]))
    confirm_payments(ledger, path, now=NOW)


def test_an_account_outside_sepa_stays_out_of_its_file_and_leaves_in_another(owing, out):
    set_provider_details(owing, "ada", {"iban": BRAZIL}, now=NOW)
    report = export(owing, out, format="pain001", payer=PAYER, waiting_days=0)
    assert [item.provider for item in report.payouts] == ["bell", "cho_7"]
    (reason,) = report.unpayable
    assert reason.startswith("ada: iban is of BR, which takes no part in SEPA")
    export(owing, out.with_suffix(".csv"), waiting_days=0)
    assert [row["iban"] for row in rows(out.with_suffix(".csv"))] == [BRAZIL]


def test_a_file_says_what_the_ledger_says(owing, out):
    report = export(owing, out)
    assert [(row["provider"], row["amount"], row["iban"]) for row in rows(out)] == [
        ("ada", "123.45", IBANS["ada"]),
        ("bell", "0.01", IBANS["bell"]),
        ("cho_7", "1000000.00", IBANS["cho_7"]),
    ]
    assert report.batch is not None
    assert report.batch.amount_minor == sum(amount for (_, currency), amount in OWED.items() if currency == "EUR")
    assert statuses(owing) == {key: "exported" if key[1] == "EUR" else "pending" for key in OWED}
    with owing.read() as conn:
        assert balance(conn, "money:payout:ada/exported", "EUR") == 12_345
        assert balance(conn, "money:payout:ada", "EUR") == 0
    assert out.stat().st_mode & 0o077 == 0
    assert verify(owing, None).problems == ()


def test_exporting_again_writes_the_same_bytes_and_pays_nobody_twice(owing, out, tmp_path):
    first = export(owing, out)
    head = verify(owing, None).chain_head
    again = export(owing, tmp_path / "again")
    by_number = export(owing, tmp_path / "by number", batch=1)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "by number").read_bytes() == out.read_bytes()
    assert (again.again, again.batch, by_number.batch) == (True, first.batch, first.batch)
    assert verify(owing, None).chain_head == head


def test_details_that_change_later_do_not_change_a_batch(owing, out, tmp_path):
    export(owing, out)
    set_provider_details(owing, "ada", {"iban": "GB33BUKB20201555555555"}, now=NOW)
    export(owing, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == out.read_bytes()


def test_a_file_that_is_something_else_is_not_overwritten(owing, out):
    out.write_text("precious")
    with pytest.raises(LedgerError, match="not overwritten"):
        export(owing, out)
    assert out.read_text() == "precious"
    assert set(statuses(owing).values()) == {"pending"}


def test_what_is_unpayable_stays_behind_and_leaves_later(owing, out, tmp_path):
    set_provider_details(owing, "ada", {"legal_name": "=cmd|'/c calc'"}, now=NOW)
    with owing.write() as conn:
        holds.place_hold(conn, "bell", None, "a dispute", now=NOW)
    with pytest.raises(InputError, match="nothing was exported"):
        export(owing, out, strict=True)
    report = export(owing, out)
    assert report.unpayable == (
        "ada: legal_name starts like a formula; correct it: credit providers details ada --legal-name ...",
        "bell: on hold (a dispute)",
    )
    assert [row["provider"] for row in rows(out)] == ["cho_7"]
    set_provider_details(owing, "ada", {"legal_name": "Ada"}, now=NOW)
    later = export(owing, tmp_path / "later")
    assert [item.provider for item in later.payouts] == ["ada"]
    assert any("batch 1 (csv, EUR) waits for 1 result;" in notice for notice in later.notices)


def test_a_dry_run_leaves_everything_as_it_was(owing, out):
    report = export(owing, out, format="paypal", currency="USD", dry_run=True)
    assert (report.batch, [item.provider for item in report.payouts], out.exists()) == (None, ["bell"], False)
    assert set(statuses(owing).values()) == {"pending"}


def test_only_what_failed_leaves_again_and_in_another_batch(owing, out, tmp_path):
    export(owing, out)
    confirm(owing, tmp_path / "results.csv", "failed", 1)
    confirm(owing, tmp_path / "results.csv", "paid", 2)
    nothing = export(owing, tmp_path / "same")
    assert nothing.again  # the first batch still waits for a result
    report = export(owing, tmp_path / "retried", retry=True)
    assert [item.id for item in report.payouts] == [1]
    assert (report.again, report.batch and report.batch.id) == (False, 2)
    confirm(owing, tmp_path / "results.csv", "paid", 1)
    assert statuses(owing) == {
        ("ada", "EUR"): "paid",
        ("bell", "EUR"): "paid",
        ("bell", "USD"): "pending",
        ("cho_7", "EUR"): "exported",
    }
    with owing.read() as conn:
        assert balance(conn, "money:external", "EUR") == -100_000_000
        assert balance(conn, "money:payout:ada/exported", "EUR") == balance(conn, "money:payout:ada", "EUR") == 0
    assert verify(owing, None).problems == ()


def worker(url: str, out: Path) -> None:
    with Ledger.open(url) as ledger:
        export_payments(ledger, request(out), now=NOW)


def test_processes_that_export_at_once_write_one_batch(owing, database_url, tmp_path):
    paths = [tmp_path / f"out-{number}" for number in range(3)]
    workers = [FORKS.Process(target=worker, args=(database_url, path)) for path in paths]
    for item in workers:
        item.start()
    for item in workers:
        item.join()
    assert [item.exitcode for item in workers] == [0, 0, 0]
    assert len({path.read_bytes() for path in paths}) == 1
    with owing.read() as conn:
        assert [item.payout_count for item in batches(conn)] == [3]


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"period": "2026-10"}, LedgerError, "is not closed"),
        ({"currency": None}, InvalidRequestError, "a file has one currency"),
        ({"format": "pain001", "currency": "USD", "payer": PAYER}, InvalidRequestError, "SEPA carries EUR alone"),
        ({"format": "pain001"}, InvalidRequestError, "needs the payer"),
        ({"format": "pain001", "payer": replace(PAYER, iban="DE1")}, InvalidRequestError, "payer's iban"),
        ({"format": "pain001", "payer": replace(PAYER, town="")}, InvalidRequestError, "--payer-town"),
        ({"format": "pain001", "payer": replace(PAYER, iban=BRAZIL)}, InvalidRequestError, "payer's iban is of BR"),
        ({"batch": 7}, LedgerError, "no batch 7"),
        ({"out": Path("nowhere/at/all")}, InvalidRequestError, "does not exist"),
    ],
)
def test_a_request_that_makes_no_sense_writes_nothing(owing, out, changes, error, match):
    head = verify(owing, None).chain_head
    with pytest.raises(error, match=match):
        export_payments(owing, request(out, **changes), now=NOW)
    assert (verify(owing, None).chain_head, out.exists()) == (head, False)


def test_a_batch_is_paid_on_the_day_it_is_recorded_or_later(owing, out, tmp_path):
    def sepa(to: Path, day: str, **changes: object) -> ExportReport:
        payer = replace(PAYER, execute_on=day)
        return export_payments(owing, request(to, format="pain001", payer=payer, **changes), now=later)

    later = NOW
    head = verify(owing, None).chain_head
    for dry_run in (True, False):
        with pytest.raises(InvalidRequestError, match=r"2026-10-04 is past.*2026-10-05 or later: --execute-on"):
            sepa(out, "2026-10-04", dry_run=dry_run)
    assert (verify(owing, None).chain_head, out.exists()) == (head, False)
    assert sepa(out, "2026-10-05").batch is not None
    assert "<ReqdExctnDt><Dt>2026-10-05</Dt></ReqdExctnDt>" in "".join(out.read_text().split())
    later = NOW + timedelta(days=40)
    for number, changes in enumerate(({}, {"batch": 1})):
        assert sepa(tmp_path / f"{number}", "2026-10-05", **changes).again
        assert (tmp_path / f"{number}").read_bytes() == out.read_bytes()


def test_without_a_day_a_batch_is_paid_on_the_day_it_is_recorded(owing, out):
    export(owing, out, format="pain001", payer=replace(PAYER, execute_on=""))
    assert "<ReqdExctnDt><Dt>2026-10-05</Dt></ReqdExctnDt>" in "".join(out.read_text().split())


def hurry(ledger: Ledger, ahead: timedelta) -> None:
    """Record something while the machine's clock is ahead."""
    with ledger.write() as conn:
        pools.add_pool(conn, "2026-10", "EUR", 100, 0, "main", NOW + ahead)


@pytest.mark.parametrize("execute_on", ["", "2026-10-05"])
def test_a_clock_that_once_was_fast_moves_no_date_for_a_bank(owing, out, tmp_path, execute_on):
    hurry(owing, timedelta(days=364))
    report = export(owing, out, format="pain001", payer=replace(PAYER, execute_on=execute_on))
    said = "".join(out.read_text().split())
    assert "<ReqdExctnDt><Dt>2026-10-05</Dt></ReqdExctnDt>" in said
    assert "<CreDtTm>2026-10-05T12:30:00</CreDtTm>" in said
    assert report.batch is not None
    assert report.batch.created_at > NOW + timedelta(days=364), "the ledger's own moments stay in order"
    assert report.notices[0].startswith("the ledger's clock is 364 days ahead of this machine's")
    with owing.read() as conn:
        (posted,) = transactions(conn, kind="payment-export", limit=1)
    assert (posted.effective_on, posted.period) == ("2026-10-05", "2026-10")
    for number, changes in enumerate(({}, {"batch": 1})):
        request_again = request(tmp_path / f"{number}", format="pain001", payer=PAYER, **changes)
        again = export_payments(owing, request_again, now=NOW + timedelta(days=40))
        assert (tmp_path / f"{number}").read_bytes() == out.read_bytes()
        assert any("clock is 324 days ahead" in notice for notice in again.notices)
    assert verify(owing, None).problems == ()


def test_a_clock_that_is_ahead_by_an_hour_is_worth_no_word(owing, out):
    hurry(owing, timedelta(hours=1))
    assert not any("clock" in notice for notice in export(owing, out).notices)


def test_a_batch_whose_details_were_erased_is_not_made_up(owing, out, tmp_path):
    from credit.payments.details import erase_provider_details

    export(owing, out)
    confirm(owing, tmp_path / "results.csv", "paid", 1, 2, 4)
    erase_provider_details(owing, "ada", reason="asked to", leave_unpaid=True, now=NOW)
    with pytest.raises(IntegrityError, match="details of ada have been erased"):
        export(owing, tmp_path / "again", batch=1)
