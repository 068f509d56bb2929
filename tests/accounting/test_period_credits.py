"""Credits of a whole period against exact fractions, worked out one output at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit.accounting.apportion import allocate
from credit.accounting.credits import UNEARNED, MeasuredOutput, PeriodCredits, Policy, output_credits
from credit.errors import ValuationError
from credit.records import Group

GROUPS = tuple(Group(f"p{number}", name) for number in range(3) for name in ("a", "b"))
PERIOD_POLICIES = (
    Policy("influence", basis="period"),
    Policy("influence", basis="period", negative="net"),
    Policy("influence", negative="net"),
)
ALONE = Policy("influence")

measure = st.one_of(
    st.floats(-1e3, 1e3), st.floats(allow_nan=False, allow_infinity=False), st.integers(-3, 3).map(float)
)
weight = st.one_of(st.integers(0, 5), st.integers(0, 10**12))
six = st.lists(measure, min_size=6, max_size=6)
whole = st.lists(st.integers(-9, 9), min_size=6, max_size=6)
outputs = st.lists(st.tuples(weight, six), max_size=6)


def total(policy: Policy, items: Sequence[tuple[int, Sequence[float]]], period: str = "2026-01") -> dict[Group, int]:
    added = PeriodCredits(period)
    for number, (micro, measures) in enumerate(items):
        added.add(MeasuredOutput(policy, f"o{number}", micro, GROUPS, measures))
    return added.totals()


def sums(policy: Policy, items: Sequence[tuple[int, Sequence[float]]]) -> tuple[int, dict[Group, Fraction]]:
    """What is divided, and by which sums: the definition, in fractions."""
    divided, found = 0, dict.fromkeys(GROUPS, Fraction(0))
    for number, (micro, measures) in enumerate(items):
        exact = [Fraction(value) for value in measures]
        positive = sum((value for value in exact if value > 0), Fraction(0))
        if policy.basis == "period":
            divided += micro
            for group, value in zip(GROUPS, exact, strict=True):
                found[group] += micro * (value if policy.negative == "net" else max(value, Fraction(0)))
        elif positive:
            divided += micro
            for group, part in output_credits(micro, GROUPS, measures, tie_key=f"o{number}"):
                found[group] += part
            for group, value in zip(GROUPS, exact, strict=True):
                negative = -sum((value for value in exact if value < 0), Fraction(0))
                found[group] -= floor(micro * -value / max(positive, negative)) if value < 0 else 0
    return divided, found


@given(st.sampled_from(PERIOD_POLICIES), outputs)
def test_every_group_gets_its_part_of_what_the_period_distributes(policy, items):
    credited = total(policy, items)
    assert sum(credited.values()) == sum(micro for micro, _ in items), "all of it, to the micro-credit"
    assert all(micro > 0 for micro in credited.values()), "nobody is left with less than nothing"
    divided, found = sums(policy, items)
    whole = sum((value for value in found.values() if value > 0), Fraction(0))
    for group, value in found.items():
        exact = divided * max(value, Fraction(0)) / whole if whole else Fraction(0)
        assert abs(credited.get(group, 0) - exact) < 1, "less than a micro-credit from its exact part"
    unearned = sum(micro for micro, _ in items) - (divided if whole else 0)
    assert credited.get(UNEARNED, 0) == unearned


@given(st.sampled_from(PERIOD_POLICIES), outputs, st.randoms())
def test_neither_the_order_of_outputs_nor_that_of_groups_matters(policy, items, random):
    expected = total(policy, items)
    added = PeriodCredits("2026-01")
    numbered = list(enumerate(items))
    random.shuffle(numbered)
    for number, (micro, measures) in numbered:
        pairs = list(zip(GROUPS, measures, strict=True))
        random.shuffle(pairs)
        added.add(MeasuredOutput(policy, f"o{number}", micro, [g for g, _ in pairs], [m for _, m in pairs]))
    assert added.totals() == expected


@given(st.sampled_from(PERIOD_POLICIES), st.lists(st.tuples(weight, whole), max_size=6))
def test_scaling_all_measures_changes_nothing(policy, items):
    scaled = {
        scale: total(policy, [(micro, [scale * value for value in measures]) for micro, measures in items])
        for scale in (1.0, 0.25, 3.0, 2.0**200)
    }
    assert len({tuple(sorted(found.items())) for found in scaled.values()}) == 1


@given(outputs)
def test_by_sums_the_period_is_one_output_that_has_them(items):
    """With whole weights and measures, the sums are doubles, and the one output can be written down."""
    whole = [(micro % 1000, [float(round(max(-1e3, min(value, 1e3)))) for value in values]) for micro, values in items]
    added = [sum(micro * values[place] for micro, values in whole) for place in range(len(GROUPS))]
    one = output_credits(
        sum(micro for micro, _ in whole),
        GROUPS,
        added,
        tie_key='2026-01\0{"alpha":1.0,"basis":"period","beta":1.0,"damping":null,"echo":16,"gamma":0.0,'
        '"measure":"influence","negative":"net","noise_floor":1.0,"repeats":1,"user_cap_micro":1000000000}',
    )
    assert total(PERIOD_POLICIES[1], whole) == {group: micro for group, micro in one if micro}


@given(outputs)
def test_without_negative_measures_netting_changes_nothing(items):
    positive = [(micro, [abs(value) for value in measures]) for micro, measures in items]
    assert total(PERIOD_POLICIES[2], positive) == total(ALONE, positive)
    credited, netted = total(PERIOD_POLICIES[0], positive), total(PERIOD_POLICIES[1], positive)
    # A policy's name breaks ties, so that a single micro-credit may fall to another group.
    assert all(abs(credited.get(group, 0) - netted.get(group, 0)) <= 1 for group in GROUPS)


@given(st.lists(st.tuples(st.sampled_from([*PERIOD_POLICIES, ALONE]), weight, six), max_size=6))
def test_each_policy_divides_its_own_outputs(items):
    added = PeriodCredits("2026-01")
    parts: dict[Policy, PeriodCredits] = {}
    for number, (policy, micro, measures) in enumerate(items):
        item = MeasuredOutput(policy, f"o{number}", micro, GROUPS, measures)
        added.add(item)
        parts.setdefault(policy, PeriodCredits("2026-01")).add(item)
    expected: dict[Group, int] = {}
    for part in parts.values():
        for group, micro in part.totals().items():
            expected[group] = expected.get(group, 0) + micro
    assert added.totals() == expected


@given(st.sampled_from(PERIOD_POLICIES), outputs, st.integers(0, 10**9))
def test_a_pool_is_divided_by_them_to_the_minor_unit(policy, items, net):
    credited: dict[str, int] = {}
    for group, micro in total(policy, items).items():
        credited[group.provider] = credited.get(group.provider, 0) + micro
    if any(credited.values()):
        shares = allocate("2026-01", net, credited)
        assert sum(share.amount_minor for share in shares) == net
        assert all(share.amount_minor >= 0 for share in shares)


def test_what_the_words_say_in_numbers():
    """Two outputs: a strong one for p0, a weak one for p1, which speaks against p0."""
    items = [(100, [8.0, 0, 0, 0, 0, 0]), (100, [-1.0, 0, 2.0, 0, 0, 0])]
    named: Mapping[str, dict[Group, int]] = {
        f"{p.basis} {p.negative}": total(p, items) for p in (*PERIOD_POLICIES, ALONE)
    }
    p0, p1 = GROUPS[0], GROUPS[2]
    assert named == {
        "output zero": {p0: 100, p1: 100},
        "period zero": {p0: 160, p1: 40},  # 8 to 2
        "period net": {p0: 156, p1: 44},  # 7 to 2
        "output net": {p0: 67, p1: 133},  # 100 − 100 × 1/2 to 100
    }


@given(weight, six, st.integers(-300, 0))
def test_an_output_takes_at_most_what_it_gives(micro, measures, exponent):
    """However weak what supports it is beside what speaks against it: nobody's period is wiped out by one output."""
    weak = [value * 2.0**exponent if value > 0 else value for value in measures]
    others = [(10 * micro, [1.0] * 6)]
    before, after = total(PERIOD_POLICIES[2], others), total(PERIOD_POLICIES[2], [*others, (micro, weak)])
    for group in GROUPS:
        assert after.get(group, 0) >= before.get(group, 0) - micro - 2, "but for rounding"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("policy", PERIOD_POLICIES)
def test_a_measure_that_is_no_number_pays_nobody(policy, value):
    with pytest.raises(ValuationError, match="output o0: the measure of p0/b is"):
        total(policy, [(1, [1.0, value, 0, 0, 0, 0])])
