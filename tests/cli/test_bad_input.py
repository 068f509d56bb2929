"""What commands do with input that cannot be used: it is named by file and line, quarantined, and the rest goes in."""

from __future__ import annotations

import base64
import json
import os
import shutil
from pathlib import Path

import pytest

from credit.errors import EXIT_FAILED, EXIT_INTEGRITY, EXIT_PARTIAL, EXIT_USAGE
from credit.records import TrainingRecord
from tests.models import save_tiny_model
from tests.pipeline.samples import MODEL, OUTPUTS, output_row, training_row, write_jsonl


def _line(row: object) -> bytes:
    return json.dumps(row).encode()


BAD_OUTPUTS = {
    "malformed line": (b'{"id": "x", "prompt"', "malformed JSON"),
    "a completion of no text": (_line(output_row(61, completion=5)), "`completion` must be a text"),
    "missing field": (_line(output_row(61, model=None)), "`model` is missing"),
    "unknown model": (_line(output_row(61, model="other")), "model 'other' has no index (known: tiny)"),
    "wrong type": (_line(output_row(61, completion=7)), "`completion` must be a text"),
    "NaN weight": (_line(output_row(61, weight=float("nan"))), "NaN is not a JSON number"),
    "negative weight": (_line(output_row(61, weight=-1)), "`weight` is negative"),
    "no time zone": (_line(output_row(61, occurred_at="2025-03-01T12:00:00")), "`occurred_at` has no time zone"),
    "id of the line before": (_line(output_row(60, completion=" other")), "is in the ledger with another content"),
    "id in the ledger": (_line(output_row(0, completion=" other")), "'o0' is in the ledger with another content"),
    "byte that is not UTF-8": (b'{"id": "caf\xe9"}', "byte 0xe9 at position 12 is not UTF-8"),
}


@pytest.mark.parametrize("case", BAD_OUTPUTS)
def test_a_bad_output_is_named_and_quarantined_and_the_good_ones_go_in(site, tmp_path, case):
    bad, reason = BAD_OUTPUTS[case]
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"\n".join([_line(output_row(60)), bad, _line(output_row(62))]) + b"\n")
    result = site.run("ingest-outputs", log, code=EXIT_PARTIAL)
    assert f"{log}:2: " in result.stderr
    assert reason in result.stderr
    assert "2 logged, 0 known already, 1 quarantined" in result.stdout
    assert len(site.tables()["output"]) == OUTPUTS + 2
    (quarantine,) = (site.data_dir / "quarantine").iterdir()
    assert str(quarantine) in result.stdout
    item = json.loads(quarantine.read_bytes())
    assert (item["file"], item["line"]) == (str(log), 2)
    assert reason in item["error"]
    assert (base64.b64decode(item["raw_base64"]) if "raw_base64" in item else item["raw"].encode()) == bad
    assert (
        "nothing new since it was last read, 0 quarantined, 1 quarantined before"
        in site.run("ingest-outputs", log).stdout
    )
    again = site.run("ingest-outputs", log, "--reread")
    assert f"0 logged, 2 known already, 0 quarantined, 1 quarantined before in {quarantine}" in again.stdout
    assert again.stderr == ""
    assert list((site.data_dir / "quarantine").iterdir()) == [quarantine]


def test_limits_are_options_and_the_environments(site, tmp_path, monkeypatch):
    log = tmp_path / "log.jsonl"
    log.write_bytes(
        _line(output_row(60, weight=1001)) + b"\n" + _line(output_row(61, occurred_at="2099-01-07T09:31:00Z")) + b"\n"
    )
    refused = site.run("ingest-outputs", log, code=EXIT_PARTIAL)
    assert "0 logged, 0 known already, 2 quarantined" in refused.stdout
    assert f"{log}:1: credit's own format: `weight` 1001 is above the largest weight of 1000" in refused.stderr
    assert "--max-weight 1001" in refused.stderr
    assert "--max-ahead DAYS" in refused.stderr
    assert "1 logged" in site.run("ingest-outputs", log, "--max-weight", "1001").stdout
    monkeypatch.setenv("CREDIT_MAX_WEIGHT", "1001")
    monkeypatch.setenv("CREDIT_MAX_AHEAD", "36500")
    assert "1 logged, 1 known already, 0 quarantined" in site.run("ingest-outputs", log).stdout
    assert (
        "--max-weight must be a plain" in site.run("ingest-outputs", log, "--max-weight", "x", code=EXIT_USAGE).stderr
    )


