"""Layers of experts, watched one by one: against autograd's gradient of the fused parameters, in float64."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from credit.errors import ValuationError
from credit.records import TrainingRecord
from credit.valuation import AttributionIndex, IndexSettings, build_index, load_model
from credit.valuation.experts import ExpertLinear
from credit.valuation.hooks import GradientTap
from credit.valuation.language_model import LanguageModel
from credit.valuation.layers import LayerChoice, choose_layers
from credit.valuation.projection import random_projections
from credit.valuation.tokens import Encoder, Window, cut_window
from tests.models import dense_settings, records
from tests.valuation import oracle
from tests.valuation.conftest import FOLDED, SINGLE, make_output
from tests.valuation.engine import example_gradients
from tests.valuation.mixtures import COMMON, FAMILIES, save_mixture

EXPERTS = ("*.experts.*",)
MXFP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=torch.float64)
"""Numbers of the 16 codes of MXFP4."""


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_model(save_mixture(tmp_path_factory.mktemp("moe") / "mixtral", "mixtral"), dtype="fp64", device="cpu")


def _windows(model: LanguageModel, count: int = 4) -> list[Window]:
    encoder = Encoder(model.tokenizer, 64)
    return [window for record in records({FOLDED: count}) for window in encoder.training(record)]


def _autograds(model: LanguageModel, layers: LayerChoice, window: Window) -> dict[str, Tensor]:
    """Autograd's gradient (O, I) of each expert's layer, through transformers' own implementation of experts."""
    watched = {name: layer for name, layer in layers.watched.items() if isinstance(layer, ExpertLinear)}
    fused = {(id(layer.block), layer.part): getattr(layer.block, layer.part) for layer in watched.values()}
    for parameter in fused.values():
        parameter.requires_grad_(True)
    ids = torch.from_numpy(window.tokens.astype("int64"))[None]
    log_probs = model.module(input_ids=ids).logits[0].log_softmax(-1)
    loss = -sum(log_probs[t - 1, ids[0, t]] for t in range(window.start, ids.shape[1]))
    gradients = dict(zip(fused, torch.autograd.grad(loss, list(fused.values())), strict=True))
    of_experts = {name: gradients[id(layer.block), layer.part][layer.number] for name, layer in watched.items()}
    return {name: g.mT if watched[name].block.is_transposed else g for name, g in of_experts.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_each_expert_equal_autograds_and_are_zero_where_no_token_went(tmp_path, family):
    model = load_model(save_mixture(tmp_path, family), dtype="fp64", device="cpu")
    layers = choose_layers(model.module, EXPERTS)
    assert len(layers.watched) in {12, 24}
    assert all(shape.is_expert for shape in layers.shapes)
    projections = random_projections(layers.shapes, rank=3, seed=1)
    windows = _windows(model)
    assert len({window.size for window in windows}) > 1, "lengths must differ, or padding is not tested"
    with GradientTap(model.module, layers.watched, projections) as tap:
        ours = example_gradients(model, tap, windows)
    idle = 0
    for row, window in enumerate(windows):
        for name, gradient in oracle.projected(_autograds(model, layers, window), projections).items():
            # Some families compute their router in float32.
            torch.testing.assert_close(ours[name][row], gradient, rtol=1e-5, atol=1e-7, msg=f"{family}: {name}")
            idle += not gradient.any()
            assert bool(ours[name][row].any()) == bool(gradient.any())
    assert 0 < idle < len(windows) * len(layers.watched)


def test_the_parts_of_a_window_sum_to_its_gradient_in_every_expert(mixtral):
    layers = choose_layers(mixtral.module, EXPERTS)
    projections = random_projections(layers.shapes, rank=3, seed=1)
    windows = _windows(mixtral)
    parts = [part for window in windows for part in cut_window(window, 4)]
    owner = [number for number, window in enumerate(windows) for _ in cut_window(window, 4)]
    with GradientTap(mixtral.module, layers.watched, projections) as tap:
        whole = example_gradients(mixtral, tap, windows)
        cut = example_gradients(mixtral, tap, parts)
    for name, rows in whole.items():
        summed = torch.zeros_like(rows).index_add_(0, torch.tensor(owner), cut[name])
        torch.testing.assert_close(summed, rows, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("fit", [("pca", "ekfac"), ("random", "ekfac"), ("random", "fisher")], ids="-".join)
def test_an_expert_that_no_example_reached_changes_no_credit(mixtral, tmp_path, fit):
    data = [TrainingRecord("a", FOLDED, "the cat"), TrainingRecord("b", SINGLE, "a mat")]
    projection, curvature = fit
    settings = dense_settings(rank=3, projection=projection, curvature=curvature, layers=EXPERTS)
    build_index(mixtral, data, tmp_path / "all", settings, name="tiny")
    every = AttributionIndex.open(tmp_path / "all")
    idle = [name for name, rows in next(every.shards(mixtral.device)) if not rows.any()]
    assert 0 < len(idle) < 24
    without = (*EXPERTS, *(f"!{name}" for name in idle))
    build_index(mixtral, data, tmp_path / "some", dense_settings(**_but(settings, layers=without)), name="tiny")
    outputs = [make_output(i, "the cat", "sat on a mat while rain fell") for i in range(2)]
    ours = every.value(mixtral, outputs).influence
    assert ours.abs().min() > 0
    torch.testing.assert_close(ours, AttributionIndex.open(tmp_path / "some").value(mixtral, outputs).influence)


def _but(settings: IndexSettings, **changes: Any) -> dict[str, Any]:
    return {"rank": settings.rank, "projection": settings.projection, "curvature": settings.curvature} | changes


def test_experts_are_chosen_by_pattern_and_the_others_named_with_their_share(mixtral):
    third = choose_layers(mixtral.module, ("*.experts.3.*", "lm_head"))
    assert list(third.watched) == [
        f"model.layers.{block}.mlp.experts.3.{part}" for block in (0, 1) for part in ("gate_up_proj", "down_proj")
    ] + ["lm_head"]
    total = sum(p.numel() for p in mixtral.module.parameters())
    fused = sum(p.numel() for name, p in mixtral.module.named_parameters() if ".experts." in name)
    left = {layer.name: layer for layer in third.skipped if layer.name.endswith(".experts")}
    assert {layer.reason for layer in left.values()} == {"left out by --layers"}
    assert sum(layer.share for layer in left.values()) == pytest.approx(5 / 6 * fused / total)
    default = choose_layers(mixtral.module)
    assert list(default.watched) == ["lm_head"]
    assert sum(layer.share for layer in default.skipped if ".experts" in layer.name) == pytest.approx(fused / total)
    assert not any(".experts" in layer.name for layer in choose_layers(mixtral.module, ("*",)).skipped)


def test_the_model_runs_its_experts_as_before_once_a_pass_is_over_also_when_it_fails(mixtral):
    config = mixtral.module.config
    before = config._experts_implementation
    for patterns, inside in ((("lm_head",), before), (EXPERTS, "credit")):
        layers = choose_layers(mixtral.module, patterns)
        tap = GradientTap(mixtral.module, layers.watched, random_projections(layers.shapes, rank=2, seed=0))

        def fail(expected: str = inside) -> Tensor:
            assert config._experts_implementation == expected
            raise RuntimeError("power cut")

        with pytest.raises(RuntimeError, match="power cut"), tap:
            tap.collect(fail, 1)
        assert config._experts_implementation == before
        assert not any("watched" in name for part in mixtral.module.modules() for name in vars(part))


def test_a_folder_does_not_choose_the_code_that_runs_its_experts(tmp_path):
    config = save_mixture(tmp_path, "mixtral") / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"experts_implementation": "deepgemm"}))
    assert load_model(tmp_path, dtype="fp32", device="cpu").module.config._experts_implementation == "grouped_mm"
    model = load_model(tmp_path, dtype="fp64", device="cpu")  # torch's fused kernel knows no float64
    assert model.module.config._experts_implementation == "eager"
    result = build_index(model, records({FOLDED: 2}), tmp_path / "index", IndexSettings(rank=2), name="tiny")
    assert [layer.name for layer in result.manifest.layers] == ["lm_head"]
    assert "is_expert" not in result.manifest.to_json(), "an index without experts keeps the fingerprint it had"


