"""Rates of exchange from the command line: given, imported, listed, never edited; and terms that are paid by them."""

from __future__ import annotations

import json

import pytest

ECB = "ECB reference rate"


def test_a_rate_is_given_once_and_replaced_only_when_said(credit):
    line = "fx add 2026-01-30 EUR USD 1.0842 --source"
    shown = f"2026-01-30  1 EUR = 1.0842 USD  v1  {ECB}\n"
    assert credit(line, ECB) == credit(line, ECB) == credit("fx list") == credit("fx list 2026-01") == shown
    assert credit("fx list 2026-02") == "no rates are given\n"
    assert "was given already: 1 EUR = 1.0842 USD" in credit("fx add 2026-01-30 EUR USD 1.1 --source bank", code=1)
    credit("fx add 2026-01-30 EUR USD 1.1 --source bank --supersede")
    rates = json.loads(credit("fx list --json"))["rates"]
    assert [(item["rate"], item["version"], item["source"]) for item in rates] == [
        ("1.0842", 1, ECB),
        ("1.1", 2, "bank"),
    ]


@pytest.mark.parametrize(
    ("line", "said", "code"),
    [
        ("fx add 2026-01-30 EUR USD 1,08 --source x", "is not a rate", 2),
        ("fx add 2026-01-30 EUR USD -1 --source x", "No such option", 2),
        ("fx add 2026-01-30 EUR USD 0 --source x", "is not a rate", 2),
        ("fx add 2026-01-30 EUR EUR 1 --source x", "it is one currency", 1),
        ("fx add 2026-01-30 EUR euro 1 --source x", "not a current ISO 4217 currency code", 2),
        ("fx add 2026-02-30 EUR USD 1 --source x", "does not match the format", 2),
        ("fx add 2999-01-30 EUR USD 1 --source x", "still to come", 1),
        ("fx add 2026-01-30 EUR USD 1", "Missing option '--source'", 2),
        ("fx list January", "is not a period", 2),
        ("providers terms ann --currency EUR --pay-in dollars", "not a current ISO 4217", 2),
    ],
)
def test_what_is_no_rate_is_refused_and_nothing_is_written(credit, line, said, code):
    assert said in credit(line, code=code)
    assert credit("fx list") == "no rates are given\n"


def test_rates_that_need_two_people_are_proposed_one_by_one(credit, tmp_path):
    (tmp_path / "rates.csv").write_text("day,base,quote,rate,source\n2026-01-30,EUR,USD,1.0842,ECB\n")
    credit("approve require fx-rate")
    assert "propose each by itself: credit fx add" in credit("fx import", str(tmp_path / "rates.csv"), code=1)
    assert "proposed, not done: exchange rate: 1 EUR = 1.0842 USD" in credit(
        "fx add 2026-01-30 EUR USD 1.0842 --source", ECB, code=5
    )
    assert credit("fx list") == "no rates are given\n"


def test_rates_come_from_a_file_and_bad_rows_are_quarantined(credit, tmp_path):
    file = tmp_path / "rates.csv"
    rows = ["2026-01-30,EUR,USD,1.0842,ECB", "2026-01-30,EUR,USD,1.09,bank", "30.01.2026,EUR,GBP,0.8,ECB",
            "2026-01-30,EUR,JPY,163.20,ECB", "2026-01-30,EUR,XXX,1,ECB", "2026-01-30,EUR,GBP,,ECB"]  # fmt: skip
    file.write_text("\n".join(["day,base,quote,rate,source", *rows, ""]))
    before = credit("fx import --strict", str(file), code=1)
    assert "nothing of this file was imported" in before
    assert credit("fx list") == "no rates are given\n"
    said = credit("fx import", str(file), code=3)
    assert "2 added, 0 known already, 4 quarantined" in said
    for line, reason in ((3, "was given already"), (4, "is not a day"), (6, "XXX has no minor unit"), (7, "`rate`")):
        assert f"{file}:{line}: " in said
        assert reason in said
    assert "0 added, 2 known already, 0 quarantined, 4 quarantined before" in credit("fx import", str(file))
    assert credit("fx list").count("\n") == 2


def test_terms_say_in_which_currency_money_is_paid_until_they_do_not(credit):
    said = credit("providers terms ann --currency EUR --from 2020-01-01 --rate 70% --pay-in USD")
    assert "rate 70%, minimum payout 0.00, recoupment up to 100%, paid in USD" in said
    refused = credit("providers terms ann --currency EUR --from 2020-06-01 --fee 1.50", code=2)
    assert "agree them in USD" in refused
    said = credit("providers terms ann --currency EUR --from 2020-06-01 --pay-in EUR")
    assert "paid in" not in said.splitlines()[-1]


def test_a_close_converts_and_shows_how(credit, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    credit("providers terms ann --currency EUR --from 2020-01-01 --pay-in USD")
    credit("adjust ann 100.05 EUR --period 2026-01 --reason", "a late claim")
    assert "fx add 2026-01-DD EUR USD RATE --source TEXT" in credit("close 2026-01", code=1)
    credit("fx add 2026-01-30 EUR USD 1.0842 --source", ECB)
    said = credit("close 2026-01 --dry-run")
    arithmetic = f"100.05 EUR × 1.0842 = 108.47421 USD, rounded to 108.47; 1 EUR = 1.0842 USD ({ECB}, 2026-01-30)"
    assert arithmetic in " ".join(said.split())
    ann = [line.split() for line in said.splitlines() if line.startswith(" ann ")]
    assert ann[1] == ["ann", "USD", "0.00", "0.00", "0.00", "108.47", "0.00", "108.47", "0.00"]
    assert "108.47 USD payable to 1 provider, 0.00 carried forward" in said
    assert credit("close 2026-01").splitlines()[:-1] == said.splitlines()[:-1]
    assert "comes too late: period 2026-01 is closed" in credit(
        "fx add 2026-01-31 EUR USD 1.1 --source x --supersede", code=1
    )
    assert "money:fx:EUR-USD  -108.47 USD" in credit("balance money:fx:EUR-USD")
    assert "everything is as it was written" in credit("verify")
