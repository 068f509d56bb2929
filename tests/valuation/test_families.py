"""Model families as they are, without source edits: tiny random configurations against autograd."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from credit.errors import ValuationError
from credit.valuation import build_index
from credit.valuation.hooks import GradientTap
from credit.valuation.language_model import LanguageModel, load_model
from credit.valuation.layers import choose_layers
from credit.valuation.projection import random_projections
from credit.valuation.tokens import Encoder
from tests.models import EVERY, hidden_settings, records, tiny_tokenizer
from tests.valuation import oracle
from tests.valuation.conftest import FOLDED
from tests.valuation.engine import example_gradients

COMMON = {
    "vocab_size": 320,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
FAMILIES = {
    "llama": {"num_key_value_heads": 1},
    "mistral": {"num_key_value_heads": 1, "sliding_window": 8},
    "qwen2": {"num_key_value_heads": 1, "tie_word_embeddings": True},
    "qwen3": {"num_key_value_heads": 1, "head_dim": 8},
    "gemma": {"num_key_value_heads": 1, "head_dim": 8},
    "gemma2": {"num_key_value_heads": 1, "head_dim": 8, "sliding_window": 8},
    "phi": {},
    "phi3": {"num_key_value_heads": 1},
    "gpt_neox": {},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "falcon": {},  # adds to the output of a layer in place
    "mixtral": {"num_key_value_heads": 1, "num_local_experts": 4, "num_experts_per_tok": 2},
    # Its shared expert, with a gate, sees all tokens of a batch in one row.
    "qwen2_moe": {"num_key_value_heads": 1, "num_experts": 4, "shared_expert_intermediate_size": 12},
}
MIXTURES = {"mixtral", "qwen2_moe"}
"""Their experts themselves are in test_experts.py."""


def _save(folder: Path, family: str, extra: Mapping[str, object]) -> LanguageModel:
    torch.manual_seed(0)
    common = {} if family == "gpt2" else COMMON
    ids = {"vocab_size": 320, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = AutoConfig.for_model(family, **(common | ids | extra))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return load_model(folder, dtype="fp64", device="cpu")


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_every_family_equal_autograds(tmp_path, family):
    model = _save(tmp_path, family, FAMILIES[family])
    layers = choose_layers(model.module, (*EVERY, "!*.experts.*") if family in MIXTURES else EVERY)
    assert len(layers.watched) >= 9, f"{family}: {list(layers.watched)}"
    assert list(choose_layers(model.module).watched) == list(layers.heads), "the head is what is watched by default"
    projections = random_projections(layers.shapes, rank=3, seed=1)
    encoder = Encoder(model.tokenizer, 64)
    examples = [example for record in records({FOLDED: 4}) for example in encoder.training(record)]
    with GradientTap(model.module, layers.watched, projections) as tap:
        ours = example_gradients(model, tap, examples)
    oracle.untie(model)  # else autograd's gradient of the head holds the embedding's too
    for row, example in enumerate(examples):
        exact = oracle.projected(oracle.weight_gradients(model, example, list(layers.watched)), projections)
        for name, gradient in exact.items():
            torch.testing.assert_close(
                ours[name][row], gradient, rtol=1e-7, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
            )


def test_an_adapter_is_valued_on_base_layers_adapter_layers_or_both(tmp_path):
    base = _save(tmp_path / "base", "llama", FAMILIES["llama"])
    torch.manual_seed(1)
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tmp_path / "base"),
        LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False, task_type="CAUSAL_LM"),
    )
    adapted.save_pretrained(tmp_path / "adapter")
    model = load_model(tmp_path / "adapter", dtype="fp64", device="cpu")
    assert model.model_sha256 != base.model_sha256
    both = choose_layers(model.module, EVERY)
    adapters = choose_layers(model.module, ["*lora_*"])
    plain = choose_layers(model.module, ["!*lora_*"])
    assert len(adapters.watched) == 2 * 2 * 2
    assert set(both.watched) == set(adapters.watched) | set(plain.watched)
    example = next(Encoder(model.tokenizer, 64).training(records({FOLDED: 1})[0]))
    projections = random_projections(both.shapes, rank=3, seed=1)
    with GradientTap(model.module, both.watched, projections) as tap:
        ours = example_gradients(model, tap, [example])
    exact = oracle.projected(oracle.weight_gradients(model, example, list(both.watched)), projections)
    for name, gradient in exact.items():
        torch.testing.assert_close(ours[name][0], gradient, rtol=1e-7, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("how", [{"modules_to_save": ["lm_head"]}, {"target_modules": ["q_proj", "lm_head"]}], ids=str)
def test_a_head_that_an_adapter_has_changed_is_still_the_head(tmp_path, how):
    _save(tmp_path / "base", "llama", FAMILIES["llama"])
    torch.manual_seed(1)
    config = LoraConfig(r=2, init_lora_weights=False, task_type="CAUSAL_LM", **({"target_modules": ["q_proj"]} | how))
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), config)
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    model = load_model(tmp_path / "adapter", dtype="fp64", device="cpu")
    head = "modules_to_save.default" if "modules_to_save" in how else "base_layer"
    assert list(choose_layers(model.module).watched) == [f"base_model.model.lm_head.{head}"]
    every = choose_layers(model.module, EVERY)
    wide = {shape.name for shape in every.shapes if shape.out_width == 320}
    assert every.heads == wide, "no side as wide as the vocabulary may have a dense projection"
    assert not any("original_module" in name for name in every.watched), "it is never run"
    example = next(Encoder(model.tokenizer, 64).training(records({FOLDED: 1})[0]))
    projections = random_projections(every.shapes, rank=3, seed=1)
    with GradientTap(model.module, every.watched, projections) as tap:
        ours = example_gradients(model, tap, [example])
    exact = oracle.projected(oracle.weight_gradients(model, example, list(every.watched)), projections)
    for name, gradient in exact.items():
        torch.testing.assert_close(ours[name][0], gradient, rtol=1e-7, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("curvature", ["fisher", "ekfac"])
def test_a_layer_whose_weight_is_used_without_running_it_is_named_with_the_remedy(tmp_path, curvature):
    model = _save(tmp_path, "mamba", {"state_size": 4})  # multiplies by dt_proj.weight
    settings = hidden_settings(rank=2, curvature=curvature)
    with pytest.raises(
        ValuationError, match=r"mixer\.dt_proj took .* --layers '!backbone\.layers\.\*\.mixer\.dt_proj'"
    ):
        build_index(model, records({FOLDED: 2}), tmp_path / "index", settings, name="tiny")
    settings = hidden_settings(rank=2, curvature=curvature, layers=("!lm_head", "!*dt_proj"))
    assert build_index(model, records({FOLDED: 2}), tmp_path / "other", settings, name="tiny").manifest.examples == 2


def test_an_adapter_of_virtual_tokens_is_refused(tmp_path):
    _save(tmp_path / "base", "llama", FAMILIES["llama"])
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tmp_path / "base"),
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    )
    adapted.save_pretrained(tmp_path / "adapter")
    model = load_model(tmp_path / "adapter", dtype="fp64", device="cpu")
    warnings.simplefilter("ignore")  # of PEFT, about a cache that is not used; pytest puts filters back
    with pytest.raises(ValuationError, match="as an adapter of virtual tokens does"):
        build_index(model, records({FOLDED: 4}), tmp_path / "index", hidden_settings(layers=()), name="tiny")


def test_an_adapter_without_its_base_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "somebody/some-model"}')
    with pytest.raises(ValuationError, match="set base_model_name_or_path"):
        load_model(tmp_path)


def test_an_adapter_whose_weights_are_missing_in_part_is_refused(tmp_path):
    _save(tmp_path / "base", "llama", FAMILIES["llama"])
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tmp_path / "base"),
        LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    )
    adapted.save_pretrained(tmp_path / "adapter")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(weights)
    save_file(dict(list(tensors.items())[1:]), weights)
    with pytest.raises(ValuationError, match="lacks weights of its adapter"):
        load_model(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text("{")
    with pytest.raises(ValuationError, match="does not name a base model"):
        load_model(tmp_path / "adapter")
