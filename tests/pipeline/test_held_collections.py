"""A collection on hold: what it earns stays where it is, with the reason, and comes back whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from credit.accounting.amounts import parse_amount
from credit.cli.main import cli
from credit.errors import LedgerError
from credit.ledger import corrections, holds, periods
from credit.ledger.accounts import AccountKind
from credit.ledger.database import Ledger
from credit.ledger.journal import Entry, Posting, ensure_period, post
from credit.ledger.statements import statements
from credit.ledger.verify import closes, verify
from credit.pipeline.explain_payout import explain_payout
from credit.pipeline.restate import by_policy, restate
from credit.pipeline.workspace import Workspace
from credit.records import Group
from credit.reporting.books import beancount_text
from credit.reporting.frames import payouts
from credit.reporting.pages import statement_page
from tests.ledger.tampering import unguarded
from tests.pipeline.books_of_account import FEBRUARY, JANUARY, MARCH, NOW, Account
from tests.pipeline.scored import Scored, at, credit_outputs

NOVELS, ESSAYS, BEN = Group("ann", "novels"), Group("ann", "essays/1"), Group("ben")
WHY = "the estate disputes it"


def output(month: int, novels: float, essays: float, ben: float) -> Scored:
    """An output of weight 1 that has no support beyond the noise."""
    return Scored(f"o{month}", at(month, 3), {NOVELS: (novels, 0), ESSAYS: (essays, 0), BEN: (ben, 0)})


@pytest.fixture
def account(ledger: Ledger, tmp_path: Path) -> Account:
    return Account(ledger, books=tmp_path / "books").start()


def place(account: Account, collection: str = "novels") -> None:
    with account.ledger.write() as conn:
        holds.place_hold(conn, "ann", None, WHY, collection=collection, now=NOW)


def release(account: Account, collection: str = "novels") -> None:
    with account.ledger.write() as conn:
        holds.release_hold(conn, "ann", None, "settled", collection=collection, now=NOW)


def month(account: Account, number: int, net: int, *parts: float, hold: bool = False) -> dict[str, object]:
    """An output, a pool, perhaps a hold, a close; return ann's balance."""
    assert account.books is not None
    period = f"2026-{number:02d}"
    credit_outputs(account.ledger, account.books, [output(number, *parts)])
    account.pool(period, net)
    if hold:
        place(account)
    tried = account.close(period, dry_run=True)
    assert account.close(period).waterfalls == tried.waterfalls
    (balance,) = account.statement(period, "ann")["balances"]
    return balance


def agrees(account: Account) -> None:
    """Verify finds nothing, every statement is explained, and beancount's books balance."""
    assert account.books is not None
    assert verify(account.ledger, None).problems == ()
    with account.ledger.read() as conn:
        closed = [item.id for item in periods.periods(conn) if item.status == "closed"]
        for period in closed:
            for key in ("ann", "ben"):
                explain_payout(conn, account.books, key, period)
    for period in closed:
        assert "Liabilities:Payable:Ann" in beancount_text(account.ledger, period)


def test_what_a_held_collection_earns_is_kept_and_comes_back_whole(account):
    january = month(account, 1, 1_000, 1.0, 1.0, 2.0, hold=True)
    assert (january["earned"], january["collections_held"], january["payable"]) == ("5.00", "2.50", "2.50")
    assert account.balance("money:held:ann/novels") == 250
    february = month(account, 2, 800, 1.0, 1.0, 2.0)
    assert (february["collections_held"], february["payable"]) == ("2.00", "2.00")
    (row,) = account.statement(FEBRUARY, "ann")["on_hold"]
    assert row == {
        "currency": "EUR",
        "collection": "novels",
        "reason": WHY,
        "opening": "2.50",
        "corrected": "0.00",
        "held": "2.00",
        "released": "0.00",
        "balance": "4.50",
    }
    agrees(account)
    release(account)
    march = month(account, 3, 300, 0.0, 1.0, 2.0)
    assert (march["earned"], march["collections_released"], march["payable"]) == ("1.00", "4.50", "5.50")
    assert account.balance("money:held:ann/novels") == 0
    (row,) = account.statement(MARCH, "ann")["on_hold"]
    assert (row["reason"], row["released"], row["balance"]) == ("", "4.50", "0.00")
    agrees(account)
    account.pool("2026-04", 0)
    account.close("2026-04")
    assert ("2026-04", "ann", 1) not in account.statements(), "nothing is left to be told"


def test_the_part_of_a_held_collection_is_rounded_down_in_every_pool(account):
    """What is left of a minor unit is paid."""
    assert account.books is not None
    credit_outputs(account.ledger, account.books, [output(1, 1.0, 2.0, 3.0)])
    account.agree("ann", rate_ppm=700_000)
    account.pool(JANUARY, 1_001, reference="a")
    account.pool(JANUARY, 77, reference="b")
    account.pool(JANUARY, 1_000, "USD")
    place(account)
    account.close(JANUARY)
    body = account.statement(JANUARY, "ann")
    told = {"EUR": 0, "USD": 0}
    for pool in body["pools"]:
        told[pool["currency"]] += parse_amount(pool["earned"], "EUR") * 166_667 // 500_000
    assert {item["currency"]: parse_amount(item["collections_held"], "EUR") for item in body["balances"]} == told
    assert {currency: account.balance("money:held:ann/novels", currency) for currency in told} == told
    agrees(account)


