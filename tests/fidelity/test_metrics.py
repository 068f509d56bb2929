from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from credit.errors import InvalidRequestError
from credit.fidelity.metrics import (
    attribution_error,
    correlation,
    estimate,
    fit_nonnegative,
    linear_datamodelling_score,
    noise_ceiling,
    ranks,
    share_error,
    shares,
    spearman,
    top_one,
)
from credit.fidelity.retraining import plan


@given(arrays(np.float64, 7, elements=st.integers(-3, 3).map(float)))
def test_ranks_are_average_ranks(values):
    expected = [np.mean([k + 1 for k, v in enumerate(sorted(values)) if v == x]) for x in values]
    np.testing.assert_allclose(ranks(values), expected)


def test_spearman_sees_order_and_nothing_else():
    a = np.array([[1.0, 2, 3, 4], [1, 2, 3, 4]])
    b = np.array([[1.0, 10, 100, 1000], [4, 3, 2, 1]])
    np.testing.assert_allclose(spearman(a, b), [1, -1])
    np.testing.assert_allclose(correlation(a, np.ones((2, 4))), [0, 0])


def test_what_size_explains_is_worth_nothing_once_it_is_partialled_out():
    rng = np.random.default_rng(0)
    size = rng.normal(size=200)
    signal = rng.normal(size=200)
    actual = (size + signal)[None]
    assert spearman(size[None], actual)[0] > 0.5
    assert abs(spearman(size[None] + 1e-6 * rng.normal(size=200), actual, size)[0]) < 0.15
    assert spearman(signal[None], actual, size)[0] > 0.9


def test_lds_of_the_true_contributions_is_one_and_of_their_opposite_minus_one():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(5, 6))
    member = (rng.random((20, 6)) < 0.5).astype(float)
    actual = member @ truth.T - 3.0
    np.testing.assert_allclose(linear_datamodelling_score(member, truth, actual), 1.0)
    np.testing.assert_allclose(linear_datamodelling_score(member, -truth, actual), -1.0)


def test_the_noise_ceiling_is_what_the_truth_itself_reaches():
    rng = np.random.default_rng(2)
    truth = rng.normal(size=(4000, 3))
    first, second = (truth + noise for noise in rng.normal(scale=0.7, size=(2, 4000, 3)))
    reached = spearman(truth.T, ((first + second) / 2).T)
    np.testing.assert_allclose(noise_ceiling(first, second), reached, atol=0.02)


def test_shares_divide_one_credit_per_output_by_positive_parts():
    measure = np.array([[3.0, 1.0, -5.0], [0.0, 2.0, 2.0], [-1.0, -1.0, -1.0]])
    np.testing.assert_allclose(shares(measure), [0.75 / 3, 0.75 / 3, 0.5 / 3])
    assert share_error(measure, measure) == 0
    assert share_error(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])) == 1
    np.testing.assert_array_equal(top_one(measure, np.array([[9.0, 0, 0], [9, 0, 0], [9, 0, 0]])), [1, 0, 1])


_NATS = st.integers(-2000, 2000).map(lambda thousandths: thousandths / 1000)  # nothing is measured to 1e-200 nats


@given(arrays(np.float64, (12, 3), elements=_NATS), arrays(np.float64, 12, elements=_NATS))
def test_no_nonnegative_coefficients_fit_better(features, target):
    best = fit_nonnegative(features, target)
    assert (best >= 0).all()
    error = ((features @ best - target) ** 2).sum()
    grid = np.linspace(0, 3, 13)
    for a in grid:
        for b in grid:
            for c in (0.0, 0.5, 2.0):
                assert error <= ((features @ np.array([a, b, c]) - target) ** 2).sum() + 1e-6


def test_an_interval_holds_the_mean_and_narrows_with_more_outputs():
    rng = np.random.default_rng(3)
    few, many = (estimate(rng.normal(loc=1.0, size=n)) for n in (10, 1000))
    assert few.low < few.value < few.high
    assert many.high - many.low < (few.high - few.low) / 4


@given(st.integers(3, 9), st.integers(0, 6), st.integers(1, 3), st.integers(0, 99))
def test_a_plan_leaves_everybody_out_and_draws_balanced_halves(count, halves, seeds, seed):
    names = [f"p{i}" for i in range(count)]
    runs = plan(names, halves=halves, seeds=seeds, seed=seed)
    assert len(set(runs)) == len(runs)
    left = [run for run in runs if run.kind == "leave-out"]
    assert {frozenset(names) - run.providers for run in left} == {frozenset([name]) for name in names}
    drawn = {run.providers for run in runs if run.kind == "half"}
    assert all(len(half) in (count // 2, count - count // 2) for half in drawn)
    assert all({run.seed for run in runs if run.kind == "half" and run.providers == half} == {0, 1} for half in drawn)
    assert runs == plan(reversed(names), halves=halves, seeds=seeds, seed=seed)


def test_too_few_providers_are_refused():
    with pytest.raises(InvalidRequestError, match="at least 3"):
        plan(["a", "b"], halves=2, seeds=1)


@pytest.mark.parametrize("outputs", [20, 400])
def test_the_error_of_attribution_is_what_the_choice_of_outputs_does_not_explain(outputs):
    """Shares that are off by a known amount, beside unbiased noise of each output, which has to be left out."""
    rng = np.random.default_rng(outputs)
    true = np.array([0.1, 0.2, 0.3, 0.4])
    off = np.array([0.06, -0.02, 0.04, -0.08])
    expected = float(np.sqrt((off**2).sum() / ((true + off) * (1 - true - off)).sum()))
    found, honest = [], []
    for _ in range(60):
        actual = rng.dirichlet(20 * true, outputs)
        found.append(attribution_error(rng.dirichlet(20 * (true + off), outputs), actual) ** 2)
        honest.append(attribution_error(rng.dirichlet(20 * true, outputs), actual))
    assert np.sqrt(np.mean(found)) == pytest.approx(expected, rel=0.1)
    assert np.mean(honest) < expected / 3
    assert attribution_error(actual, actual) == 0


def test_an_error_of_attribution_is_found_in_one_output_and_none_where_nothing_was_predicted():
    one = np.array([[0.75, 0.25]])
    assert attribution_error(one, np.array([[0.25, 0.75]])) == pytest.approx(np.sqrt(0.5 / 0.375))
    assert attribution_error(np.zeros((3, 2)), np.ones((3, 2))) == 0
