"""Payments and personal details from the command line: exit codes, and nothing written where something is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from credit.ledger.database import Ledger
from tests.cli.helpers import Command
from tests.payments.samples import IBANS, SEPTEMBER, owe


@pytest.fixture
def credit(database_url: str, tmp_path: Path) -> Command:
    return _owing(database_url, tmp_path)


@pytest.fixture(scope="module")
def untouched(shared_database: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The same for tests that write nothing, so that they can share one."""
    return _owing(shared_database(), tmp_path_factory.mktemp("untouched"))


def _owing(url: str, folder: Path) -> Command:
    """Return the commands on a ledger that owes, and knows to whom."""
    with Ledger.open(url) as ledger:
        owe(ledger)
    command = Command(url, folder)
    for key, iban in IBANS.items():
        command(
            f"providers details {key} --legal-name '{key.title()} Legal' --iban {iban} --town Berlin --country DE"
            f" --paypal {key}@example.org --receiver person".replace("Cho_7", "Cho")
        )
    return command


def test_payouts_leave_and_results_come_back(credit):
    said = credit(f"pay export {SEPTEMBER} --currency EUR --out FOLDER/pay.csv --json")
    facts = json.loads(said[said.index("{") :])
    assert (facts["batch"], facts["again"], len(facts["payouts"])) == (1, False, 3)
    (credit.folder / "results.csv").write_text(f"payout_id,status,reason\n{facts['reference']}-1,failed,closed\n")
    assert "0 paid, 1 failed, 0 known before" in credit("pay confirm FOLDER/results.csv")
    assert "0 paid, 0 failed, 1 known before" in credit("pay confirm FOLDER/results.csv")
    assert "batch 2 exported: 1 payout, 123.45 EUR" in credit(
        f"pay export {SEPTEMBER} --format paypal --retry --out FOLDER/paypal.csv"
    )
    listed = json.loads(credit("pay list --json"))["batches"]
    assert [sorted(set(item["payouts"].values())) for item in listed] == [["exported", "failed"], ["exported"]]
    assert "everything is as it was written" in credit("verify")


def test_a_bank_s_own_file_is_read_and_what_does_not_match_is_said(credit):
    credit(f"pay export {SEPTEMBER} --currency EUR --out FOLDER/pay.csv")
    reference = json.loads(credit("pay list --json"))["batches"][0]["reference"]
    refs = "<NtryDtls><TxDtls><Refs><EndToEndId>{}</EndToEndId></Refs></TxDtls></NtryDtls>"
    one = f'<Ntry><Amt Ccy="EUR">{{}}</Amt><CdtDbtInd>DBIT</CdtDbtInd><Sts>BOOK</Sts>{refs}</Ntry>'
    rows = [one.format("123.45", f"{reference}-1"), one.format("5", f"{reference}-2"), one.format("9", "RENT")]
    text = f"<Document><BkToCstmrStmt><Stmt>{''.join(rows)}</Stmt></BkToCstmrStmt></Document>"
    (credit.folder / "bank.xml").write_text(text)
    said = credit("pay confirm FOLDER/bank.xml", code=3)
    assert "1 paid, 0 failed, 0 known before, 1 of other payments" in said
    assert "does not match: " in said
    assert f"entry 2: payout {reference}-2 left with 0.01 EUR, not 5" in said
    year = f"{datetime.now(UTC):%Y}"
    said = credit(f"report year {year} --details")
    assert "no tax advice" in said
    assert "Ada Legal" in said
    assert json.loads(credit(f"report year {year} --json").partition("\n")[2])[0]["gross"] == "123.45"
    facts = json.loads(credit("pay confirm FOLDER/bank.xml --json", code=3).splitlines()[-1])
    assert (facts["known"], facts["foreign"], len(facts["unmatched"])) == (1, 1, 1)


def test_every_export_that_status_suggests_is_accepted(credit):
    def exports() -> list[str]:
        return [step for step in json.loads(credit("status --json"))["next"] if "pay export" in step]

    def export(step: str, name: str) -> None:
        assert "exported: " in credit(step.removeprefix("credit ").replace("FILE", f"FOLDER/{name}"))

    waiting = [f"credit pay export {SEPTEMBER} --currency {code} --out FILE" for code in ("EUR", "USD")]
    assert exports() == waiting
    export(waiting[0], "eur.csv")
    assert exports() == [f"credit pay export {SEPTEMBER} --out FILE"]
    export(exports()[0], "usd.csv")
    batches = [batch["payouts"] for batch in json.loads(credit("pay list --json"))["batches"]]
    lines = [f"{reference},failed,closed" for payouts in batches for reference in payouts]
    (credit.folder / "results.csv").write_text("\n".join(["payout_id,status,reason", *lines]))
    credit("pay confirm FOLDER/results.csv")
    again = [step.replace(SEPTEMBER, f"{SEPTEMBER} --retry") for step in waiting]
    assert exports() == again
    for step in again:
        export(step, f"{step.split()[6]}.csv")