def test_nothing_held_recoups_an_advance_is_reserved_or_pays_a_debt(account):
    account.agree("ann", reserve_ppm=100_000, reserve_release_periods=1)
    with account.ledger.write() as conn:
        corrections.pay_advance(conn, "ann", 10_000, "EUR", paid_on=at(1, 1).date(), reference="a", now=NOW)
    january = month(account, 1, 2_000, 1.0, 1.0, 2.0, hold=True)
    assert (january["collections_held"], january["reserve_held"]) == ("5.00", "0.50")
    assert january["advances_recouped"] == "4.50"
    with account.ledger.write() as conn:
        corrections.adjust(conn, "ann", -700, "EUR", period=FEBRUARY, reason="a debt", now=NOW)
    february = month(account, 2, 0, 1.0, 1.0, 2.0)
    assert february["carried_forward"] == "-6.50", "the debt stands beside what is held"
    assert "is negative" in february["reason"]
    release(account)
    march = month(account, 3, 0, 1.0, 1.0, 2.0)
    assert march["collections_released"] == "5.00"
    assert march["reserve_held"] == "0.50", "released, it counts as earned now"
    assert march["carried_forward"] == "-2.00"
    agrees(account)


def test_below_the_minimum_counts_without_what_is_held(account):
    account.agree("ann", minimum_payout_minor=400)
    january = month(account, 1, 1_000, 1.0, 1.0, 2.0, hold=True)
    assert "of 2.50 EUR is below the minimum payout" in january["reason"]
    release(account)
    assert month(account, 2, 0, 1.0, 1.0, 2.0)["payable"] == "5.00"


def test_a_hold_of_the_provider_and_one_of_a_collection_are_told_apart(account):
    month(account, 1, 1_000, 1.0, 1.0, 2.0, hold=True)
    with account.ledger.write() as conn:
        holds.place_hold(conn, "ann", None, "no bank details", now=NOW)
    release(account)
    february = month(account, 2, 1_000, 1.0, 1.0, 2.0)
    assert "7.50 EUR is on hold: no bank details" in february["reason"]
    agrees(account)


def test_a_provider_all_of_whose_data_is_on_hold_is_told_why_nothing_is_paid(account):
    january = month(account, 1, 1_000, 1.0, 0.0, 1.0, hold=True)
    assert january["reason"] == f"nothing is owed but what is on hold: 5.00 EUR of novels ({WHY})"
    with account.ledger.read() as conn:
        assert account.books is not None
        found = explain_payout(conn, account.books, "ann", JANUARY)
        frame = payouts(conn, JANUARY)
    assert WHY in found.verdict
    (line,) = (step for step in found.currencies[0].waterfall if step.label == "collections held")
    assert (line.amount_minor, line.arithmetic) == (-500, f"novels: {WHY}; 5.00 held by now")
    (step,) = (step for step in found.currencies[0].pools if step.label == "of it, on hold: novels")
    assert (step.amount_minor, step.arithmetic) == (500, "⌊5.00 × 0.500000 / 0.500000 credits⌋")
    row = frame.row(0, named=True)
    assert (row["provider"], row["collections_held"], row["collections_released"]) == ("ann", "5.00", "0.00")


def test_faces_of_the_statement_show_the_hold(account):
    month(account, 1, 1_000, 1.0, 1.0, 2.0, hold=True)
    with account.ledger.read() as conn:
        (item,) = (one for one in statements(conn, JANUARY) if one.provider == "ann")
    page = statement_page(item)
    assert "Of it, by collections on hold" in page
    assert "Collections on hold" in page
    assert WHY in page


def run(account: Account, database_url: str, tmp_path: Path, measure: str) -> object:
    space = Workspace(database_url, tmp_path)
    method = {"policy": {"measure": measure}}
    return restate(space, account.ledger, JANUARY, by_policy({"measure": measure}), method, reason="r", now=NOW)


