from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit.errors import InputError, InvalidRequestError
from credit.ingest.fields import weight_micro
from credit.ingest.files import Parsed
from credit.ingest.outputs import OutputLimits, OutputReader
from credit.records import MICRO, LoggedOutput, Message, Place, Quarantined

OWN_FORMAT = "credit's own format"
OWN = {"id": "o1", "occurred_at": "2025-10-31T23:59:00+02:00", "model": "m", "prompt": "Q", "completion": "A"}
MUCH_LATER = "2099-01-07T09:31:00Z"
LATE = f": `occurred_at` {MUCH_LATER} is more than 1 day ahead of this machine's clock"
MOMENT = datetime(2025, 10, 31, 21, 59, tzinfo=UTC)
PARSED = LoggedOutput("own", "o1", MOMENT, "m", "A", "Q")
REQUEST = {"model": "m", "messages": [{"role": "user", "content": "Q"}]}
RESPONSE = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1761955140,
    "model": "m-2026",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "A"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
CALL = LoggedOutput(
    "openai", "chatcmpl-1", datetime(2025, 10, 31, 23, 59, tzinfo=UTC), "m-2026", "A", messages=(Message("user", "Q"),)
)


def write(tmp_path: Path, *lines: bytes | Mapping[str, object], name: str = "outputs.jsonl") -> Path:
    path = tmp_path / name
    raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(raw) + b"\n")
    return path


def outputs(path: Path, **options: Any) -> list[LoggedOutput]:
    items = list(OutputReader(path, **options))
    assert all(isinstance(item, Parsed) for item in items), items
    return [item.record for item in items if isinstance(item, Parsed)]


def refused(path: Path) -> Quarantined:
    (item,) = OutputReader(path)
    assert isinstance(item, Quarantined)
    return item


def test_a_record_of_the_own_format_is_read_with_its_place_and_bytes(tmp_path):
    path = write(tmp_path, OWN)
    assert list(OutputReader(path)) == [Parsed(PARSED, Place(str(path), 1), json.dumps(OWN).encode())]


def test_optional_fields_are_read_and_null_means_absent(tmp_path):
    chat = [{"role": "user", "content": [{"type": "text", "text": "Q"}, {"type": "text", "text": "?"}]}]
    full = {**OWN, "prompt": None, "messages": chat, "weight": 0.25, "source": "web", "id": 7}
    (output,) = outputs(write(tmp_path, full))
    assert output == LoggedOutput("web", "7", MOMENT, "m", "A", messages=(Message("user", "Q?"),), weight_micro=250_000)
    (bare,) = outputs(write(tmp_path, {**OWN, "prompt": None, "weight": None, "messages": None}))
    assert (bare.prompt, bare.messages, bare.weight_micro) == ("", (), MICRO)


def test_a_source_that_is_given_goes_first(tmp_path):
    path = write(tmp_path, {**OWN, "source": "web"}, {"request": REQUEST, "response": RESPONSE})
    assert [output.source for output in outputs(path)] == ["web", "openai"]
    assert [output.source for output in outputs(path, source="x")] == ["x", "x"]


