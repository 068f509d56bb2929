"""Red flags in payment details: named, held back where they look like fraud, and released by a person on record."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from credit.errors import InputError, InvalidRequestError, LedgerError
from credit.ledger import payee_accounts, statements
from credit.ledger.database import Ledger
from credit.ledger.payee_accounts import Acceptance
from credit.ledger.transaction_kinds import ExportDetails
from credit.ledger.verify import verify
from credit.payments.details import erase_provider_details, set_provider_details
from credit.payments.export import ExportReport, ExportRequest, export_payments
from credit.records import AccountChange
from tests.payments.samples import IBANS, NOW, PAYER, SEPTEMBER

DAY = timedelta(days=1)
OTHER = "DE75512108001245126199"
BELLS = "Eve Sommer: Ada and Bell are one estate"


def export(ledger: Ledger, out: Path, now: datetime = NOW, **changes: object) -> ExportReport:
    return export_payments(ledger, replace(ExportRequest(SEPTEMBER, "csv", out, "EUR"), **changes), now=now)


def change(ledger: Ledger, key: str, now: datetime = NOW, **values: str) -> None:
    set_provider_details(ledger, key, values, now=now)


def paid(report: ExportReport) -> list[str]:
    return [item.provider for item in report.payouts]


def holding(report: ExportReport) -> list[tuple[str, str, str]]:
    return [(flag.provider, flag.sign, flag.subject) for flag in report.red_flags if flag.holds]


def named(report: ExportReport) -> list[tuple[str, str, str]]:
    return [(flag.provider, flag.sign, flag.subject) for flag in report.red_flags if not flag.holds]


@pytest.fixture
def clean(owing: Ledger) -> Ledger:
    """A ledger in which nobody's details raise a flag."""
    for key, iban in IBANS.items():
        change(owing, key, country=iban[:2])
    return owing


def test_details_without_a_red_flag_are_paid_in_silence(clean, out):
    report = export(clean, out)
    assert (paid(report), report.red_flags, report.unpayable) == (["ada", "bell", "cho_7"], (), ())


def test_a_payment_to_the_payers_own_account_is_held_back(clean, out, tmp_path):
    payer = replace(PAYER, iban="de02 1203 0000 0000 2020 51")
    report = export(clean, out, format="pain001", payer=payer)
    assert paid(report) == ["bell", "cho_7"]
    assert holding(report) == [("ada", "own-account", "")]
    assert report.unpayable[0].startswith("ada: its account is the payer's own; call the provider")
    # No payer in this file: the ledger knows the one of the batch before.
    later = export(clean, tmp_path / "later", format="csv")
    assert (holding(later), paid(later)) == ([("ada", "own-account", "")], [])


def test_two_providers_with_one_account_are_held_back_until_somebody_calls_them_one_payee(clean, out, tmp_path):
    change(clean, "bell", iban=IBANS["ada"], country="DE")
    report = export(clean, out, waiting_days=0)
    assert paid(report) == ["cho_7"]
    assert holding(report) == [("ada", "shared-account", "bell"), ("bell", "shared-account", "ada")]
    assert report.unpayable[0].startswith("ada: it has the same account as bell; ")
    with pytest.raises(InputError, match="nothing was exported"):
        export(clean, tmp_path / "x", waiting_days=0, strict=True)
    half = export(clean, tmp_path / "half", waiting_days=0, accept=(("ada", BELLS),))
    assert paid(half) == ["ada"]
    whole = export(clean, tmp_path / "whole", waiting_days=0, accept=(("bell", BELLS),))
    assert paid(whole) == ["bell"]
    assert named(whole) == [("bell", "shared-account", "ada")]
    assert verify(clean, None).problems == ()
    with clean.read() as conn:
        known = payee_accounts.red_flags(conn, IBANS, payer_ibans=(), waiting_days=0, now=NOW)
    assert {flag.accepted for flags in known.values() for flag in flags} == {BELLS}, "accepted once, for every month"
    change(clean, "cho_7", iban=IBANS["ada"], country="DE")
    with clean.read() as conn:
        known = payee_accounts.red_flags(conn, IBANS, payer_ibans=(), waiting_days=0, now=NOW)
    assert {key: [flag.holds for flag in flags] for key, flags in known.items()} == {
        "ada": [True], "bell": [True], "cho_7": [True]
    }, "a third provider with the account is accepted by nobody"  # fmt: skip