def test_a_sepa_file_leaves(credit):
    payer = "--payer-name Example --payer-iban DE75512108001245126199 --payer-town Berlin --payer-country DE"
    said = credit(f"pay export {SEPTEMBER} --format pain001 --out FOLDER/sepa.xml {payer}")
    assert "batch 1 exported: 3 payouts, 1000123.46 EUR" in said
    assert IBANS["ada"] not in said
    assert "<MsgId>CR1-" in (credit.folder / "sepa.xml").read_text()


def test_the_books_leave(credit):
    assert "bean-check" in credit(f"pay export {SEPTEMBER} --format beancount --out FOLDER/books.beancount")
    whole = credit(f"report journal {SEPTEMBER} --format beancount")
    assert "balance Liabilities:Payout:Bell  -0.01 ~ 0 EUR" in whole
    assert "leave out --accounts" in credit(
        f"report journal {SEPTEMBER} --format beancount --accounts FOLDER/chart.csv", code=2
    )
    (credit.folder / "chart.csv").write_text("account,code\nLiabilities,1600\nAssets,1200\n")
    entries = json.loads(credit(f"report journal {SEPTEMBER} --accounts FOLDER/chart.csv --json"))
    assert {(item["account"], item["provider"]) for item in entries} == {
        ("1200", ""), ("1600", "ada"), ("1600", "bell"), ("1600", "cho_7")
    }  # fmt: skip
    trial = credit(f"report trial-balance {SEPTEMBER} --format csv").splitlines()
    assert trial[0] == "account,name,currency,opening,debit,credit,closing"
    assert "Liabilities:Payout:Bell,Liabilities:Payout:Bell,USD,0.00,0.00,0.99,-0.99" in trial, "a number"
    assert 'option "title" "credit 2026-09"' in (credit.folder / "books.beancount").read_text()


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        (f"pay export {SEPTEMBER} --out FOLDER/x", 2, "a file has one currency"),
        ("pay export 2026-10 --currency EUR --out FOLDER/x", 1, "is not closed"),
        (f"pay export {SEPTEMBER} --format pain001 --out FOLDER/x", 2, "needs the payer"),
        (f"pay export {SEPTEMBER} --format pain001 --currency USD --out FOLDER/x", 2, "SEPA carries EUR alone"),
        (f"pay export {SEPTEMBER} --format iban --out FOLDER/x", 2, "'iban' is not one of"),
        (f"pay export {SEPTEMBER} --batch 9 --out FOLDER/x", 1, "no batch 9"),
        ("pay confirm FOLDER/nowhere.csv", 1, "nowhere.csv"),
        ("pay confirm FOLDER/results.csv", 1, "there is no payout 'CR1-00000000-1'"),
        (f"pool add {SEPTEMBER} 5 EUR", 1, "is closed"),
        ("pool add 2026-11 5 XYZ", 2, "not a current ISO 4217"),
        ("pool add 2026-11 5 EUR --deductions 6", 1, "not money to distribute"),
        (f"close {SEPTEMBER}", 1, "closed already"),
        ("close 2999-01", 1, "is not over"),
        ("providers details eve --town Berlin", 1, "unknown provider 'eve'"),
        ("providers details ada --iban DE00", 2, "iban is not a valid IBAN"),
        ("providers erase ada --reason 'see ada@example.org'", 1, "the reason repeats the paypal"),
        ("providers erase eve --reason x", 1, "unknown provider 'eve'"),
        (f"verify --head {'f' * 64}", 4, "is not in it"),
    ],
)
def test_what_makes_no_sense_is_refused_and_writes_nothing(untouched, line, code, message):
    (untouched.folder / "results.csv").write_text("payout_id,status\nCR1-00000000-1,paid\n")
    before = untouched.holds()
    assert message in untouched(line, code=code)
    assert untouched.holds() == before