def test_csv_parquet_gzip_and_json_lines_say_the_same(tmp_path):
    messages = json.dumps([{"role": "user", "content": 'Q, "x"\n'}])
    chat = {**OWN, "id": "o2", "prompt": "", "messages": messages, "weight": "0.5"}
    rows = [{**OWN, "messages": "", "weight": ""}, chat]
    with (tmp_path / "outputs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    frame = pl.DataFrame([{name: value or None for name, value in row.items()} for row in rows])
    frame = frame.with_columns(
        pl.col("occurred_at").str.to_datetime(time_zone="UTC"), pl.col("weight").cast(pl.Float64), junk=pl.lit(1)
    )
    frame.write_parquet(tmp_path / "outputs.parquet")
    json_rows = [OWN, {**chat, "messages": json.loads(messages), "weight": Decimal("0.5")}]
    lines = [json.dumps(row, default=float).encode() for row in json_rows]
    (tmp_path / "outputs.jsonl.gz").write_bytes(gzip.compress(b"\n\n".join(lines)))
    (tmp_path / "outputs.csv.gz").write_bytes(gzip.compress((tmp_path / "outputs.csv").read_bytes()))
    expected = [
        PARSED,
        LoggedOutput("own", "o2", MOMENT, "m", "A", "", (Message("user", 'Q, "x"\n'),), weight_micro=500_000),
    ]
    for name in ("outputs.csv", "outputs.csv.gz", "outputs.parquet", "outputs.jsonl.gz"):
        assert outputs(tmp_path / name) == expected, name
    reader = OutputReader(tmp_path / "outputs.parquet")
    assert [item.place.line for item in reader] == [1, 2]
    assert reader.notices == ("field `junk` is not used (in 2 records)",)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"id": None}, "`id` is missing"),
        ({"id": ""}, "`id` is empty"),
        ({"id": "a\nb"}, "`id` holds a control character"),
        ({"id": "x" * 513}, "`id` has 513 characters"),
        ({"id": True}, "`id` must be a text"),
        ({"id": 1.5}, "`id` must be a text"),
        ({"occurred_at": None}, "`occurred_at` is missing"),
        ({"occurred_at": "yesterday"}, "`occurred_at` is not an ISO 8601 time"),
        ({"occurred_at": "2025-10-31T23:59:00"}, "`occurred_at` has no time zone"),
        ({"occurred_at": 1761955140}, "`occurred_at` must be an ISO 8601 time"),
        ({"occurred_at": "1970-01-01T00:00:00Z"}, "`occurred_at` 1970-01-01 is before any logged output"),
        ({"occurred_at": "0001-01-01T00:00:00+23:00"}, "`occurred_at` is outside the calendar"),
        ({"model": 5}, "`model` must be a text"),
        ({"completion": None}, "`completion` is missing"),
        ({"completion": ["A"]}, "`completion` must be a text"),
        ({"completion": "a\0b"}, "`completion` holds a NUL character"),
        ({"completion": "\ud83d"}, "`completion` holds half a character"),
        ({"weight": -1}, "`weight` is negative"),
        ({"weight": 0.0000001}, "`weight` has more than 6 decimal places"),
        ({"weight": 1e30}, "`weight` is more than 1000000000"),
        ({"weight": "a lot"}, "`weight` must be a plain finite number"),
        ({"weight": True}, "`weight` must be a plain finite number"),
        ({"messages": [{"role": "user", "content": "Q"}]}, "`prompt` and `messages` are both given"),
        ({"messages": "Q"}, "`messages` malformed JSON"),
        ({"messages": ["Q"]}, "`messages` must be a list of objects"),
        ({"messages": [{"content": "Q"}]}, "`messages` 0: `role` must be a name"),
        ({"messages": [{"role": "user", "content": None}]}, "`messages` 0: `content` must be a text or a list"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "`messages` 0: `content` holds a part"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "`messages` 0: holds a call of a tool without a"),
    ],
)
def test_a_record_that_cannot_be_used_is_quarantined_and_its_neighbours_are_read(tmp_path, change, error):
    bad = json.dumps({**OWN, **change}).encode()
    path = write(tmp_path, OWN, bad, {**OWN, "id": "o3"})
    first, second, third = OutputReader(path)
    assert isinstance(first, Parsed)
    assert isinstance(third, Parsed)
    assert isinstance(second, Quarantined)
    assert second.error.startswith(f"{OWN_FORMAT}: {error}")
    assert (second.place, second.raw) == (Place(str(path), 2), bad)


