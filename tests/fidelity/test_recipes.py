"""Fine-tuning by the Hugging Face Trainer: all weights, or an adapter that leaves the base as it is."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from credit.fidelity.recipes import FineTuning
from credit.fidelity.retraining import log_likelihoods
from credit.records import Group
from credit.valuation.language_model import LanguageModel, load_model
from tests.ledger.samples import logged
from tests.models import records, save_tiny_model


@pytest.fixture(scope="module")
def tuning(tmp_path_factory: pytest.TempPathFactory) -> FineTuning:
    base = save_tiny_model(tmp_path_factory.mktemp("base"))
    return FineTuning(base, steps=12, learning_rate=5e-3, max_length=64, device="cpu")


def _train(tuning: FineTuning, folder: Path, seed: int = 0) -> LanguageModel:
    with warnings.catch_warnings():
        # peft asks transformers for it by its old name while it loads.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        tuning.train(records({Group("a"): 24}), seed, folder)
    return load_model(folder, dtype="fp32", device="cpu")


@pytest.mark.parametrize("lora", [None, 4])
def test_it_learns_from_the_base_and_the_seed_decides_what(tuning, tmp_path, capsys, lora):
    recipe = replace(tuning, lora=lora)
    text = [logged(1, prompt="", completion=record.completion) for record in records({Group("a"): 24})[:4]]
    before = log_likelihoods(load_model(tuning.base, dtype="fp32"), text, 64)
    first, again, other = (_train(recipe, tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    after = log_likelihoods(first, text, 64)
    assert after.sum() > before.sum() + 5, "the model did not learn"
    assert isinstance(first.module, PeftModel) == (lora is not None)
    assert (log_likelihoods(again, text, 64) == after).all()
    assert (log_likelihoods(other, text, 64) != after).any()
    assert capsys.readouterr().out == "", "standard output is the command's"


def test_an_adapter_leaves_the_base_as_it_is(tuning, tmp_path):
    adapted = _train(replace(tuning, lora=2), tmp_path / "adapter")
    base = load_model(tuning.base, dtype="fp32", device="cpu").module.state_dict()
    found = {
        name.replace("base_model.model.", "").replace(".base_layer", ""): value
        for name, value in adapted.module.state_dict().items()
        if "lora_" not in name
    }
    assert found.keys() == base.keys()
    assert all(torch.equal(found[name], base[name]) for name in base)


def test_every_setting_is_in_the_fingerprint(tuning):
    others = [
        replace(tuning, lora=4), replace(tuning, epochs=2.0), replace(tuning, steps=3), replace(tuning, batch_size=4),
        replace(tuning, learning_rate=1e-3), replace(tuning, max_length=32),
    ]  # fmt: skip
    assert len({recipe.fingerprint("m") for recipe in [tuning, *others]} | {tuning.fingerprint("n")}) == len(others) + 2
    assert replace(tuning, base=tuning.base / "moved").fingerprint("m") == tuning.fingerprint("m")
