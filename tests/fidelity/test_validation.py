"""Retraining for real, on a model small enough: three authors who share no words."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from credit.accounting.credits import Policy
from credit.errors import InputError
from credit.fidelity.certificate import Certificate
from credit.fidelity.metrics import correlation, top_one
from credit.fidelity.recipes import Recipe, load_trainer
from credit.fidelity.retraining import Counterfactual, Laboratory, log_likelihoods
from credit.fidelity.validation import step_falls, validate, validate_quickly, write_certificate
from credit.records import Group, LoggedOutput, TrainingRecord
from credit.valuation import AttributionIndex, IndexSettings, build_index, load_model
from credit.valuation.language_model import LanguageModel
from tests.fidelity.authors import LEXICONS
from tests.models import hidden_settings


@pytest.fixture(scope="module")
def laboratory(
    tmp_path_factory: pytest.TempPathFactory,
    recipe: Recipe,
    records: Sequence[TrainingRecord],
    outputs: Sequence[LoggedOutput],
) -> Laboratory:
    return Laboratory(tmp_path_factory.mktemp("runs"), records, outputs, recipe.train, "test", 64)


@pytest.fixture(scope="module")
def certificate(
    tmp_path_factory: pytest.TempPathFactory,
    recipe: Recipe,
    records: Sequence[TrainingRecord],
    outputs: Sequence[LoggedOutput],
    laboratory: Laboratory,
) -> tuple[Certificate, AttributionIndex, LanguageModel]:
    trained = tmp_path_factory.mktemp("trained")
    recipe.train(records, 0, trained)
    model = load_model(trained)
    folder = tmp_path_factory.mktemp("index") / "index"
    build_index(model, records, folder, hidden_settings(rank=8, projection="pca", curvature="ekfac"), name="m")
    index = AttributionIndex.open(folder)
    made = validate(index, model, records, outputs, laboratory, recipe="test", halves=4, seeds=1)
    return made, index, model


def test_attribution_names_the_provider_whose_absence_costs_most(certificate):
    made, _, _ = certificate
    score = {method.method: method for method in made.methods}
    table = "\n".join(
        f"{name}: {s.lds.value:.2f} {s.pearson.value:.2f} {s.top_one.value:.2f}" for name, s in score.items()
    )
    assert score["effect"].top_one.value == 1.0, table
    assert score["effect"].lds.value > 0.7, table
    assert score["effect"].pearson.value > score["token share"].pearson.value + 0.3, table


def test_the_certificate_says_by_how_much_each_measure_leads_and_how_far_its_shares_are_off(certificate):
    made, _, _ = certificate
    score = {method.method: method for method in made.methods}
    for name in ("token share", "BM25"):
        lead = score["effect"].leads[name]
        assert lead.value == pytest.approx(score["effect"].lds.value - score[name].lds.value)
        assert lead.low <= lead.value <= lead.high
        assert name not in score[name].leads
    beaten = [name for name, lead in score["effect"].leads.items() if lead.low > 0]
    (why,) = made.shortcomings(Policy(), 0.5)
    assert beaten == ["token share"], "words decide in this data: searching for them is hard to beat"
    assert "effect does not beat BM25 beyond chance" in why
    assert all(item.attribution_error is not None for item in made.methods)
    assert Certificate.from_json(made.to_json()) == made


def test_calibration_is_in_nats_within_a_factor_of_two(certificate):
    made, _, _ = certificate
    assert 0.5 < made.calibration.ratio < 2, made.calibration


def test_the_certificate_names_what_it_is_about_and_detects_a_change(certificate):
    made, index, _ = certificate
    path = write_certificate(index.folder, made)
    body = json.loads(path.read_text())
    assert body["index"] == index.manifest.fingerprint
    assert body["retrainings"] == 1 + 4 + 4 * 2
    AttributionIndex.open(index.folder)


def test_a_retraining_is_made_once(laboratory, outputs, recipe, records):
    run = Counterfactual("leave-out", frozenset(LEXICONS) - {"baker"}, 0)
    first = laboratory.outcome(run)

    def never(_records: Sequence[TrainingRecord], _seed: int, _out: Path) -> None:
        raise AssertionError("trained again")

    again = Laboratory(laboratory.folder, records, outputs, never, "test", 64)
    np.testing.assert_array_equal(again.outcome(run), first)


def test_the_log_likelihood_is_minus_the_loss_of_each_completion(certificate, outputs):
    _, _, model = certificate
    values = log_likelihoods(model, outputs, 64)
    tokenizer = model.tokenizer
    prompt = tokenizer(outputs[0].prompt)["input_ids"]
    completion = tokenizer(outputs[0].completion, add_special_tokens=False)["input_ids"]
    log_probs = model.module(torch.tensor([prompt + completion])).logits[0].log_softmax(-1)
    expected = sum(log_probs[len(prompt) + i - 1, token].item() for i, token in enumerate(completion))
    assert values[0] == pytest.approx(expected, rel=1e-4)


def test_other_data_than_the_indexs_is_refused(certificate, records, outputs, laboratory):
    _, index, model = certificate
    with pytest.raises(InputError, match=r"baker is a provider of .* not of both"):
        validate(index, model, [r for r in records if r.group.provider != "baker"], outputs, laboratory, recipe="test")


def test_a_trainer_of_ones_own_is_named_by_module_and_function():
    assert load_trainer("os.path:join")
    with pytest.raises(Exception, match="give module:function"):
        load_trainer("nowhere:train")


def test_a_calibration_that_predicts_worse_is_not_paid_by(certificate):
    made, _, _ = certificate
    scores = {score.method: score for score in made.methods}
    worse = replace(scores["token share"], method="effect, calibrated")
    others = tuple(score for score in made.methods if score.method != "effect, calibrated")
    assert not replace(made, methods=(worse, *others)).calibration_helps
    equal = replace(scores["effect"], method="effect, calibrated")
    assert replace(made, methods=(equal, *others)).calibration_helps


@pytest.fixture(scope="module")
def stepped(
    certificate: tuple[Certificate, AttributionIndex, LanguageModel],
    records: Sequence[TrainingRecord],
    outputs: Sequence[LoggedOutput],
) -> Certificate:
    _, index, model = certificate
    return validate_quickly(index, model, records, outputs)


def test_what_outputs_lose_by_a_step_is_what_they_lose_by_retraining(certificate, laboratory, records, outputs):
    _, _, model = certificate
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    falls = step_falls(model, records, outputs, sorted(LEXICONS), 64, 64)
    for name, value in model.module.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} was not put back"
    everybody = frozenset(LEXICONS)
    full = laboratory.outcome(Counterfactual("full", everybody, 0))
    left = [laboratory.outcome(Counterfactual("leave-out", everybody - {name}, 0)) for name in sorted(LEXICONS)]
    retrained = np.stack([full - values for values in left], axis=1)
    assert correlation(falls, retrained).mean() > 0.8
    assert top_one(falls, retrained).mean() == 1.0


def test_a_quick_certificate_says_so_and_judges_as_retraining_does(certificate, stepped):
    made, _, _ = certificate
    assert (stepped.kind, stepped.retrainings, stepped.ceiling, stepped.calibration) == ("quick", 0, None, None)
    assert not stepped.calibration_helps
    assert [*stepped.shortcomings(Policy(), 0.0)] == ["it is a quick certificate, which no retraining stands behind"]
    quick = {score.method: score.pearson.value for score in stepped.methods}
    real = {score.method: score.pearson.value for score in made.methods if score.method in quick}
    assert sorted(real, key=real.__getitem__)[:2] == sorted(quick, key=quick.__getitem__)[:2], (real, quick)
    assert quick["effect"] > quick["token share"] + 0.3


def test_a_control_that_the_model_never_saw_gets_far_less_than_an_equal_share(certificate, records, outputs, tmp_path):
    _, _, model = certificate
    rng = random.Random(5)
    words = [f"{rng.choice('bcdfg')}{rng.choice('aeiou')}{rng.choice('klmnp')}{rng.choice('aeiou')}" for _ in range(12)]
    strange = [
        TrainingRecord(f"c{i}", Group("control"), " ".join(rng.choice(words) for _ in range(12))) for i in range(24)
    ]
    build_index(model, [*records, *strange], tmp_path / "index", IndexSettings(), name="m")
    index = AttributionIndex.open(tmp_path / "index")
    made = validate_quickly(index, model, [*records, *strange], outputs, controls=["control"])
    assert "control" not in made.providers
    (control,) = made.controls
    assert control.provider == "control"
    assert control.share < 0.2 / 2
    with pytest.raises(InputError, match="no provider nobody that could be a control"):
        validate_quickly(index, model, [*records, *strange], outputs, controls=["nobody"])
