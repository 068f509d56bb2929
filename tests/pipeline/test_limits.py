"""Limits on users, through close, statement, explanation, restatement and verify, on both engines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from credit.accounting.credits import Policy
from credit.errors import LedgerError
from credit.ledger.credits import Decider, concentration, credit_totals
from credit.ledger.database import Ledger
from credit.ledger.verify import verify
from credit.ledger.verify.closes import check_period_basis
from credit.pipeline.close import ClosePolicy
from credit.pipeline.explain_payout import explain_payout
from credit.pipeline.restate import by_policy, restate
from credit.pipeline.workspace import Workspace
from credit.records import MICRO, Group
from tests.ledger.samples import pseudonym
from tests.ledger.tampering import unguarded
from tests.pipeline.books_of_account import FEBRUARY, JANUARY, NOW, Account
from tests.pipeline.scored import Scored, at, credit_outputs

ANN, BEN = Group("ann"), Group("ben")
TO_ANN, TO_BEN, HALVES = ({ANN: (a, 0.0), BEN: (b, 0.0)} for a, b in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0)))
POLICY = Policy("influence")
CAPPED = replace(POLICY, user_cap_micro=2 * MICRO)
FARMED = tuple(Scored(f"again {n}", at(1, 3), TO_ANN, user="1", text="a") for n in range(4))
HONEST = (
    Scored("other user", at(1, 3), TO_BEN, user="2", text="a"),
    Scored("other day", at(1, 4), TO_BEN, user="1", text="a"),
    Scored("other text", at(1, 3), TO_BEN, user="1", text="b"),
    Scored("nobody", at(1, 3), TO_BEN, text="c"),
    Scored("no text", at(1, 3), TO_BEN),
    Scored("no text either", at(1, 3), TO_BEN),
)
FLOOD = tuple(Scored(f"flood {n}", at(1, 5), HALVES, MICRO, "3", f"{n}") for n in range(7))


@pytest.fixture
def workspace(database_url: str, tmp_path: Path) -> Workspace:
    return Workspace(database_url, tmp_path)


@pytest.fixture
def account(ledger: Ledger, workspace: Workspace) -> Account:
    return Account(ledger, books=workspace.books).start()


def credited(account, period=JANUARY):
    with account.ledger.read() as conn:
        return {key: micro for key, micro in credit_totals(conn, period).items() if micro}


def test_a_call_logged_four_times_counts_once_and_honest_ones_like_it_all_count(account, workspace):
    credit_outputs(account.ledger, workspace.books, [*FARMED, *HONEST], POLICY)
    assert credited(account) == {"ann": 4 * MICRO, "ben": 6 * MICRO}, "compute posts each output whole"
    account.pool(JANUARY, 70_000)
    done = account.close(JANUARY)
    assert credited(account) == {"ann": MICRO, "ben": 6 * MICRO}
    shares = {item.share.provider: item.share.amount_minor for item in done.earnings[0][1]}
    assert (shares["ann"], shares["ben"]) == (10_000, 60_000)
    assert (done.uncounted.repeats, done.uncounted.capped, done.uncounted.total_micro) == (3, 0, 3 * MICRO)
    for key, own in (("ann", 3 * MICRO), ("ben", 0)):
        assert account.statement(JANUARY, key)["credits"]["uncounted"] == {
            "outputs_repeated": 3, "outputs_capped": 0, "credit_micro": str(own), "total_credit_micro": str(3 * MICRO),
        }  # fmt: skip
    assert verify(account.ledger, workspace.books).problems == ()


def test_calls_of_unknown_users_are_taken_for_one_users(account, workspace):
    items = [Scored(f"o{n}", at(1, 3), TO_ANN, text="a") for n in range(3)]
    credit_outputs(account.ledger, workspace.books, items, POLICY)
    account.pool(JANUARY, 100)
    account.close(JANUARY)
    assert credited(account) == {"ann": MICRO}


@pytest.mark.parametrize(("repeats", "expected"), [(0, 4), (1, 1), (3, 3), (9, 4)])
def test_a_policy_says_how_often_a_text_counts(account, workspace, repeats, expected):
    credit_outputs(account.ledger, workspace.books, FARMED, replace(POLICY, repeats=repeats))
    account.pool(JANUARY, 100)
    account.close(JANUARY)
    assert credited(account) == {"ann": expected * MICRO}


def test_a_user_s_day_counts_up_to_the_limit_and_each_output_for_its_part(account, workspace):
    credit_outputs(account.ledger, workspace.books, [*FLOOD, *HONEST], CAPPED)
    account.pool(JANUARY, 1000)
    done = account.close(JANUARY)
    part = 2 * MICRO // 7
    assert done.uncounted.capped == 7
    assert done.uncounted.total_micro == 7 * MICRO - 7 * part
    assert credited(account) == {"ann": 7 * part // 2, "ben": 6 * MICRO + 7 * part // 2}


@pytest.mark.parametrize("sums", [{}, {"basis": "period"}, {"negative": "net"}], ids=["alone", "period", "net"])
def test_neither_chunks_nor_order_move_a_credit(account, workspace, tmp_path, shared_database, sums):
    policy = replace(CAPPED, **sums)
    items = [*FLOOD, *FARMED, *HONEST]
    credit_outputs(account.ledger, workspace.books, items, policy)
    account.pool(JANUARY, 1000)
    account.close(JANUARY)
    with Ledger.open(shared_database()) as other:
        second = Account(other, books=tmp_path / "other").start()
        for start in range(0, len(items), 3):
            credit_outputs(other, second.books, items[::-1][start : start + 3], policy)
        second.pool(JANUARY, 1000)
        second.close(JANUARY)
        assert credited(second) == credited(account)
        assert verify(other, second.books).problems == ()
    assert verify(account.ledger, workspace.books).problems == ()


def test_what_comes_after_a_close_finds_the_day_used_up(account, workspace):
    credit_outputs(account.ledger, workspace.books, [FARMED[0], *FLOOD[:3]], CAPPED)
    account.pool(JANUARY, 1000)
    account.close(JANUARY)
    before = credited(account)
    # Earlier than what was counted, and of the same day: it is too late all the same.
    late = [replace(FARMED[1], name="a", moment=at(1, 3).replace(hour=1)), *FLOOD[3:], *HONEST[1:2]]
    credit_outputs(account.ledger, workspace.books, late, CAPPED)
    account.pool(FEBRUARY, 1000)
    account.close(FEBRUARY)
    assert credited(account) == before
    assert credited(account, FEBRUARY) == {"ben": MICRO}
    assert verify(account.ledger, workspace.books).problems == ()


def test_a_period_is_restated_without_the_limits_and_with_them_again(account, workspace):
    credit_outputs(account.ledger, workspace.books, [*FARMED, *HONEST, *FLOOD], CAPPED)
    account.pool(JANUARY, 100_000)
    account.close(JANUARY)
    paid, limited = account.owed(), credited(account)

    def run(**changes):
        made = restate(workspace, account.ledger, JANUARY, by_policy(changes), {"policy": changes}, reason="x", now=NOW)
        return {item.provider: item.restated_micro for item in made.credits if item.restated_micro}

    assert run(repeats=0, user_cap_micro=0) == {"ann": 7_500_000, "ben": 9_500_000}
    assert account.owed() != paid
    assert run(repeats=1, user_cap_micro=2 * MICRO) == limited
    assert account.owed() == paid
    assert run(repeats=1, user_cap_micro=0) == {"ann": 4_500_000, "ben": 9_500_000}


def test_what_a_close_leaves_out_is_explained_and_needs_the_score_books(account, workspace):
    credit_outputs(account.ledger, workspace.books, [*FARMED, *HONEST], POLICY)
    account.pool(JANUARY, 100)
    account.books = None
    with pytest.raises(LedgerError, match="3 outputs beyond limits, which needs its score books"):
        account.close(JANUARY)
    account.books = workspace.books
    for closed in (False, True):
        if closed:
            account.close(JANUARY)
        with account.ledger.read() as conn:
            (line,) = explain_payout(conn, workspace.books, "ann", JANUARY).moved
        assert (line.alone_micro, line.moved_micro) == (4 * MICRO, -3 * MICRO)


def test_a_close_without_the_credits_that_limits_leave_out_is_named(account, workspace, database_url):
    credit_outputs(account.ledger, workspace.books, FARMED, POLICY)
    account.pool(JANUARY, 100)
    account.close(JANUARY)
    with unguarded(database_url, undo=True) as conn:
        conn.execute(text("UPDATE ledger_txn SET kind = 'adjustment' WHERE kind = 'period-basis'"))
        (found,) = check_period_basis(conn)
    assert (found.place, found.message) == (
        f"period {JANUARY}",
        "left 0 micro-credits uncounted; the limits on users say 3000000",
    )


def test_a_close_names_the_heaviest_user_and_is_refused_beyond_a_share(account, workspace):
    others = [Scored(f"o{n}", at(1, 1 + n), TO_BEN, user="2", text="x") for n in range(4)]
    anonymous = [Scored(f"n{n}", at(1, 1 + n), TO_BEN) for n in range(16)]
    heavy = [Scored(f"h{n}", at(1, 1 + n), TO_ANN, user="1", text="y") for n in range(10)]
    credit_outputs(account.ledger, workspace.books, [*others, *anonymous, *heavy], POLICY)
    account.pool(JANUARY, 100)
    with account.ledger.read() as conn:
        assert concentration(conn, JANUARY).user == Decider(pseudonym("1"), 10 * MICRO, 333_333)
    with pytest.raises(LedgerError, match=f"user {pseudonym('1')} decides 33"):
        account.close(JANUARY)
    done = account.close(JANUARY, accepted_concentration="Eve Sommer: a school's account")
    assert done.concentration.user.name == pseudonym("1")
    assert ClosePolicy.from_json(done.policy.to_json()) == done.policy


def test_what_limits_leave_out_of_a_user_decides_nothing(account, workspace):
    heavy = [Scored(f"h{n}", at(1, 2), TO_ANN, user="1", text="y") for n in range(40)]
    others = [Scored(f"o{n}", at(1, 1 + n), TO_BEN) for n in range(20)]
    credit_outputs(account.ledger, workspace.books, [*heavy, *others], POLICY)
    account.pool(JANUARY, 100)
    found = account.close(JANUARY).concentration
    assert (found.credit_micro, found.user.credit_micro) == (21 * MICRO, MICRO)


def test_echo_is_the_house_s_whatever_is_restated(account, workspace):
    items = [
        Scored("echo", at(1, 3), HALVES, MICRO, echo_micro=600_000),
        Scored("all echo", at(1, 3), {ANN: (0.0, 0.0), BEN: (0.0, 0.0)}, MICRO, echo_micro=MICRO),
    ]
    credit_outputs(account.ledger, workspace.books, items, POLICY)
    account.pool(JANUARY, 1000)
    account.close(JANUARY)
    assert credited(account) == {"ann": 200_000, "ben": 200_000, "house": 1_600_000}
    for changes in ({"basis": "period"}, {"negative": "net"}, {"measure": "influence"}):
        made = restate(workspace, account.ledger, JANUARY, by_policy(changes), {}, reason="x", dry_run=True, now=NOW)
        assert {item.provider: item.restated_micro for item in made.credits if item.restated_micro} == credited(account)
    with pytest.raises(Exception, match="another length of echo needs the index"):
        restate(workspace, account.ledger, JANUARY, by_policy({"echo": 4}), {}, reason="x", dry_run=True, now=NOW)
    with account.ledger.read() as conn:
        found = explain_payout(conn, workspace.books, "ann", JANUARY)
    (line,) = found.outputs
    assert (line.output, line.weight_micro, line.credit_micro) == ("echo", 400_000, 200_000)
