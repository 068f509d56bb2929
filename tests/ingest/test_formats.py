"""Logs that other software wrote (tests/ingest/logs) are read as what was asked and answered, each call once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings

from credit.errors import InputError
from credit.ingest.batch_requests import read_batch_requests
from credit.ingest.files import Parsed
from credit.ingest.formats import FORMATS, format_of
from credit.ingest.outputs import OutputLimits, OutputReader
from credit.records import MICRO, LoggedOutput, Message, Quarantined
from tests.ingest.sample_logs import LOGS, asked, records
from tests.ingest.spoiling import fuzz, spoilt

ASKED = (Message("system", "Be brief."), Message("user", "How lay the harbour?"))
PARTS = (Message("user", "How lay the harbour?"),)
MADE = datetime(2026, 10, 31, tzinfo=UTC), datetime(2026, 12, 31, tzinfo=UTC)
PLAIN, FIRST, SECOND = (ASKED, "It lay still."), (PARTS, "It lay still."), (PARTS, "It lay still..")
TOLD_AND_CALLED = ((Message("user", "talk, please"),), "It lay still.")
TALKED = ((Message("user", "talk, please"),), "Let me look.")
FAILED, CALLED, REFUSED, EMPTY, OTHER = (
    "the call failed",
    "the answer is a call of a tool",
    "the model refused",
    "the answer is empty",
    "spans that are no call of a model",
)
ASKED_PLAINLY, RAW = (PARTS, "It lay still."), ((), "It lay still.")
TOLD = datetime(2026, 11, 1, 9, 30, tzinfo=UTC)
AT_ANY_TIME = OutputLimits(max_days_ahead=36_500)

EXPECTED = {
    "openai-batch-output.jsonl": (
        "OpenAI batch",
        [TALKED, FIRST, SECOND, PLAIN],
        {FAILED: 2, CALLED: 1, REFUSED: 1, EMPTY: 1},
        [],
    ),
    "anthropic-batch-results.jsonl": ("Anthropic batch", [PLAIN, FIRST, TOLD_AND_CALLED], {FAILED: 2, CALLED: 1}, []),
    "litellm.jsonl": (
        "LiteLLM",
        [PLAIN, FIRST, SECOND, PLAIN, TALKED, PLAIN, ((), "It")],
        {FAILED: 1, CALLED: 1, REFUSED: 1, EMPTY: 1, "calls that generate no text": 1},
        [],
    ),
    # Chat completions, messages, Responses and two passed-through calls of LiteLLM's proxy, by callback and spend logs.
    **dict.fromkeys(
        ("litellm-proxy.jsonl", "litellm-spend.jsonl"),
        ("LiteLLM", [PLAIN, FIRST, SECOND, *[PLAIN] * 6], {CALLED: 2}, []),
    ),
    "ollama.jsonl": ("Ollama", [*[PLAIN] * 3, ASKED_PLAINLY, PLAIN, RAW, ASKED_PLAINLY], {CALLED: 3}, []),
    # By OpenAI's client, and the last two by LangChain.
    "langsmith.jsonl": (
        "LangSmith",
        [PLAIN, FIRST, SECOND, PLAIN, TALKED, *[PLAIN] * 3],
        {FAILED: 1, CALLED: 2, REFUSED: 1, EMPTY: 1, OTHER: 1},
        [],
    ),
    "otel-genai.jsonl": (
        "OpenTelemetry",
        [PLAIN, FIRST, SECOND, PLAIN, TALKED, ((Message("user", "refuse, please"),), "I will not.")],
        {FAILED: 1, CALLED: 1, OTHER: 1, EMPTY: 1},
        [],
    ),
    "otel-openllmetry.jsonl": (
        "OpenTelemetry",
        [PLAIN, FIRST, SECOND, PLAIN, TALKED],
        {FAILED: 1, CALLED: 1, REFUSED: 1, OTHER: 1, EMPTY: 1},
        [],
    ),
    # Langfuse's client drops a refusal: what is left is empty.
    **dict.fromkeys(
        ("langfuse-page.json", "langfuse-export.jsonl"),
        ("Langfuse", [PLAIN, FIRST, SECOND, PLAIN, TALKED], {FAILED: 1, CALLED: 1, OTHER: 1, EMPTY: 2}, []),
    ),
    "otel-events-new.jsonl": (
        "OpenTelemetry",
        [PLAIN, FIRST, SECOND, PLAIN, TALKED, ((Message("user", "refuse, please"),), "I will not.")],
        {FAILED: 1, CALLED: 1, EMPTY: 1},
        [],
    ),
    # OpenInference's instrumentation drops a refusal.
    "openinference.jsonl": (
        "OpenTelemetry",
        [PLAIN, FIRST, SECOND, PLAIN, TALKED],
        {FAILED: 1, CALLED: 1, EMPTY: 2},
        [],
    ),
    "langfuse-otlp.json": (
        "OpenTelemetry",
        [PLAIN, FIRST, SECOND, PLAIN, TALKED],
        {FAILED: 1, CALLED: 1, OTHER: 1, EMPTY: 2},
        [],
    ),
    **dict.fromkeys(
        ("mlflow.json", "mlflow2.json"),
        ("MLflow", [PLAIN, FIRST, SECOND, PLAIN, TALKED], {FAILED: 1, CALLED: 1, REFUSED: 1, OTHER: 1, EMPTY: 1}, []),
    ),
    "weave.jsonl": (
        "Weave",
        [PLAIN, FIRST, SECOND, PLAIN, TALKED],
        {FAILED: 1, CALLED: 1, REFUSED: 1, OTHER: 1, EMPTY: 1},
        [],
    ),
}


def reader(path: Path, *others: Path) -> OutputReader:
    return OutputReader(path, requests=read_batch_requests(others), occurred_at=TOLD, limits=AT_ANY_TIME)


def outputs(items: Iterator[Parsed[LoggedOutput] | Quarantined]) -> list[LoggedOutput]:
    return [item.record for item in items if isinstance(item, Parsed)]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_log_is_read_as_what_was_asked_and_answered(name):
    title, said, skipped, refused = EXPECTED[name]
    found = reader(LOGS / name, *asked(name))
    items = list(found)
    logged = outputs(items)
    assert [(output.messages, output.completion) for output in logged] == said
    assert found.skipped == skipped
    assert [item.error for item in items if isinstance(item, Quarantined)] == [f"{title}: {why}" for why in refused]
    assert found.notices == ()
    assert len({output.external_id for output in logged}) == len(logged)
    for output in logged:
        assert (output.model.rpartition("/")[2], output.weight_micro) == ("my-llm", MICRO)
        assert output.occurred_at == TOLD if "anthropic" in name else MADE[0] < output.occurred_at < MADE[1]
        assert output.occurred_at.tzinfo is UTC
    assert all(format_of(record).name == title for record in records(name))


def test_the_page_on_logs_lists_every_format_by_the_name_that_reasons_begin_with():
    page = (LOGS.parents[2] / "docs" / "logs.md").read_text()
    assert [log.name for log in FORMATS if f"\n| {log.name}" not in page] == []


@pytest.mark.parametrize("name", EXPECTED)
def test_a_log_says_the_same_as_a_list_and_over_lines_and_twice_in_one_file(name, tmp_path):
    once = outputs(reader(LOGS / name, *asked(name)))
    path = tmp_path / name
    path.write_text(json.dumps(records(name), default=float, indent=1))
    assert outputs(reader(path, *asked(name))) == once
    path.write_text("".join(json.dumps(record, default=float) + "\n" for record in records(name) * 2))
    assert {(output.external_id, output) for output in outputs(reader(path, *asked(name)))} == {
        (output.external_id, output) for output in once
    }


def test_an_observation_is_the_same_from_wherever_it_comes(tmp_path):
    page, *others = (outputs(reader(LOGS / f"langfuse-{name}")) for name in ("page.json", "export.jsonl", "otlp.json"))
    frame = pl.DataFrame(records("langfuse-export.jsonl"))
    frame.write_csv(tmp_path / "export.csv")
    frame.with_columns(pl.col("start_time").str.to_datetime()).write_parquet(tmp_path / "export.parquet")
    others += [outputs(reader(tmp_path / name)) for name in ("export.csv", "export.parquet")]
    assert others == [page] * 4


@pytest.mark.parametrize("version", ["mlflow", "mlflow2"])
def test_a_trace_is_the_same_as_json_as_an_artifact_and_as_a_row_of_the_data_frame(version, tmp_path):
    frame = pl.read_parquet(LOGS / f"{version}.parquet")
    frame.write_csv(tmp_path / "frame.csv")
    frame.drop("trace").write_csv(tmp_path / "spans.csv")
    frame.drop("spans").write_parquet(tmp_path / "trace.parquet")
    listed = [{**row, "spans": json.loads(row["spans"])} for row in frame.drop("trace").iter_rows(named=True)]
    (tmp_path / "frame.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
    traces, *others = (outputs(reader(LOGS / f"{version}{end}")) for end in (".json", "-artifact.jsonl", ".parquet"))
    others += [outputs(reader(tmp_path / name)) for name in ("frame.csv", "spans.csv", "trace.parquet", "frame.jsonl")]
    assert traces
    told = [(output.name, output.occurred_at, output.identity) for output in traces]
    for found in others:
        assert found == traces
        assert [(output.name, output.occurred_at, output.identity) for output in found] == told


@pytest.mark.parametrize(
    ("one", "other"),
    [("langsmith.jsonl", "langsmith.parquet"), ("litellm-proxy.jsonl", "litellm-spend.jsonl")],
)
def test_a_call_is_the_same_from_both_logs_of_one_logger(one, other):
    first, second = (outputs(reader(LOGS / name)) for name in (one, other))
    assert first == second
    assert [output.identity for output in first] == [output.identity for output in second]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_source_that_is_given_goes_before_the_formats_own(name):
    requests = read_batch_requests(asked(name))
    found = OutputReader(LOGS / name, source="shop", requests=requests, occurred_at=TOLD, limits=AT_ANY_TIME)
    assert {output.source for output in outputs(found)} == {"shop"}


@pytest.mark.parametrize("name", ["openai-batch-output.jsonl", "anthropic-batch-results.jsonl"])
def test_results_of_a_batch_need_its_requests_wherever_they_stand(name, tmp_path):
    alone = [item for item in reader(LOGS / name) if isinstance(item, Quarantined)]
    title = EXPECTED[name][0]
    assert {item.error for item in alone} >= {
        f"{title}: the request 'request-{n}' is missing; give the batch's input file in the same call, in any order"
        for n in (0, 1)
    }
    backwards = reader(LOGS / name, *reversed(asked(name)))
    assert outputs(backwards) == outputs(reader(LOGS / name, *asked(name)))
    (requests,) = [path for path in asked(name) if path.name != name]
    changed = tmp_path / "other.jsonl"
    changed.write_text(requests.read_text().replace("How lay the harbour?", "And then?"))
    twice = {item.error for item in reader(LOGS / name, requests, changed) if isinstance(item, Quarantined)}
    assert any(error.startswith(f"{title}: the request 'request-0' is another one at ") for error in twice)
    assert outputs(reader(LOGS / name, requests, requests)) == outputs(reader(LOGS / name, requests))
    found = reader(requests)
    assert list(found) == []
    assert list(found.skipped) == ["requests, which belong to their responses"]


@pytest.mark.parametrize("name", EXPECTED)
def test_every_output_of_every_format_is_held_against_the_limits(name):
    limits = OutputLimits(max_weight_micro=MICRO - 1, max_days_ahead=36_500)
    items = list(OutputReader(LOGS / name, requests=read_batch_requests(asked(name)), occurred_at=TOLD, limits=limits))
    title, said, _, refused = EXPECTED[name]
    beyond = f"{title}: `weight` 1 is above the largest weight of 0.999999; if it is right: --max-weight 1"
    assert outputs(items) == []
    # A log may tell of an output twice; each of its records is then quarantined.
    assert {item.error for item in items} == {beyond, *(f"{title}: {why}" for why in refused)}
    assert sum(item.error == beyond for item in items) >= len(said)


def test_a_time_that_is_told_is_held_against_the_limits_too():
    name = "anthropic-batch-results.jsonl"
    told = datetime(2126, 1, 1, tzinfo=UTC)
    items = list(OutputReader(LOGS / name, requests=read_batch_requests(asked(name)), occurred_at=told))
    assert len(items) == 3
    assert all("`occurred_at` 2126-01-01T00:00:00Z is more than 1 day ahead" in item.error for item in items)


def test_a_message_batch_needs_a_time(tmp_path):
    name = "anthropic-batch-results.jsonl"
    found = list(OutputReader(LOGS / name, requests=read_batch_requests(asked(name))))
    assert len(found) == 4
    assert all("does not say when it was answered" in item.error for item in found)


def test_a_request_that_cannot_be_used_is_named_with_its_result_alone(tmp_path):
    lines = [json.loads(line) for line in (LOGS / "openai-batch-input.jsonl").read_text().splitlines()]
    lines[0]["body"]["messages"][0]["content"] = [{"type": "image_url"}]
    del lines[1]["body"]["messages"]
    path = tmp_path / "input.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, 7, {"custom_id": 5, "body": []}]))
    refused = [item.error for item in reader(LOGS / "openai-batch-output.jsonl", path) if isinstance(item, Quarantined)]
    assert f"the request 'request-0' at {path}:1 cannot be used: `messages` 0: `content` holds a part" in refused[-1]
    assert f"OpenAI batch: the request 'request-1' at {path}:2 cannot be used: `messages` is missing" in refused
    assert [item.place.line for item in reader(path) if isinstance(item, Quarantined)] == [9]


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"text": "x"},
        {"custom_id": "a"},
        {"type": "GENERATION"},
        {"data": []},
        {"info": {}, "data": {}},
        {"meta": 1},
    ],
)
def test_a_record_of_no_format_is_quarantined_with_what_was_looked_for(record, tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(record))
    (item,) = OutputReader(path)
    assert isinstance(item, Quarantined)
    for known in FORMATS:
        assert str(known) in item.error


def test_a_weight_in_a_log_of_other_software_is_named_because_it_counts_nothing(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(
        "".join(json.dumps(record | {"weight": 2}, default=float) + "\n" for record in records("mlflow.json"))
    )
    found = reader(path)
    assert {output.weight_micro for output in outputs(found)} == {MICRO}
    assert found.notices == ("field `weight` is not used (in 8 records)",)


# Whatever stands in the place of whatever there is: each record is read, skipped or quarantined, and nothing is raised.


@pytest.mark.parametrize("name", EXPECTED)
def test_nothing_that_stands_in_a_log_stops_it_from_being_read(name, tmp_path_factory):
    requests = read_batch_requests(asked(name))
    path = tmp_path_factory.mktemp("spoilt") / "log.jsonl"

    @settings(max_examples=fuzz(100))
    @given(spoilt(records(name)))
    def check(found: Any) -> None:
        lines = [json.dumps(record) for record in found]
        path.write_text("".join(line + "\n" for line in lines))
        reading = OutputReader(path, requests=requests, occurred_at=TOLD)
        items = list(reading)
        assert len(items) + sum(reading.skipped.values()) == reading.read >= len(found)
        for item in items:
            assert 1 <= item.place.line <= len(lines)
            if isinstance(item, Quarantined):
                assert item.error
                assert item.raw
            else:
                assert item.record.completion.strip()
                json.dumps([item.record.external_id, item.record.completion], ensure_ascii=False).encode()

    check()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_log_that_is_cut_off_loses_no_record_before_the_cut(name, tmp_path):
    whole = (LOGS / name).read_bytes()
    once = outputs(reader(LOGS / name, *asked(name)))
    path = tmp_path / name
    for end in range(40, len(whole), len(whole) // 7):
        path.write_bytes(whole[:end])
        try:
            items = list(reader(path, *asked(name)))
        except InputError as error:
            assert "holds no records" in str(error)  # noqa: PT017 - a page of one record, cut
            continue
        read = outputs(items)
        assert read == once[: len(read)]
        assert isinstance(items[-1], Quarantined) or whole[end - 1 : end + 1].count(b"\n")
