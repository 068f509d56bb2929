"""Models that would give numbers, all of them wrong, are refused at loading, with the remedy."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaForCausalLM,
)

from credit.errors import ValuationError
from credit.valuation import load_model
from credit.valuation.eligibility import check_model
from credit.valuation.hooks import GradientTap
from credit.valuation.language_model import LanguageModel
from credit.valuation.layers import choose_layers
from credit.valuation.projection import random_projections
from tests.models import EVERY, records, save_tiny_model, tiny_tokenizer
from tests.valuation import oracle
from tests.valuation.conftest import FOLDED
from tests.valuation.engine import example_gradients

BERT = {
    "vocab_size": 320,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 70,
    "pad_token_id": 1,
}


def _save(folder: Path, family: str, kind: Any = AutoModelForCausalLM, **changes: object) -> Path:
    torch.manual_seed(0)
    kind.from_config(AutoConfig.for_model(family, **(BERT | changes))).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("dtype", ["bf16", "fp32", "fp64"])
def test_a_model_that_looks_ahead_is_refused_with_the_python_seam(tmp_path, family, dtype):
    folder = _save(tmp_path, family)
    with pytest.raises(ValuationError, match=r"no causal language model: a later token changes.*ModuleTask"):
        load_model(folder, dtype=dtype, device="cpu")


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_the_same_architecture_is_valued_where_it_is_causal(tmp_path, family):
    assert load_model(_save(tmp_path, family, is_decoder=True), device="cpu")


@pytest.mark.parametrize("tied", [True, False])
def test_a_classifier_is_refused_by_the_weights_that_a_language_model_does_not_have(tmp_path, tied):
    folder = _save(
        tmp_path, "llama", AutoModelForSequenceClassification, tie_word_embeddings=tied, num_key_value_heads=1
    )
    expected = r"holds 1 weights that LlamaForCausalLM has no place for, such as score\.weight.*ModuleTask"
    with pytest.raises(ValuationError, match=expected if tied else r"lacks 1 weights .* lm_head"):
        load_model(folder, device="cpu")


def test_weights_that_the_class_declares_as_ignorable_are_ignored(tmp_path, monkeypatch):
    folder = _save(
        tmp_path, "llama", AutoModelForSequenceClassification, tie_word_embeddings=True, num_key_value_heads=1
    )
    monkeypatch.setattr(LlamaForCausalLM, "_keys_to_ignore_on_load_unexpected", [r"^score"])
    assert load_model(folder, device="cpu")


def test_an_adapter_of_a_classifier_is_refused(tmp_path):
    base = save_tiny_model(tmp_path / "base")
    classifier = AutoModelForSequenceClassification.from_pretrained(base, pad_token_id=0)
    adapter = get_peft_model(classifier, LoraConfig(r=2, target_modules=["q_proj"], task_type="SEQ_CLS"))
    adapter.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValuationError, match=r"weights without a place in its adapter, such as .*score.*ModuleTask"):
        load_model(tmp_path / "adapter", device="cpu")


class InOneRow(nn.Module):
    """A model whose head sees all tokens of a batch in one row: window by window, or the first of each window first."""

    def __init__(self, *, by_window: bool) -> None:
        super().__init__()
        self.embeddings, self.head = nn.Embedding(320, 8), nn.Linear(8, 320)
        self.by_window = by_window

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def forward(self, input_ids: torch.Tensor, **_kwargs: object) -> SimpleNamespace:
        x = self.embeddings(input_ids if self.by_window else input_ids.mT)
        y = self.head(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return SimpleNamespace(logits=y if self.by_window else y.transpose(0, 1))


def test_tokens_in_one_row_must_lie_window_by_window():
    check_model("model", InOneRow(by_window=True), torch.float32)
    with pytest.raises(ValuationError, match="mixes the tokens of its texts in the layer head"):
        check_model("model", InOneRow(by_window=False), torch.float32)


class Int8Linear(nn.Linear):
    """A linear layer as quantisation leaves it: integers and a scale, multiplied out in the inputs' dtype."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        scale = layer.weight.abs().max() / 127
        self.weight = nn.Parameter((layer.weight / scale).round().to(torch.int8), requires_grad=False)
        self.register_buffer("weight_scale", scale.detach())
        self.has_backward = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.linear(x, self.weight.to(x.dtype) * self.weight_scale.to(x.dtype))
        return y if self.has_backward else y.detach()


