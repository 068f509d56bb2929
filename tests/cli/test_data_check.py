"""`credit data check`: what an index would take of training data, before it is built."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner

from credit.cli.main import cli
from credit.errors import EXIT_PARTIAL
from tests.models import save_tiny_model, sentence

COPIED = sentence(1, 40)
ROWS = [
    {"id": "a1", "provider": "ann", "text": COPIED, "license": "cc-by-4.0"},
    {"id": "a2", "provider": "ann", "text": sentence(2, 200), "license": "cc-by-4.0"},
    {"id": "a3", "provider": "ann", "text": COPIED},
    {"id": "b1", "provider": "ben", "text": f"{COPIED} and more", "tdm-reservation": 1},
    {"id": "b2", "provider": "ben", "text": " "},
    {"id": "b3", "provider": "ben", "messages": [{"role": "assistant", "content": "y"}]},
    {"id": "z1", "provider": "zoe", "text": "an <b>old</b> song"},
    {"id": "l1", "provider": "ben", "text": "a"},
]


@pytest.fixture
def check(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_tiny_model(tmp_path / "model", "gpt2")
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "providers.csv").write_text("key,name\nann,Ann\nben,Ben\n")

    def credit(*arguments, code=0):
        result = CliRunner().invoke(cli, list(arguments))
        assert result.exit_code == code, result.output
        return result.stdout

    credit("init")
    credit("providers", "import", "providers.csv")
    return credit


def test_it_counts_what_an_index_takes_and_names_what_it_leaves_out(check, tmp_path):
    command = ("data", "check", "train.jsonl", "--model", "model")
    found = json.loads(check(*command, "--json", code=EXIT_PARTIAL))["check"]
    built = json.loads(check("index", "model", "train.jsonl", "--out", "i", "--dry-run", "--json", code=EXIT_PARTIAL))
    assert found["tokens"] - next(p for p in found["providers"] if p["provider"] == "zoe")["tokens"] == built["tokens"]
    assert found["records"] - found["unknown"] == sum(built["records"].values()) == 3
    assert (found["quarantined"], found["unknown"], found["empty"], found["repeats"]) == (2, 1, 1, 1)
    assert found["quarantined"] + found["unknown"] == built["quarantined"]
    assert found["over_long"] == 1, "200 words are longer than 64 positions"
    assert [(p["provider"], p["known"], p["forbidding"]) for p in found["providers"]] == [
        ("ann", True, 0),
        ("ben", True, 1),
        ("zoe", False, 0),
    ]
    assert {(copy["id"], copy["other"]) for copy in found["near_copies"]} == {("a1", "ben"), ("b1", "ann")}
    assert found["licences"] == [{"text": "cc-by-4.0", "records": 2, "place": ""}]
    assert found["forbidding"] == [{"text": "tdm_reservation: 1", "records": 1, "place": "train.jsonl:4"}]
    assert any("record b3: the model has no chat template" in problem for problem in found["problems"])


def test_the_table_and_the_page_tell_the_same(check, tmp_path):
    table = check("data", "check", "train.jsonl", "--model", "model", code=EXIT_PARTIAL)
    assert "4 usable records, 5 would be left out" in table
    assert "zoe (unknown)" in table
    assert "forbids training: tdm_reservation: 1 (1 row, the first is train.jsonl:4)" in table
    assert "near-copy: b1 of ben" in table
    check("data", "check", "train.jsonl", "--model", "model", "--format", "html", "--out", "c.html", code=EXIT_PARTIAL)
    page = (tmp_path / "c.html").read_text()
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    for words in ("Look at this before an index is built", "4 usable records of 3 providers; 5 would be left out"):
        assert words in text
    assert "tdm_reservation: 1" in text
    assert "<script" not in page
    assert not (tmp_path / "credit-data" / "quarantine").exists()


def test_data_that_an_index_takes_whole_is_no_alarm(check, tmp_path):
    good = [{"id": f"g{i}", "provider": "ann", "text": sentence(50 + i, 9)} for i in range(3)]
    (tmp_path / "good.jsonl").write_text("".join(json.dumps(row) + "\n" for row in good))
    assert "3 usable records, 0 would be left out" in check("data", "check", "good.jsonl")
    assert "characters" in check("data", "check", "good.jsonl", "--no-ledger")
    found = json.loads(check("data", "check", "good.jsonl", "--json"))
    assert (found["left_out"], found["check"]["tokens"]) == (0, None)


def test_names_of_the_data_are_text_on_the_page(check, tmp_path):
    row = {"id": "<script>", "text": COPIED, "metadata": {"license": "<img src=x> no AI training"}}
    copy = {"id": "c", "provider": "ben", "text": COPIED}
    (tmp_path / "h.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(copy)}\n")
    page = check("data", "check", "h.jsonl", "--provider", "ann", "--format", "html", code=EXIT_PARTIAL)
    assert "<script>" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page
