from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from credit.errors import InputError, ValuationError
from credit.records import Group, Message, TrainingRecord
from credit.valuation import load_model
from credit.valuation.layers import choose_layers
from tests.models import EVERY, HIDDEN, save_tiny_model
from tests.valuation.conftest import make_output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny_model(tmp_path / "model")


def test_a_truncated_weight_file_is_named(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ValuationError, match=r"model\.safetensors is not a whole safetensors file"):
        load_model(folder)


def test_what_is_no_model_is_refused_with_the_remedy(folder, tmp_path):
    with pytest.raises(ValuationError, match="not a folder"):
        load_model(tmp_path / "nothing")
    with pytest.raises(ValuationError, match=r"no config\.json"):
        load_model(tmp_path)
    with pytest.raises(ValuationError, match="dtype 'fp8' is unknown; choose one of auto, fp32, bf16, fp16, fp64"):
        load_model(folder, dtype="fp8")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValuationError, match="pickled weights are never loaded"):
        load_model(folder)


def test_a_model_without_tokenizer_is_refused(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ValuationError, match="no tokenizer"):
        load_model(folder)


def test_skipped_layers_are_named_with_their_share(folder):
    model = load_model(folder).module
    layers = choose_layers(model, HIDDEN)
    assert {layer.name for layer in layers.skipped} >= {"lm_head", "model.embed_tokens", "model.norm"}
    sizes = [sum(parameter.numel() for parameter in part.parameters()) for part in (*layers.watched.values(), model)]
    assert sum(layer.share for layer in layers.skipped) == pytest.approx(1 - sum(sizes[:-1]) / sizes[-1])
    assert "lm_head" in choose_layers(model, EVERY).watched


def test_weights_that_are_missing_are_never_drawn_at_random(folder):
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.layers.0.mlp.down_proj.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ValuationError, match=r"lacks 1 weights of its model, such as model\.layers\.0\.mlp\.down_proj"):
        load_model(folder)


def test_weights_of_another_shape_are_refused(folder):
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"vocab_size": 320', '"vocab_size": 100'))
    with pytest.raises(ValuationError, match="cannot be loaded"):
        load_model(folder)


def test_examples_longer_than_the_models_positions_are_refused(folder):
    model = load_model(folder)
    model.encoder(64)
    with pytest.raises(InputError, match="65 tokens do not fit into the 64 positions"):
        model.encoder(65)


def test_an_output_is_read_with_all_positions_and_training_data_with_2048(folder):
    config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": 9000}
    (folder / "config.json").write_text(json.dumps(config))
    model = load_model(folder)
    assert (model.context_length, model.max_length) == (9000, 2048)
    long = " ".join(["the old cat sat"] * 800)
    (window,) = model.encoder(model.context_length).output(make_output(1, long, " on a mat"))
    assert window.size > 2048
    assert window.tokens[: window.start].tolist() == model.tokenizer(long)["input_ids"]


def test_a_chat_that_cannot_be_read_is_named(folder):
    model = load_model(folder)
    chat = (Message("system", "sing"), Message("user", "now"), Message("assistant", "la"))
    record = TrainingRecord("r7", Group("anna"), messages=chat)
    output = replace(make_output(7, "", "la"), messages=chat[:-1])
    refusals = {
        None: "the model has no chat template",
        "{{ raise_exception('no singing') }}": r"chat template refuses these messages \(no singing\)",
        "{{ messages[0].content + 1 }}": "chat template refuses these messages",
    }
    for template, reason in refusals.items():
        model.tokenizer.chat_template = template
        with pytest.raises(InputError, match=f"record r7: the model.*{reason.removeprefix('the model')}"):
            list(model.encoder(64).training(record))
        with pytest.raises(InputError, match=f"o7: the model.*{reason.removeprefix('the model')}"):
            model.encoder(64).output(output)
    model.tokenizer.chat_template = "{{ messages | length }}"
    with pytest.raises(InputError, match="record r7: the chat template does not continue its own"):
        list(model.encoder(64).training(record))


def test_a_token_without_an_embedding_is_named(folder):
    model = load_model(folder)
    model.tokenizer.add_tokens(["zebra"])
    (window,) = model.encoder(64).training(TrainingRecord("r7", Group("anna"), "a zebra sat"))
    with pytest.raises(ValuationError, match=r"r7 holds the token 3\d\d, but .* has embeddings of 320"):
        model.batch([window])