def test_a_log_that_grows_alarms_once_for_every_bad_record_and_keeps_them_in_one_file(site, tmp_path):
    log, folder = tmp_path / "log.jsonl", site.data_dir / "quarantine"
    lines = [_line(output_row(60)), b"{", b"[1]", _line(output_row(61, completion=5))]
    seen = []
    for end, bad, code in ((2, 1, EXIT_PARTIAL), (2, 0, 0), (4, 2, EXIT_PARTIAL), (4, 0, 0)):
        log.write_bytes(b"\n".join(lines[:end]) + b"\n")
        result = site.run("ingest-outputs", log, code=code)
        assert f"{bad} quarantined" in result.stdout
        assert len([line for line in result.stderr.splitlines() if line.startswith(f"{log}:")]) == bad
        (quarantine,) = folder.iterdir()
        seen.append(len(quarantine.read_text().splitlines()))
    assert seen == [1, 1, 3, 3]
    found = json.loads(site.run("ingest-outputs", log, "--json").stdout)["files"][0]
    assert (found["quarantined"], found["quarantined_before"], found["problems"]) == (3, 3, [])
    log.write_bytes(b"\n" + b"\n".join(lines) + b"\n")  # everything is in another line: who knows what else changed
    assert "3 quarantined in" in site.run("ingest-outputs", log, code=EXIT_PARTIAL).stdout


def test_a_batch_of_another_vendor_is_logged_from_its_requests_and_results(site, tmp_path, monkeypatch):
    logs = Path(__file__).parent.parent / "ingest" / "logs"
    files = []
    for name in ("anthropic-batch-results.jsonl", "anthropic-batch-requests.json", "mlflow.json"):
        files.append(tmp_path / name)
        files[-1].write_text((logs / name).read_text().replace("my-llm", MODEL))
    results, requests, traces = files
    monkeypatch.setenv("CREDIT_MAX_AHEAD", "36500")  # the logs were made when they say, whatever day it is
    alone = site.run("ingest-outputs", results, "--occurred-at", "2025-03-01T09:30:00Z", code=EXIT_PARTIAL)
    assert "the request 'request-0' is missing; give the batch's input file in the same call" in alone.stderr
    assert "does not say when it was answered" in site.run("ingest-outputs", *files, code=EXIT_PARTIAL).stderr
    both = site.run("ingest-outputs", results, requests, "--occurred-at", "2025-03-01T09:30:00Z")
    skipped = "1 skipped: the answer is a call of a tool\n  2 skipped: the call failed"
    assert f"{results}: 3 logged, 0 known already, 0 quarantined\n  {skipped}" in both.stdout
    assert f"{requests}: 0 logged, 0 known already, 0 quarantined\n  1 skipped: requests, which belong" in both.stdout
    assert not list((site.data_dir / "quarantine").glob("anthropic*"))
    again = site.json("ingest-outputs", results, requests, traces, "--occurred-at", "2025-03-01T09:30:00Z")
    assert [file["accepted"] for file in again["files"]] == [0, 0, 0]
    assert again["files"][0]["skipped"] == {"the call failed": 2, "the answer is a call of a tool": 1}
    assert (
        "--occurred-at has no time zone"
        in site.run("ingest-outputs", results, "--occurred-at", "2025-03-01", code=EXIT_USAGE).stderr
    )
    assert {row["source"] for row in site.named("output")} == {"own", "anthropic-batch", "mlflow"}


