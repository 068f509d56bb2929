from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit.accounting.credits import ECHO, Policy, output_credits
from credit.errors import InvalidRequestError, ValuationError
from credit.records import HOUSE, MICRO, UNATTRIBUTED, Group

GROUPS = [Group(f"provider{i // 2}", f"collection{i % 2}") for i in range(12)]
weights = st.integers(0, 10**13)
measures = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=12)


@given(weights, measures)
def test_credits_sum_to_the_weight_and_only_positive_measures_earn(weight, values):
    credited = output_credits(weight, GROUPS[: len(values)], values, tie_key="o1")
    assert sum(credit for _, credit in credited) == weight
    assert [group for group, _ in credited[: len(values)]] == GROUPS[: len(values)]
    for (_, credit), value in zip(credited, values, strict=False):
        assert credit == 0 if value <= 0 else credit >= 0


@given(weights, measures)
def test_the_unattributed_house_is_credited_exactly_when_nothing_is_positive(weight, values):
    credited = output_credits(weight, GROUPS[: len(values)], values, tie_key="o1")
    unattributed = (Group(HOUSE, UNATTRIBUTED), weight)
    assert (credited[-1:] == [unattributed]) == all(value <= 0 for value in values)
    assert len(credited) == len(values) + all(value <= 0 for value in values)


@given(weights, st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=12), st.randoms())
def test_the_order_of_groups_does_not_matter(weight, values, random):
    pairs = list(zip(GROUPS, values, strict=False))
    expected = dict(output_credits(weight, [g for g, _ in pairs], [v for _, v in pairs], tie_key="o1"))
    random.shuffle(pairs)
    assert dict(output_credits(weight, [g for g, _ in pairs], [v for _, v in pairs], tie_key="o1")) == expected


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=12), st.data())
def test_a_larger_measure_never_earns_less_than_a_smaller_one_but_for_the_last_unit(values, data):
    credited = output_credits(MICRO, GROUPS[: len(values)], values, tie_key="o1")
    low, high = sorted(data.draw(st.tuples(*[st.integers(0, len(values) - 1)] * 2)), key=values.__getitem__)
    assert credited[high][1] >= credited[low][1] - 1


def test_no_group_wins_every_tie():
    winners = {
        max(output_credits(1, GROUPS[:4], [1.0] * 4, tie_key=f"o{i}"), key=lambda pair: pair[1])[0] for i in range(200)
    }
    assert winners == set(GROUPS[:4])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_measure_that_is_no_number_is_an_error_that_names_output_and_group(value):
    with pytest.raises(ValuationError, match=r"output chat/42: the measure of provider0/collection1 is"):
        output_credits(MICRO, GROUPS[:2], [1.0, value], tie_key="chat/42")


def test_finite_measures_whose_sum_overflows_are_divided_all_the_same():
    assert output_credits(MICRO, GROUPS[:2], [1.7e308, 1.7e308], tie_key="o") == [
        (GROUPS[0], MICRO // 2),
        (GROUPS[1], MICRO // 2),
    ]


def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(InvalidRequestError, match="2 groups but 1 measures"):
        output_credits(MICRO, GROUPS[:2], [1.0], tie_key="o")
    for value in (1.0, -1.0):
        with pytest.raises(InvalidRequestError, match="negative"):
            output_credits(-1, GROUPS[:1], [value], tie_key="o")


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.sampled_from(["effect", "support", "influence"]), st.floats(0, 1e9), finite, finite, finite)
def test_a_policy_survives_its_json_and_keeps_its_fingerprint(measure, noise_floor, alpha, beta, gamma):
    policy = Policy(measure, noise_floor, alpha, beta, gamma)
    stored = Policy.from_json(policy.to_json())
    assert stored == policy
    assert stored.fingerprint == policy.fingerprint
    assert stored.to_json() == policy.to_json()


def test_equal_policies_have_one_fingerprint_and_others_another():
    assert Policy(noise_floor=1, gamma=-0.0).fingerprint == Policy().fingerprint
    assert Policy(gamma=1e-300).fingerprint != Policy().fingerprint


def test_the_canonical_json_is_pinned_because_stored_fingerprints_depend_on_it():
    older = '{"alpha":1.0,"beta":1.0,"damping":null,"gamma":0.0,"measure":"effect","noise_floor":1.0}'
    later = '"echo":16,"gamma":0.0,"measure":"effect","noise_floor":1.0,"repeats":1,"user_cap_micro":1000000000}'
    assert Policy().to_json() == f'{{"alpha":1.0,"beta":1.0,"damping":null,{later}'
    # A policy from before a field paid as if there were none, and certificates judge measures of whole outputs.
    assert Policy.from_json(older).to_json() == Policy().of_one_output.to_json() == older
    assert not Policy.from_json(older).limits_users


def test_a_counterfactual_is_part_of_what_a_validation_tests_and_chooses_the_measure():
    replaced = Policy.chosen(counterfactual="replaced")
    assert replaced == Policy("influence", counterfactual="replaced")
    assert replaced.of_one_output.counterfactual == "replaced"
    assert '"counterfactual":"replaced"' in replaced.to_json()
    assert Policy.from_json(replaced.to_json()) == replaced
    assert Policy.chosen(counterfactual="replaced", beta=0.5) == Policy(counterfactual="replaced", beta=0.5)
    assert Policy.chosen(counterfactual="removed") == Policy.chosen() == Policy()
    with pytest.raises(InvalidRequestError, match="counterfactual is 'forgotten'"):
        Policy.chosen(counterfactual="forgotten")


@given(
    weight=st.integers(0, 10**9),
    part=st.fractions(0, 1),
    measures=st.lists(st.floats(-10, 10), min_size=1, max_size=4),
)
def test_an_echo_is_the_house_s_and_the_rest_is_divided_as_an_output_of_that_weight(weight, part, measures):
    echo, groups = int(weight * part), [Group(f"g{number}") for number in range(len(measures))]
    whole = output_credits(weight, groups, measures, tie_key="o", echo_micro=echo)
    rest = output_credits(weight - echo, groups, measures, tie_key="o")
    assert whole == [*rest, *([(ECHO, echo)] if echo else [])]
    assert sum(micro for _, micro in whole) == weight


@pytest.mark.parametrize("echo", [-1, MICRO + 1])
def test_an_echo_beyond_its_output_is_refused(echo):
    with pytest.raises(InvalidRequestError, match="echo"):
        output_credits(MICRO, GROUPS[:1], [1.0], tie_key="o", echo_micro=echo)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measure": "tokens"}, "measure is 'tokens'"),
        ({"noise_floor": -0.5}, "noise_floor is -0.5"),
        ({"alpha": math.nan}, "alpha is nan"),
        ({"beta": True}, "beta is True"),
        ({"gamma": "1"}, "gamma is '1'"),
        ({"echo": -1}, "echo is -1"),
        ({"repeats": 1.5}, "repeats is 1.5"),
        ({"user_cap_micro": True}, "user_cap_micro is True"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(InvalidRequestError, match=message):
        Policy(**change)


@pytest.mark.parametrize("text", ["{", "[]", "{}", Policy().to_json().replace("alpha", "alfa")])
def test_a_stored_policy_with_other_fields_is_refused_instead_of_completed(text):
    with pytest.raises(InvalidRequestError, match="a stored policy"):
        Policy.from_json(text)
