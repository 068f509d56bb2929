"""Causes of credits: which users, prompts and days they came from, without what limits leave out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from credit.accounting.credits import Policy
from credit.errors import LedgerError
from credit.records import MICRO, Group
from credit.reporting.causes import UNKNOWN_USER, causes
from tests.ledger.samples import pseudonym
from tests.pipeline.books_of_account import FEBRUARY, JANUARY, Account
from tests.pipeline.scored import Scored, at, credit_outputs

ANN, BEN = Group("ann"), Group("ben")
BOTH = {ANN: (3.0, 0.0), BEN: (1.0, 0.0)}
POLICY = Policy("influence", user_cap_micro=4 * MICRO)
FIRST = Scored("o1", at(1, 3), BOTH, user="1", text="a")
ITEMS = (
    FIRST,
    replace(FIRST, name="again"),
    Scored("o2", at(1, 4), BOTH, user="1", text="b"),
    Scored("o3", at(1, 4), BOTH, user="2", text="c"),
    Scored("o4", at(1, 5), BOTH, 2 * MICRO),
    Scored("o5", at(1, 9), {ANN: (-1.0, 0.0), BEN: (1.0, 0.0)}, user="3", text="d"),
    Scored("o6", at(1, 20), BOTH, 8 * MICRO, user="4", text="e"),
)


@pytest.fixture
def account(ledger, tmp_path):
    made = Account(ledger, books=tmp_path / "books").start()
    credit_outputs(made.ledger, made.books, ITEMS, POLICY)
    return made


def rows(account, by, **options):
    with account.ledger.read() as conn:
        frame = causes(conn, account.books, "ann", [JANUARY], **options)
    return [row[1:4] for row in frame.iter_rows() if row[0] == by]


def test_users_and_days_have_their_credits_less_what_limits_leave_out(account):
    assert rows(account, "user") == [
        (pseudonym("4"), 1, 3_000_000),
        (pseudonym("1"), 2, 1_500_000),
        (UNKNOWN_USER, 1, 1_500_000),
        (pseudonym("2"), 1, 750_000),
    ]
    assert rows(account, "day", top=2) == [("2026-01-20", 1, 3_000_000), ("2026-01-04", 2, 1_500_000)]


def test_shares_are_of_the_provider_s_own_credits(account):
    with account.ledger.read() as conn:
        frame = causes(conn, account.books, "ann", [JANUARY])
    for by in ("user", "prompt", "day"):
        assert frame.filter(frame["by"] == by)["share"].sum() == pytest.approx(1.0)


def test_prompts_can_be_withheld(account):
    shown, withheld = rows(account, "prompt"), rows(account, "prompt", prompts=False)
    assert (pseudonym("e"), 1, 3_000_000) in withheld
    assert sum(row[2] for row in shown) == sum(row[2] for row in withheld)


def test_a_period_without_credits_is_named(account):
    account.pool(FEBRUARY, 1)
    with account.ledger.read() as conn, pytest.raises(LedgerError, match=r"ann has no credits of outputs in 2026-02"):
        causes(conn, account.books, "ann", [FEBRUARY])
