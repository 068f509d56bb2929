from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit.accounting.apportion import apportion_doubles, largest_remainder
from credit.errors import InvalidRequestError

totals = st.integers(0, 10**15)
exact_weights = st.lists(st.fractions(0, 10**6) | st.integers(0, 10**12), min_size=1, max_size=12).filter(any)
doubles = st.lists(st.floats(0, allow_infinity=False, allow_nan=False), min_size=1, max_size=12).filter(any)
coarse_doubles = st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=1, max_size=12).filter(any)


def keys(count: int) -> list[bytes]:
    return [bytes([255 - position]) for position in range(count)]


@given(totals, exact_weights)
def test_parts_sum_to_the_total_and_stay_within_a_unit_of_the_exact_share(total, weights):
    parts = largest_remainder(total, weights, keys(len(weights)))
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - total * Fraction(weight) / sum(weights)) < 1
        assert weight > 0 or part == 0


@given(totals, exact_weights, st.randoms())
def test_the_order_of_the_input_does_not_matter(total, weights, random):
    tie_keys = keys(len(weights))
    expected = dict(zip(tie_keys, largest_remainder(total, weights, tie_keys), strict=True))
    order = list(range(len(weights)))
    random.shuffle(order)
    shuffled = largest_remainder(total, [weights[i] for i in order], [tie_keys[i] for i in order])
    assert {tie_keys[i]: part for i, part in zip(order, shuffled, strict=True)} == expected


@given(totals, doubles | coarse_doubles)
def test_doubles_are_divided_exactly_as_their_fractions_are(total, weights):
    tie_keys = keys(len(weights))
    oracle = largest_remainder(total, [Fraction(weight) for weight in weights], tie_keys)
    assert apportion_doubles(total, weights, tie_keys.__getitem__) == oracle


def test_the_widest_range_of_doubles_is_still_exact():
    weights = [math.ulp(0.0), 1.7976931348623157e308, 1.0]
    oracle = largest_remainder(10**18, [Fraction(weight) for weight in weights], keys(3))
    assert apportion_doubles(10**18, weights, keys(3).__getitem__) == oracle == [0, 10**18, 0]


@given(totals, st.lists(st.floats(1e-100, 1e100), min_size=1, max_size=12), st.integers(-300, 300))
def test_scaling_doubles_by_a_power_of_two_changes_nothing(total, weights, exponent):
    tie_keys = keys(len(weights))
    scaled = [math.ldexp(weight, exponent) for weight in weights]
    expected = apportion_doubles(total, weights, tie_keys.__getitem__)
    assert apportion_doubles(total, scaled, tie_keys.__getitem__) == expected


def test_ties_go_to_the_smallest_keys_wherever_they_stand():
    assert largest_remainder(2, [1, 1, 1], [b"c", b"a", b"b"]) == [0, 1, 1]
    assert apportion_doubles(2, [1.0, -3.0, 1.0, 1.0], [b"c", b"0", b"a", b"b"].__getitem__) == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("total", "weights", "tie_keys", "message"),
    [
        (-1, [1], [b"a"], "negative total"),
        (1, [0, 0], [b"a", b"b"], "no weight is positive"),
        (1, [], [], "no weight is positive"),
        (1, [1, Fraction(-1, 2)], [b"a", b"b"], "a weight is negative: -1/2"),
        (1, [1, 1], [b"a"], "2 weights need as many tie keys"),
        (1, [1, 2], [b"a", b"a"], "tie keys must differ"),
    ],
)
def test_what_cannot_be_divided_is_refused(total, weights, tie_keys, message):
    with pytest.raises(InvalidRequestError, match=message):
        largest_remainder(total, weights, tie_keys)


def test_doubles_that_cannot_be_divided_are_refused():
    with pytest.raises(InvalidRequestError, match="not a finite number"):
        apportion_doubles(1, [1.0, math.nan], keys(2).__getitem__)
    with pytest.raises(InvalidRequestError, match="no weight is positive"):
        apportion_doubles(1, [0.0, -1.0], keys(2).__getitem__)
    with pytest.raises(InvalidRequestError, match="same key"):
        apportion_doubles(1, [1.0, 1.0], [b"a", b"a"].__getitem__)
