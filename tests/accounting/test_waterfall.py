from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit.accounting.waterfall import Waterfall, settle
from credit.errors import IntegrityError, InvalidRequestError

signed = st.integers(-(10**9), 10**9)
unsigned = st.integers(0, 10**9)


@given(signed, unsigned, signed, unsigned)
def test_every_line_adds_up_and_all_or_nothing_is_paid(opening, earned, adjustments, minimum):
    lines = settle(
        "ann",
        "EUR",
        opening_minor=opening,
        earned_minor=earned,
        adjustments_minor=adjustments,
        minimum_payout_minor=minimum,
    )
    balance = opening + earned + adjustments
    paid = balance > 0 and balance >= minimum
    assert (lines.payable_minor, lines.carried_minor) == ((balance, 0) if paid else (0, balance))
    assert bool(lines.reason) == (not paid)


@given(st.lists(st.tuples(unsigned, signed), max_size=12), unsigned)
def test_over_many_periods_what_is_paid_and_carried_is_what_was_earned(periods, minimum):
    opening = paid = 0
    for earned, adjustments in periods:
        lines = settle(
            "ann",
            "EUR",
            opening_minor=opening,
            earned_minor=earned,
            adjustments_minor=adjustments,
            minimum_payout_minor=minimum,
        )
        opening = lines.carried_minor
        paid += lines.payable_minor
    assert paid + opening == sum(earned + adjustments for earned, adjustments in periods)


def test_the_reason_is_printed_in_words_and_money():
    below = settle("ann", "EUR", opening_minor=0, earned_minor=1234, minimum_payout_minor=5000)
    assert below.reason == ("the balance of 12.34 EUR is below the minimum payout of 50.00 EUR; it is carried forward")
    negative = settle("ann", "JPY", opening_minor=-700, earned_minor=200)
    assert negative.carried_minor == -500
    assert negative.reason == (
        "the balance of -500 JPY is negative; it is carried forward and set off against later earnings"
    )
    assert settle("ann", "EUR", opening_minor=0, earned_minor=0).reason == "nothing is owed"


def test_a_balance_of_exactly_the_minimum_is_paid():
    assert settle("ann", "EUR", opening_minor=4000, earned_minor=1000, minimum_payout_minor=5000).reason == ""


@pytest.mark.parametrize(
    ("payable", "carried", "reason", "message"),
    [
        (99, 0, "", "99 payable and 0 carried are not 100"),
        (-1, 101, "why", "negative"),
        (0, 100, "", "a reason is given exactly when nothing is paid"),
        (100, 0, "why", "a reason is given exactly when nothing is paid"),
    ],
)
def test_a_waterfall_that_does_not_add_up_cannot_exist(payable, carried, reason, message):
    with pytest.raises(IntegrityError, match=message):
        Waterfall("ann", "EUR", 0, 100, 0, payable, carried, reason)


@pytest.mark.parametrize(("earned", "minimum"), [(-1, 0), (0, -1)])
def test_negative_earnings_and_minimums_are_refused(earned, minimum):
    with pytest.raises(InvalidRequestError, match="cannot be negative"):
        settle("ann", "EUR", opening_minor=0, earned_minor=earned, minimum_payout_minor=minimum)