def test_a_table_that_is_partly_bad_alarms_once(site, tmp_path):
    table = tmp_path / "more.csv"
    table.write_text("key,name\nzoe,Zoe\nBad Key,X\n")
    site.run("providers", "import", table, code=EXIT_PARTIAL)
    assert (
        "0 added or changed, 1 unchanged, 0 quarantined, 1 quarantined before"
        in site.run("providers", "import", table).stdout
    )
    site.run("providers", "import", table, "--strict", code=EXIT_FAILED)


@pytest.mark.parametrize("case", BAD_OUTPUTS)
def test_strict_logs_nothing_of_a_file_with_a_bad_output(site, tmp_path, case):
    bad, reason = BAD_OUTPUTS[case]
    before = site.tables()
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"\n".join([_line(output_row(60)), bad, _line(output_row(62))]) + b"\n")
    result = site.run("ingest-outputs", log, "--strict", code=EXIT_FAILED)
    assert f"{log}:2: " in result.stderr
    assert reason in result.stderr
    assert site.tables() == before
    assert not list(site.data_dir.glob("quarantine/*"))


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "does not exist"), (b"\xff\xfe{}", "UTF-16"), (b"PAR1 cut off", "Parquet")]
)
def test_a_file_that_cannot_be_used_is_named_and_keeps_no_other_out(site, tmp_path, content, reason):
    before = site.tables()
    broken = tmp_path / "broken.jsonl"
    if content is not None:
        broken.write_bytes(content)
    alone = site.run("ingest-outputs", "--complete", broken, code=EXIT_FAILED)
    assert str(broken) in alone.stderr
    assert reason in alone.stderr
    assert site.tables() == before
    good = write_jsonl(tmp_path / "good.jsonl", [output_row(60)])
    beside = site.run("ingest-outputs", "--complete", broken, good, code=EXIT_PARTIAL)
    assert reason in beside.stderr
    assert len(site.tables()["output"]) == OUTPUTS + 1


def test_a_file_that_may_not_be_read_is_named_and_keeps_no_other_out(site, tmp_path, monkeypatch):
    locked = write_jsonl(tmp_path / "locked.jsonl", [output_row(60)])
    good = write_jsonl(tmp_path / "good.jsonl", [output_row(61)])
    allowed = os.access  # the tests may run as root, who may read everything
    monkeypatch.setattr(os, "access", lambda path, *rest, **more: path != locked and allowed(path, *rest, **more))
    result = site.run("ingest-outputs", locked, good, code=EXIT_PARTIAL)
    assert f"{locked} may not be read by this user; change its permissions" in result.stderr
    assert f"{good}: 1 logged" in result.stdout
    assert site.run("ingest-outputs", locked, code=EXIT_FAILED).stdout == ""


def test_bad_providers_are_named_by_line_and_the_good_ones_go_in(site, tmp_path):
    rows = ["key,name,kind,currency,minimum_payout", "zoe,Zoe,,,", "Bad Key,X,,,", "house,House,,,", "max,Max,,EUR,-5"]
    table = tmp_path / "more.csv"
    table.write_text("\n".join(rows) + "\n")
    result = site.run("providers", "import", table, code=EXIT_PARTIAL)
    for row, reason in ((3, "not a provider key"), (4, "reserved"), (5, "not an amount")):
        assert any(f"{table}:{row}: " in line and reason in line for line in result.stderr.splitlines()), result.stderr
    assert "zoe" in site.run("providers", "list").stdout
    before = site.tables()
    assert f"{table}:3: " in site.run("providers", "import", table, "--strict", code=EXIT_FAILED).stderr
    assert site.tables() == before