def test_the_same_paypal_account_is_one_account_and_the_same_email_beside_an_iban_is_none(clean, out):
    change(clean, "bell", paypal="PAY.ADA@example.org", email="ada@example.org")
    assert holding(export(clean, out, waiting_days=0)) == [
        ("ada", "shared-account", "bell"),
        ("bell", "shared-account", "ada"),
    ]


def test_a_changed_account_waits_and_then_is_paid(clean, out, tmp_path):
    change(clean, "ada", now=NOW + DAY, iban=OTHER)
    report = export(clean, out, now=NOW + 2 * DAY)
    assert (paid(report), holding(report)) == (["bell", "cho_7"], [("ada", "changed-account", "")])
    assert "its account was changed on 2026-10-06 and waits for 7 days, until 2026-10-13; call" in report.unpayable[0]
    assert OTHER not in report.unpayable[0]
    assert paid(export(clean, tmp_path / "8", now=NOW + 7 * DAY, dry_run=True)) == []
    last = export(clean, tmp_path / "9", now=NOW + 8 * DAY)
    assert (paid(last), last.red_flags) == (["ada"], ())


def test_the_batch_says_how_long_a_changed_account_had_to_wait(clean, out):
    change(clean, "ada", now=NOW + DAY, iban=OTHER)
    assert "ada" in paid(export(clean, out, now=NOW + 2 * DAY, waiting_days=1))
    with clean.read() as conn:
        said = conn.execute(text("SELECT details_json FROM ledger_txn WHERE kind = 'payment-export'")).scalar_one()
    details = ExportDetails.read(said)
    assert details is not None
    assert details.waiting_days == 1
    assert verify(clean, None).problems == ()


@pytest.mark.parametrize(
    ("values", "changed"),
    [
        ({"iban": OTHER}, True),
        ({"paypal": "other@example.org"}, True),
        ({"iban": ""}, True),
        ({"email": "other@example.org"}, False),
        ({"bic": "BYLADEM1001"}, False),
        ({"legal_name": "Ada L. Legal", "town": "Bonn"}, False),
    ],
)
def test_an_account_is_where_the_money_goes_and_nothing_else(clean, out, values, changed):
    change(clean, "ada", **values)
    assert (("ada", "changed-account", "") in holding(export(clean, out))) == changed


def test_the_first_account_of_a_provider_has_changed_nothing(ledger, out):
    from tests.payments.samples import owe

    owe(ledger)
    change(ledger, "ada", legal_name="Ada Legal", town="Bonn")
    change(ledger, "ada", now=NOW + DAY, iban=IBANS["ada"])
    assert paid(export(ledger, out, now=NOW + DAY)) == ["ada"]


def test_an_account_after_an_erasure_counts_as_changed(clean, out):
    erase_provider_details(clean, "ada", reason="asked to", leave_unpaid=True, now=NOW)
    change(clean, "ada", legal_name="Ada Legal", iban=IBANS["ada"])
    assert holding(export(clean, out)) == [("ada", "changed-account", "")]


def test_there_and_back_again_is_a_change(clean, out):
    change(clean, "ada", iban=OTHER)
    change(clean, "ada", iban=IBANS["ada"])
    assert holding(export(clean, out)) == [("ada", "changed-account", "")]


def test_another_country_is_named_and_paid(clean, out):
    change(clean, "ada", bic="PSSTFRPPXXX", country="AT")
    report = export(clean, out)
    assert paid(report) == ["ada", "bell", "cho_7"]
    assert list(map(str, report.red_flags)) == [
        "ada: its BIC is of FR, its IBAN of DE",
        "ada: its address is in AT, its account in DE",
    ]


@pytest.mark.parametrize(
    ("iban", "bic", "country"),
    [
        ("GB33BUKB20201555555555", "BUKBGB22XXX", "JE"),
        ("GB33BUKB20201555555555", "NWBKGGS1XXX", "GG"),
        ("FR1420041010050500013M02606", "PSSTFRPPXXX", "RE"),
        ("MC5811222000010123456789030", "SOGEFRPPXXX", "MC"),
        ("FR1420041010050500013M02606", "CMCIMCM1XXX", "FR"),
    ],
)
def test_territories_with_ibans_of_another_country_raise_no_flag(clean, out, iban, bic, country):
    change(clean, "ada", iban=iban, bic=bic, country=country)
    assert named(export(clean, out, waiting_days=0)) == []


