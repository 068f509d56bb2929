"""What becomes of records that several providers share when attribution is compared with what happens without them."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from credit.fidelity.measures import bm25, gradient_product, hidden_similarity, token_share
from credit.fidelity.retraining import Counterfactual, Laboratory, drawn_owner
from credit.fidelity.validation import step_falls, validate_quickly
from credit.records import Group, LoggedOutput, Share, TrainingRecord
from credit.valuation import AttributionIndex, build_index, load_model
from credit.valuation.language_model import LanguageModel
from tests.models import hidden_settings, records, save_tiny_model
from tests.valuation.conftest import make_output

ANN, BEN, EVE = Group("ann"), Group("ben"), Group("eve")
PROVIDERS = ["ann", "ben", "eve"]
PARTS = (Share(ANN, 250_000), Share(EVE, 750_000))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_model(save_tiny_model(tmp_path_factory.mktemp("model") / "tiny"), dtype="fp64", device="cpu")


@pytest.fixture(scope="module")
def plain() -> list[TrainingRecord]:
    return records({ANN: 6, BEN: 5})


@pytest.fixture(scope="module")
def shared(plain: list[TrainingRecord]) -> list[TrainingRecord]:
    """The same records, those of ann shared with eve."""
    return [replace(record, group=None, splits=PARTS) if record.group == ANN else record for record in plain]


@pytest.fixture(scope="module")
def outputs() -> list[LoggedOutput]:
    return [make_output(i, "the cat sat", f" {text}") for i, text in enumerate(("on old ships", "a green hill"))]


def test_baselines_give_everybody_a_share_of_what_they_give_the_record(model, plain, shared, outputs, tmp_path):
    found = []
    for name, data in (("plain", plain), ("shared", shared)):
        build_index(model, data, tmp_path / name, hidden_settings(rank=2), name="tiny")
        index = AttributionIndex.open(tmp_path / name)
        found.append(
            [
                token_share(index, PROVIDERS, 2),
                bm25(data, outputs, PROVIDERS),
                gradient_product(index, model, outputs, PROVIDERS),
                hidden_similarity(model, data, outputs, PROVIDERS, 64, 64),
            ]
        )
    for before, after in zip(*found, strict=True):
        expected = np.stack([before[:, 0] * 0.25, before[:, 1], before[:, 0] * 0.75], axis=1)
        np.testing.assert_allclose(after, expected, rtol=1e-6, atol=1e-12)


def test_a_step_away_from_shares_of_the_same_records_is_one_away_from_the_records(model, plain, shared, outputs):
    before = step_falls(model, plain, outputs, ["ann", "ben"], 64, 64)
    after = step_falls(model, shared, outputs, PROVIDERS, 64, 64)
    np.testing.assert_allclose(after, before[:, [0, 1, 0]], rtol=1e-5)
    mixed = [*plain[:3], *shared[3:]]  # by how much each record counts, not only whether it does
    assert not np.allclose(step_falls(model, mixed, outputs, ["ann"], 64, 64), before[:, :1], rtol=1e-3)


def test_a_quick_validation_takes_shared_records(model, shared, outputs, tmp_path):
    build_index(model, shared, tmp_path / "index", hidden_settings(rank=2), name="tiny")
    made = validate_quickly(AttributionIndex.open(tmp_path / "index"), model, shared, outputs)
    assert made.providers == tuple(PROVIDERS)


def test_in_retrainings_each_shared_record_is_one_providers_by_lot_with_the_chance_of_its_share(plain):
    many = [replace(plain[0], id=f"r{i}", group=None, splits=PARTS) for i in range(4000)]
    drawn = Counter(map(drawn_owner, many))
    assert drawn.keys() == {"ann", "eve"}
    assert drawn["ann"] == pytest.approx(1000, abs=100)  # 3.6 standard deviations
    assert {drawn_owner(record) for record in plain} == {"ann", "ben"}


def test_the_providers_of_a_retraining_bring_all_data_and_no_record_twice(model, plain, outputs, tmp_path):
    data = [replace(record, group=None, splits=PARTS) for record in plain]
    seen: dict[frozenset[str], set[str]] = {}

    def trainer(chosen: Sequence[TrainingRecord], _seed: int, out: Path) -> None:
        seen[frozenset(map(drawn_owner, chosen))] = {record.id for record in chosen}
        shutil.copytree(model.path, out)

    laboratory = Laboratory(tmp_path / "work", data, outputs, trainer, "none", 64)
    for providers in ({"ann"}, {"eve"}, {"ann", "eve"}):
        laboratory.outcome(Counterfactual("half", frozenset(providers), 0))
    ann, eve, both = (seen[frozenset(group)] for group in ({"ann"}, {"eve"}, {"ann", "eve"}))
    assert ann | eve == both == {record.id for record in data}
    assert not ann & eve
