"""Terms, advances, adjustments, reversals, holds and balances from the command line, on both engines."""

from __future__ import annotations

import getpass
import json
import socket
from datetime import UTC, datetime

THIS_MONTH = f"{datetime.now(UTC):%Y-%m}"


def test_terms_are_shown_agreed_and_superseded(credit):
    assert "whole share" in credit("providers terms ann")
    credit("providers terms ann --currency EUR --from 2020-01-01 --rate 70% --reserve 10% --release-after 3")
    said = credit("providers terms ann --currency EUR --from 2020-06-01 --fee 1.50 --agreement A-17")
    assert "EUR v1 from 2020-01-01 on: rate 70%, minimum payout 0.00, reserve 10% for 3 months" in said
    assert "EUR v2 from 2020-06-01 on: rate 70%, minimum payout 0.00, reserve 10% for 3 months" in said
    assert "fee 1.50, agreement A-17" in said
    again = credit("providers terms ann --currency EUR --from 2020-06-01 --fee 1.50")
    assert again == said, "what holds already is not agreed twice"
    assert "--supersede" in credit("providers terms ann --currency EUR --from 2020-06-01 --fee 2", code=1)
    credit("providers terms ann --currency EUR --from 2020-06-01 --fee 2 --supersede")
    (_, _, last) = json.loads(credit("providers terms ann --json"))["terms"]
    assert (last["version"], last["terms"]["fee_minor"], last["terms"]["rate_ppm"]) == (3, 200, 700_000)
    assert "--currency" in credit("providers terms ann --rate 5%", code=2)
    assert "write 0% to 100%" in credit("providers terms ann --currency EUR --rate 0.7", code=2)
    assert "agree both, or neither" in credit(
        "providers terms ann --currency EUR --from 2021-01-01 --reserve 0%", code=2
    )


def test_a_channel_is_agreed_and_ended(credit):
    said = credit("providers terms ann --currency HUF --from 2020-01-01 --channel paypal --fee 2")
    assert "fee 2.00, paid through PayPal" in said
    assert "'cheque' is not one of" in credit("providers terms ann --currency HUF --channel cheque", code=2)
    said = credit("providers terms ann --currency HUF --from 2020-06-01 --channel any")
    assert "paid through" not in said.splitlines()[-1]
    assert "agree them in EUR" in credit("providers terms ann --currency HUF --channel wise --pay-in EUR", code=2)


def test_a_contract_is_agreed_once_and_shown_in_words(credit):
    path = credit.folder / "ann.toml"
    version = '[[terms]]\ncurrency = "{}"\nfrom = {}\nrate = "{}"\n'.format
    path.write_text('provider = "ann"\nagreement = "A-17"\n' + version("EUR", "2020-01-01", "70%"))
    said = credit("providers contract FOLDER/ann.toml")
    assert (
        said == "ann: EUR v1 from 2020-01-01 on: rate 70%, minimum payout 0.00, recoupment up to 100%, agreement A-17\n"
    )
    assert credit("providers contract FOLDER/ann.toml") == said, "what holds already is not agreed twice"
    credit("providers terms ann --currency EUR --from 2020-06-01 --fee 2")
    later = version("EUR", "2020-06-01", "80%")
    path.write_text(path.read_text() + later)
    assert "--supersede" in credit("providers contract FOLDER/ann.toml", code=1)
    said = credit("providers contract FOLDER/ann.toml --supersede")
    assert "EUR v3 from 2020-06-01 on: rate 80%, minimum payout 0.00, recoupment up to 100%\n" not in said
    assert "fee" not in said, "a version of a contract is whole"
    path.write_text('provider = "ann"\n' + version("USD", "2020-01-01", "70%") + version("GBP", "2020-01-01", "0.7"))
    assert "terms 2: '0.7' is not a share" in credit("providers contract FOLDER/ann.toml", code=1)
    assert "USD" not in credit("providers terms ann"), "a mistake agrees nothing"


def test_terms_beside_the_minimum_of_add_keep_what_was_agreed(credit):
    credit("providers terms ann --currency EUR --from 2020-01-01 --rate 70%")
    credit("providers add ann Ann --currency EUR --minimum-payout 50")
    (_, last) = json.loads(credit("providers terms ann --json"))["terms"]
    assert (last["terms"]["minimum_payout_minor"], last["terms"]["rate_ppm"]) == (5_000, 700_000)


def test_an_adjustment_may_be_negative_and_is_posted_once(credit):
    line = f"adjust ann -12.50 EUR --period {THIS_MONTH} --reason"
    assert "is posted, as transaction 1" in credit(line, "counted twice")
    assert "was posted before, as transaction 1" in credit(line, "counted twice")
    assert "money:payable:ann  -12.50 EUR" in credit("balance ann")
    assert "is closed" not in credit("reverse 1 --reason", "it was right")
    assert "money:payable:ann  0.00 EUR" in credit("balance ann")
    assert "needs a reason" in credit(line, " ", code=1)
    assert "Missing option '--reason'" in credit(f"adjust ann 5 EUR --period {THIS_MONTH}", code=2)
    assert credit(f"adjust ann 5 EUR --period {THIS_MONTH} --reason x --cites 1 --json").startswith('{"hash"')


def test_an_advance_is_a_debt_until_it_is_recouped(credit):
    line = "providers advance ann 500.00 EUR --paid-on 2026-01-15 --reference transfer-881"
    assert "is recorded, as transaction 1" in credit(line)
    assert "was recorded before" in credit(line)
    assert "money:advance:ann  -500.00 EUR" in credit("balance ann")
    assert "belongs to transaction 1" in credit(line.replace("500", "501"), code=1)