def test_every_wrong_field_is_named_at_once(tmp_path):
    item = refused(write(tmp_path, {"id": "o1", "completion": 3}))
    assert item.error == f"{OWN_FORMAT}: `occurred_at` is missing; `model` is missing; `completion` must be a text"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (json.dumps(OWN).encode()[:-5], "malformed JSON"),
        (b'{"id": "caf\xe9"}', "byte 0xe9 at position 12 is not UTF-8"),
        (b'{"weight": NaN}', "malformed JSON: NaN is not a JSON number"),
        (b"[]", "a record must be a JSON object"),
        (json.dumps(OWN).encode().replace(b'"A"', b'"A", "weight": 1e999999'), f"{OWN_FORMAT}: `weight` is more than"),
        (
            json.dumps(OWN).encode().replace(b'"A"', b'"A", "weight": 1e-999999'),
            f"{OWN_FORMAT}: `weight` has more than 6 decimal",
        ),
    ],
)
def test_a_line_that_is_no_record_is_quarantined(tmp_path, line, error):
    item = refused(write(tmp_path, line))
    assert item.error.startswith(error)
    assert item.raw == line


@pytest.mark.parametrize(
    ("text", "micro"),
    [
        ("0", 0),
        ("0e-99", 0),
        ("-0.0", 0),
        ("0.000001", 1),
        ("1", 10**6),
        ("2.5000000000", 2_500_000),
        ("10.00", 10**7),
        ("1e3", 10**9),
        ("1000000000", 10**15),
    ],
)
def test_weights_are_exact(tmp_path, text, micro):
    line = json.dumps(OWN).encode().replace(b'"A"', b'"A", "weight": ' + text.encode())
    limits = OutputLimits(max_weight_micro=10**15)
    assert outputs(write(tmp_path, line), limits=limits)[0].weight_micro == micro


@given(st.decimals(0, 10**9, allow_nan=False, allow_infinity=False, places=6))
def test_any_weight_of_six_places_is_taken_exactly(weight):
    assert weight_micro(weight) == weight * MICRO


@pytest.mark.parametrize(
    "line",
    [
        {"request": REQUEST, "response": RESPONSE},
        {"messages": REQUEST["messages"], "response": RESPONSE},
        {"input": REQUEST, "output": RESPONSE},
        {"request_body": REQUEST, "response_body": RESPONSE},
        {"request": {"method": "POST", "body": REQUEST}, "response": {"status": 200, "body": RESPONSE}},
        {**RESPONSE, "messages": REQUEST["messages"]},
        {**RESPONSE, "request": REQUEST},
    ],
)
def test_chat_completions_are_read_in_all_the_ways_that_loggers_write_them(tmp_path, line):
    assert outputs(write(tmp_path, line)) == [CALL]


def choice(index: int, content: object, **fields: object) -> dict[str, object]:
    return {"index": index, "message": {"role": "assistant", "content": content, **fields}}


def test_each_of_several_choices_becomes_an_output_and_a_bad_one_stops_no_other(tmp_path):
    parts = [{"type": "text", "text": "B"}, {"type": "text", "text": "C"}]
    choices = [choice(0, "A"), choice(1, parts), choice(2, None, refusal="no"), choice(3, 5), choice(4, None)]
    path = write(tmp_path, {"request": REQUEST, "response": {**RESPONSE, "choices": choices}})
    reader = OutputReader(path)
    first, second, third = reader
    assert isinstance(first, Parsed)
    assert isinstance(second, Parsed)
    assert (first.record.external_id, first.record.completion) == ("chatcmpl-1#0", "A")
    assert (second.record.external_id, second.record.completion) == ("chatcmpl-1#1", "BC")
    assert isinstance(third, Quarantined)
    assert third.error == "OpenAI chat: choice 3: `content` must be a text or a list of text parts"
    assert reader.skipped == {"the model refused": 1, "the answer is empty": 1}


