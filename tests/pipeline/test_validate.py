"""Outputs that a validation draws, its counterfactual, and the weights that compute takes from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from credit.accounting.credits import Policy
from credit.errors import InvalidRequestError
from credit.fidelity.certificate import CALIBRATED, Calibration
from credit.fidelity.metrics import Estimate
from credit.fidelity.validation import write_certificate
from credit.pipeline.compute import ComputeSettings, calibrated_policy
from credit.pipeline.validate import ValidationRequest
from tests.pipeline.certificates import certificate
from tests.pipeline.samples import OUTPUTS, output_row


def test_outputs_that_cannot_be_tokenised_or_are_unvalued_are_passed_over(site):
    chat = output_row(100, prompt=None, messages=[{"role": "user", "content": "sing"}])  # the model has no template
    site.log("late.jsonl", [chat, output_row(102)])
    site.run("outputs", "unvalue", "o102", "--reason", "a test")
    found = site.json("validate", site.folder / "index", site.folder / "train.jsonl", "--quick", "--outputs", "1000")
    assert found["outputs"] == OUTPUTS


def request(**settings: object) -> ValidationRequest:
    return ValidationRequest(Path("index"), [Path("train.jsonl")], Path("work"), **settings)


def test_the_counterfactual_follows_from_the_recipe_or_is_said_of_the_users_own():
    assert request().counterfactual_made == "removed"
    assert request(steps=9).counterfactual_made == request(base=Path("base"), steps=9).counterfactual_made == "replaced"
    assert request(trainer="my:train", steps=9).counterfactual_made == ""
    assert request(trainer="my:train", counterfactual="replaced").counterfactual_made == "replaced"
    with pytest.raises(InvalidRequestError, match="of your own --trainer"):
        request(counterfactual="replaced")


def test_compute_takes_weights_of_effect_from_a_certificate_of_the_same_counterfactual_only(tmp_path):
    made = certificate()
    better = [dataclasses.replace(score, pearson=_exact(0.9)) if score.method == CALIBRATED else score
              for score in made.methods]  # fmt: skip
    fit = Calibration(0.5, 2.0, 0.25, 3, 1.0)
    made = dataclasses.replace(made, methods=tuple(better), calibration=fit, counterfactual="replaced")
    write_certificate(tmp_path, made)
    for policy in (Policy(), Policy("influence", counterfactual="replaced")):
        assert calibrated_policy(tmp_path, made.index, ComputeSettings(policy)) == policy
    found = calibrated_policy(tmp_path, made.index, ComputeSettings(Policy(counterfactual="replaced")))
    assert found == Policy(alpha=0.5, beta=2.0, gamma=0.25, counterfactual="replaced")


def _exact(value: float) -> Estimate:
    return Estimate(value, value, value)
