"""A payout that must never be paid is voided: its money goes elsewhere, and it never leaves."""

from __future__ import annotations

from datetime import date

import pytest
from sqlalchemy import insert

from credit.errors import LedgerError
from credit.ledger import balances, corrections, journal, providers, remittances
from credit.ledger.database import Ledger
from credit.ledger.journal import Entry, Posted, Posting
from credit.ledger.payouts import payout_counts, payouts, unpaid_payouts
from credit.ledger.schema import payout_event
from credit.ledger.verify import verify
from credit.ledger.voids import void_payout
from credit.payments.export import ExportRequest, export_payments
from credit.payments.results import confirm_payments
from credit.records import Provider
from tests.kills import die_at_commit_of, killed
from tests.payments.samples import NOW, SEPTEMBER, know_details, owe


def void(ledger: Ledger, provider: str = "ada", currency: str = "EUR", **changes: object) -> Posted:
    with ledger.write() as conn:
        return void_payout(conn, SEPTEMBER, provider, currency, **{"reason": "paid by cheque", "now": NOW, **changes})


def held(ledger: Ledger, *keys: str) -> list[int]:
    with ledger.read() as conn:
        return [balances.balance(conn, f"money:{key}", "EUR") for key in keys]


@pytest.fixture
def taxed(ledger: Ledger) -> Ledger:
    """The ledger of `owing`, where the close took tax and a fee from ada's payout."""
    with ledger.write() as conn:
        providers.import_providers(conn, [Provider("ada", "Ada")], now=NOW)
        for kind, account, amount in (("withholding", "money:withholding:ada", 1000), ("fees", "money:fees", 50)):
            lines = (Entry("money:external", "EUR", -amount), Entry(account, "EUR", amount))
            key = f"{kind}:{SEPTEMBER}:ada:EUR"
            journal.post(conn, Posting(kind, SEPTEMBER, date(2026, 9, 30), key, lines), now=NOW)
    owe(ledger)
    know_details(ledger)
    return ledger


@pytest.mark.parametrize(
    ("goes_to", "account"), [("provider", "payable:ada"), ("house", "payable:house"), ("escrow", "escrow")]
)
def test_the_money_goes_where_it_is_sent_with_the_tax_and_the_fee_taken_from_it(taxed, goes_to, account):
    done = void(taxed, goes_to=goes_to)
    assert held(taxed, account, "payout:ada", "withholding:ada", "fees") == [12_345 + 1000 + 50, 0, 0, 0]
    assert void(taxed, goes_to=goes_to) == Posted(done.txn_id, done.seq, done.hash, replayed=True)
    with pytest.raises(LedgerError, match=f"was voided by transaction {done.txn_id}, .* to the {goes_to}: paid by"):
        void(taxed, goes_to=goes_to, reason="another")
    with taxed.read() as conn:
        assert payout_counts(conn) == {SEPTEMBER: {"pending": 3, "void": 1}}
        assert unpaid_payouts(conn, "ada") == []
    assert verify(taxed, None).problems == ()


def test_tax_that_was_remitted_becomes_a_claim_that_the_next_remittance_sets_off(taxed):
    with taxed.write() as conn:
        remittances.remit(conn, "withholding", 1000, "EUR", paid_on=NOW.date(), reference="tax", now=NOW)
    void(taxed)
    assert held(taxed, "payable:ada", "withholding:ada") == [13_395, -1000]
    with taxed.read() as conn:
        assert remittances.withholding_due(conn, "EUR", through=SEPTEMBER) == {"ada": -1000}


def test_the_balance_of_the_provider_shows_it_as_a_correction_with_its_reason(owing):
    void(owing)
    with owing.read() as conn:
        (line,) = corrections.corrections(conn, "2026-10")
    assert (line.provider, line.kind, line.amount_minor, line.reason) == (
        "ada", "payout-void", 12_345, "paid by cheque"
    )  # fmt: skip


def test_a_void_payout_never_leaves(owing, out):
    void(owing)
    report = export_payments(owing, ExportRequest(SEPTEMBER, "csv", out, "EUR"), now=NOW)
    assert [item.provider for item in report.payouts] == ["bell", "cho_7"]
    with owing.read() as conn:
        (first, *_) = payouts(conn, SEPTEMBER)
    assert (first.provider, first.status) == ("ada", "void")
    leaving = {
        "id": 99, "payout_id": first.id, "batch_id": 1, "status": "exported", "details_id": 1, "reference": "",
        "reason": "", "txn_id": 1, "recorded_at": "2026-10-05T12:30:00.000000Z",
    }  # fmt: skip
    with pytest.raises(LedgerError, match="a void payout never leaves"), owing.write() as conn:
        conn.execute(insert(payout_event), [leaving])


def test_only_what_no_bank_was_told_to_pay_can_be_voided(owing, out, tmp_path):
    export_payments(owing, ExportRequest(SEPTEMBER, "csv", out, "EUR"), now=NOW)
    reference = out.read_text().splitlines()[1].split(",")[0]
    with pytest.raises(LedgerError, match="is exported; if the bank did not pay it, record that first"):
        void(owing)
    (tmp_path / "results.csv").write_text(f"payout_id,status,reason\n{reference},failed,closed\n")
    confirm_payments(owing, tmp_path / "results.csv", now=NOW)
    void(owing)
    retried = export_payments(owing, ExportRequest(SEPTEMBER, "csv", tmp_path / "x", "EUR", retry=True), now=NOW)
    assert (retried.again, retried.batch.id) == (True, 1), "no new batch: the file of the first is written again"
    assert verify(owing, None).problems == ()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"reason": " "}, "needs a reason"),
        ({"currency": "USD"}, "does not exist; see credit report payouts"),
        ({"provider": "eve"}, "does not exist"),
        ({"reason": "paid to DE02 1203 0000 0000 2020 51"}, "holds the iban of ada"),
    ],
)
def test_a_void_that_makes_no_sense_is_refused(owing, changes, match):
    with pytest.raises(LedgerError, match=match):
        void(owing, **changes)


def voider(url: str) -> None:
    die_at_commit_of("payout_void")
    with Ledger.open(url) as ledger:
        void(ledger)


def test_a_killed_void_leaves_nothing_and_is_made_by_the_next(owing, database_url):
    killed(voider, database_url)
    assert held(owing, "payout:ada") == [12_345]
    assert not void(owing).replayed
    assert held(owing, "payout:ada", "payable:ada") == [0, 12_345]
