"""Models in parts: on a CPU and on disk they give the numbers of the whole model, to the last bit."""

from __future__ import annotations

import gc
import json
import tempfile
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from credit.errors import ValuationError
from credit.fidelity.recipes import FineTuning
from credit.records import TrainingRecord
from credit.valuation import AttributionIndex, IndexSettings, build_index, load_model
from credit.valuation import placement as placements
from credit.valuation.example_store import HeldExamples
from credit.valuation.hooks import GradientTap
from credit.valuation.language_model import LanguageModel
from credit.valuation.layers import choose_layers
from credit.valuation.placement import OffloadedWeights, Reference
from credit.valuation.probe import probe
from credit.valuation.projection import random_projections
from credit.valuation.tokens import Encoder, Window
from tests.models import EVERY, records, save_tiny_model
from tests.valuation import oracle
from tests.valuation.conftest import FOLDED, SINGLE, make_output
from tests.valuation.engine import example_gradients
from tests.valuation.mixtures import save_mixture

EVERYTHING = {"": "disk"}
BLOCKS = {
    "llama": {"": "cpu", "model.layers": "disk", "model.layers.1.self_attn": "cpu", "lm_head": "disk"},
    # Its head has the weight of its embeddings.
    "gpt2": {"transformer": "disk", "transformer.h.0": "cpu", "transformer.wte": "cpu", "lm_head": "cpu"},
}
SETTINGS = IndexSettings(rank=3, layers=EVERY, rows_per_group=4)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("placed") / request.param, request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("placed") / "llama", "llama")


def _windows(model: LanguageModel, data: list[TrainingRecord]) -> list[Window]:
    encoder = Encoder(model.tokenizer, 64)
    return [window for record in data for window in encoder.training(record)]


def _gradients(model: LanguageModel, windows: list[Window]) -> dict[str, Tensor]:
    layers = choose_layers(model.module, EVERY)
    projections = random_projections(layers.shapes, rank=3, seed=1)
    with GradientTap(model.module, layers.watched, projections) as tap:
        return dict(example_gradients(model, tap, windows))


def _bytes(index: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in index.iterdir() if path.suffix in {".safetensors", ".json"}}


@pytest.mark.parametrize("blocks", [False, True], ids=["all on disk", "in blocks"])
def test_gradients_of_a_model_in_parts_are_those_of_the_whole_and_of_autograd(folder, blocks):
    parts = BLOCKS[folder.name] if blocks else EVERYTHING
    whole = load_model(folder, dtype="fp64", device="cpu")
    placed = load_model(folder, dtype="fp64", device=json.dumps(parts))
    assert any(parameter.is_meta for parameter in placed.module.parameters())
    assert placed.device == torch.device("cpu")
    windows = _windows(whole, records({FOLDED: 4}))
    expected, ours = _gradients(whole, windows), _gradients(placed, windows)
    assert all(torch.equal(ours[name], rows) for name, rows in expected.items())
    layers = choose_layers(whole.module, EVERY)
    projections = random_projections(layers.shapes, rank=3, seed=1)
    oracle.untie(whole)  # else autograd's gradient of the head holds the embedding's too
    for row, window in enumerate(windows[:2]):
        exact = oracle.projected(oracle.weight_gradients(whole, window, list(layers.watched)), projections)
        for name, gradient in exact.items():
            torch.testing.assert_close(ours[name][row], gradient, rtol=1e-9, atol=1e-10)
    assert all(parameter.requires_grad for parameter in placed.module.parameters()), "flags are put back"


def test_an_index_built_in_parts_is_that_of_the_whole_model_to_the_last_byte(folder, tmp_path):
    data = records({FOLDED: 6, SINGLE: 2})
    outputs = [make_output(i, "the cat", "sat on a mat while rain fell") for i in range(2)]
    effects = []
    devices = {"whole": "cpu", "parts": json.dumps(BLOCKS[folder.name]), "disk": json.dumps(EVERYTHING)}
    for name, device in devices.items():
        model = load_model(folder, dtype="fp32", device=device)
        build_index(model, data, tmp_path / name, SETTINGS, name="tiny", announce=lambda _needs: None)
        index = AttributionIndex.open(tmp_path / name)
        effects.append(index.value(index.load_model(dtype="fp32", device=device), outputs).effect())
    assert _bytes(tmp_path / "whole") == _bytes(tmp_path / "parts") == _bytes(tmp_path / "disk")
    assert torch.equal(effects[0], effects[1])
    assert torch.equal(effects[0], effects[2])
    assert effects[0].abs().max() > 0