@pytest.mark.parametrize(
    ("response", "error"),
    [
        ({"choices": [{"index": 0, "message": {"role": "assistant"}}]}, "choice 0: `message` has no `content`"),
        ({"choices": [choice(0, "a\0b")]}, "choice 0: `content` holds a NUL character"),
        ({"choices": [choice(0, [{"type": "audio"}])]}, "choice 0: `content` holds a part that is not text"),
        ({"choices": [{"index": 0, "text": "A"}]}, "choice 0: `message` is missing"),
        ({"choices": [choice(0, "A"), choice(0, "B")]}, "`choices` need indexes"),
        ({"choices": []}, "`choices` is empty"),
        ({"choices": "A"}, "`choices` must be a valid list"),
        ({"id": None}, "`id` must be a text"),
        ({"created": None}, "`created` must be a whole number"),
        ({"created": 1761955140000}, "`created` is not a time in seconds since 1970 (are they milliseconds?)"),
        ({"created": 0}, "`created` 1970-01-01 is before any logged output"),
        ({"created": 10**400}, "`created` is not a time"),
        ({"object": "chat.completion.chunk"}, "the response is a 'chat.completion.chunk'"),
    ],
)
def test_a_call_that_cannot_be_used_is_quarantined_with_the_reason(tmp_path, response, error):
    item = refused(write(tmp_path, {"request": REQUEST, "response": {**RESPONSE, **response}}))
    assert item.error.startswith(f"OpenAI chat: {error}")


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ({"choices": [choice(0, None, tool_calls=[{}])]}, "the answer is a call of a tool"),
        ({"choices": [choice(0, " ", tool_calls=[{}])]}, "the answer is a call of a tool"),
        ({"choices": [choice(0, None)]}, "the answer is empty"),
        ({"choices": [choice(0, "\n")]}, "the answer is empty"),
        ({"choices": [choice(0, None, reasoning_content="Hm.")]}, "the model thought and did not begin its answer"),
        ({"choices": [choice(0, "<think>Hm.")]}, "the model thought and did not begin its answer"),
        ({"choices": [choice(0, None, refusal="no")]}, "the model refused"),
        ({"choices": [choice(0, [{"type": "refusal", "refusal": "no"}])]}, "the model refused"),
        ({"error": {"message": "overloaded"}}, "the call failed"),
    ],
)
def test_a_call_without_a_text_is_counted_and_not_quarantined(tmp_path, response, reason):
    reader = OutputReader(write(tmp_path, {"request": REQUEST, "response": {**RESPONSE, **response}}))
    assert list(reader) == []
    assert reader.skipped == {reason: 1}


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (RESPONSE, "OpenAI chat: the request's `messages` are missing"),
        ({"request": {"model": "m"}, "response": RESPONSE}, "OpenAI chat: the request's `messages` are missing"),
        ({"request": REQUEST, "response": "A"}, "request and response: `response` must be a JSON object"),
        ({"request": REQUEST, "response": {"body": "A"}}, "request and response: `response` must be a JSON object"),
    ],
)
def test_half_a_call_is_quarantined(tmp_path, line, error):
    assert refused(write(tmp_path, line)).error.startswith(error)


@pytest.mark.parametrize("completion", ["", " \n"])
def test_an_empty_completion_is_counted_and_not_quarantined(tmp_path, completion):
    reader = OutputReader(write(tmp_path, {**OWN, "completion": completion}))
    assert list(reader) == []
    assert reader.skipped == {"the answer is empty": 1}


def test_a_field_that_is_not_used_is_named_and_counted(tmp_path):
    path = write(tmp_path, {**OWN, "weigth": 5}, {"request": REQUEST, "response": RESPONSE, "weight": 2, "tier": 1})
    reader = OutputReader(path)
    for _ in range(2):
        assert len(list(reader)) == 2
        assert reader.notices == (
            "field `tier` is not used (in 1 record)",
            "field `weight` is not used (in 1 record)",
            "field `weigth` is not used (in 1 record)",
        )


def test_a_file_that_cannot_be_used_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    for name, message in (("gone.jsonl", "does not exist"), ("empty.jsonl", "is empty"), (".", "is a folder")):
        with pytest.raises(InputError, match=message):
            OutputReader(tmp_path / name)


