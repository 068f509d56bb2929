"""Options of `credit index` that decide what goes into an index, as typed, without a ledger."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from credit.cli.main import cli
from credit.errors import EXIT_FAILED, EXIT_PARTIAL, EXIT_USAGE
from credit.valuation import load_model
from tests.models import records, save_tiny_model
from tests.valuation.conftest import FOLDED, SINGLE

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `credit index` on a tiny model and its data in a fresh folder; further arguments follow."""
    save_tiny_model(tmp_path / "model")
    lines = [
        {"id": record.id, "provider": record.group.provider, "text": record.completion}
        for record in records({FOLDED: 6, SINGLE: 3})
    ]
    lines.append({"id": "odd", "provider": "ann", "text": "z z z"})
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def credit(*arguments: str, code: int = 0) -> Result:
        fixed = ["index", tmp_path / "model", tmp_path / "train.jsonl", "--out", tmp_path / "index", "--no-register"]
        result = CliRunner().invoke(
            cli, [str(part) for part in (*fixed, "--data-dir", tmp_path / "data", "--rank", "4", *arguments)]
        )
        assert result.exit_code == code, result.output
        return result

    return credit


def test_what_is_not_finite_ends_the_build_or_is_named_and_left_out(run, tmp_path):
    model = load_model(tmp_path / "model")
    (token,) = model.tokenizer("z", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        model.module.get_input_embeddings().weight[token] = float("nan")
    model.module.save_pretrained(tmp_path / "model")
    assert "the gradient of odd is not finite" in run(code=EXIT_FAILED).stderr
    said = run("--non-finite", "exclude", code=EXIT_PARTIAL)
    assert "9 examples" in said.stdout
    assert "left out, as their gradient is not finite: odd" in said.stdout
    facts = json.loads(run("--non-finite", "exclude", "--json", code=EXIT_PARTIAL).stdout)
    assert (facts["existed"], facts["excluded"], facts["examples"]) == (True, ["odd"], 9)
    assert "--non-finite exclude" in run(code=EXIT_FAILED).stderr


def test_the_weighting_is_part_of_what_an_index_is(run):
    first = json.loads(run("--weighting", "relatif", "--json").stdout)
    assert json.loads(run("--weighting", "relatif", "--json").stdout)["existed"]
    assert "other settings" in run("--weighting", "unit", code=EXIT_FAILED).stderr
    assert first["excluded"] == []


def test_ranks_are_given_for_all_layers_for_sides_and_by_pattern(run, tmp_path):
    run("--rank", "in=6,out=3", "--rank", "*.mlp.*:2")
    settings = json.loads((tmp_path / "index" / "manifest.json").read_text())["settings"]
    assert (settings["rank"], settings["ranks"]) == (4, ["in=6,out=3", "*.mlp.*:2"])
    assert "cannot be read" in run("--rank", "much", "--out", str(tmp_path / "other"), code=EXIT_FAILED).stderr


def test_further_checkpoints_are_folders_with_weights(run, tmp_path):
    other = save_tiny_model(tmp_path / "run:2", seed=1)
    facts = json.loads(run("--checkpoint", f"{other}:0.25", "--json").stdout)
    assert facts["checkpoints"] == [0.25]
    again = run("--checkpoint", f"{other}:0.25")
    assert "was there already" in again.stdout
    assert "checkpoints: 1 beside the model" in again.stdout
    assert "name all of them" in run(code=EXIT_FAILED).stderr
    assert "such as runs/step-500:0.5" in run("--checkpoint", "model:heavy", code=EXIT_USAGE).stderr
    assert "and no weight" in run("--checkpoint", f"{other}:0.5", "--update", code=EXIT_USAGE).stderr
    moved = other.rename(tmp_path / "moved")
    assert "is not there any more" in run("--withdraw", "ben", code=EXIT_FAILED).stderr
    assert "revised" in run("--withdraw", "ben", "--checkpoint", str(moved)).stdout
    moved.rename(other)
    assert "was there already" in run("--withdraw", "ben").stdout
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    assert [member["manifest"] for member in manifest["checkpoints"]] == ["manifest.v1.json"]


def test_time_memory_and_disk_are_said_before_the_build(run):
    said = run().stderr
    assert re.search(
        r"the index needs (less than|about) .* on this machine, .* of memory beside the model, .* of disk", said
    )
    assert "needs" not in run().stderr, "there is nothing left to do"


def test_a_full_disk_is_named_wherever_it_is_met(run, monkeypatch):
    def write(*_args):
        raise OSError(errno.ENOSPC, "No space left on device", "data/quarantine/x.jsonl")

    monkeypatch.setattr("credit.pipeline.indexing.index_training_data", write)
    said = run(code=EXIT_FAILED)
    assert said.stderr.strip() == "Error: data/quarantine/x.jsonl cannot be written: no space is left on the device"