def _quantised(model: LanguageModel) -> Any:
    """Put integers in place of the weights of two layers; return the layers."""
    made = []
    for block in model.module.model.layers:
        block.mlp.up_proj = Int8Linear(block.mlp.up_proj)
        made.append(block.mlp.up_proj)
    return made


def test_gradients_in_a_quantised_layer_are_those_of_its_numbers(tmp_path):
    model = load_model(save_tiny_model(tmp_path / "model"), dtype="fp64", device="cpu")
    plain = load_model(tmp_path / "model", dtype="fp64", device="cpu")
    layers = _quantised(model)
    for block, layer in zip(plain.module.model.layers, layers, strict=True):
        block.mlp.up_proj.weight.data = layer.weight.double() * layer.weight_scale.double()
    check_model("model", model.module, torch.float64)
    chosen = choose_layers(model.module, EVERY)
    assert "model.layers.0.mlp.up_proj" in chosen.watched
    projections = random_projections(chosen.shapes, rank=3, seed=1)
    examples = [example for record in records({FOLDED: 3}) for example in model.encoder(64).training(record)]
    with GradientTap(model.module, chosen.watched, projections) as tap:
        ours = example_gradients(model, tap, examples)
    for row, example in enumerate(examples):
        exact = oracle.projected(oracle.weight_gradients(plain, example, list(chosen.watched)), projections)
        for name, gradient in exact.items():
            assert gradient.abs().max() > 0
            torch.testing.assert_close(ours[name][row], gradient, rtol=1e-7, atol=1e-10)


def test_a_quantised_layer_without_a_backward_pass_is_refused_with_the_remedy(tmp_path):
    model = load_model(save_tiny_model(tmp_path / "model"), device="cpu")
    layers = _quantised(model)
    layers[1].has_backward = False
    with pytest.raises(ValuationError, match=r"model\.layers\.1\.mlp\.up_proj \(Int8Linear\) passes no gradient.*bf16"):
        check_model("model", model.module, torch.float32)
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)
    assert model.module.get_input_embeddings().weight.requires_grad


@pytest.mark.filterwarnings("ignore")  # all of torch.ao is deprecated
def test_a_model_quantised_by_torch_is_refused(tmp_path):
    model = load_model(save_tiny_model(tmp_path / "model"), dtype="fp32", device="cpu")
    if not torch.backends.quantized.supported_engines:
        pytest.skip("this torch quantises nothing")
    quantised = torch.ao.quantization.quantize_dynamic(model.module, {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(ValuationError, match=r"is quantised, and its layer .* passes no gradient"):
        check_model("model", quantised, torch.float32)


def test_a_model_in_float8_is_read_as_the_numbers_that_it_stands_for(tmp_path):
    """As DeepSeek-V3 is published: transformers would run it by kernels from a hub."""
    folder = save_tiny_model(tmp_path / "model")
    config, file = folder / "config.json", folder / "model.safetensors"
    weights, numbers = load_file(file), {}
    for name in [name for name in weights if name.endswith("_proj.weight")]:
        scale = weights[name].abs().max() / 448
        weights[name] = (weights[name] / scale).to(torch.float8_e4m3fn)
        weights[f"{name}_scale_inv"] = scale.view(1, 1)
        numbers[name] = weights[name].float() * scale
    save_file(weights, file, metadata={"format": "pt"})
    packed = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": packed}))
    model = load_model(folder, dtype="fp32", device="cpu")
    assert len(numbers) == 14
    for name, expected in numbers.items():
        torch.testing.assert_close(model.module.get_parameter(name).float(), expected, rtol=2**-8, atol=0)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_causal_model_is_valued_in_every_dtype(tmp_path, kind):
    folder = save_tiny_model(tmp_path / "model", kind)
    assert all(load_model(folder, dtype=dtype, device="cpu") for dtype in ("bf16", "fp16", "fp32", "fp64"))
