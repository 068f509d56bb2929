"""Damaged files of every kind: their records are read, skipped or quarantined, all are counted, and no error is raised.

The suite tries few of them. A long run: `make fuzz`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credit.errors import InputError
from credit.ingest.batch_requests import read_batch_requests
from credit.ingest.files import Parsed, read_rows
from credit.ingest.outputs import OutputLimits, OutputReader
from credit.ingest.streams import zstd
from credit.ingest.training import TrainingReader
from credit.ingest.training_source import TrainingSource
from credit.records import Quarantined
from tests.ingest.sample_logs import LOGS, NAMES, asked
from tests.ingest.spoiling import damaged, fuzz, spoilt

TOLD = datetime(2026, 11, 1, 9, 30, tzinfo=UTC)
OWN = [
    {"id": f"o{number}", "occurred_at": "2026-11-01T09:30:00Z", "model": "my-llm", "weight": 0.5, "user": "ann",
     "messages": [{"role": "user", "content": "How lay the harbour?"}], "completion": f"It lay still, {number} times."}
    for number in range(5)
]  # fmt: skip


def table(records: list[dict[str, object]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]))
    writer.writeheader()
    writer.writerows(
        {name: json.dumps(value) if isinstance(value, list) else value for name, value in row.items()}
        for row in records
    )
    return text.getvalue().encode()


def lines(records: list[dict[str, object]]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


FILES: dict[str, Callable[[], bytes]] = {
    **{name: (LOGS / name).read_bytes for name in NAMES},
    "own.csv": lambda: table(OWN),
    "own.jsonl": lambda: lines(OWN),
    "own.json": lambda: json.dumps(OWN, indent=1).encode(),
    "own.jsonl.gz": lambda: gzip.compress(lines(OWN)),
    "own.csv.zst": lambda: zstd.compress(table(OWN)),
}


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_log_is_read_skipped_or_quarantined_record_by_record(name, tmp_path_factory):
    requests = read_batch_requests(asked(name))
    path = tmp_path_factory.mktemp("damaged") / name

    @settings(max_examples=fuzz(15))
    @given(damaged(FILES[name]()))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            reader = OutputReader(path, requests=requests, occurred_at=TOLD, limits=OutputLimits(max_days_ahead=36_500))
            items = list(reader)
        except InputError as error:
            assert str(path) in str(error)  # noqa: PT017 - read, or refused as a whole
            return
        assert len(items) + sum(reader.skipped.values()) == reader.read
        for item in items:
            assert 1 <= item.place.line <= content.count(b"\n") + 1 or name.endswith((".gz", ".zst"))
            assert not isinstance(item, Quarantined) or item.error
            assert not isinstance(item, Parsed) or item.record.completion.strip()

    check()


CHAT = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
TRAINING = [
    {"id": "1", "provider": "ann", "text": "The harbour lay still."},
    {"id": "2", "provider": "ben", "prompt": "How lay it?", "completion": "Still.", "collection": "x"},
    {"id": "3", "splits": [{"provider": "ann", "share": "1/3"}, {"provider": "ben", "share": "2/3"}], "text": "Both."},
    {
        "id": "4",
        "provider": "ann",
        "messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}],
    },
    {"provider": "ann", "instruction": "Sing.", "input": "", "output": "La."},
    {"id": "6", "provider": "ben", "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
    {"id": "7", "provider": "ben", "prompt": "Q", "chosen": "Good.", "rejected": "Bad."},
    {
        "provider": "ann",
        "tokens": [1, 2, 3],
        "meta": {"license": "x", "url": "https://example.org/a"},
        "text": "Again.",
    },
]


@settings(max_examples=fuzz(60))
@given(spoilt(TRAINING), st.sampled_from(["records", "both"]))
def test_a_spoilt_training_record_is_used_left_out_or_quarantined(tmp_path_factory, found, preference):
    path = tmp_path_factory.getbasetemp() / "spoilt-training.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in found))
    source = TrainingSource(provider="cleo", preference="both") if preference == "both" else None
    reader = TrainingReader([path], source=source)
    records = list(reader)
    counts = reader.counts
    assert counts.records == len(records) == len({record.id for record in records})
    kept = counts.records + counts.duplicates + counts.repeats + counts.quarantined
    assert len(found) <= kept <= len(found) + (preference == "both") * len(found)


@settings(max_examples=fuzz(40))
@given(
    st.sampled_from([table, lines, lambda records: json.dumps(records, indent=1).encode()]).flatmap(
        lambda write: damaged(write([{**record, "id": str(number)} for number, record in enumerate(TRAINING[:1] * 4)]))
    )
)
def test_a_damaged_file_of_training_data_is_read_or_quarantined_record_by_record(tmp_path_factory, content):
    for ending in ("csv", "jsonl"):
        path = tmp_path_factory.getbasetemp() / f"damaged-training.{ending}"
        path.write_bytes(content)
        try:
            reader = TrainingReader([path])
            records = list(reader)
        except InputError as error:
            assert str(path) in str(error)  # noqa: PT017 - read, or refused as a whole
        else:
            assert reader.counts.records == len(records)


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_damaged_table_is_read_or_refused_with_a_reason(tmp_path_factory, kind):
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / f"data.{kind}"
    frame = pl.DataFrame([{"text": "The harbour lay still.", "messages": [{"role": "user", "content": "Q"}] * 3}] * 20)
    if kind == "parquet":
        frame.write_parquet(path, row_group_size=7)
    else:
        frame.write_ipc_stream(path)
        (folder / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    whole = path.read_bytes()

    @settings(max_examples=fuzz(3))
    @given(st.integers(0, 2**32))
    def check(seed: int) -> None:
        draw = random.Random(seed)
        content = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            content[draw.randrange(4, len(content) - 4)] = draw.randrange(256)
        path.write_bytes(content)
        try:
            found = list(read_rows(path if kind == "parquet" else folder, {"text", "messages"}, Counter()))
        except InputError as error:
            assert str(path) in str(error)  # noqa: PT017 - read, or refused as a whole
        else:
            assert len(found) <= 20

    check()
