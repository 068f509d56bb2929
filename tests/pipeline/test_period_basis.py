"""Periods that are paid by sums over them: closed, explained, restated and verified, on both engines."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import text

from credit.accounting.credits import MeasuredOutput, PeriodCredits, Policy
from credit.errors import IntegrityError, LedgerError
from credit.ledger import corrections
from credit.ledger.accounts import AccountKind
from credit.ledger.credits import credit_totals
from credit.ledger.database import Ledger
from credit.ledger.journal import Entry, Posting, post
from credit.ledger.transaction_kinds import TransactionKind
from credit.ledger.verify import verify
from credit.pipeline.explain_payout import explain_payout
from credit.pipeline.restate import by_policy, restate
from credit.pipeline.workspace import Workspace
from credit.records import CREDIT, Group
from credit.reporting import frames
from tests.pipeline.books_of_account import FEBRUARY, JANUARY, NOW, Account
from tests.pipeline.scored import Scored, at, credit_outputs

ANN, BEN, OWN = Group("ann"), Group("ben"), Group("own")
OUTPUTS = (
    Scored("o1", at(1, 3), {ANN: (8.0, 1.0), BEN: (0.0, 4.0), OWN: (0.5, 0.1)}),
    Scored("o2", at(1, 9), {ANN: (-1.0, 0.1), BEN: (2.0, 0.9), OWN: (-2.0, 0.0)}),
    Scored("o3", at(1, 9), {ANN: (-1.0, 0.0), BEN: (-0.5, 0.0), OWN: (-1.0, 0.0)}, 7),
    Scored("o4", at(1, 20), {ANN: (1.0, 1.0), BEN: (1.0, 1.0), OWN: (1.0, 1.0)}, 2_500_000),
)
PERIOD_POLICIES = [{"basis": "period"}, {"negative": "net"}, {"basis": "period", "negative": "net"}]
each_period_policy = pytest.mark.parametrize("sums", PERIOD_POLICIES, ids=lambda sums: "-".join(sums.values()))


@pytest.fixture
def workspace(database_url: str, tmp_path: Path) -> Workspace:
    return Workspace(database_url, tmp_path)


@pytest.fixture
def account(ledger: Ledger, workspace: Workspace) -> Account:
    return Account(ledger, books=workspace.books).start()


def by_sums(policy: Policy, outputs: tuple[Scored, ...] = OUTPUTS) -> dict[str, int]:
    """Micro-credits by provider, by the pure function that other tests hold against fractions."""
    added = PeriodCredits(JANUARY)
    for item in outputs:
        influences = [influence for influence, _ in item.measures.values()]
        added.add(MeasuredOutput(policy, item.name, item.weight_micro, list(item.measures), influences))
    found: dict[str, int] = {}
    for group, micro in added.totals().items():
        found[group.provider] = found.get(group.provider, 0) + micro
    return found


def credited(account: Account) -> dict[str, int]:
    with account.ledger.read() as conn:
        return {key: micro for key, micro in credit_totals(conn, JANUARY).items() if micro}


@each_period_policy
def test_a_close_pays_by_the_sums_of_the_period(account, workspace, sums):
    policy = Policy("influence", **sums)
    credit_outputs(account.ledger, workspace.books, OUTPUTS, policy)
    assert credited(account) == by_sums(Policy("influence")), "until then each output pays alone"
    account.pool(JANUARY, 100_000)
    tried = account.close(JANUARY, dry_run=True)
    assert credited(account) == by_sums(Policy("influence")), "a dry run moves nothing"
    done = account.close(JANUARY)
    assert tried.waterfalls == done.waterfalls
    assert credited(account) == by_sums(policy)
    assert sum(credited(account).values()) == sum(item.weight_micro for item in OUTPUTS)
    shares = {item.share.provider: item.share for item in done.earnings[0][1]}
    assert sum(share.amount_minor for share in shares.values()) == 100_000
    assert {key: share.credit_micro for key, share in shares.items() if share.credit_micro} == by_sums(policy)
    said = account.statement(JANUARY, "ben")
    assert int(said["credits"]["credit_micro"]) == by_sums(policy)["ben"]
    sure = said["credits"]["certainty"]
    assert (sure["outputs"], sure["interval_over"]) == (len(OUTPUTS), ["outputs"])
    assert verify(account.ledger, workspace.books).problems == ()


@each_period_policy
def test_what_was_moved_is_explained_before_and_after_the_close(account, workspace, sums):
    policy = Policy("influence", **sums)
    credit_outputs(account.ledger, workspace.books, OUTPUTS, policy)
    account.pool(JANUARY, 100_000)
    alone, together = by_sums(Policy("influence")), by_sums(policy)
    for closed in (False, True):
        if closed:
            account.close(JANUARY)
        for key in ("ann", "ben"):
            with account.ledger.read() as conn:
                found = explain_payout(conn, workspace.books, key, JANUARY)
            (line,) = found.moved
            assert (line.alone_micro, line.alone_micro + line.moved_micro) == (alone[key], together[key])
            assert found.credit_micro == (together if closed else alone)[key]
            assert sum(item.credit_micro for item in found.outputs) == line.alone_micro
    with account.ledger.read() as conn:
        report = frames.attribution(conn, workspace.books, JANUARY, "provider")
    assert dict(report.filter(report["credit_micro"] > 0).select("provider", "credit_micro").iter_rows()) == together
    for key in ("ann", "ben"):
        row = report.row(by_predicate=pl.col("provider") == key, named=True)
        sure = account.statement(JANUARY, key)["credits"]["certainty"]
        found = (row["share_low"], row["share_high"])
        assert found == pytest.approx((float(sure["share_low"]), float(sure["share_high"])), abs=1e-6)


@each_period_policy
def test_it_is_restated_there_and_back(account, workspace, sums):
    """From each output alone to the sums, and from the sums to each output alone, with the same money in the end."""
    credit_outputs(account.ledger, workspace.books, OUTPUTS, Policy("influence"))
    account.pool(JANUARY, 100_000)
    account.close(JANUARY)
    paid, before = account.owed(), account.statements()

    def run(**changes: str) -> dict[str, int]:
        made = restate(workspace, account.ledger, JANUARY, by_policy(changes), {"policy": changes}, reason="x", now=NOW)
        return {item.provider: item.restated_micro for item in made.credits if item.restated_micro}

    assert run(**sums) == by_sums(Policy("influence", **sums))
    assert account.owed() != paid
    assert run(basis="output", negative="zero") == by_sums(Policy("influence"))
    assert account.owed() == paid
    assert account.statements() == before
    account.pool(FEBRUARY, 0)
    account.close(FEBRUARY)
    assert verify(account.ledger, workspace.books).problems == ()


@each_period_policy
def test_a_period_closed_by_sums_is_restated_to_what_each_output_gives(account, workspace, sums):
    policy = Policy("influence", **sums)
    credit_outputs(account.ledger, workspace.books, OUTPUTS, policy)
    account.pool(JANUARY, 100_000)
    account.close(JANUARY)
    for changes, expected in (({}, policy), ({"basis": "output", "negative": "zero"}, Policy("influence"))):
        made = restate(workspace, account.ledger, JANUARY, by_policy(changes), {}, reason="x", dry_run=True, now=NOW)
        assert {item.provider: item.restated_micro for item in made.credits if item.restated_micro} == by_sums(expected)
        assert any(item.adjustment_minor for item in made.money) == bool(changes)


def test_outputs_whose_credits_were_reversed_are_not_in_the_sums(account, workspace):
    policy = Policy("influence", basis="period")
    credit_outputs(account.ledger, workspace.books, OUTPUTS, policy)
    with account.ledger.write() as conn:
        corrections.undo(conn, 1, reason="a test of ours", now=NOW)  # the output of January 3
    account.pool(JANUARY, 1_000)
    account.close(JANUARY)
    assert credited(account) == by_sums(policy, OUTPUTS[1:])


def test_what_each_output_pays_alone_is_left_alone(account, workspace):
    late = tuple(Scored(f"alone {item.name}", item.moment, item.measures, item.weight_micro) for item in OUTPUTS)
    credit_outputs(account.ledger, workspace.books, late, Policy("influence"))
    credit_outputs(account.ledger, workspace.books, OUTPUTS, Policy("influence", basis="period"))
    account.pool(JANUARY, 1_000)
    account.close(JANUARY)
    alone, together = by_sums(Policy("influence"), late), by_sums(Policy("influence", basis="period"))
    keys = alone.keys() | together.keys()
    assert credited(account) == {key: alone.get(key, 0) + together.get(key, 0) for key in keys}


def test_it_needs_the_score_books_and_what_was_moved_is_not_undone(account, workspace):
    credit_outputs(account.ledger, workspace.books, OUTPUTS, Policy("influence", basis="period"))
    account.pool(JANUARY, 1_000)
    account.books = None
    with pytest.raises(LedgerError, match="follow sums over the period, which needs its score books"):
        account.close(JANUARY)
    account.books = workspace.books
    account.close(JANUARY)
    with account.ledger.read() as conn:
        number = conn.execute(text("SELECT id FROM ledger_txn WHERE kind = 'period-basis'")).scalar_one()
    with pytest.raises(LedgerError, match="cannot be reversed"), account.ledger.write() as conn:
        corrections.undo(conn, number, reason="x", now=NOW)


def test_a_move_that_takes_more_than_was_earned_is_found(account, workspace):
    credit_outputs(account.ledger, workspace.books, OUTPUTS)
    entries = (
        Entry(AccountKind.EARNED.key(Group("ann", "none")), CREDIT, -5),
        Entry(AccountKind.EARNED.key(BEN), CREDIT, 5),
    )
    with account.ledger.write() as conn:
        post(conn, Posting(TransactionKind.PERIOD_BASIS, JANUARY, at(1, 31).date(), "x", entries), now=NOW)
    (problem,) = verify(account.ledger, workspace.books).problems
    assert str(problem) == "transaction 4: leaves credits:earned:ann/none with -5 micro-credits in 2026-01"


def test_credits_that_were_moved_elsewhere_are_found(account, workspace):
    credit_outputs(account.ledger, workspace.books, OUTPUTS, Policy("influence", basis="period"))
    account.pool(JANUARY, 1_000)
    account.close(JANUARY)
    with account.ledger.write() as conn:
        for table in ("ledger_entry", "ledger_txn"):
            on = "" if conn.dialect.name == "sqlite" else f" ON {table}"
            conn.execute(text(f"DROP TRIGGER {table}_update{on}"))
        conn.execute(
            text(
                "UPDATE ledger_entry SET amount = -amount WHERE txn_id IN"
                " (SELECT id FROM ledger_txn WHERE kind = 'period-basis')"
            )
        )
    with account.ledger.read() as conn, pytest.raises(IntegrityError, match="the close of 2026-01 moved"):
        explain_payout(conn, workspace.books, "ann", JANUARY)