def test_an_acceptance_ends_with_the_account(clean, out, tmp_path):
    change(clean, "ada", iban=OTHER)
    first = export(clean, out, accept=(("ada", "Eve Sommer: I called her"),))
    assert "ada" in paid(first)
    change(clean, "ada", iban="DE89370400440532013000")
    with clean.read() as conn:
        (flag,) = payee_accounts.red_flags(conn, ["ada"], payer_ibans=(), waiting_days=7, now=NOW)["ada"]
    assert flag.holds


def test_a_dry_run_pays_what_it_would_and_keeps_no_acceptance(clean, out):
    change(clean, "ada", iban=OTHER)
    report = export(clean, out, accept=(("ada", "Eve Sommer: I called her"),), dry_run=True)
    assert "ada" in paid(report)
    with clean.read() as conn:
        assert payee_accounts.acceptances(conn) == []


def test_the_same_command_again_records_and_pays_nothing_twice(clean, out):
    change(clean, "ada", iban=OTHER)
    accept = (("ada", "Eve Sommer: I called her"),)
    for _ in range(2):
        export(clean, out, accept=accept)
        heads = verify(clean, None)
    assert verify(clean, None, heads=[heads.seal_head]).problems == ()
    with clean.read() as conn:
        (only,) = payee_accounts.acceptances(conn, "ada")
    assert only == Acceptance("ada", "changed-account", "", only.details_id, accept[0][1], only.recorded_at)


@pytest.mark.parametrize(
    ("accept", "error", "match"),
    [
        (("ada", "it is fine"), InvalidRequestError, "accepted by name, in one line of text: NAME: reason"),
        (("ada", f"Eve: her account is {OTHER}"), LedgerError, "the acceptance for ada holds the iban of ada"),
        (("bell", "Eve: I called"), LedgerError, "bell has no red flag to accept"),
        (("nobody", "Eve: I called"), LedgerError, "nobody has no red flag to accept"),
    ],
)
def test_an_acceptance_names_a_person_a_reason_and_somebody_to_accept(clean, out, accept, error, match):
    change(clean, "ada", iban=OTHER)
    head = verify(clean, None).seal_head
    with pytest.raises(error, match=match):
        export(clean, out, accept=(accept,))
    assert (verify(clean, None).seal_head, out.exists()) == (head, False)


def test_a_batch_that_left_has_nothing_to_accept(clean, out, tmp_path):
    export(clean, out)
    with pytest.raises(InvalidRequestError, match="leave out --accept"):
        export(clean, tmp_path / "again", batch=1, accept=(("ada", "Eve: I called"),))


def told(ledger: Ledger, key: str) -> list[AccountChange]:
    with ledger.read() as conn:
        return payee_accounts.account_changes(conn).get(key, [])


def test_a_statement_tells_each_change_once_by_day_and_last_four_characters(clean):
    set_on = NOW.date()
    both = [AccountChange(set_on, "recorded", "iban", "2051"), AccountChange(set_on, "recorded", "paypal")]
    assert told(clean, "ada") == both
    with clean.write() as conn:
        # The clock was wrong: the order of writing counts.
        statements.add_statements(conn, SEPTEMBER, [("ada", "{}")], now=NOW + 400 * DAY)
    assert told(clean, "ada") == []
    assert told(clean, "bell") != []
    change(clean, "ada", now=NOW + DAY, iban=OTHER, paypal="")
    change(clean, "ada", now=NOW + 2 * DAY, town="Bonn")
    assert told(clean, "ada") == [
        AccountChange(date(2026, 10, 6), "changed", "iban", "6199"),
        AccountChange(date(2026, 10, 6), "removed", "paypal"),
    ]
    erase_provider_details(clean, "ada", reason="asked to", leave_unpaid=True, now=NOW + 3 * DAY)
    change(clean, "ada", now=NOW + 4 * DAY, email="ada@example.org")
    assert told(clean, "ada") == [
        AccountChange(date(2026, 10, 8), "erased"),
        AccountChange(date(2026, 10, 9), "changed", "email"),
    ]


def test_a_red_flag_says_nothing_personal(clean, out):
    for key in ("ada", "bell"):
        change(clean, key, iban=OTHER, paypal="one@example.org", bic="PSSTFRPPXXX", country="AT")
    report = export(clean, out, payer=replace(PAYER, iban=OTHER), dry_run=True)
    said = json.dumps([str(flag) for flag in report.red_flags]) + json.dumps(report.unpayable)
    assert len(report.red_flags) == 10
    assert not [secret for secret in (OTHER, "one@example.org", "PSSTFRPPXXX") if secret in said]