def test_an_unpayable_payout_shows_in_the_exit_code(credit):
    credit("providers erase bell --leave-unpaid --reason 'asked to'")
    said = credit(f"pay export {SEPTEMBER} --currency EUR --out FOLDER/x", code=3)
    assert "unpayable: bell: no payment details" in said
    assert "batch 1 exported: 2 payouts" in said


def test_details_are_shown_masked(credit):
    said = credit("providers details ada")
    assert "iban: DE…51" in said
    assert IBANS["ada"] not in said
    assert "no details are known" in credit("providers details house")


def test_details_are_read_from_a_file_and_from_standard_input(credit):
    (credit.folder / "iban.txt").write_text(f"{IBANS['bell']}\n")
    assert "iban: FR…06" in credit("providers details ada --iban @FOLDER/iban.txt")
    said = credit("providers details ada --iban - --tax-id -", typed=f" {IBANS['ada']} \n12/345/678\n")
    assert ("iban: DE…51" in said, "tax id: 12…78" in said) == (True, True)
    assert "the first line of - is empty" in credit("providers details ada --iban -", typed="", code=2)
    assert "nowhere.txt: No such file" in credit("providers details ada --iban @FOLDER/nowhere.txt", code=1)


def test_a_file_that_is_written_again_is_said_to_have_left(credit):
    credit(f"pay export {SEPTEMBER} --currency EUR --out FOLDER/pay.csv")
    said = credit(f"pay export {SEPTEMBER} --currency EUR --out FOLDER/other.csv")
    assert "batch 1 written again, as it left on 20" in said
    assert "pay it once: if its file reached the bank before, this one must not" in said
    assert (credit.folder / "other.csv").read_bytes() == (credit.folder / "pay.csv").read_bytes()


def test_what_came_back_is_counted_and_can_leave_again(credit):
    said = credit(f"pay export {SEPTEMBER} --currency EUR --out FOLDER/pay.csv --json")
    batch = json.loads(said[said.index("{") :])["reference"]
    for status, counts in (("paid", "1 paid, 0 failed, 0"), ("returned", "0 paid, 0 failed, 1 returned, 0")):
        (credit.folder / "results.csv").write_text(f"payout_id,status,reason\n{batch}-1,{status},AC04 closed\n")
        said = credit("pay confirm FOLDER/results.csv")
        assert f"{counts} known before" in said
    assert "credit pay export PERIOD --retry" in said
    assert "0 paid, 0 failed, 1 returned, 2 waiting" in credit("pay list")
    assert "credit pay confirm --help" in credit("reverse 7 --reason x", code=1)
    assert "batch 2 exported: 1 payout" in credit(f"pay export {SEPTEMBER} --retry --out FOLDER/again.csv")


def test_a_red_flag_is_named_at_status_preview_and_export_and_its_acceptance_with_the_details(credit):
    credit(f"providers details ada --iban {IBANS['bell']}")
    assert "held back     ada: it has the same account as bell" in credit("status")
    export = f"pay export {SEPTEMBER} --currency EUR --out FOLDER/pay.csv"
    for line in (f"{export} --dry-run", export):
        said = credit(line, code=3)
        assert "unpayable: ada: it has the same account as bell; its account was changed on" in said
        assert "unpayable: bell: it has the same account as ada; call the provider" in said
    accept = ["--accept", "ada", "Eve Sommer: one estate", "--accept", "bell", "Eve Sommer: one estate"]
    said = credit(export.replace("pay.csv", "rest.csv"), *accept)
    assert "accepted: ada: it has the same account as bell (Eve Sommer: one estate)" in said
    assert "red flag" not in said
    assert "batch 2 exported: 2 payouts" in said
    assert ": shared-account (Eve Sommer: one estate)" in credit("providers details bell")
    assert "held back" not in credit("status")
    assert "everything is as it was written" in credit("verify")


def test_the_waiting_time_is_a_setting(credit, monkeypatch):
    credit("providers details ada --iban DE75512108001245126199")
    export = f"pay export {SEPTEMBER} --currency EUR --out FOLDER/pay.csv --dry-run"
    assert "waits for 7 days" in credit(export, code=3)
    assert "unpayable" not in credit(f"{export} --waiting-days 0")
    monkeypatch.setenv("CREDIT_WAITING_DAYS", "30")
    assert "waits for 30 days" in credit(export, code=3)
    assert "waits for 30 days" in credit("status")
