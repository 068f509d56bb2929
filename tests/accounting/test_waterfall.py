from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit.accounting.waterfall import part, provider_part, settle
from credit.errors import IntegrityError, InvalidRequestError
from credit.records import PPM, Terms

signed = st.integers(-(10**9), 10**9)
unsigned = st.integers(0, 10**9)
ppm = st.integers(0, PPM)


@st.composite
def agreed(draw: st.DrawFn) -> Terms:
    reserve = draw(ppm)
    return Terms(
        minimum_payout_minor=draw(unsigned),
        reserve_ppm=reserve,
        reserve_release_periods=draw(st.integers(1, 12)) if reserve else 0,
        recoupment_ppm=draw(ppm),
        withholding_ppm=draw(ppm),
        fee_minor=draw(st.integers(0, 1000)),
    )


@given(signed, unsigned, signed, unsigned, unsigned, unsigned, agreed(), st.sampled_from(["", "dispute"]))
def test_every_line_is_what_is_agreed_and_all_or_nothing_is_paid(
    opening, earned, adjustments, released, kept, advance, terms, hold
):
    lines = settle(
        "ann",
        "EUR",
        opening_minor=opening,
        earned_minor=earned,
        adjustments_minor=adjustments,
        released_minor=released,
        reserve_minor=released + kept,
        advance_minor=advance,
        terms=terms,
        hold=hold,
    )
    held = floor(Fraction(earned * terms.reserve_ppm, PPM))
    available = opening + earned + adjustments - held + released
    recouped = max(0, min(advance, floor(Fraction(earned * terms.recoupment_ppm, PPM)), available))
    owed = available - recouped
    tax = floor(Fraction(max(owed, 0) * terms.withholding_ppm, PPM))
    net = owed - tax - terms.fee_minor
    paid = owed > 0 and not hold and net > 0 and net >= terms.minimum_payout_minor
    assert (lines.reserve_held_minor, lines.advances_recouped_minor) == (held, recouped)
    assert (lines.payable_minor, lines.withholding_minor, lines.fees_minor, lines.carried_forward_minor) == (
        (net, tax, terms.fee_minor, 0) if paid else (0, 0, 0, owed)
    )
    assert bool(lines.reason) == (not paid)
    assert lines.advance_balance_minor == advance - recouped
    assert lines.reserve_balance_minor == kept + held


@given(st.lists(st.tuples(unsigned, signed), max_size=12), agreed(), unsigned)
def test_over_many_periods_nothing_is_lost(periods, terms, advance):
    """What came in is paid, withheld, kept as a fee, recouped, in reserve or carried: every cent in one place."""
    opening = gone = held = 0
    outstanding = advance
    for earned, adjustments in periods:
        lines = settle(
            "ann",
            "EUR",
            opening_minor=opening,
            earned_minor=earned,
            adjustments_minor=adjustments,
            reserve_minor=held,
            released_minor=held // 2,
            advance_minor=outstanding,
            terms=terms,
        )
        opening, held, outstanding = (
            lines.carried_forward_minor,
            lines.reserve_balance_minor,
            lines.advance_balance_minor,
        )
        gone += lines.payable_minor + lines.withholding_minor + lines.fees_minor
    assert gone + opening + held + (advance - outstanding) == sum(a + b for a, b in periods)
    assert 0 <= outstanding <= advance


@given(unsigned, ppm)
def test_the_fraction_of_a_minor_unit_falls_to_the_provider(allocated, rate):
    house = allocated - provider_part(allocated, rate)
    exact = Fraction(allocated * (PPM - rate), PPM)
    assert house == part(allocated, PPM - rate) == floor(exact)
    assert provider_part(allocated, PPM) == allocated


def reason(**changes: object) -> str:
    return settle("ann", "EUR", **{"opening_minor": 0, "earned_minor": 1234, **changes}).reason


def test_the_reason_is_printed_in_words_and_money():
    carried = "it is carried forward"
    assert reason(terms=Terms(minimum_payout_minor=5000)) == (
        f"the balance of 12.34 EUR is below the minimum payout of 50.00 EUR; {carried}"
    )
    assert reason(terms=Terms(minimum_payout_minor=1000, withholding_ppm=250_000)) == (
        "the balance of 12.34 EUR, 9.26 EUR after withholding and fees, is below the minimum payout of 10.00 EUR;"
        f" {carried}"
    )
    assert reason(terms=Terms(fee_minor=1234)) == (
        f"the balance of 12.34 EUR does not exceed withholding and fees; {carried}"
    )
    assert reason(hold="rights disputed", terms=Terms(minimum_payout_minor=5000)) == (
        f"the balance of 12.34 EUR is on hold: rights disputed; {carried}"
    )
    assert reason(advance_minor=5000) == "nothing is owed"
    assert reason(opening_minor=-2000) == (
        f"the balance of -7.66 EUR is negative; {carried} and set off against later earnings"
    )
    assert reason(earned_minor=0) == "nothing is owed"