@pytest.mark.parametrize("content", [b"PAR1", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_a_damaged_parquet_file_is_an_error_that_names_it(tmp_path, content):
    path = tmp_path / "outputs.parquet"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"outputs.parquet is not a whole Parquet file"):
        list(OutputReader(path))


def test_a_parquet_file_without_rows_or_columns_of_use_is_an_error(tmp_path):
    path = tmp_path / "outputs.parquet"
    pl.DataFrame(schema={"id": pl.String}).write_parquet(path)
    with pytest.raises(InputError, match="holds no records"):
        list(OutputReader(path))
    pl.DataFrame({"x": [1]}).write_parquet(path)
    with pytest.raises(InputError, match="none of the columns that are read; found x"):
        list(OutputReader(path))


def test_a_parquet_row_of_the_wrong_type_is_named_by_its_number(tmp_path):
    path = tmp_path / "outputs.parquet"
    rows = [{**OWN, "occurred_at": MOMENT, "weight": 1.0}, {**OWN, "occurred_at": MOMENT, "weight": float("nan")}]
    pl.DataFrame(rows).write_parquet(path)
    good, bad = OutputReader(path)
    assert isinstance(good, Parsed)
    assert isinstance(bad, Quarantined)
    error = f"{OWN_FORMAT}: `weight` must be a plain finite number, like 1 or 0.25"
    assert (bad.place, bad.error) == (Place(str(path), 2), error)
    assert json.loads(bad.raw)["id"] == "o1"


mixed_lines = st.lists(
    st.binary()
    | st.sampled_from([b"", b" ", b"{}", b'{"a"', b"\xff", json.dumps(OWN).encode(), json.dumps(RESPONSE).encode()])
    | st.dictionaries(st.sampled_from(sorted(OWN)), st.sampled_from([*OWN.values(), 1, None])).map(
        lambda record: json.dumps(record).encode()
    ),
    min_size=1,
)


@given(mixed_lines)
def test_every_line_is_accepted_or_quarantined_or_blank_and_no_byte_is_lost(tmp_path_factory, lines):
    content = b"\n" + b"\n".join(lines)
    path = tmp_path_factory.mktemp("fuzz") / "outputs.jsonl"
    path.write_bytes(content)
    expected = {
        number: raw.removesuffix(b"\r")
        for number, raw in enumerate(content.split(b"\n"), 1)
        if raw.removesuffix(b"\r").strip()
    }
    try:
        found = {item.place.line: item.raw for item in OutputReader(path)}
    except InputError as error:
        assert "holds no records" in str(error)  # noqa: PT017 - right for a file of blank lines alone
        found = {}
    assert found == expected


@pytest.mark.parametrize(("name", "content"), [("o.jsonl", b"\n \r\n\n"), ("o.csv", b"id,completion\n")])
def test_a_file_without_a_record_is_an_error_that_names_it(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} holds no records"):
        list(OutputReader(tmp_path / name))


HEADER = ",".join(OWN).encode()
ROW = b",".join(value.encode() for value in OWN.values())


def test_a_csv_row_that_is_too_long_is_reported_and_the_rows_around_it_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("credit.ingest.files.LINE_LIMIT", 1000)
    path = write(tmp_path, HEADER, ROW, b'"' + b"x" * 999, b"rest", name="outputs.csv")
    good, bad = OutputReader(path)
    assert isinstance(good, Parsed)
    assert isinstance(bad, Quarantined)
    assert bad.error == "malformed CSV: a row is longer than 1000 bytes (an open quote?); the rest is not read"


def test_a_csv_line_over_the_limit_swallows_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr("credit.ingest.files.LINE_LIMIT", 2000)
    path = write(tmp_path, HEADER, b'"' + b"x" * 5000, ROW, name="outputs.csv")
    bad, good = OutputReader(path)
    assert isinstance(good, Parsed)
    assert isinstance(bad, Quarantined)
    assert bad.error == "the line is 5002 bytes long; the limit is 2000"


def test_a_record_of_too_many_values_is_quarantined_and_its_neighbours_are_read(tmp_path, monkeypatch):
    for module in ("files", "json_documents"):
        monkeypatch.setattr(f"credit.ingest.{module}.MOST_VALUES", 500)
    table = write(tmp_path, HEADER, ROW, b"," * 501, ROW, b'"\n",' * 502, name="outputs.csv")
    good, wide, also_good, many = OutputReader(table)
    assert isinstance(good, Parsed)
    assert isinstance(also_good, Parsed)
    assert wide.error == "the line holds more than 500 commas"
    assert many.error == "malformed CSV: a row holds more than 500 commas (an open quote?); the rest is not read"
    lines = write(tmp_path, OWN, b'{"messages": [' + b"{}," * 501 + b"{}]}", OWN)
    good, wide, also_good = OutputReader(lines)
    assert isinstance(good, Parsed)
    assert isinstance(also_good, Parsed)
    assert wide.error == "the record holds more than 500 values; write it as several"


def test_a_csv_cell_longer_than_the_csv_modules_own_limit_is_read(tmp_path):
    path = write(tmp_path, HEADER, ROW + b"x" * 200_000, name="outputs.csv")
    assert len(outputs(path)[0].completion) == 200_001


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "log.parquet"])
def test_fields_that_a_log_names_otherwise_are_read_by_a_mapping(tmp_path, name):
    row = {"uid": "a1", "when": "2025-10-05T12:00:00Z", "model": "m", "answer": " Ships sang.", "prompt": "not ours"}
    path, frame = tmp_path / name, pl.DataFrame([row | {"input": "Sing.", "choices": "x"}])
    if name.endswith("csv"):
        frame.write_csv(path)
    elif name.endswith("jsonl"):
        frame.write_ndjson(path)
    else:
        frame.write_parquet(path)
    fields = {"id": "uid", "occurred_at": "when", "completion": "answer", "prompt": "input"}
    reader = OutputReader(path, fields=fields)
    (found,) = [item.record for item in reader]
    assert (found.external_id, found.completion, found.prompt) == ("a1", " Ships sang.", "Sing.")
    assert reader.notices == ("field `choices` is not used (in 1 record)", "field `prompt` is not used (in 1 record)")
    with pytest.raises(InvalidRequestError, match="no such field: text; known are id, occurred_at, model"):
        OutputReader(path, fields={"text": "answer"})


