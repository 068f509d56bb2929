"""`credit explain output`: from a logged output to training examples."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from credit.cli.main import cli
from tests.models import save_tiny_model, sentence


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    save_tiny_model(folder / "tiny")
    records = [{"id": f"r{i}", "provider": "ann" if i % 2 else "ben", "text": sentence(i, 8)} for i in range(80)]
    del records[7]["provider"]
    records[7]["splits"] = [{"provider": "ann", "share": 0.6}, {"provider": "ben", "share": 0.4}]
    (folder / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "providers.csv").write_text("key,name\nann,Ann\nben,Ben\n")
    output = {"id": "copied", "occurred_at": "2026-01-01T00:00:00Z", "model": "tiny", "completion": records[7]["text"]}
    (folder / "outputs.jsonl").write_text(json.dumps(output) + "\n")
    return folder


def test_the_passage_that_an_output_copies_is_shown_not_the_beginning_of_its_record(workspace, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    novel = [sentence(i, 8) for i in range(40)]
    data = [
        {"id": "novel", "provider": "ann", "text": " ".join(novel)},
        {"id": "b", "provider": "ben", "text": "hills"},
    ]
    Path("train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in data))
    output = {"id": "copied", "occurred_at": "2026-01-01T00:00:00Z", "model": "tiny", "completion": novel[23]}
    Path("outputs.jsonl").write_text(json.dumps(output) + "\n")

    def run(*arguments: object) -> str:
        result = CliRunner().invoke(cli, list(arguments))
        assert result.exit_code == 0, result.output
        return result.output

    run("init")
    run("providers", "import", str(workspace / "providers.csv"))
    run("index", str(workspace / "tiny"), "train.jsonl", "--out", "index", "--rank", "8", "--example-length", "16")
    run("ingest-outputs", "outputs.jsonl")
    found = json.loads(run("explain", "output", "copied", "train.jsonl", "--top", "3", "--json"))
    best = found["examples"][0]["id"]
    assert re.fullmatch(r"novel(#\d+)?\[\d+:\d+\]", best)
    assert set(found["texts"]) == {example["id"] for example in found["examples"]}
    shown = found["texts"][best].split()
    assert 3 <= len(shown) <= 17
    assert " ".join(shown[1:-1]) in " ".join(novel)
    assert set(shown[1:-1]) & set(novel[23].split())


def test_the_example_that_an_output_copies_comes_first_with_its_text(workspace, monkeypatch):
    monkeypatch.chdir(workspace)

    def run(*arguments: object, code: int = 0) -> str:
        result = CliRunner().invoke(cli, list(arguments))
        assert result.exit_code == code, result.output
        return result.output

    run("init")
    run("providers", "import", "providers.csv")
    run("index", "tiny", "train.jsonl", "--out", "index", "--rank", "8")
    run("ingest-outputs", "outputs.jsonl")
    assert "is folded" in run("explain", "output", "copied", code=1)
    found = json.loads(run("explain", "output", "copied", "train.jsonl", "--top", "3", "--json"))
    assert found["examples"][0]["id"] == "r7"
    assert found["texts"]["r7"] == sentence(7, 8)
    assert len(found["examples"]) == 3
    everything = json.loads(run("explain", "output", "copied", "train.jsonl", "--top", "100", "--json"))
    shares = {item["group"]["provider"]: item for item in everything["examples"] if item["id"] == "r7"}
    assert {provider: item["ppm"] for provider, item in shares.items()} == {"ann": 600_000, "ben": 400_000}
    assert shares["ann"]["influence"] * 2 == pytest.approx(shares["ben"]["influence"] * 3)
    others = run("explain", "output", "copied", "train.jsonl", "--provider", "ben", "--top", "100")
    assert "ann/default" not in others
    assert "ben/default   r7 (0.4 of it)" in others
    (workspace / "mapped.jsonl").write_text((workspace / "train.jsonl").read_text().replace('"text"', '"content"'))
    mapped = run("explain", "output", "copied", "mapped.jsonl", "--field", "text=content", "--top", "1")
    assert sentence(7, 8) in mapped
    assert "no output 'nope'" in run("explain", "output", "nope", code=1)
    (workspace / "index").rename(workspace / "moved")
    assert "credit compute --index DIR" in run("explain", "output", "copied", code=1)
    run("compute", "--index", "moved")
    assert "r7" in run("explain", "output", "copied", "train.jsonl")
    (workspace / "tiny").rename(workspace / "elsewhere")
    assert "is not there any more; say where it was moved with --model DIR" in run(
        "explain", "output", "copied", "train.jsonl", code=1
    )
    assert "r7" in run("explain", "output", "copied", "train.jsonl", "--model", "elsewhere")
