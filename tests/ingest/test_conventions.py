"""Calls are read by the conventions of tracers, older and newer; what a tracer leaves out is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from credit.ingest.files import Parsed
from credit.ingest.outputs import OutputReader
from credit.records import LoggedOutput, Message, Quarantined

NANOS = "1761955200000000000"
IDS = {"traceId": f"{7:032x}", "spanId": f"{1:016x}"}
ASKED = (Message("user", "Why rain?"),)
CHOICE = {"message": {"role": "assistant", "content": "Hills."}, "finish_reason": "stop"}


def value(content: object) -> dict[str, object]:
    if isinstance(content, dict):
        return {"kvlistValue": {"values": [{"key": key, "value": value(item)} for key, item in content.items()]}}
    return {"intValue": str(content)} if isinstance(content, int) else {"stringValue": content}


def attributes(said: dict[str, object]) -> list[dict[str, object]]:
    return [{"key": key, "value": value(content)} for key, content in said.items()]


def event(name: str, body: object, **more: object) -> dict[str, object]:
    return {**IDS, "timeUnixNano": "0", "observedTimeUnixNano": NANOS, "eventName": name, "body": value(body), **more}


def log(*records: object) -> dict[str, object]:
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": list(records)}]}]}


def span(said: dict[str, object], *events: object) -> dict[str, object]:
    one = {**IDS, "startTimeUnixNano": NANOS, "attributes": attributes(said), "events": list(events)}
    return {"resourceSpans": [{"scopeSpans": [{"spans": [one]}]}]}


def read(tmp_path: Path, *records: object, model: str = "") -> tuple[list[LoggedOutput], list[str], dict[str, int]]:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    reader = OutputReader(path, model=model)
    items = list(reader)
    bad = [item.error for item in items if isinstance(item, Quarantined)]
    return [item.record for item in items if isinstance(item, Parsed)], bad, reader.skipped


def test_events_for_each_message_are_one_call_for_each_answer(tmp_path):
    asked = event("gen_ai.user.message", {"content": "Why rain?"})
    second = {**CHOICE, "message": {"role": "assistant", "content": "Sea."}}
    answers = [event("gen_ai.choice", {"index": index, **choice}) for index, choice in enumerate((CHOICE, second))]
    outputs, bad, skipped = read(tmp_path, log(asked), log(*answers), model="m")
    assert not bad
    assert [(output.messages, output.completion, output.model) for output in outputs] == [
        (ASKED, "Hills.", "m"),
        (ASKED, "Sea.", "m"),
    ]
    assert len({output.external_id for output in outputs}) == 2
    assert skipped == {"events with what was asked, which belong to an answer": 1}
    _, bad, _ = read(tmp_path, log(asked, *answers))
    assert bad == ["OpenTelemetry: the log does not name the model; give it: --model-name NAME"] * 2
    _, bad, _ = read(tmp_path, log(*answers), model="m")
    assert "the events with what was asked are missing before this answer" in bad[0]


MESSAGES = '[{"role": "user", "content": "Why rain?"}]'
ANSWERS = '[{"role": "assistant", "content": "Hills."}]'
MODEL = {"gen_ai.request.model": "m"}
SPANS = {
    "OpenLLMetry": span(
        MODEL
        | {"llm.request.type": "chat", "gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "Why rain?"}
        | {"gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.content": "Hills."}
    ),
    "events of the span with JSON": span(
        MODEL,
        {"name": "gen_ai.content.prompt", "attributes": attributes({"gen_ai.prompt": MESSAGES})},
        {"name": "gen_ai.content.completion", "attributes": attributes({"gen_ai.completion": ANSWERS})},
    ),
    "events of the span for each message": span(
        MODEL,
        {"name": "gen_ai.user.message", "attributes": attributes({"content": "Why rain?"})},
        {"name": "gen_ai.choice", "attributes": attributes({"index": 0, "message": json.dumps(CHOICE["message"])})},
    ),
    "OpenInference": span(
        {"openinference.span.kind": "LLM", "llm.model_name": "m", "llm.input_messages.0.message.role": "user"}
        | {"llm.input_messages.0.message.contents.0.message_content.type": "text"}
        | {"llm.input_messages.0.message.contents.0.message_content.text": "Why rain?"}
        | {"llm.output_messages.0.message.role": "assistant", "llm.output_messages.0.message.content": "Hills."}
    ),
    "OpenInference, input and output": span(
        {"openinference.span.kind": "LLM", "llm.model_name": "m", "input.value": MESSAGES, "output.value": "Hills."}
    ),
}


@pytest.mark.parametrize("name", SPANS)
def test_a_span_by_any_conventions_is_read(tmp_path, name):
    outputs, bad, _ = read(tmp_path, SPANS[name])
    assert not bad
    assert [(output.messages, output.completion, output.model) for output in outputs] == [(ASKED, "Hills.", "m")]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (span({"http.method": "GET"}), "spans that are no call of a model"),
        (span({"openinference.span.kind": "RETRIEVER", "output.value": "A"}), "spans that are no call of a model"),
        (span({"gen_ai.operation.name": "execute_tool"}), "spans that are no call of a model"),
        (log({**IDS, "body": {"stringValue": "GET /"}}), "log records that are no event of a call of a model"),
        ({"resourceMetrics": []}, "metrics"),
        ({"resourceSpans": []}, "documents without spans and log records"),
    ],
)
def test_what_is_no_call_is_skipped(tmp_path, record, reason):
    assert read(tmp_path, record) == ([], [], {reason: 1})


@pytest.mark.parametrize(
    ("record", "error"),
    [
        (
            span({"openinference.span.kind": "LLM", "input.value": "A", "output.value": "B"}),
            "`llm.model_name` is missing",
        ),
        (span({"openinference.span.kind": "SONG", "output.value": "B"}), "`openinference.span.kind` is 'SONG'"),
        (span({"gen_ai.system": "openai"}), "`gen_ai.output.messages` is missing"),
        (span({"ai.model.id": "m"}), "`gen_ai.output.messages` is missing"),
        (span({"gen_ai.operation.name": "sing"}), "`gen_ai.output.messages` is missing"),
    ],
)
def test_what_may_be_a_call_is_quarantined_with_what_is_missing(tmp_path, record, error):
    outputs, bad, skipped = read(tmp_path, record)
    assert not outputs
    assert not skipped
    assert bad[0].startswith(f"OpenTelemetry: {error}")


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_phoenixs_frame_of_spans_is_read_from_any_kind_of_file(tmp_path, kind):
    row = {
        "context.span_id": "s1",
        "context.trace_id": "t1",
        "span_kind": "LLM",
        "status_code": "OK",
        "start_time": "2025-11-01 00:00:00+00:00",
        "attributes.llm.model_name": "m",
        "attributes.llm.input_messages": json.dumps([{"message.role": "user", "message.content": "Why rain?"}]),
        "attributes.llm.output_messages": json.dumps([{"message.role": "assistant", "message.content": "Hills."}]),
    }
    path, frame = tmp_path / f"spans.{kind}", pl.DataFrame([row])
    {"csv": frame.write_csv, "parquet": frame.write_parquet, "jsonl": frame.write_ndjson}[kind](path)
    (item,) = OutputReader(path)
    assert isinstance(item, Parsed), item
    assert (item.record.messages, item.record.completion, item.record.name) == (ASKED, "Hills.", "openinference:t1:s1")


PAYLOAD = {
    "id": "l1",
    "call_type": "acompletion",
    "startTime": 1761955200.5,
    "model": "m",
    "messages": [{"role": "user", "content": "Why rain?"}],
    "response": {"id": "l1", "choices": [CHOICE]},
}
SPENT = {
    "request_id": "l1",
    "call_type": "acompletion",
    "startTime": "2025-11-01 00:00:00.500",
    "model": "m",
    "messages": "{}",
    "proxy_server_request": json.dumps({"messages": PAYLOAD["messages"]}),
    "response": json.dumps(PAYLOAD["response"]),
}


@pytest.mark.parametrize("record", [PAYLOAD, SPENT])
@pytest.mark.parametrize(
    "kind", ["acompletion", "pass_through_endpoint", "allm_passthrough_route", "aresponses", "new"]
)
def test_litellms_calls_of_every_type_are_read_if_they_hold_messages_and_a_text(tmp_path, record, kind):
    (output,), bad, skipped = read(tmp_path, {**record, "call_type": kind})
    assert not bad
    assert not skipped
    assert (output.messages, output.completion, output.name) == (ASKED, "Hills.", "litellm:l1")
    assert f"{output.occurred_at}" == "2025-11-01 00:00:00.500000+00:00"


@pytest.mark.parametrize(
    "kind", ["aembedding", "moderation", "arerank", "aimage_generation", "aspeech", "afile_content"]
)
def test_litellms_calls_that_generate_no_text_are_skipped(tmp_path, kind):
    assert read(tmp_path, {**PAYLOAD, "call_type": kind})[2] == {"calls that generate no text": 1}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (
            {"call_type": "atranscription", "response": {"text": "A"}},
            "`call_type` is 'atranscription', and the response",
        ),
        (
            {"response": {}},
            "`response` is empty in a call of type 'acompletion'; spend logs keep it with store_prompts",
        ),
        (
            {"messages": [{"role": "user", "content": "The (litellm_truncated skipped 4000 chars) sang."}]},
            "LiteLLM cut a",
        ),
        ({"startTime": "soon"}, "`startTime` must be an ISO 8601 time, or seconds since 1970"),
    ],
)
def test_litellms_record_that_holds_no_whole_text_is_quarantined(tmp_path, change, error):
    outputs, bad, _ = read(tmp_path, PAYLOAD | change)
    assert not outputs
    assert bad[0].startswith(f"LiteLLM: {error}")