def test_a_restatement_moves_what_is_held_where_it_is_held(account, database_url, tmp_path):
    assert account.books is not None
    credit_outputs(
        account.ledger,
        account.books,
        [Scored("o1", at(1, 3), {NOVELS: (1.0, 0.0), ESSAYS: (1.0, 0.0), BEN: (2.0, 8.0)})],
    )
    account.pool(JANUARY, 2_400)
    place(account)
    account.close(JANUARY)  # by effect: 1, 1 and 10 of 12
    assert (account.balance("money:held:ann/novels"), account.balance("money:payout:ann")) == (200, 200)
    found = run(account, database_url, tmp_path, "influence")  # 1, 1 and 2 of 4
    moved = {item.account: item.adjustment_minor for item in found.money}
    assert moved == {"money:held:ann/novels": 400, "money:payable:ann": 400, "money:payable:ben": -800}
    with pytest.raises(LedgerError, match="it moved money on hold, now or then"), account.ledger.write() as conn:
        corrections.undo(conn, found.txn_id, reason="x", now=NOW)
    account.pool(FEBRUARY, 0)
    account.close(FEBRUARY)
    body = account.statement(FEBRUARY, "ann")
    (row,) = body["on_hold"]
    assert (row["opening"], row["corrected"], row["held"], row["balance"]) == ("2.00", "4.00", "0.00", "6.00")
    assert [(line["amount"], line.get("collection")) for line in body["corrections"]] == [
        ("4.00", "novels"),
        ("4.00", None),
    ]
    assert body["balances"][0]["adjustments"] == "4.00"
    release(account)
    account.pool(MARCH, 0)
    account.close(MARCH)
    agrees(account)
    back = run(account, database_url, tmp_path, "effect")
    moved = {item.account: item.adjustment_minor for item in back.money}
    assert moved == {"money:payable:ann": -800, "money:payable:ben": 800}, "what was released is the provider's"
    account.pool("2026-04", 0)
    account.close("2026-04")
    agrees(account)


def test_a_transaction_that_releases_what_is_on_hold_is_refused_by_the_database(account):
    month(account, 1, 1_000, 1.0, 1.0, 2.0, hold=True)
    lines = (Entry(AccountKind.HELD.key(NOVELS), "EUR", -250), Entry(AccountKind.PAYABLE.key("ann"), "EUR", 250))
    posting = Posting("collection-release", FEBRUARY, at(2, 1).date(), "a theft", lines)
    with pytest.raises(LedgerError, match="keeps what it earned: release it first"), account.ledger.write() as conn:
        post(conn, posting, now=NOW)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ("UPDATE hold SET created_at = '2026-12-30T00:00:00.000000Z'", "allocation"),
        ("UPDATE hold SET collection = 'essays/1'", "allocation"),
        ("UPDATE ledger_entry SET amount = amount - 1 WHERE amount = 250 AND line_no = 2", "allocation"),
        ("UPDATE ledger_txn SET kind = 'x' WHERE kind = 'allocation'", "allocation"),
    ],
)
def test_verify_holds_what_is_held_against_holds_and_credits(account, database_url, change, place):
    month(account, 1, 1_000, 1.0, 1.0, 2.0, hold=True)
    with unguarded(database_url, undo=True) as conn:
        conn.execute(text(change))
        found = [*closes.check_allocations(conn), *closes.check_held(conn)]
    assert found[0].place.startswith(place)


@pytest.mark.parametrize("kind", ["theft", "collection-release", "restatement"])
def test_verify_names_money_that_left_a_hold_by_a_proper_transaction(account, database_url, kind):
    month(account, 1, 1_000, 1.0, 1.0, 2.0, hold=True)
    amount = 251 if kind == "restatement" else 250
    lines = (Entry(AccountKind.HELD.key(NOVELS), "EUR", -amount), Entry(AccountKind.PAYABLE.key("ann"), "EUR", amount))
    posting = Posting(kind, FEBRUARY, at(2, 1).date(), "a theft", lines)
    with unguarded(database_url, undo=True) as conn:
        number = post(conn, posting, now=NOW).txn_id
        (found,) = closes.check_held(conn)
    assert (found.place, "money:held:ann/novels" in found.message) == (f"transaction {number}", True)


def test_verify_names_what_a_close_should_have_released(account, database_url):
    month(account, 1, 1_000, 1.0, 1.0, 2.0, hold=True)
    release(account)
    with unguarded(database_url, undo=True) as conn:
        ensure_period(conn, FEBRUARY, now=NOW)
        periods.mark_closed(conn, FEBRUARY, policy_json="{}", now=NOW)
        (found,) = closes.check_held(conn)
    assert found.place == "account money:held:ann/novels"


def test_the_command_holds_lists_and_releases(account, database_url, tmp_path):
    month(account, 1, 1_000, 1.0, 1.0, 2.0)
    environment = {"CREDIT_DATABASE_URL": database_url, "CREDIT_DATA_DIR": str(tmp_path)}

    def invoke(*words: str) -> str:
        return CliRunner(env=environment).invoke(cli, words, catch_exceptions=False).output

    held = ["ann", "--collection", "novels", "--reason"]
    assert "ann (collection novels): held since" in invoke("hold", "place", *held, WHY)
    (item,) = json.loads(invoke("hold", "list", "--json"))["holds"]
    assert (item["collection"], item["currency"], item["reason"]) == ("novels", None, WHY)
    account.pool(FEBRUARY, 100)
    account.credits(FEBRUARY, {"ann": 1})
    said = invoke("close", FEBRUARY, "--dry-run", "--unvalidated", "a test", "--unreviewed", "a test")
    assert "on hold" not in said, "the held collection earned nothing"
    assert "released on" in invoke("hold", "release", *held, "settled")
    assert "collection 'poems'" in invoke("hold", "place", "ann", "--collection", "poems", "--reason", "x")