def test_an_output_of_outlandish_weight_or_time_is_quarantined_and_its_neighbours_go_in(tmp_path):
    heavy, late = (
        {**OWN, "id": "heavy", "weight": 1_000_000_000},
        {**OWN, "id": "late", "occurred_at": MUCH_LATER},
    )
    path = write(tmp_path, OWN, heavy, late, {**OWN, "id": "most", "weight": 1000})
    first, *bad, last = OutputReader(path)
    assert (first.record.external_id, last.record.external_id) == ("o1", "most")
    assert [(item.place.line, json.loads(item.raw)) for item in bad] == [(2, heavy), (3, late)]
    assert [item.error for item in bad] == [
        f"{OWN_FORMAT}: `weight` 1000000000 is above the largest weight of 1000; if it is right: --max-weight {10**9}",
        f"{OWN_FORMAT}{LATE}; if both are right: --max-ahead DAYS",
    ]
    limits = OutputLimits(max_weight_micro=10**15, max_days_ahead=36_500)
    assert [item.external_id for item in outputs(path, limits=limits)] == ["o1", "heavy", "late", "most"]


def test_a_record_is_quarantined_beyond_a_limit_and_not_at_it():
    limits, now = OutputLimits(max_weight_micro=2_500_000, max_days_ahead=2), MOMENT
    at = replace(PARSED, weight_micro=2_500_000, occurred_at=now + timedelta(days=2))
    assert limits.problem(at, now) == ""
    assert "`weight` 2.500001 is above the largest weight of 2.5;" in limits.problem(
        replace(at, weight_micro=2_500_001), now
    )
    later = replace(at, occurred_at=at.occurred_at + timedelta(microseconds=1))
    assert "more than 2 days ahead" in limits.problem(later, now)


@pytest.mark.parametrize("limits", [{"max_weight_micro": -1}, {"max_days_ahead": -1}, {"max_days_ahead": 36_501}])
def test_limits_that_make_no_sense_are_refused(limits):
    with pytest.raises(InvalidRequestError):
        OutputLimits(**limits)