def test_problems_are_shown_by_reason_and_none_is_passed_over_in_silence(site, tmp_path):
    log = tmp_path / "log.jsonl"
    alike = [_line(output_row(60 + i, occurred_at="2025-03-01T12:00:00")) for i in range(4)]
    others = [_line(output_row(70 + i, model=f"other-{i}")) for i in range(6)]
    log.write_bytes(b"\n".join([*alike, *others]))
    said = site.run("ingest-outputs", log, code=EXIT_PARTIAL).stderr.splitlines()
    assert said[0].startswith(f"{log}:1: credit's own format: `occurred_at` has no time zone")
    assert said[0].endswith("(and 3 more like it)")
    assert [line.split(": ")[0] for line in said[1:5]] == [f"{log}:{number}" for number in (5, 6, 7, 8)]
    assert said[5:] == ["and 2 more, for other reasons"]


def test_a_dry_run_names_what_an_index_would_quarantine(site, tmp_path):
    table = tmp_path / "more.csv"
    table.write_text("id,provider,content\n" + "".join(f"c{i},ben,some text {i}\n" for i in range(3)))
    lines = write_jsonl(
        tmp_path / "more.jsonl", [{"id": f"g{i}", "provider": "ann", "text": f"a cat {i}"} for i in range(4)]
    )
    arguments = ("index", site.folder / MODEL, lines, table, "--out", tmp_path / "index", "--rank", "2")
    dry = site.run(*arguments, "--dry-run", code=EXIT_PARTIAL)
    assert f"{table}:2: exactly one is needed of `text`" in dry.stderr
    assert "(and 2 more like it)" in dry.stderr
    assert "field `content` is not used (in 3 records)" in dry.stderr
    assert "3 records would be quarantined" in dry.stdout
    found = json.loads(site.run(*arguments, "--dry-run", "--json", code=EXIT_PARTIAL).stdout)
    assert found["quarantined"] == 3
    assert sum(found["records"].values()) == found["examples"] == 4
    assert not (site.data_dir / "quarantine").exists()
    mapped = site.run(*arguments[:2], table, *arguments[4:], "--dry-run", "--field", "text=content")
    assert "records: ben 3" in mapped.stdout


def test_bad_training_records_are_named_and_quarantined_and_the_rest_is_indexed(site, tmp_path):
    good = [{"id": f"g{i}", "provider": "ann", "text": f"the cat sat on a mat {i}"} for i in range(6)]
    bad = [
        (b'{"id": 1', "malformed JSON"),
        (_line({"id": "u", "provider": "nobody", "text": "an old song"}), "nobody"),
        (_line({"id": "e", "provider": "ann", "text": " "}), "`text` is empty"),
        (_line({"id": "w", "provider": "ann", "text": ["song"]}), "`text` must be a text"),
        (_line({"id": "g0", "provider": "ann", "text": "another song"}), "'g0' was used before"),
        (b'{"id": "n", "provider": "ann", "text": "\xff"}', "byte 0xff"),
    ]
    data = tmp_path / "more.jsonl"
    data.write_bytes(b"\n".join([*map(_line, good), *(raw for raw, _ in bad)]) + b"\n")
    arguments = ("index", site.folder / MODEL, data, "--name", "more", "--rank", "2")
    result = site.run(*arguments, "--out", tmp_path / "index", code=EXIT_PARTIAL)
    (quarantine,) = (site.data_dir / "quarantine").iterdir()
    items = [json.loads(line) for line in quarantine.read_text().splitlines()]
    assert [item["line"] for item in items] == [len(good) + 1 + i for i in range(len(bad))]
    for item, (raw, reason) in zip(items, bad, strict=True):
        assert item["file"] == str(data)
        assert reason in item["error"]
        assert (base64.b64decode(item["raw_base64"]) if "raw_base64" in item else item["raw"].encode()) == raw
    assert f"{data}:{len(good) + 1}: malformed JSON" in result.stderr
    assert str(quarantine) in result.stdout
    assert "6 examples" in result.stdout
    strict = site.run(*arguments, "--out", tmp_path / "strict", "--strict", code=EXIT_FAILED)
    assert f"{data}:{len(good) + 1}: " in strict.stderr


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "does not exist"), (b"", "is empty"), (b"\n\n", "holds no records")]
)
def test_training_data_that_cannot_be_used_is_named(site, tmp_path, content, reason):
    data = tmp_path / "data.jsonl"
    if content is not None:
        data.write_bytes(content)
    result = site.run("index", site.folder / MODEL, data, "--out", tmp_path / "index", code=EXIT_FAILED)
    assert f"{data} {reason}" in result.stderr


