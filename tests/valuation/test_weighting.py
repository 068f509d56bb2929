"""Weights of examples against their definitions, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from credit.errors import ValuationError
from credit.records import LoggedOutput, TrainingRecord
from credit.valuation import AttributionIndex, build_index
from credit.valuation.curvature import Curvature, Weighting, divided
from credit.valuation.explain import explain_output
from credit.valuation.language_model import LanguageModel
from credit.valuation.layers import choose_layers
from credit.valuation.manifest import IndexSettings
from credit.valuation.projection import random_projections
from credit.valuation.revise import update_index, withdraw_provider
from credit.valuation.tokens import Window
from tests.models import HIDDEN, hidden_settings
from tests.valuation import oracle
from tests.valuation.conftest import FOLDED, SINGLE
from tests.valuation.faults import stopped_often


def _gradients(
    model: LanguageModel, data: Sequence[TrainingRecord], outputs: Sequence[LoggedOutput], rank: int
) -> tuple[list[str], list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """Projected gradients by autograd: ids and one dict of layers for each example, and one for each output."""
    layers = choose_layers(model.module, HIDDEN)
    projections = random_projections(layers.shapes, rank=rank, seed=0)
    encoder = model.encoder(64)

    def gradient(example: Window) -> dict[str, Tensor]:
        return oracle.projected(oracle.weight_gradients(model, example, list(layers.watched)), projections)

    examples = [example for record in data for example in encoder.training(record)]
    queries = [gradient(encoder.output(output)[0]) for output in outputs]
    return [e.id for e in examples], [gradient(e) for e in examples], queries


def _self_influence(train: list[dict[str, Tensor]], damping: float) -> Tensor:
    """Σ_l gᵀ (M_l + λ_l I)⁻¹ g of each example."""
    return oracle.influence_matrix(train, train, damping).diagonal() * len(train)


def _values(folder: Path, model: LanguageModel, outputs: Sequence[LoggedOutput], ids: Sequence[str]) -> Tensor:
    index = AttributionIndex.open(folder)
    order = {line.split('"')[1]: i for i, line in enumerate(index.path("examples.jsonl").read_text().splitlines())}
    return index.row_influence(model, outputs)[:, [order[i] for i in ids]]


@pytest.mark.parametrize("weighting", ["unit", "relatif"])
@pytest.mark.parametrize("tokens_per_batch", [1, 60, 100_000], ids=["one", "few", "all"])
def test_weighted_influence_equals_its_definition(model, data, outputs, out, weighting, tokens_per_batch):
    settings = hidden_settings(rank=3, rows_per_group=None, weighting=weighting, damping=0.2)
    build_index(model, data, out, settings, name="tiny", tokens_per_batch=tokens_per_batch)
    ids, train, queries = _gradients(model, data, outputs, rank=3)
    sizes = torch.stack([sum(g.square().sum() for g in example.values()) for example in train]).sqrt()
    if weighting == "relatif":
        sizes = _self_influence(train, 0.2).sqrt()
    truth = oracle.influence_matrix(train, queries, 0.2) / sizes * sizes.mean()
    torch.testing.assert_close(_values(out, model, outputs, ids), truth, rtol=1e-6, atol=1e-12)


def test_relatif_without_curvature_is_the_unit_norm_and_ekfac_divides_by_its_own_self_influence(
    model, data, outputs, tmp_path
):
    for weighting in ("unit", "relatif"):
        settings = hidden_settings(rank=3, curvature="none", rows_per_group=None, weighting=weighting)
        build_index(model, data, tmp_path / weighting, settings, name="tiny")
    unit, relatif = (
        AttributionIndex.open(tmp_path / name).row_influence(model, outputs) for name in ("unit", "relatif")
    )
    torch.testing.assert_close(unit, relatif)
    plain = hidden_settings(rank=3, curvature="ekfac", rows_per_group=None)
    build_index(model, data, tmp_path / "plain", plain, name="tiny")
    build_index(
        model, data, tmp_path / "weighted", hidden_settings(**{**_fields(plain), "weighting": "relatif"}), name="tiny"
    )
    index = AttributionIndex.open(tmp_path / "plain")
    rows = {name: r for shard in index.shards(model.device) for name, r in shard}
    sizes = Weighting("relatif", index.curvature(model.device)).sizes(rows)
    truth = index.row_influence(model, outputs) / sizes * sizes.mean()
    ours = AttributionIndex.open(tmp_path / "weighted").row_influence(model, outputs)
    torch.testing.assert_close(ours, truth, rtol=1e-7, atol=1e-13)


def _fields(settings: IndexSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


@pytest.mark.parametrize("weighting", ["unit", "relatif"])
def test_folds_are_sums_of_weighted_examples_and_explain_finds_them_again(model, data, outputs, tmp_path, weighting):
    for rows, name in ((None, "all"), (4, "folded")):
        settings = hidden_settings(rank=3, rows_per_group=rows, weighting=weighting)
        build_index(model, data, tmp_path / name, settings, name="tiny")
    every, folded = AttributionIndex.open(tmp_path / "all"), AttributionIndex.open(tmp_path / "folded")
    torch.testing.assert_close(folded.value(model, outputs).influence, every.value(model, outputs).influence)
    direct = explain_output(every, model, outputs[1], top=100)
    recomputed = explain_output(folded, model, outputs[1], records=data, top=100)
    assert [item.id for item in recomputed] == [item.id for item in direct]
    assert [item.influence for item in recomputed] == pytest.approx([item.influence for item in direct], rel=1e-7)


@pytest.mark.parametrize("weighting", ["unit", "relatif"])
def test_weights_tame_an_example_that_is_out_of_scale(weighting):
    torch.manual_seed(0)
    gradients = torch.randn(5, 6, dtype=torch.float64)
    loud = gradients.clone()
    loud[2] *= 1000
    kind = Weighting(weighting, Curvature({"l": torch.full((6,), 2.0, dtype=torch.float64)}))
    calm, tamed = (divided(g, kind.sizes({"l": g})) for g in (gradients, loud))
    torch.testing.assert_close(calm, tamed)
    silent = torch.zeros(1, 6, dtype=torch.float64)
    assert torch.equal(divided(silent, kind.sizes({"l": silent})), silent), "no gradient is no influence, not 0/0"


def test_two_passes_that_are_stopped_anywhere_end_with_the_same_index(model, data, tmp_path, write_limits):
    write_limits(shard_bytes=1, waiting_bytes=0)
    settings = hidden_settings(rank=3, rows_per_group=4, weighting="relatif")
    phases: list[str] = []
    whole = build_index(
        model, data, tmp_path / "whole", settings, name="tiny", progress=lambda phase, *_: phases.append(phase)
    )
    assert set(phases) == {"curvature", "gradients"}
    stopped, steps = stopped_often(
        lambda stop: build_index(model, data, tmp_path / "stopped", settings, name="tiny", progress=stop), most=60
    )
    assert len(steps) > 12
    assert stopped.manifest.files == whole.manifest.files
    assert stopped.manifest.sizes == whole.manifest.sizes
    assert {path.name for path in (tmp_path / "stopped").iterdir()} == {*whole.manifest.files, "manifest.json", ".lock"}


def test_unit_norms_survive_updates_and_withdrawals(model, data, outputs, tmp_path):
    settings = hidden_settings(rank=3, rows_per_group=4, weighting="unit")
    build_index(model, data, tmp_path / "all", settings, name="tiny")
    some = [record for record in data if record.group != SINGLE]
    build_index(model, some, tmp_path / "grown", settings, name="tiny")
    before = AttributionIndex.open(tmp_path / "grown").value(model, outputs).effect()
    update_index(tmp_path / "grown", model, data)
    truth = AttributionIndex.open(tmp_path / "all")
    grown = AttributionIndex.open(tmp_path / "grown")
    assert grown.manifest.sizes == pytest.approx(truth.manifest.sizes)
    torch.testing.assert_close(grown.value(model, outputs).effect(), truth.value(model, outputs).effect())
    withdraw_provider(tmp_path / "grown", model, SINGLE.provider, data)
    torch.testing.assert_close(AttributionIndex.open(tmp_path / "grown").value(model, outputs).effect(), before)


def test_a_change_that_would_change_all_weights_is_refused(model, data, tmp_path):
    settings = hidden_settings(rank=3, rows_per_group=4, weighting="relatif")
    build_index(model, data, tmp_path / "index", settings, name="tiny")
    for change in (
        lambda: update_index(tmp_path / "index", model, data),
        lambda: withdraw_provider(tmp_path / "index", model, FOLDED.provider, data),
    ):
        with pytest.raises(ValuationError, match=r"changes the curvature.*Build it again"):
            change()
    with pytest.raises(ValuationError, match=r"damping 0\.1, which cannot be changed.*--damping 0\.5"):
        AttributionIndex.open(tmp_path / "index", damping=0.5)
    AttributionIndex.open(tmp_path / "index", damping=0.1)
    with pytest.raises(ValuationError, match="'loud' is unknown; choose one of none, unit, relatif"):
        build_index(model, data, tmp_path / "other", hidden_settings(weighting="loud"), name="tiny")
