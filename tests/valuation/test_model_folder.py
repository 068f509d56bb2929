"""A model folder may come from anybody: nothing in it runs, and a bad file is named in one line."""

from __future__ import annotations

import json
import resource
import shutil
import sys
import threading
from pathlib import Path

import pytest

from credit.errors import InputError, IntegrityError, ValuationError
from credit.records import Group, Message, TrainingRecord
from credit.valuation import chats, load_model
from credit.valuation.manifest import read_manifest
from tests.models import save_tiny_model

DEEP = "[" * 100_000
CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
Path({canary!r}).touch()
class Config(LlamaConfig): model_type = "planted"
class Model(LlamaForCausalLM): config_class = Config
class Tokenizer(PreTrainedTokenizerFast): pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny_model(tmp_path / "model")


def change(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(folder: Path, words: str) -> None:
    with pytest.raises(ValuationError, match=words) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("part", ["model", "tokenizer"])
def test_code_of_a_model_folder_is_not_run_whatever_the_terminal_answers(folder, tmp_path, monkeypatch, part):
    canary = tmp_path / "canary"
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    (folder / "planted.py").write_text(CODE.format(canary=str(canary)))
    if part == "model":
        places = {"AutoConfig": "planted.Config", "AutoModelForCausalLM": "planted.Model"}
        change(folder / "config.json", model_type="planted", auto_map=places)
        refused(folder, "cannot be loaded as a causal language model")
    else:
        places = {"AutoTokenizer": ["planted.Tokenizer", "planted.Tokenizer"]}
        change(folder / "tokenizer_config.json", tokenizer_class="Tokenizer", auto_map=places)
        refused(folder, "cannot be loaded as a causal language model")
    assert not canary.exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("content", ["[]", "null", "{", "\xff", '{"a": ' + DEEP, DEEP, "{}"], ids=range(7))
def test_a_file_that_is_no_object_is_named(folder, name, content):
    (folder / name).write_bytes(content.encode("latin-1"))
    if (name, content) == ("tokenizer_config.json", "{}"):
        load_model(folder)
    else:
        refused(folder, "cannot be loaded" if (name, content) == ("config.json", "{}") else name.replace(".", r"\."))


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_attention_from_a_hub_is_refused(folder, key):
    change(folder / "config.json", **{key: "kernels-community/flash-attn"})
    refused(folder, r"config\.json asks for the attention 'kernels-community/flash-attn'")
    change(folder / "config.json", **{key: {"": "sdpa", "text_config": "somebody/kernel"}})
    refused(folder, "asks for the attention 'somebody/kernel'")
    change(folder / "config.json", **{key: "eager"})
    assert load_model(folder).module.config._attn_implementation == "eager"


def test_weights_come_from_the_folders_own_safetensors(folder, tmp_path):
    change(folder / "config.json", transformers_weights="adapter_model.bin")
    refused(folder, "names its weights")
    change(folder / "config.json", transformers_weights=None)
    refused(folder, "names its weights")


def test_a_link_out_of_the_folder_is_refused_and_a_snapshot_of_the_cache_is_not(folder, tmp_path):
    weights, blobs = folder / "model.safetensors", tmp_path / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    shutil.move(weights, blobs / "0f")
    weights.symlink_to(blobs / "0f")
    refused(folder, "is a link out of its folder")
    snapshot = tmp_path / "models--a--b" / "snapshots" / "1"
    snapshot.parent.mkdir()
    shutil.move(folder, snapshot)
    assert load_model(snapshot)
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to("model.safetensors")
    refused(snapshot, "is a link to nothing")


@pytest.mark.parametrize("named", [None, 5, "\0", "nowhere", "self", "adapter"])
def test_an_adapter_without_a_base_model_is_named(folder, tmp_path, named):
    if named == "adapter":
        shutil.copytree(folder, tmp_path / "adapter")
        (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    places = {"self": str(folder), "adapter": str(tmp_path / "adapter")}
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": places.get(named, named)}))
    refused(folder, r"adapter_config\.json (does not name|names) ")
    (folder / "adapter_config.json").write_text(DEEP)
    refused(folder, r"adapter_config\.json does not name a base model \(its JSON is nested too deeply")


def test_pickled_weights_of_an_adapter_are_refused(folder, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    shutil.copy(folder / "model.safetensors", adapter / "other.safetensors")
    (adapter / "adapter_model.bin").write_bytes(b"")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(folder)}))
    refused(adapter, r"holds no adapter_model\.safetensors file; .*pickled weights are never loaded")


def test_a_deep_manifest_is_damaged(tmp_path):
    (tmp_path / "manifest.json").write_text('{"format_version": ' + DEEP)
    with pytest.raises(IntegrityError, match=r"manifest\.json is damaged \(its JSON is nested too deeply\)"):
        read_manifest(tmp_path)


LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize("template", [LOOPS, "{{ 10 ** (10 ** 9) }}"])
def test_a_template_that_does_not_end_is_stopped(folder, monkeypatch, template):
    monkeypatch.setattr(chats, "TEMPLATE_SECONDS", 0.2)
    model = load_model(folder)
    model.tokenizer.chat_template = template
    chat = (Message("user", "now"), Message("assistant", "la"))
    with pytest.raises(InputError, match=r"record r7: the model's chat template is not done after 0\.2 seconds"):
        list(model.encoder(64).training(TrainingRecord("r7", Group("anna"), messages=chat)))


TEXTS = "{% set n = namespace(all='aa') %}{% for a in range(99) %}{% set n.all = n.all ~ n.all %}{% endfor %}"
LISTS = "{% set n = namespace(all=[[]]) %}{% for a in range(99) %}{% set n.all = n.all * 9999 %}{% endfor %}"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems limit no memory")
@pytest.mark.parametrize("template", ["{{ 'a' * 10 ** 10 }}", "{{ '%10000000000d' % 1 }}", TEXTS, LISTS])
def test_a_template_gets_no_more_memory_than_its_limit(folder, monkeypatch, template):
    monkeypatch.setattr(chats, "TEMPLATE_BYTES", 64 << 20)
    model = load_model(folder)
    model.tokenizer.chat_template = template
    chat = (Message("user", "now"), Message("assistant", "la"))
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(InputError, match="record r7: the model's chat template takes more than 64 MiB of memory"):
        list(model.encoder(64).training(TrainingRecord("r7", Group("anna"), messages=chat)))
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_a_template_that_makes_too_much_text_is_refused(folder):
    model = load_model(folder)
    model.tokenizer.chat_template = "{{ 'a' * 200000 }}"
    chat = (Message("user", "now"), Message("assistant", "la"))
    with pytest.raises(InputError, match="record r7: the model's chat template makes 200000 characters"):
        list(model.encoder(64).training(TrainingRecord("r7", Group("anna"), messages=chat)))


def test_a_template_is_rendered_in_any_thread(folder):
    model = load_model(folder)
    model.tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    chat = (Message("user", "now"), Message("assistant", "la"))
    found = []
    record = TrainingRecord("r7", Group("anna"), messages=chat)
    thread = threading.Thread(target=lambda: found.extend(model.encoder(64).training(record)))
    thread.start()
    thread.join()
    assert len(found) == 1
