"""What a model learned of everybody's text tells whose text it was never trained on."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM

from credit.cli.main import cli
from credit.errors import InputError
from credit.fidelity.membership import WindowSample, what_was_learned
from credit.fidelity.recipes import Recipe
from credit.records import Group, Share, TrainingRecord
from credit.valuation import load_model
from credit.valuation.language_model import LanguageModel
from credit.valuation.tokens import Encoder
from tests.fidelity.authors import LEXICONS
from tests.models import save_tiny_model, tiny_tokenizer

STRANGER = "lawyer"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe, records: Sequence[TrainingRecord]) -> Path:
    """A checkpoint from the middle of a training that never saw the stranger's text, and the model it ended with."""
    folder = tmp_path_factory.mktemp("run")
    seen = [record for record in records if record.group.provider != STRANGER]
    for name, until in (("middle", 0.5), ("end", 1.0)):
        recipe.train(seen, 0, folder / name, until=until)
    return folder


def loaders(*folders: Path) -> list[Callable[[], LanguageModel]]:
    return [partial(load_model, folder, dtype="fp32") for folder in folders]


def test_the_one_whose_text_was_never_trained_on_is_named_and_nobody_else(run, records):
    found = what_was_learned(loaders(run / "middle", run / "end"), records)
    assert [item.provider for item in found] == sorted(LEXICONS)
    assert {item.provider for item in found if item.doubted} == {STRANGER}
    assert all(item.relative.low <= item.relative.value <= item.relative.high for item in found)


def test_what_was_learned_is_the_fall_of_the_loss_per_token_beside_that_of_the_others(run, records):
    """Against one text at a time, without batches or padding."""
    records = [replace(record, completion=record.completion[:40]) for record in records]  # each fits into one window
    found = {item.provider: item for item in what_was_learned(loaders(run / "middle", run / "end"), records)}
    tokenizer = load_model(run / "end").tokenizer
    nats: dict[str, list[float]] = {}
    for name in ("middle", "end"):
        module = AutoModelForCausalLM.from_pretrained(run / name).double().eval()
        for author in LEXICONS:
            losses, tokens = 0.0, 0
            for record in records:
                if record.group.provider == author:
                    ids = torch.tensor([tokenizer(record.completion)["input_ids"]])
                    with torch.no_grad():
                        losses += float(module(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
                    tokens += ids.shape[1] - 1
            nats.setdefault(author, []).append(losses / tokens)
            assert found[author].tokens == tokens
    fell = {author: before - after for author, (before, after) in nats.items()}
    for author, item in found.items():
        assert [item.before, item.after] == pytest.approx(nats[author], rel=1e-5)
        others = np.median([fell[other] for other in LEXICONS if other != author])
        assert item.relative.value == pytest.approx(fell[author] / others, rel=1e-4)


def test_a_checkpoint_of_a_recipe_is_what_the_whole_run_had_then(tmp_path, recipe, records, monkeypatch):
    short = replace(recipe, epochs=1)
    short.train(records, 0, tmp_path / "until", until=0.5)
    steps: list[dict[str, torch.Tensor]] = []
    step = torch.optim.AdamW.step

    def watched(self, *arguments: Any, **options: Any) -> Any:
        result = step(self, *arguments, **options)
        steps.append({str(i): p.detach().clone() for i, p in enumerate(self.param_groups[0]["params"])})
        return result

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    short.train(records, 0, tmp_path / "whole")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "until")
    middle = steps[round(0.5 * len(steps)) - 1]
    assert len(steps) > 2
    assert all(torch.equal(p, middle[str(i)]) for i, p in enumerate(saved.parameters()))


def test_a_sample_is_bounded_and_does_not_depend_on_the_order_of_the_data(records):
    def drawn(data: Sequence[TrainingRecord], tokens: int) -> tuple[dict[str, list[str]], Any]:
        sample = WindowSample(Encoder(tiny_tokenizer(), 64), tokens)
        for record in data:
            sample.add(record)
        return {name: [window.id for window in part] for name, part in sample.windows().items()}, sample.windows()

    ids, windows = drawn(records, 200)
    shuffled = random.Random(0).sample(records, len(records))
    assert drawn(shuffled, 200)[0] == ids
    for part in windows.values():
        tokens = [window.predicted for window in part]
        assert sum(tokens[:-1]) < 200 <= sum(tokens)
    everything, _ = drawn(records, 10**6)
    encoder = Encoder(tiny_tokenizer(), 64)
    assert sorted(name for part in everything.values() for name in part) == sorted(
        window.id for record in records for window in encoder.training(record)
    )
    assert all(set(ids[name]) < set(everything[name]) for name in LEXICONS)
    assert all(len(part) == 1 for part in drawn(records, 1)[0].values())


def test_a_shared_record_is_read_for_each_of_its_providers(records):
    shares = (Share(Group("ann"), 700_000), Share(Group("ben"), 300_000))
    shared = TrainingRecord("s", None, "the cat sat on a mat", splits=shares)
    sample = WindowSample(Encoder(tiny_tokenizer(), 64))
    sample.add(shared)
    assert {name: [window.id for window in part] for name, part in sample.windows().items()} == {
        "ann": ["s"],
        "ben": ["s"],
    }


def test_what_cannot_be_told_is_refused_with_the_reason(run, records, tmp_path):
    with pytest.raises(InputError, match=r"learned too little since the earlier checkpoint.*name an earlier one"):
        what_was_learned(loaders(run / "end", run / "end"), records)
    two = [record for record in records if record.group.provider in {"baker", "sailor"}]
    with pytest.raises(InputError, match="2 are too few, at least 3"):
        what_was_learned(loaders(run / "middle", run / "end"), two)
    other = save_tiny_model(tmp_path / "other")
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["zebra"])
    tokenizer.save_pretrained(other)
    with pytest.raises(InputError, match="another vocabulary"):
        what_was_learned(loaders(other, run / "end"), records)
    broken = AutoModelForCausalLM.from_pretrained(run / "end")
    with torch.no_grad():
        broken.lm_head.weight.fill_(float("nan"))
    broken.save_pretrained(tmp_path / "broken")
    load_model(run / "end").tokenizer.save_pretrained(tmp_path / "broken")
    with pytest.raises(InputError, match="text of baker is not finite"):
        what_was_learned(loaders(run / "middle", tmp_path / "broken"), records)


def test_the_command_says_whom_to_ask_about(run, records, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"id": r.id, "provider": r.group.provider, "text": r.completion} for r in records]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    call = ["membership", str(run / "end"), str(run / "middle"), "train.jsonl", "--dtype", "fp32"]
    said = CliRunner().invoke(cli, call)
    assert said.exit_code == 0, said.output
    assert f"{STRANGER}: the model learned nothing of it" in said.stdout
    assert said.stdout.count("Was it trained") == 1
    facts = json.loads(CliRunner().invoke(cli, [*call, "--json"]).stdout)["providers"]
    assert {item["provider"]: item["doubted"] for item in facts} == {name: name == STRANGER for name in LEXICONS}
    honest = [row for row in rows if row["provider"] != STRANGER]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in honest))
    assert "none stands out" in CliRunner().invoke(cli, call).stdout
