"""The laboratory's quick case: fails when attribution predicts retraining worse than it did."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.fidelity.cases import CASES
from benchmarks.fidelity.grid import DEFAULT, Features, Valuer, Variant
from benchmarks.fidelity.lab import measures
from benchmarks.fidelity.scores import Scores, Scoring, fitted
from benchmarks.fidelity.truth import retrain


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scoring, Features]:
    """The quick case's retrainings, and what the default kind of index says of them."""
    work = tmp_path_factory.mktemp("laboratory")
    make, size = CASES["quick"]
    truth = retrain(make(work, size), work)
    return Scoring(truth), Valuer(truth, work).features(Variant("default", DEFAULT))


@pytest.fixture(scope="module")
def scores(quick: tuple[Scoring, Features]) -> dict[str, Scores]:
    """Every measure of the default kind of index, and the baselines."""
    scoring, features = quick
    found = {name: scoring.score(measure) for name, measure in measures(features, scoring)}
    return found | dict(scoring.baselines())


def test_effect_predicts_retraining_about_as_well_as_when_it_was_measured(scores):
    # Measured: LDS 0.70, leave-one-out Pearson 0.71, 11 of 13 clear outputs; the floors leave room for rounding.
    effect = scores["influence + support over 1 σ"]
    assert effect.lds.value > 0.6
    assert effect.pearson > 0.65
    assert effect.clear > 0.7


def test_effect_predicts_better_than_text_similarity_and_volume_beyond_the_interval(scores):
    effect, similarity, tokens = (
        scores[name] for name in ("influence + support over 1 σ", "BM25, top 100 records", "tokens")
    )
    assert effect.lds.low > similarity.lds.high  # measured 0.62 and 0.55
    assert effect.lds.low > tokens.lds.high  # 0.60; no more than volume would predict without any index
    assert effect.lds_given_size > similarity.lds_given_size + 0.2  # 0.72 and 0.41
    assert effect.pearson > similarity.pearson + 0.1  # 0.71 and 0.51
    assert tokens.lds_given_size == pytest.approx(0.0, abs=1e-9)


def test_intervals_hold_what_retraining_shows_about_nine_times_in_ten(quick):
    scoring, features = quick
    found = scoring.coverage(features.excess[1.0] + features.support[1.0])
    assert 0.85 <= found.with_attribution <= 0.97, found
    assert found.outputs_alone < found.with_attribution


def test_a_fit_never_sees_the_provider_that_it_predicts():
    rng = np.random.default_rng(0)
    features = [rng.random((5, 4)) for _ in range(3)]
    fall = rng.random((5, 4))
    before = fitted(features, fall, 2)
    changed = fall.copy()
    changed[:, 1] *= 100
    np.testing.assert_array_equal(fitted(features, changed, 2)[:, 1], before[:, 1])
    assert not np.allclose(fitted(features, changed, 2)[:, 0], before[:, 0])
