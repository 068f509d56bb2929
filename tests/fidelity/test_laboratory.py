"""The laboratory's quick case: fails when attribution predicts retraining worse than it did."""

import numpy as np
import pytest

from benchmarks.fidelity.cases import CASES
from benchmarks.fidelity.grid import WHITENED, Valuer, Variant
from benchmarks.fidelity.lab import measures
from benchmarks.fidelity.scores import Scores, Scoring, fitted
from benchmarks.fidelity.truth import retrain


@pytest.fixture(scope="module")
def scores(tmp_path_factory) -> dict[str, Scores]:
    """Every measure of the default kind of index, and the baselines, on the quick case."""
    work = tmp_path_factory.mktemp("laboratory")
    make, size = CASES["quick"]
    truth = retrain(make(work, size), work)
    scoring = Scoring(truth)
    features = Valuer(truth, work).features(Variant("whitened", WHITENED))
    found = {name: scoring.score(measure) for name, measure in measures(features, scoring)}
    return found | dict(scoring.baselines())


def test_effect_predicts_retraining_about_as_well_as_when_it_was_measured(scores):
    # Measured: LDS 0.46, leave-one-out Pearson 0.32, 62 % of the clear outputs; the floors leave room for rounding.
    effect = scores["influence + support"]
    assert effect.lds.value > 0.38
    assert effect.pearson > 0.25
    assert effect.clear > 0.5


def test_effect_predicts_better_than_volume_beyond_the_interval(scores):
    effect, tokens = scores["influence + support"], scores["tokens"]
    assert effect.pearson > tokens.pearson + 0.2  # measured 0.31 above
    assert effect.lds_given_size > 0.3  # measured 0.40; volume alone has nothing left there
    assert tokens.lds_given_size == pytest.approx(0.0, abs=1e-9)


def test_a_fit_never_sees_the_provider_that_it_predicts():
    rng = np.random.default_rng(0)
    features = [rng.random((5, 4)) for _ in range(3)]
    fall = rng.random((5, 4))
    before = fitted(features, fall, 2)
    changed = fall.copy()
    changed[:, 1] *= 100
    np.testing.assert_array_equal(fitted(features, changed, 2)[:, 1], before[:, 1])
    assert not np.allclose(fitted(features, changed, 2)[:, 0], before[:, 0])
