from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from credit.accounting.apportion import AllocatedShare, allocate, apportion_doubles, largest_remainder
from credit.errors import InvalidRequestError, LedgerError

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


nets = st.integers(0, 10**12)
credit_maps = st.dictionaries(st.text("abc", min_size=1, max_size=4), st.integers(0, 10**15), min_size=1, max_size=15)


def amounts(period: str, net: int, credit: dict[str, int]) -> dict[str, int]:
    return {share.provider: share.amount_minor for share in allocate(period, net, credit)}


@given(nets, credit_maps)
def test_amounts_sum_to_the_pool_and_are_never_negative(net, credit):
    assume(any(credit.values()))
    shares = allocate("2026-10", net, credit)
    assert sum(share.amount_minor for share in shares) == net
    for share in shares:
        assert share.amount_minor >= 0
        assert share.total_credit_micro == sum(credit.values())
        exact = Fraction(net * share.credit_micro, share.total_credit_micro)
        assert abs(share.amount_minor - exact) < 1


@given(nets, credit_maps, st.randoms())
def test_the_order_in_which_credits_come_does_not_matter(net, credit, random):
    assume(any(credit.values()))
    items = list(credit.items())
    random.shuffle(items)
    assert allocate("2026-10", net, dict(items)) == allocate("2026-10", net, credit)


@given(nets, credit_maps, st.integers(1, 10**9))
def test_more_credit_never_earns_less_by_more_than_the_rounding_unit(net, credit, more):
    assume(any(credit.values()))
    provider = min(credit)
    before = amounts("2026-10", net, credit)[provider]
    after = amounts("2026-10", net, {**credit, provider: credit[provider] + more})[provider]
    assert after >= before - 1


@given(nets, credit_maps, st.integers(1, 10**6))
def test_scaling_all_credits_changes_no_amount(net, credit, factor):
    assume(any(credit.values()))
    scaled = {provider: value * factor for provider, value in credit.items()}
    assert amounts("2026-10", net, scaled) == amounts("2026-10", net, credit)


def test_a_cent_that_cannot_be_split_goes_to_another_provider_in_another_period():
    winners = {
        max(allocate(f"{year}-{month:02d}", 1, {"ann": 5, "bob": 5}), key=lambda share: share.amount_minor).provider
        for year in (2026, 2027)
        for month in range(1, 13)
    }
    assert winners == {"ann", "bob"}


def test_a_small_pool_over_many_providers_pays_nobody_a_negative_amount():
    shares = allocate("2026-10", 110, {f"p{i}": 1 for i in range(200)})
    assert sorted({share.amount_minor for share in shares}) == [0, 1]
    assert sum(share.amount_minor for share in shares) == 110


def test_an_empty_pool_gives_everybody_zero():
    assert allocate("2026-10", 0, {"bob": 0, "ann": 3}) == [
        AllocatedShare("ann", 3, 3, 0),
        AllocatedShare("bob", 0, 3, 0),
    ]
    assert allocate("2026-10", 0, {"ann": 0}) == [AllocatedShare("ann", 0, 0, 0)]
    assert allocate("2026-10", 0, {}) == []


@pytest.mark.parametrize("credit", [{}, {"ann": 0}])
def test_a_pool_without_credits_is_refused_with_the_remedy(credit):
    with pytest.raises(LedgerError, match=r"2026-10: .* nothing was credited; .*credit compute"):
        allocate("2026-10", 1, credit)


def test_negative_pools_and_credits_are_refused():
    with pytest.raises(InvalidRequestError, match="the net pool is negative: -1"):
        allocate("2026-10", -1, {"ann": 1})
    with pytest.raises(InvalidRequestError, match="the credits of ann are negative: -2"):
        allocate("2026-10", 1, {"ann": -2, "bob": 4})