def test_an_index_of_a_provider_that_the_ledger_does_not_know_is_refused_before_anything_is_valued(site, tmp_path):
    data = write_jsonl(
        tmp_path / "data.jsonl", [{"id": i, "provider": "zoe", "text": f"old ships {i}"} for i in range(3)]
    )
    out = tmp_path / "index"
    site.run("index", site.folder / MODEL, data, "--out", out, "--name", MODEL, "--rank", "2", "--no-register")
    result = site.run("compute", "--index", out, code=EXIT_FAILED)
    assert "does not know: zoe; add them: credit providers add" in result.stderr
    assert not site.books()
    site.run("providers", "add", "zoe", "Zoe")
    site.run("compute")
    site.run("verify")


def test_a_truncated_model_is_named(site, tmp_path):
    model = shutil.copytree(site.folder / MODEL, tmp_path / "cut")
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    data = site.folder / "train.jsonl"
    for arguments in (("index", model, data, "--out", tmp_path / "index"), ("compute", "--model", model)):
        result = site.run(*arguments, code=EXIT_FAILED)
        assert f"{weights} is not a whole safetensors file" in result.stderr
    weights.unlink()
    assert "no *.safetensors file" in site.run("compute", "--model", model, code=EXIT_FAILED).stderr
    assert not site.books()


def test_an_index_of_another_model_or_tokenizer_is_refused(site, tmp_path):
    other = save_tiny_model(tmp_path / "other", seed=1)
    assert "is not the model" in site.run("compute", "--model", other, code=EXIT_FAILED).stderr
    retokenised = shutil.copytree(site.folder / MODEL, tmp_path / "retokenised")
    config = retokenised / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_max_length": 7}))
    assert "another tokenizer" in site.run("compute", "--model", retokenised, code=EXIT_FAILED).stderr
    assert not site.books()
    moved = shutil.copytree(site.folder / MODEL, tmp_path / "moved")
    site.run("compute", "--model", moved)


def test_an_index_of_other_data_or_settings_is_left_alone(site, tmp_path):
    rows = [training_row(record) for record in _some_records()]
    out = tmp_path / "index"
    arguments = ("index", site.folder / MODEL, write_jsonl(tmp_path / "data.jsonl", rows), "--out", out, "--name", "x")
    site.run(*arguments, "--rank", "2")
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    assert "other settings" in site.run(*arguments, "--rank", "3", code=EXIT_FAILED).stderr
    write_jsonl(tmp_path / "data.jsonl", rows[1:])
    assert "other data" in site.run(*arguments, "--rank", "2", code=EXIT_FAILED).stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == files


def _some_records() -> list[TrainingRecord]:
    from credit.records import Group
    from tests.models import records

    return records({Group("ann"): 4, Group("ben"): 3})


def test_a_changed_index_exits_4_and_a_missing_one_says_how_to_name_its_new_place(inputs, tmp_path, new_site):
    site = new_site("site")
    copy = shutil.copytree(inputs / "index", tmp_path / "copy")
    shard = next(copy.glob("rows-*.safetensors"))
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    result = site.run("compute", "--index", copy, code=EXIT_INTEGRITY)
    assert f"{shard} is not the file that was written" in result.stderr
    shutil.rmtree(copy)
    assert "credit compute --index DIR" in site.run("compute", code=EXIT_FAILED).stderr
    assert not site.books()
    site.run("compute", "--index", inputs / "index")