HUNGARY = Terms(channel="paypal")


@given(st.integers(-1000, 30_000), ppm, st.integers(0, 500))
def test_a_channel_of_whole_units_is_paid_whole_ones_and_the_rest_is_carried(owed, withholding, fee):
    terms = replace(HUNGARY, withholding_ppm=withholding, fee_minor=fee)
    lines = settle("ann", "HUF", opening_minor=owed, earned_minor=0, terms=terms)

    def tax(paid: int) -> int:
        return floor(Fraction(max(paid, 0) * withholding, PPM))

    whole = (owed - tax(owed) - fee) // 100 * 100
    if whole <= 0:
        assert (lines.payable_minor, lines.carried_forward_minor) == (0, owed)
        return
    # Plainly: the largest part of the balance of which this many whole forints are left.
    paid = next(x for x in range(owed, 0, -1) if x - tax(x) - fee == whole)
    assert (lines.payable_minor, lines.withholding_minor, lines.fees_minor, lines.carried_forward_minor) == (
        whole,
        tax(paid),
        fee,
        owed - paid,
    )
    assert bool(lines.reason) == (paid < owed)


def test_what_the_agreed_channel_cannot_carry_is_carried_forward_with_the_reason():
    def told(minor: int, currency: str, terms: Terms = HUNGARY) -> tuple[int, int, str]:
        lines = settle("ann", currency, opening_minor=0, earned_minor=minor, terms=terms)
        return lines.payable_minor, lines.carried_forward_minor, lines.reason

    assert told(33_334, "HUF") == (
        33_300, 34, "PayPal carries whole HUF alone; the rest of 0.34 HUF is carried forward"
    )  # fmt: skip
    assert told(33_300, "HUF") == (33_300, 0, "")
    assert told(34, "HUF") == (
        0, 34, "the balance of 0.34 HUF is below 1.00 HUF, the least that PayPal carries; it is carried forward"
    )  # fmt: skip
    assert told(5, "KWD") == (
        0, 5, "the balance of 0.005 KWD cannot be paid: PayPal does not carry KWD; it is carried forward"
    )  # fmt: skip
    assert told(33_334, "HUF", Terms()) == (33_334, 0, ""), "without an agreed channel all is paid"
    with pytest.raises(InvalidRequestError, match="channel belong to where money is paid"):
        Terms(channel="paypal", pay_in="EUR")


def test_a_balance_of_exactly_the_minimum_is_paid():
    assert reason(opening_minor=4000, earned_minor=1000, terms=Terms(minimum_payout_minor=5000)) == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"payable_minor": 99}, "99 payable, 0 withheld, 0 converted and 0 carried are not 100"),
        ({"payable_minor": -1, "carried_forward_minor": 101}, "an amount is negative"),
        (
            {"payable_minor": 0, "carried_forward_minor": 100},
            "a reason is given exactly when nothing, or not all, is paid",
        ),
        ({"reason": "why"}, "a reason is given exactly when nothing, or not all, is paid"),
        ({"payable_minor": 40, "carried_forward_minor": 60}, "paid and carried at once"),
        (
            {"payable_minor": 0, "withholding_minor": 5, "carried_forward_minor": 95, "reason": "why"},
            "taxed without being paid",
        ),
        (
            {"advances_recouped_minor": 101, "payable_minor": 0, "carried_forward_minor": -1, "reason": "why"},
            "more is recouped",
        ),
    ],
)
def test_a_waterfall_that_does_not_add_up_cannot_exist(changes, message):
    sound = settle("ann", "EUR", opening_minor=0, earned_minor=100)
    with pytest.raises(IntegrityError, match=message):
        replace(sound, **changes)


@pytest.mark.parametrize(
    "changes", [{"earned_minor": -1}, {"advance_minor": -1}, {"released_minor": -1}, {"released_minor": 1}]
)
def test_what_cannot_be_negative_is_refused(changes):
    with pytest.raises(InvalidRequestError, match="cannot be negative"):
        reason(**changes)


def test_a_share_of_a_debt_is_not_taken():
    with pytest.raises(InvalidRequestError, match="at least 0"):
        part(-1, 5)
