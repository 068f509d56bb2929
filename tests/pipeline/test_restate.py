"""Restatement of a closed period: the difference, posted once, and nothing of the past changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from credit.accounting.credits import Policy
from credit.errors import IntegrityError, InvalidRequestError, LedgerError
from credit.ledger import corrections, journal, periods
from credit.ledger.database import Ledger
from credit.ledger.score_books import book_path
from credit.ledger.transactions import transaction
from credit.ledger.verify import verify
from credit.pipeline.restate import Restatement, by_policy, restate
from credit.pipeline.workspace import Workspace
from credit.records import Group
from tests.pipeline.books_of_account import FEBRUARY, JANUARY, NOW, Account
from tests.pipeline.scored import Scored, at, credit_outputs

ANN, BEN, OWN = Group("ann"), Group("ben"), Group("own")
OUTPUTS = (
    Scored("o1", at(1, 3), {ANN: (3.0, 1.0), BEN: (-1.0, 4.0), OWN: (0.5, 0.1)}),
    Scored("o2", at(1, 3), {ANN: (0.2, 0.1), BEN: (0.7, 0.9), OWN: (-2.0, 0.0)}),
    Scored("o3", at(1, 9), {ANN: (-1.0, 0.0), BEN: (-1.0, 0.0), OWN: (-1.0, 0.0)}),
    Scored("o4", at(1, 9), {ANN: (1.0, 1.0), BEN: (1.0, 1.0), OWN: (1.0, 1.0)}, 7),
)


@pytest.fixture
def account(ledger: Ledger) -> Account:
    return Account(ledger).start()


@pytest.fixture
def workspace(database_url: str, tmp_path: Path) -> Workspace:
    return Workspace(database_url, tmp_path)


def run(account: Account, workspace: Workspace, dry_run: bool = False, **changes: object) -> Restatement:
    return restate(
        workspace,
        account.ledger,
        JANUARY,
        by_policy(changes),
        {"policy": changes},
        reason="another measure",
        dry_run=dry_run,
        now=NOW,
    )


def close_january(account: Account, workspace: Workspace, policy: Policy | None = None, **close: object) -> None:
    credit_outputs(account.ledger, workspace.books, OUTPUTS, policy)
    account.pool(JANUARY, 1_000)
    account.close(JANUARY, **close)


def test_the_same_policy_gives_the_same_credits_and_posts_nothing(account, workspace):
    close_january(account, workspace)
    found = run(account, workspace)
    assert all(item.posted_micro == item.restated_micro for item in found.credits)
    assert found.txn_id is None
    assert not any(item.adjustment_minor for item in found.money)


@pytest.mark.parametrize("house", ["return", "redistribute", "escrow"])
def test_a_restated_period_has_paid_what_the_other_policy_would_have_paid(account, workspace, house):
    account.agree("ben", rate_ppm=600_000)
    close_january(account, workspace, house=house)
    before = account.statements()
    found = run(account, workspace, measure="influence")
    assert account.statements() == before, "the closed period stays byte for byte"
    assert found.posted_in == FEBRUARY
    assert sum(item.adjustment_minor for item in found.money) == 0

    credited = {item.provider: item.restated_micro for item in found.credits}
    assert credited == {"ann": 1_079_365 + 2, "ben": 777_778 + 3, "house": 1_000_000, "own": 142_857 + 2}
    assert sum(credited.values()) == 3_000_007
    sharing = {key: micro for key, micro in credited.items() if house != "redistribute" or key in {"ann", "ben"}}
    ann = 1_000 * sharing["ann"] / sum(sharing.values())
    paid = {item.account: item.allocated_minor + item.adjustment_minor for item in found.money}
    assert abs(paid["money:payable:ann"] - ann) < 1

    account.pool(FEBRUARY, 0)
    account.close(FEBRUARY)
    (line,) = account.statement(FEBRUARY, "ann")["corrections"]
    assert (line["kind"], line["reason"]) == ("restatement", "restatement of 2026-01: another measure")
    assert verify(account.ledger, None).problems == ()
    assert {key: text for key, text in account.statements().items() if key[0] == JANUARY} == before


def by_rate(
    account: Account, workspace: Workspace, rate_ppm: int, key: str = "ben", currency: str = "EUR"
) -> Restatement:
    return restate(
        workspace,
        account.ledger,
        JANUARY,
        by_policy({}),
        {"policy": {}},
        reason="60% was entered by mistake",
        rates={(key, currency): rate_ppm},
        now=NOW,
    )


def test_a_wrong_rate_is_put_right_at_the_cost_of_the_house_and_the_statement_says_so(account, workspace):
    account.agree("ben", rate_ppm=600_000)
    close_january(account, workspace)
    before, (house, ben) = account.statements(), (account.balance(f"money:payable:{key}") for key in ("house", "ben"))
    (pool,) = account.statement(JANUARY, "ben")["pools"]
    share = int(pool["amount"].replace(".", ""))
    difference = (share - share * 300_000 // 1_000_000) - (share - share * 400_000 // 1_000_000)
    assert difference > 0
    found = by_rate(account, workspace, 700_000)
    assert {item.account: item.adjustment_minor for item in found.money if item.adjustment_minor} == {
        "money:payable:ben": difference,
        "money:payable:house": -difference,
    }
    assert by_rate(account, workspace, 700_000).txn_id is None, "twice is once"
    with account.ledger.read() as conn:
        assert transaction(conn, found.txn_id or 0).details["method"] == {"policy": {}, "rates": {"ben:EUR": 700_000}}
    assert account.balance("money:payable:house") == house - difference
    assert account.statements() == before, "the closed period stays byte for byte"
    account.pool(FEBRUARY, 0)
    account.close(FEBRUARY)
    (line,) = account.statement(FEBRUARY, "ben")["corrections"]
    assert (line["kind"], line["amount"], line["reason"]) == (
        "restatement",
        f"{difference / 100:.2f}",
        "restatement of 2026-01: 60% was entered by mistake",
    )
    assert verify(account.ledger, None).problems == ()
    by_rate(account, workspace, 600_000)
    assert account.balance("money:payable:house") == house, "by the rate of the close, everything is taken back"
    assert account.balance("money:payable:ben") - ben == -difference, "which was paid with February's close"


@pytest.mark.parametrize(("key", "currency"), [("eve", "EUR"), ("own", "EUR"), ("house", "EUR"), ("ben", "USD")])
def test_a_rate_of_nobody_who_earned_is_refused(account, workspace, key, currency):
    close_january(account, workspace)
    with pytest.raises(InvalidRequestError, match=f"{key} earned nothing in {currency} in 2026-01"):
        by_rate(account, workspace, 700_000, key, currency)


def test_a_restatement_posts_only_what_the_one_before_did_not(account, workspace):
    close_january(account, workspace)
    owed = account.owed()
    first = run(account, workspace, measure="influence")
    assert run(account, workspace, measure="influence").txn_id is None, "twice is once"
    run(account, workspace, measure="support")
    assert account.owed() != owed
    assert run(account, workspace, measure="effect").txn_id is not None
    assert account.owed() == owed, "restated by the original policy, everything is taken back"
    assert first.txn_id is not None
    with account.ledger.write() as conn:
        corrections.undo(conn, first.txn_id, reason="a mistake", now=NOW)
    assert run(account, workspace, measure="effect").txn_id is not None, "what a reversal undid counts as undone"
    assert account.owed() == owed


def test_a_dry_run_says_the_same_and_writes_nothing(account, workspace):
    close_january(account, workspace)
    with account.ledger.read() as conn:
        head = journal.chain_head(conn)
    tried = run(account, workspace, dry_run=True, measure="support")
    with account.ledger.read() as conn:
        assert journal.chain_head(conn) == head
        assert [item.id for item in periods.periods(conn)] == [JANUARY]
    done = run(account, workspace, measure="support")
    assert (tried.credits, tried.money, tried.txn_id) == (done.credits, done.money, None)


def test_the_weights_of_effect_can_change_where_the_books_hold_what_they_weigh(account, workspace):
    close_january(account, workspace)
    by_influence = run(account, workspace, dry_run=True, measure="influence")
    assert run(account, workspace, dry_run=True, beta=0.0).credits == by_influence.credits, "all of it beyond the noise"
    assert run(account, workspace, dry_run=True, alpha=2.0, beta=2.0).credits == run(account, workspace).credits
    by_support = run(account, workspace, dry_run=True, measure="support")
    assert run(account, workspace, dry_run=True, alpha=0.0).credits == by_support.credits
    for changes in (
        {"gamma": 1.0},
        {"noise_floor": 2.0},
        {"beta": 0.0, "noise_floor": 7.0},
        {"measure": "support", "noise_floor": 0.5},
        {"damping": 1.0},
    ):
        with pytest.raises(InvalidRequestError, match="--index DIR"):
            run(account, workspace, dry_run=True, **changes)


def test_of_an_effect_that_weighs_volume_only_the_weight_of_support_can_change(account, workspace):
    """Influence beyond the noise, and volume, stand in the books in one sum."""
    credit_outputs(account.ledger, workspace.books, OUTPUTS, Policy(gamma=0.5), volume=4.0)
    account.pool(JANUARY, 1_000)
    account.close(JANUARY)
    found = run(account, workspace, dry_run=True, beta=0.0)
    without = {"ann": 5.0 / 8.5 + 2.2 / 4.9 + 1 / 3, "ben": 1.0 / 8.5 + 2.7 / 4.9 + 1 / 3}
    for item in found.credits:
        if item.provider in without:
            assert item.restated_micro == pytest.approx(without[item.provider] * 1e6, abs=5)
    for changes in ({"gamma": 0.0}, {"alpha": 0.0, "beta": 0.0}, {"alpha": 2.0}):
        with pytest.raises(InvalidRequestError, match="--index DIR"):
            run(account, workspace, dry_run=True, **changes)


def test_credits_that_were_reversed_stay_out(account, workspace):
    credit_outputs(account.ledger, workspace.books, OUTPUTS)
    with account.ledger.write() as conn:
        corrections.undo(conn, 1, reason="a test of ours", now=NOW)  # the outputs of January 3
    account.pool(JANUARY, 1_000)
    account.close(JANUARY)
    found = run(account, workspace, dry_run=True, measure="influence")
    assert {item.provider: item.restated_micro for item in found.credits} == {
        "ann": 2,
        "ben": 3,
        "own": 2,
        "house": 1_000_000,
    }


def test_what_cannot_be_restated_is_refused(account, workspace):
    sha256 = credit_outputs(account.ledger, workspace.books, OUTPUTS)
    account.pool(JANUARY, 1_000)
    with pytest.raises(LedgerError, match="is open, it has paid nobody yet"):
        run(account, workspace)
    account.close(JANUARY)
    with pytest.raises(LedgerError, match="needs a reason"):
        restate(workspace, account.ledger, JANUARY, by_policy({}), {}, reason=" ")
    with pytest.raises(LedgerError, match="no period 2026-07"):
        restate(workspace, account.ledger, "2026-07", by_policy({}), {}, reason="x")
    book_path(workspace.books, sha256).write_bytes(b"changed")
    with pytest.raises(IntegrityError, match="is not the registered file"):
        run(account, workspace)
