"""Models quantised by bitsandbytes, on a CPU: gradients are those of the numbers that the integers stand for.

Skipped where bitsandbytes is missing: it is 125 MB, most of it for GPUs. `pip install bitsandbytes` is enough.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from credit.valuation import AttributionIndex, IndexSettings, build_index, load_model
from credit.valuation.hooks import GradientTap
from credit.valuation.language_model import LanguageModel
from credit.valuation.layers import choose_layers
from credit.valuation.projection import random_projections
from tests.models import EVERY, records, save_tiny_model, tiny_tokenizer
from tests.valuation import oracle
from tests.valuation.conftest import FOLDED, SINGLE, make_output
from tests.valuation.engine import example_gradients

bitsandbytes: Any = pytest.importorskip("bitsandbytes")

pytestmark = pytest.mark.filterwarnings("ignore")  # of bitsandbytes, about its kernels and its casts

KINDS = {
    "nf4": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32),
    "int8": BitsAndBytesConfig(load_in_8bit=True),
}


def _quantise(folder: Path, kind: str) -> Path:
    quantised = AutoModelForCausalLM.from_pretrained(
        save_tiny_model(folder / "plain"), quantization_config=KINDS[kind], dtype=torch.float32, device_map={"": "cpu"}
    )
    quantised.save_pretrained(folder / kind)
    tiny_tokenizer().save_pretrained(folder / kind)
    return folder / kind


def _numbers(layer: Any) -> Tensor:
    """The weight (O, I) that a quantised layer stands for, in float64."""
    weight = layer.weight
    if isinstance(layer, bitsandbytes.nn.Linear4bit):
        return bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state).double()
    scale = layer.state.SCB if weight.SCB is None else weight.SCB  # the first pass has moved it
    return weight.data.double() * scale.double()[:, None] / 127


def _dequantised(folder: Path, quantised: LanguageModel) -> LanguageModel:
    plain = load_model(folder / "plain", dtype="fp64", device="cpu")
    for name, layer in quantised.module.named_modules():
        if type(layer).__name__ in {"Linear4bit", "Linear8bitLt"}:
            plain.module.get_submodule(name).weight.data = _numbers(layer)
    return plain


# int8 also rounds the inputs of each layer to 8 bits.
@pytest.mark.parametrize(("kind", "largest"), [("nf4", 1e-5), ("int8", 0.05)])
def test_gradients_are_those_of_the_dequantised_model(tmp_path, kind, largest):
    model = load_model(_quantise(tmp_path, kind), dtype="fp32", device="cpu")
    plain = _dequantised(tmp_path, model)
    layers = choose_layers(model.module, EVERY)
    assert len(layers.watched) == 15
    projections = random_projections(layers.shapes, rank=3, seed=1)
    windows = [window for record in records({FOLDED: 3}) for window in model.encoder(64).training(record)]
    with GradientTap(model.module, layers.watched, projections) as tap:
        ours = example_gradients(model, tap, windows)
    for row, window in enumerate(windows):
        exact = oracle.projected(oracle.weight_gradients(plain, window, list(layers.watched)), projections)
        for name, gradient in exact.items():
            error = float((ours[name][row] - gradient).norm() / gradient.norm())
            assert error < largest, f"{name}: {error}"


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_of_a_quantised_model_values_outputs(tmp_path, kind):
    model = load_model(_quantise(tmp_path, kind), device="cpu")
    build_index(model, records({FOLDED: 4, SINGLE: 2}), tmp_path / "index", IndexSettings(rank=3), name="tiny")
    index = AttributionIndex.open(tmp_path / "index")
    effects = index.value(model, [make_output(0, "the cat", "sat on a mat")]).effect()
    assert effects.isfinite().all()
    assert effects.abs().max() > 0
