"""A close shows what decides most of its credits, and one output decides too much only where somebody accepts it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from credit.errors import InvalidRequestError, LedgerError
from credit.ledger import journal, periods
from credit.ledger.credits import Concentration, Decider, concentration
from credit.ledger.database import Ledger
from credit.ledger.verify import verify
from credit.pipeline.close import ClosePolicy
from credit.records import MICRO, Group
from tests.pipeline.books_of_account import FEBRUARY, JANUARY, NOW, Account
from tests.pipeline.scored import Scored, at, credit_outputs

ANN, BEN = Group("ann"), Group("ben")
ACCEPTED = "Eve Sommer: one contract pays most of this month"


def output(name: str, month: int, day: int, weight: int = 1) -> Scored:
    return Scored(name, at(month, day), {ANN: (3.0, 1.0), BEN: (1.0, 0.0)}, weight * MICRO)


def ordinary(month: int, count: int) -> list[Scored]:
    """Outputs of weight 1, one a day."""
    return [output(f"{month}-{n}", month, n + 1) for n in range(count)]


@pytest.fixture
def account(ledger: Ledger, tmp_path: Path) -> Account:
    return Account(ledger, books=tmp_path / "books").start()


def credit(account: Account, items: Sequence[Scored]) -> None:
    credit_outputs(account.ledger, account.books, items)


def test_the_heaviest_output_and_day_are_those_of_the_outputs_that_count_in_the_period(account):
    credit(account, [*ordinary(1, 4), output("heavy", 1, 9, 5), output("none", 1, 20, 0), output("later", 2, 1, 90)])
    credit(account, [output("late a", 1, 2, 3), output("late b", 1, 2, 3)])
    with account.ledger.read() as conn:
        assert concentration(conn, JANUARY) == Concentration(
            7, 15 * MICRO, Decider("heavy", 5 * MICRO, 333_333), Decider("2026-01-02", 7 * MICRO, 466_666)
        )
        assert concentration(conn, FEBRUARY) == Concentration(
            1, 90 * MICRO, Decider("later", 90 * MICRO, 10**6), Decider("2026-02-01", 90 * MICRO, 10**6)
        )
        assert concentration(conn, "2026-03") is None


def test_outputs_of_a_closed_month_count_where_their_credits_count(account):
    credit(account, ordinary(1, 3))
    account.pool(JANUARY, 1000)
    assert account.close(JANUARY).concentration.outputs == 3
    credit(account, [output("late", 1, 30, 4), *ordinary(2, 2)])
    with account.ledger.read() as conn:
        found = concentration(conn, FEBRUARY)
    assert (found.outputs, found.output.name, found.day.name) == (3, "late", "2026-01-30")


def test_reversed_credits_decide_nothing(account):
    credit(account, [*ordinary(1, 3), output("heavy", 1, 9, 1000)])
    with account.ledger.write() as conn:
        (number,) = conn.exec_driver_sql(
            "SELECT id FROM ledger_txn WHERE kind = 'credits' AND effective_on = '2026-01-09'"
        ).scalars()
        journal.reverse(conn, number, period=JANUARY, reason="a mistake", now=NOW)
        found = concentration(conn, JANUARY)
    assert (found.outputs, found.credit_micro, found.output.credit_micro) == (3, 3 * MICRO, MICRO)


@pytest.mark.parametrize("dry_run", [True, False])
def test_one_output_that_decides_too_much_holds_up_the_close_until_somebody_accepts_it(account, dry_run):
    credit(account, [*ordinary(1, 19), output("heavy", 1, 25, 7)])
    account.pool(JANUARY, 1000)
    with pytest.raises(
        LedgerError, match=r'output heavy decides 26\.923% of the credits of 2026-01, more than 25%.*"NAME: reason"'
    ):
        account.close(JANUARY, dry_run=dry_run)
    assert account.statements() == {}
    report = account.close(JANUARY, dry_run=dry_run, accepted_concentration=ACCEPTED)
    assert (report.concentration.output.name, report.concentration.output.share_ppm) == ("heavy", 269_230)
    if not dry_run:
        with account.ledger.read() as conn:
            (closed,) = [item for item in periods.periods(conn) if item.id == JANUARY]
        assert json.loads(closed.close_policy_json)["accepted_concentration"] == ACCEPTED
    assert verify(account.ledger, account.books).problems == ()


@pytest.mark.parametrize(
    ("count", "weight", "policy"),
    [
        (18, 1000, {}),
        (21, 7, {}),
        (19, 7, {"max_output_share": 0.27}),
    ],
    ids=["a period of 19 outputs", "a share at the limit", "a larger limit"],
)
def test_an_output_within_the_limits_holds_up_no_close(account, count, weight, policy):
    credit(account, [*ordinary(1, count), output("heavy", 1, 25, weight)])
    account.pool(JANUARY, 1000)
    assert account.close(JANUARY, **policy).concentration.output.name == "heavy"


@pytest.mark.parametrize(
    "policy",
    [
        {"max_output_share": 1.5},
        {"max_output_share": -0.1},
        {"accepted_concentration": "no name"},
        {"accepted_concentration": ": no name"},
        {"accepted_concentration": "Eve: "},
        {"accepted_concentration": "Eve: a\nb"},
        {"accepted_concentration": " Eve: a"},
    ],
)
def test_a_limit_or_an_acceptance_that_makes_no_sense_is_refused(policy):
    with pytest.raises(InvalidRequestError):
        ClosePolicy(**policy)