def test_experts_packed_in_4_bits_are_read_as_the_numbers_that_they_stand_for(tmp_path):
    """As gpt-oss is published, in MXFP4: transformers would run them by kernels from a hub."""
    folder = save_mixture(tmp_path, "gpt_oss", hidden_size=32, intermediate_size=32)
    config, file = folder / "config.json", folder / "model.safetensors"
    weights, numbers = load_file(file), {}
    for name in [name for name in weights if name.endswith("_proj") and "experts" in name]:
        experts, wide, high = weights[name].shape
        codes = torch.randint(0, 16, (experts, high, wide // 32, 32), dtype=torch.uint8)
        scales = torch.randint(124, 128, (experts, high, wide // 32), dtype=torch.uint8)
        weights[f"{name}_blocks"] = codes[..., 0::2] | codes[..., 1::2] << 4
        weights[f"{name}_scales"] = scales
        values = MXFP4[codes.long()] * torch.exp2(scales.double() - 127)[..., None]
        numbers[name] = values.flatten(2).mT
        del weights[name]
    save_file(weights, file, metadata={"format": "pt"})
    packed = {"quant_method": "mxfp4", "modules_to_not_convert": []}
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": packed}))
    model = load_model(folder, dtype="fp32", device="cpu")
    layers = choose_layers(model.module, EXPERTS)
    assert len(layers.watched) == 24
    for name, layer in layers.watched.items():
        fused = numbers[".".join(name.rsplit(f".{layer.number}.", 1))]
        assert torch.equal(layer.weight, fused[layer.number].mT.float()), name


@pytest.mark.parametrize("method", ["eetq", "nvfp4"])
def test_a_quantisation_by_kernels_from_a_hub_is_refused(tmp_path, method):
    config = save_mixture(tmp_path, "mixtral") / "config.json"
    said = {"quantization_config": {"quant_method": method}}
    config.write_text(json.dumps(json.loads(config.read_text()) | said))
    with pytest.raises(ValuationError, match=f"quantised by {method}, whose code is not part of transformers"):
        load_model(tmp_path, device="cpu")


def test_experts_with_a_computation_of_their_own_are_no_linear_layers(tmp_path):
    config = AutoConfig.for_model(
        "llama4_text", **(COMMON | {"num_key_value_heads": 2, "intermediate_size_mlp": 24, "num_local_experts": 4})
    )
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(config)
    reasons = {layer.reason for layer in choose_layers(module, ("*",)).skipped if layer.name.endswith("experts")}
    assert reasons == {"Llama4TextExperts is not a linear layer"}
    with pytest.raises(ValuationError, match="matches no linear layer"):
        choose_layers(module, EXPERTS)
