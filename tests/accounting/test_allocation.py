from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from credit.accounting.allocation import Share, allocate
from credit.errors import InvalidRequestError, LedgerError

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
    assert allocate("2026-10", 0, {"bob": 0, "ann": 3}) == [Share("ann", 3, 3, 0), Share("bob", 0, 3, 0)]
    assert allocate("2026-10", 0, {"ann": 0}) == [Share("ann", 0, 0, 0)]
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