def test_a_mixture_of_experts_on_disk_is_valued_expert_by_expert(tmp_path, monkeypatch):
    folder = save_mixture(tmp_path / "mixtral", "mixtral")
    offload = tmp_path / "offload"
    offload.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(offload))
    whole = load_model(folder, dtype="fp32", device="cpu")
    placed = load_model(folder, dtype="fp32", device=json.dumps(EVERYTHING))
    assert list(offload.glob("*/*.safetensors")), "experts are fused at loading, and so not in the model's files"
    windows = _windows(whole, records({FOLDED: 2}))
    expected, ours = _gradients(whole, windows), _gradients(placed, windows)
    assert sum(".experts." in name for name in ours) == 24
    assert all(torch.equal(ours[name], rows) for name, rows in expected.items())
    del placed
    gc.collect()
    assert not list(offload.iterdir()), "the copies are gone with the model"


def test_autograd_keeps_no_weight_that_is_on_disk(llama, monkeypatch):
    placed = load_model(llama, dtype="fp32", device=json.dumps(EVERYTHING))
    weights = {tuple(p.shape) for p in placed.module.parameters() if p.dim() == 2}
    kept: list[tuple[int, ...]] = []
    references: list[Reference] = []
    pack = OffloadedWeights.pack

    def noted(self: OffloadedWeights, tensor: Tensor) -> Tensor | Reference:
        saved = pack(self, tensor)
        if isinstance(saved, Reference):
            references.append(saved)
        else:
            kept.append(tuple(saved.shape))
        return saved

    monkeypatch.setattr(OffloadedWeights, "pack", noted)
    _gradients(placed, _windows(placed, records({FOLDED: 3})))
    # All but the embeddings, whose gradient nobody asks for, and those of the lowest layers.
    assert len({(reference.module, reference.name) for reference in references}) >= 10
    transposed = {shape[::-1] for shape in weights}
    assert not {shape for shape in kept if shape in weights | transposed}
    assert not any(module._forward_pre_hooks for module in placed.module.modules())


def test_the_needs_of_a_build_do_not_count_weights_that_autograd_does_not_keep(llama):
    found = []
    for device in ("cpu", json.dumps(EVERYTHING)):
        model = load_model(llama, dtype="fp32", device=device)
        windows = _windows(model, records({FOLDED: 3}))
        layers = choose_layers(model.module, EVERY)
        found.append(probe(model, layers, HeldExamples(windows), SETTINGS, tokens_per_batch=64).batch_bytes)
    assert found[0] == pytest.approx(found[1], rel=0.05)


@pytest.mark.parametrize(
    ("device", "problem"),
    [
        ('{"model.layer.0": "cpu", "": "disk"}', "names 'model.layer.0', which the model does not have"),
        ('{"model": "cpu"}', "has no place for lm_head"),
        ('{"": "cuda:99"}', "'cuda:99' cannot be used"),
        ('{"": "meta"}', "cannot be placed on 'meta'; choose cpu, disk"),
        ('{"": true}', "cannot be used|cannot be placed"),
        ('{"": ', "no JSON object"),
        ("cuda:99", "'cuda:99' cannot be used"),
    ],
)
def test_a_placement_that_cannot_be_is_refused_with_the_reason(llama, device, problem):
    with pytest.raises(ValuationError, match=problem):
        load_model(llama, device=device)


def test_spread_fills_what_there_is(llama):
    model = load_model(llama, dtype="fp32", device="spread")
    assert not any(parameter.is_meta for parameter in model.module.parameters())


def test_parts_need_accelerate_and_say_how_to_install_it(llama, monkeypatch):
    monkeypatch.setattr(placements, "find_spec", lambda _name: None)
    with pytest.raises(ValuationError, match=r"pip install 'credit\[big\]'"):
        load_model(llama, device="spread")
    assert load_model(llama, device="cpu")


def test_adapters_and_training_refuse_a_model_in_parts_with_the_remedy(llama, tmp_path):
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(llama), config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValuationError, match="merge it into its base"):
        load_model(tmp_path / "adapter", device="spread")
    with pytest.raises(ValuationError, match="cannot be trained"):
        FineTuning(llama, device="spread")


def test_a_plain_model_has_nothing_offloaded():
    assert not OffloadedWeights(nn.Linear(2, 2))
