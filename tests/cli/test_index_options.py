"""Options of `credit index` that decide what goes into an index, as typed, without a ledger."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from credit.cli.main import cli
from credit.errors import EXIT_FAILED, EXIT_PARTIAL, EXIT_USAGE
from credit.valuation import load_model
from tests.commands import full_disk
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
    assert "excluded, because their gradient is not finite: odd" in said.stdout
    facts = json.loads(run("--non-finite", "exclude", "--json", code=EXIT_PARTIAL).stdout)
    assert (facts["existed"], facts["excluded"], facts["examples"]) == (True, ["odd"], 9)
    assert "--non-finite exclude" in run(code=EXIT_FAILED).stderr


def test_the_weighting_is_part_of_what_an_index_is(run):
    first = json.loads(run("--weighting", "relatif", "--json").stdout)
    assert json.loads(run("--weighting", "relatif", "--json").stdout)["existed"]
    assert "other settings" in run("--weighting", "unit", code=EXIT_FAILED).stderr
    assert first["excluded"] == []


def test_ranks_are_given_for_all_layers_for_sides_and_by_pattern(run, tmp_path):
    run("--rank", "in=6,out=3", "--rank", "*.mlp.*:2", "--layers", "*")
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
    assert "was built with rank 4, not 5; a change keeps it" in run("--rank", "5", "--update", code=EXIT_USAGE).stderr
    moved = other.rename(tmp_path / "moved")
    assert "is not there any more" in run("--withdraw", "ben", code=EXIT_FAILED).stderr
    assert "revised" in run("--withdraw", "ben", "--checkpoint", str(moved)).stdout
    moved.rename(other)
    assert "was there already" in run("--withdraw", "ben").stdout
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    assert [member["manifest"] for member in manifest["checkpoints"]] == ["manifest.v1.json"]


def test_a_model_in_parts_gives_the_same_index(run, tmp_path):
    whole = json.loads(run("--json").stdout)
    parts = tmp_path / "parts.json"
    parts.write_text('{"model": "cpu", "model.layers": "disk", "lm_head": "disk"}')
    for number, device in enumerate((str(parts), parts.read_text())):
        out = ("--out", str(tmp_path / f"index-{number}"))
        assert json.loads(run("--device", device, *out, "--json").stdout)["fingerprint"] == whole["fingerprint"]
    assert "cannot be read" in run("--device", str(tmp_path / "gone.json"), code=EXIT_USAGE).stderr
    assert "names 'nowhere'" in run("--device", '{"nowhere": "cpu", "": "disk"}', code=EXIT_FAILED).stderr


def test_time_memory_and_disk_are_said_before_the_build(run):
    said = run().stderr
    assert re.search(
        r"the index needs (less than|about) .* on this machine, .* of memory beside the model, .* of disk", said
    )
    assert "needs" not in run().stderr, "there is nothing left to do"


def test_a_full_disk_is_named_wherever_it_is_met(run, tmp_path):
    """Here in writing a quarantined record."""
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write('{"id": "bad"}\n')
    with full_disk():
        said = run(code=EXIT_FAILED).stderr
    assert f"Error: {tmp_path / 'data' / 'quarantine'}" in said
    assert said.strip().endswith("cannot be written: files may not be as large as that here")
    assert list((tmp_path / "data" / "quarantine").iterdir()) == []


def test_what_would_be_found_after_hours_is_found_at_once(run, tmp_path):
    for arguments, reason in (
        (("--checkpoint", str(tmp_path / "gone")), "gone is not a folder; --checkpoint takes a model"),
        (("--checkpoint", str(tmp_path / "model")), "is the model itself"),
        (("--checkpoint", f"{save_tiny_model(tmp_path / 'other', seed=1)}:nan"), "weight nan of a checkpoint"),
        (("--max-length", "1000"), "1000 tokens do not fit into the 64 positions"),
    ):
        assert reason in run(*arguments, code=EXIT_FAILED).stderr
        assert not (tmp_path / "index" / "manifest.json").exists()


def test_an_index_says_in_what_it_differs_from_what_is_asked_for(run, tmp_path):
    run()
    said = run("--rank", "5", "--damping", "0.3", "--dtype", "bf16", code=EXIT_FAILED).stderr
    assert (
        "an index of a model in float32, not bfloat16 and other settings (rank 4, not 5; damping 3.0, not 0.3)" in said
    )
    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    (tmp_path / "train.jsonl").write_text("\n".join(lines[1:]))
    assert "holds an index of other data; choose another --out" in run(code=EXIT_FAILED).stderr


def test_where_no_record_can_be_indexed_the_reasons_are_given(run, tmp_path):
    shares = [{"provider": "ann", "share": 0.5}, {"provider": "ben", "share": "0.25"}]
    (tmp_path / "train.jsonl").write_text(json.dumps({"id": "s", "text": "old ships", "splits": shares}))
    assert "train.jsonl:1: `splits`: the shares sum to 0.75, not to 1" in run(code=EXIT_FAILED).stderr


def test_shared_records_count_once_and_leave_with_any_of_those_who_share_them(run, tmp_path):
    shares = [{"provider": "ann", "share": 0.3}, {"provider": "cleo", "share": 0.7, "collection": "songs"}]
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write(json.dumps({"id": "s", "text": "old ships", "splits": shares}) + "\n")
    assert "11 examples" in (built := run().stdout)
    assert "3 groups, 12 rows" in built
    assert "10 examples" in (rest := run("--withdraw", "cleo").stdout)
    assert "2 groups, 10 rows" in rest


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(run, tmp_path):
    def files() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    before = files()
    said = run("--dry-run").stdout
    assert "would be built: 10 examples" in said
    assert re.search(r"the index needs (less than|about) .* on this machine, .* of memory .*, .* of disk", said)
    one = json.loads(run("--dry-run", "--json").stdout)
    two = save_tiny_model(tmp_path.parent / f"{tmp_path.name}-other", seed=1)
    both = json.loads(run("--dry-run", "--json", "--checkpoint", str(two)).stdout)
    assert both["needs"]["disk_bytes"] == 2 * one["needs"]["disk_bytes"]
    assert one["memory_bytes"] == both["memory_bytes"] > one["needs"]["batch_bytes"] > 0
    assert (one["examples"], one["groups"], one["existed"]) == (10, 2, False)
    assert "cannot be read" in run("--dry-run", "--rank", "much", code=EXIT_FAILED).stderr
    assert "does not exist; build an index with" in run("--dry-run", "--update", code=EXIT_FAILED).stderr
    assert files() == before
    built = run().stdout
    again = run("--dry-run").stdout
    assert re.search(r"10 examples, \d+ tokens, .* rows", built)[0] in again  # counted as the build counts them
    assert "is there already" in again
    assert "other settings (rank 4, not 5)" in run("--dry-run", "--rank", "5", code=EXIT_FAILED).stderr


def test_a_dry_run_of_a_change_says_what_it_would_take_and_the_change_says_so_too(run, tmp_path):
    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()}

    run()
    before = files()
    assert "would stay as it is: 10 examples" in run("--dry-run", "--update").stdout
    prompted = {"id": "new", "provider": "cleo", "prompt": "Who sang an old song?", "completion": " The cat sat"}
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write(json.dumps(prompted) + "\n")
    planned = run("--dry-run", "--update").stdout
    assert "would be revised, by 1 example, to: 11 examples" in planned
    assert re.search(r"the index needs (less than|about) .* on this machine, .* of memory .*, .* of disk", planned)
    found = json.loads(run("--dry-run", "--withdraw", "ben", "--json").stdout)
    assert (found["examples"], found["groups"], found["changing"], found["existed"]) == (7, 1, 3, False)
    assert found["needs"]["disk_bytes"] > sum(len(content) for content in before.values())
    assert "has no data" in run("--dry-run", "--withdraw", "eve", code=EXIT_FAILED).stderr
    assert "was built with rank 4, not 5" in run("--dry-run", "--update", "--rank", "5", code=EXIT_USAGE).stderr
    assert files() == before
    done = run("--update")
    assert re.search(r"11 examples, \d+ tokens, 3 groups, \d+ rows", done.stdout)[0] in planned
    assert re.search(r"the index needs (less than|about) .* on this machine", done.stderr)
    assert "on this machine" in run("--withdraw", "ben").stderr


def test_a_dry_run_leaves_an_unfinished_build_as_it_is(run, tmp_path, monkeypatch):
    renamed = os.replace

    def stop(beside: Path, path: Path) -> None:
        if path.name == "manifest.json":
            raise KeyboardInterrupt
        renamed(beside, path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop)
        assert run(code=EXIT_FAILED).exception is not None
    left = {path: path.read_bytes() for path in (tmp_path / "index").rglob("*") if path.is_file()}
    assert [path for path in left if path.name == "gradients-00000-00001.json"]
    assert "would be built" in run("--dry-run").stdout
    assert {path: path.read_bytes() for path in (tmp_path / "index").rglob("*") if path.is_file()} == left


def test_a_chat_that_the_template_refuses_is_quarantined_with_its_place_and_the_rest_is_built(run, tmp_path):
    config = tmp_path / "model" / "tokenizer_config.json"
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system, please') }}{% endif %}"
        "{% for m in messages %}{{ m.content }} {% endfor %}"
    )
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": template}))
    turns = [{"role": "user", "content": "sing"}, {"role": "assistant", "content": "ships"}]
    chats = [[{"role": "system", "content": "be brief"}, *turns], turns]
    with (tmp_path / "train.jsonl").open("a") as file:
        for number, chat in enumerate(chats):
            file.write(json.dumps({"id": f"chat{number}", "provider": "ben", "messages": chat}) + "\n")
    done = json.loads(run("--json", code=EXIT_PARTIAL).stdout)
    assert done["quarantined"] == 1
    (line,) = Path(done["quarantine_file"]).read_text().splitlines()
    found = json.loads(line)
    assert found["line"] == 11
    assert re.search(r"record chat0: the model's chat template refuses .*no system, please", found["error"])
    assert json.loads(found["raw"])["id"] == "chat0"
    assert "would be quarantined" in run("--dry-run", code=EXIT_PARTIAL).stdout
    assert "chat1" in (tmp_path / "index" / "examples.jsonl").read_text()
    assert json.loads(run("--update", "--json", code=EXIT_PARTIAL).stdout)["existed"], "an update leaves it out too"


def test_a_record_of_one_token_is_counted_in_a_notice(run, tmp_path):
    save_tiny_model(tmp_path / "model", "gpt2")  # puts no token before a text
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write(json.dumps({"id": "lone", "provider": "ben", "text": "a"}) + "\n")
    done = run()
    assert re.search(r"1 record left out, of one token or none: .* is .*train\.jsonl:11", done.stderr)