def test_the_house_is_paid_what_it_has_and_no_more(credit):
    credit(f"adjust ann -12.50 EUR --period {THIS_MONTH} --reason", "counted twice")
    line = "remit house 12.50 EUR --paid-on 2026-01-15 --reference transfer-12"
    assert "the remittance transfer-12 is recorded, as transaction 2" in credit(line)
    assert "was recorded before" in credit(line)
    assert "money:payable:house  0.00 EUR" in credit("balance house")
    assert "belongs to transaction 2" in credit(line.replace("12.50", "12.51"), code=1)
    assert "is more than the 0 EUR" in credit("remit house 1 EUR --paid-on 2026-01-15 --reference another", code=1)
    assert "0 EUR (minor units) was withheld through 2026-01" in credit(
        "remit withholding 1 EUR --through 2026-01 --paid-on 2026-02-10 --reference tax", code=1
    )


def test_a_hold_is_placed_listed_and_released(credit):
    assert "ann (EUR): held since" in credit("hold place ann --currency EUR --reason", "rights disputed")
    assert "rights disputed" in credit("hold list")
    assert "nothing is on hold" in credit("hold list house")
    credit("hold release ann --currency EUR --reason settled")
    assert "nothing is on hold" in credit("hold list ann")
    assert "settled" in credit("hold list --history")
    assert len(json.loads(credit("hold list ann --history --json"))["holds"]) == 2


def test_a_balance_is_asked_as_of_a_day_and_a_moment(credit):
    credit(f"adjust ann 12.50 EUR --period {THIS_MONTH} --reason x")
    assert "12.50" in credit(f"balance money:payable:ann --effective {THIS_MONTH}-01")
    assert "nothing was ever posted" in credit("balance money:payable:ann --effective 2020-01-01")
    for recorded in ("2020-01-01", "2020-01-01T00:00:00Z"):
        assert "nothing was ever posted" in credit(f"balance ann --recorded {recorded}")
    assert "has no time zone" in credit("balance ann --recorded 2020-01-01T00:00:00", code=2)
    assert "is not a moment" in credit("balance ann --recorded yesterday", code=2)
    assert json.loads(credit("balance ann --json"))["balances"] == [
        {"account": "money:payable:ann", "balance": "12.50", "commodity": "EUR"}
    ]


def test_a_pool_that_was_taken_back_is_shown_as_such_and_its_reference_is_used_up(credit):
    added = credit("pool add 2026-01 100 EUR --deductions 10")
    assert added == "pool main of 2026-01: 90.00 EUR to distribute, transaction 1\n"
    refused = credit("pool add 2026-01 200 EUR", code=1)
    assert "other money needs a reference of its own: --reference NAME" in refused
    assert "take it back: credit reverse 1" in refused
    said = credit("reverse 1 --reason", "wrong amount")
    assert "the reversal of transaction 1 (pool of 2026-01) is posted, as transaction 2" in said
    assert "was taken back by transaction 2" in credit("pool add 2026-01 100 EUR --deductions 10", code=1)
    credit("pool add 2026-01 200 EUR --reference corrected")
    first = "2026-01  main: 90.00 EUR (after deductions of 10.00), transaction 1, taken back by transaction 2"
    assert credit("pool list") == f"{first}\n2026-01  corrected: 200.00 EUR, transaction 3\n"
    found = json.loads(credit("pool list 2026-01 --json"))["pools"]
    assert [item["taken_back_by"] for item in found] == [2, None]
    assert credit("pool list 2026-02") == "no pools were added\n"


def test_who_did_it_is_on_record(credit):
    credit(f"adjust ann 7 EUR --period {THIS_MONTH} --reason", "a gift")
    credit(f"--actor ben adjust ann 2 USD --period {THIS_MONTH} --reason gift")
    credit("--actor ben hold place ann --reason disputed")
    first, last = json.loads(credit("transactions --json"))["transactions"]
    assert first["actor"] == f"{getpass.getuser()}@{socket.gethostname()}"
    assert json.loads(credit("transactions --actor ben --json"))["transactions"] == [last]
    assert "\nactor: ben\n" in credit("explain transaction 2")
    assert "disputed (by ben)" in credit("hold list")
    assert "(by ben)" in credit("--actor ben providers terms ann --currency EUR --rate 70%")
    assert "there are: ben, " in credit("transactions --actor cho", code=1)
    assert "an actor is a name" in credit("--actor ' ' providers list", code=2)


def test_what_can_be_reversed_is_listed_and_shown(credit):
    assert credit("transactions") == "there are no such transactions\n"
    credit(f"adjust ann 7 EUR --period {THIS_MONTH} --reason", "a gift")
    (item,) = json.loads(credit("transactions --provider ann --json"))["transactions"]
    assert (item["kind"], item["period"], item["memo"]) == ("adjustment", THIS_MONTH, "a gift")
    credit(f"reverse {item['id']} --reason", "not a gift")
    listed = credit(f"transactions --period {THIS_MONTH}")
    assert "a gift; reversed by 2" in listed
    assert "not a gift; reverses 1" in listed
    assert "Only the last 1; more with --limit." in credit("transactions --limit 1")
    shown = credit("explain transaction 2")
    assert "transaction 2: reversal, counts in" in shown
    assert "reason: not a gift" in shown
    assert "money:payable:ann -7.00 EUR" in " ".join(shown.split())
    found = json.loads(credit("explain transaction 1 --json"))
    assert [line["amount"] for line in found["entries"]] == [-700, 700]
    assert "list them: credit transactions" in credit("explain transaction 99", code=1)
    assert "written YYYY-MM" in credit("transactions --period 2026", code=2)
