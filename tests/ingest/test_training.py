from __future__ import annotations

import csv
import gzip
import json
import os
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit.errors import InputError, InvalidRequestError
from credit.ingest.lines import LINE_LIMIT
from credit.ingest.training import TrainingReader
from credit.ingest.training_source import TrainingSource
from credit.records import Group, Message, Place, Quarantined, Share, TrainingRecord

TEXT = {"id": "1", "provider": "ann", "text": "Once upon a time"}
PAIR = {"id": "2", "provider": "bob", "collection": "Q & A", "prompt": "Why?", "completion": "Because."}
CHAT = {
    "id": "3",
    "provider": "ann",
    "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
}
RECORDS = [
    TrainingRecord("1", Group("ann"), "Once upon a time"),
    TrainingRecord("2", Group("bob", "Q & A"), "Because.", "Why?"),
    TrainingRecord("3", Group("ann"), messages=(Message("user", "Hi"), Message("assistant", "Hello"))),
]


def _split(*shares: tuple[object, object], **more: object) -> dict[str, object]:
    """A record shared by providers."""
    splits = [{"provider": provider, "share": share, **more} for provider, share in shares]
    return {"id": "1", "text": "Once upon a time", "splits": splits}


def write(tmp_path: Path, *records: object, name: str = "data.jsonl") -> Path:
    path = tmp_path / name
    raw = [record if isinstance(record, bytes) else json.dumps(record).encode() for record in records]
    path.write_bytes(b"\n".join(raw) + b"\n")
    return path


def save_dataset(folder: Path, *shards: list[dict[str, object]]) -> Path:
    """Write what `datasets.Dataset.save_to_disk` writes."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{len(shards):05d}.arrow" for i in range(len(shards))]
    for name, rows in zip(names, shards, strict=True):
        pl.DataFrame(rows, infer_schema_length=None).write_ipc_stream(folder / name)
    (folder / "dataset_info.json").write_text("{}")
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "x", "_split": "train"}
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def test_the_three_forms_are_read_from_every_kind_of_file(tmp_path):
    jsonl = write(tmp_path, TEXT, PAIR, CHAT)
    zipped = tmp_path / "data.jsonl.gz"
    zipped.write_bytes(gzip.compress(jsonl.read_bytes()))
    parquet = tmp_path / "data.parquet"
    pl.DataFrame([TEXT, PAIR, CHAT], infer_schema_length=None).write_parquet(parquet)
    saved = save_dataset(tmp_path / "saved", [TEXT, PAIR], [CHAT])
    for path in (jsonl, zipped, parquet, saved):
        reader = TrainingReader([path])
        assert list(reader) == RECORDS, path
        assert reader.quarantined == []
        assert reader.notices == ()


def test_files_are_streamed_and_can_be_read_again(tmp_path):
    reader = TrainingReader([write(tmp_path, TEXT, PAIR, b"{")])
    assert next(iter(reader)) == RECORDS[0]
    for _ in range(2):
        assert list(reader) == RECORDS[:2]
        counts = reader.counts
        assert (counts.records, counts.quarantined, len(reader.quarantined)) == (2, 1, 1)
        assert counts.records_by_group == {Group("ann"): 1, Group("bob", "Q & A"): 1}


def test_field_names_can_be_mapped(tmp_path):
    row = {"uid": 1, "owner": "ann", "content": "Once upon a time", "text": "a summary"}
    source = TrainingSource({"id": "uid", "provider": "owner", "text": "content"})
    reader = TrainingReader([write(tmp_path, row)], source=source)
    assert list(reader) == RECORDS[:1]
    assert reader.notices == ("field `text` is not used (in 1 record)",)
    swapped = {"id": "2", "provider": "bob", "collection": "Q & A", "completion": "Why?", "prompt": "Because."}
    mapping = {"prompt": "completion", "completion": "prompt"}
    assert list(TrainingReader([write(tmp_path, swapped)], source=TrainingSource(mapping))) == RECORDS[1:2]


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"body": "x"}, "no such field: body"), ({"id": "x", "text": "x"}, "mapped to the same name")],
)
def test_a_mapping_that_makes_no_sense_is_refused(tmp_path, fields, message):
    with pytest.raises(InvalidRequestError, match=message):
        TrainingReader([write(tmp_path, TEXT)], source=TrainingSource(fields))
    with pytest.raises(InvalidRequestError, match="no training data"):
        TrainingReader([])


@pytest.mark.parametrize(
    ("record", "error"),
    [
        ({**TEXT, "id": ""}, "`id` is empty"),
        ({**TEXT, "provider": None}, "`provider` is missing"),
        ({**TEXT, "provider": "Ann Author"}, "`provider` 'Ann Author' is not a provider key"),
        ({**TEXT, "provider": "house"}, "`provider` 'house' is reserved"),
        ({**TEXT, "provider": "zoe"}, "the provider 'zoe' is unknown; add it first"),
        ({**TEXT, "collection": " a"}, "`collection` must have 1 to 128 characters"),
        ({**TEXT, "text": None}, "exactly one is needed of `text`"),
        ({**TEXT, "text": " \n"}, "`text` is empty"),
        ({**TEXT, "text": 3}, "`text` must be a text"),
        ({**TEXT, "text": "a\0"}, "`text` holds a NUL character"),
        ({**TEXT, "prompt": "Why?"}, "exactly one is needed of"),
        ({**TEXT, "completion": "b", "prompt": "a"}, "exactly one is needed of"),
        ({**PAIR, "prompt": None}, "exactly one is needed of"),
        ({**PAIR, "completion": ""}, "`completion` is empty"),
        ({**CHAT, "messages": []}, "`messages` hold no answer"),
        ({**CHAT, "messages": [{"role": "user", "content": "Hi"}]}, "`messages` hold no answer"),
        ({**TEXT, "splits": [{"provider": "ann", "share": 1}]}, "`provider` and `splits` both say whose"),
        (_split(("ann", 0.5), ("bob", 0.4)), "`splits`: the shares sum to 0.9, not to 1"),
        (_split(("ann", 0.5), ("ann", 0.5)), "`splits`: ann/default is named twice"),
        (_split(("ann", 1), ("zoe", 0)), "the provider 'zoe' is unknown; add it first"),
        (_split(("ann", 1), ("house", 0)), "`provider` 'house' is reserved"),
        (_split(("ann", 0.3333333), ("bob", 0.6666667)), "`splits` 0: `share` has more than 6 decimal places"),
        (_split(("ann", 1.5), ("bob", -0.5)), "`splits` 0: `share` must be between 0 and 1"),
        (_split(("ann", True)), "`splits` 0: `share` must be a plain finite number"),
        (_split(("Ann", 1)), "`splits` 0: `provider` 'Ann' is not a provider key"),
        (_split(("ann", 0.5), (None, 0.5)), "`splits` 1: `provider` is missing"),
        (_split(("ann", 1), collection=3), "`splits` 0: `collection` must be a text"),
        ({**TEXT, "provider": None, "splits": []}, "`splits` must be a list of objects"),
        ({**TEXT, "provider": None, "splits": "[1]"}, "`splits` must be a list of objects"),
        (b"{", "a record must be a JSON object in one line; write it by jq -c"),
        (b'[{"id": "1"}]', "a record must be a JSON object in one line: {...}; make lines of a list"),
        (b'{"text": "\xff"}', "byte 0xff"),
    ],
)
def test_a_record_that_cannot_be_used_is_quarantined_and_its_neighbours_are_read(tmp_path, record, error):
    path = write(tmp_path, {**PAIR, "id": "0"}, record, {**CHAT, "id": "9"})
    reader = TrainingReader([path], known_providers={"ann", "bob"})
    assert [found.id for found in reader] == ["0", "9"]
    (bad,) = reader.quarantined
    assert bad.error.startswith(error)
    assert bad.place == Place(str(path), 2)
    assert bad.raw == (record if isinstance(record, bytes) else json.dumps(record).encode())


def test_shares_are_read_exactly_from_numbers_texts_and_any_kind_of_file(tmp_path):
    shares = [{"provider": "bob", "share": 0.3, "collection": "Q & A"}, {"provider": "ann", "share": 0.7}]
    row = {"id": "1", "text": "Once upon a time", "collection": "tales", "splits": shares}
    expected = TrainingRecord(
        "1", None, row["text"], splits=(Share(Group("ann", "tales"), 700_000), Share(Group("bob", "Q & A"), 300_000))
    )
    texts = [{**split, "share": str(split["share"])} for split in reversed(shares)]
    paths = [write(tmp_path, row, name="a.jsonl"), write(tmp_path, {**row, "splits": texts}, name="b.jsonl")]
    with (tmp_path / "c.csv").open("w", newline="") as file:
        csv.writer(file).writerows([list(row), ["1", row["text"], "tales", json.dumps(shares)]])
    pl.DataFrame([row]).write_parquet(tmp_path / "d.parquet")
    for path in [*paths, tmp_path / "c.csv", tmp_path / "d.parquet"]:
        reader = TrainingReader([path], known_providers={"ann", "bob"})
        assert list(reader) == [expected], (path, reader.quarantined)
    assert reader.counts.records == 1
    assert reader.counts.records_by_group == {Group("ann", "tales"): 1, Group("bob", "Q & A"): 1}


def test_shared_content_is_told_from_that_of_one_and_a_repeat_is_read_once(tmp_path):
    shared = _split(("ann", 0.5), ("bob", 0.5))
    path = write(tmp_path, TEXT, shared | {"id": "2"}, shared | {"id": "3"}, shared | {"id": "2"})
    reader = TrainingReader([path])
    assert [record.id for record in reader] == ["1", "2"]
    assert (reader.counts.shared, reader.counts.repeats, reader.counts.duplicates) == (1, 1, 1)
    assert reader.counts.shared_examples == (f"{path}:2 (ann,bob) = {path}:1 (ann)",)
    other = _split(("ann", 0.4), ("bob", 0.6))
    assert list(again := TrainingReader([write(tmp_path, shared, other)]))
    assert "was used before" in again.quarantined[0].error


def test_quarantined_records_can_be_streamed_instead_of_collected(tmp_path):
    found: list[Quarantined] = []
    reader = TrainingReader([write(tmp_path, b"{", TEXT, b"}")], on_quarantined=found.append)
    assert list(reader) == RECORDS[:1]
    assert [item.place.line for item in found] == [1, 3]
    assert reader.quarantined == []
    assert reader.counts.quarantined == 2


def test_a_record_that_comes_twice_counts_once_and_is_reported(tmp_path):
    reader = TrainingReader([write(tmp_path, TEXT, TEXT), write(tmp_path, {**TEXT, "license": "x"}, name="b.jsonl")])
    assert list(reader) == RECORDS[:1]
    assert (reader.counts.duplicates, reader.counts.quarantined) == (2, 0)
    assert reader.notices == (
        "field `license` is not used (in 1 record)",
        "2 records came twice, with the same id and content: counted once",
    )


def test_terms_in_the_data_are_said_not_to_be_used(tmp_path):
    records = [{**TEXT, "license": "CC-BY-4.0", "agreement_ref": "A-7"}, {**PAIR, "license": 4}]
    jsonl = write(tmp_path, *records)
    parquet = tmp_path / "data.parquet"
    pl.DataFrame([{**record, "license": "x", "agreement_ref": "y"} for record in records]).write_parquet(parquet)
    for path, agreements in ((jsonl, "1 record"), (parquet, "2 records")):
        reader = TrainingReader([path])
        assert list(reader) == RECORDS[:2]
        assert reader.notices == (
            f"field `agreement_ref` is not used (in {agreements})",
            "field `license` is not used (in 2 records)",
        )


@pytest.mark.parametrize(
    "change", [{"text": "Other"}, {"provider": "bob"}, {"collection": "other"}, {"text": None, **CHAT, "id": "1"}]
)
def test_an_id_with_another_content_is_quarantined_naming_the_first(tmp_path, change):
    path = write(tmp_path, TEXT, {**TEXT, **change})
    reader = TrainingReader([path])
    assert list(reader) == RECORDS[:1]
    assert reader.quarantined[0].error == (f"`id` '1' was used before, at {path}:1, with another content or provider")


def test_content_of_two_providers_is_kept_counted_and_shown(tmp_path):
    path = write(tmp_path, TEXT, {**TEXT, "id": "2", "provider": "bob"}, PAIR | {"id": "4"})
    reader = TrainingReader([path])
    assert len(list(reader)) == 3
    assert reader.counts.shared == 1
    assert reader.counts.shared_examples == (f"{path}:2 (bob) = {path}:1 (ann)",)
    assert "1 record with the content of another provider's" in reader.notices[0]


def test_what_a_provider_contributes_twice_is_read_once_whoever_else_has_it_too(tmp_path):
    bobs = {**TEXT, "provider": "bob"}
    path = write(tmp_path, bobs | {"id": "0"}, *(TEXT | {"id": f"a{n}"} for n in range(10)), bobs | {"id": "2"})
    reader = TrainingReader([path])
    assert [record.id for record in reader] == ["0", "a0"]
    assert (reader.counts.repeats, reader.counts.shared) == (10, 1)
    assert reader.notices[0].startswith("10 records left out, which the same provider gave before, under another id")


def test_a_dataset_with_one_split_is_read_and_with_several_must_be_named(tmp_path):
    folder = tmp_path / "both"
    for split in ("train", "test"):
        save_dataset(folder / split, [TEXT])
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(InputError, match="holds the splits train, test; name those"):
        TrainingReader([folder])
    assert list(TrainingReader([folder / "train"])) == RECORDS[:1]
    (folder / "dataset_dict.json").write_text('{"splits": ["train"]}')
    assert list(TrainingReader([folder])) == RECORDS[:1]


def test_rows_of_a_saved_dataset_are_named_by_shard_and_row(tmp_path):
    folder = save_dataset(tmp_path / "saved", [TEXT], [{**PAIR, "extra": 1}, {**PAIR, "id": "", "extra": 1}])
    reader = TrainingReader([folder])
    assert list(reader) == RECORDS[:2]
    assert reader.quarantined[0].place == Place(str(folder / "data-00001-of-00002.arrow"), 2)
    assert reader.notices == ("field `extra` is not used (in 2 records)",)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("folder", "not a data set saved with save_to_disk"),
        ("shard gone", "data-00000-of-00001.arrow does not exist"),
        ("shard cut", "is not a whole Arrow stream"),
        ("end cut", "is not a whole Arrow stream: it ends without the mark of its end; save the data set again"),
        ("long", "state.json is longer than 67108864 bytes"),
        ("state", "state.json: malformed JSON"),
        ("listing", "does not list its data files"),
        ("escape", "does not list its data files"),
    ],
)
def test_a_folder_that_cannot_be_used_is_an_error_that_names_it(tmp_path, damage, message):
    folder = save_dataset(tmp_path / "saved", [TEXT])
    shard, state = folder / "data-00000-of-00001.arrow", folder / "state.json"
    match damage:
        case "folder":
            state.unlink()
        case "shard gone":
            shard.unlink()
        case "shard cut":
            shard.write_bytes(shard.read_bytes()[:100])
        case "end cut":
            shard.write_bytes(shard.read_bytes()[:-8])
        case "long":
            os.truncate(state, LINE_LIMIT + 1)
        case "state":
            state.write_text("{")
        case "listing":
            state.write_text('{"_data_files": []}')
        case "escape":
            state.write_text('{"_data_files": [{"filename": "../other.arrow"}]}')
    with pytest.raises(InputError, match=message):
        list(TrainingReader([folder]))


def test_a_missing_or_empty_file_is_an_error_before_anything_is_read(tmp_path):
    good = write(tmp_path, TEXT)
    (tmp_path / "empty.jsonl").touch()
    for name, message in (("gone.jsonl", "gone.jsonl does not exist"), ("empty.jsonl", "empty.jsonl is empty")):
        with pytest.raises(InputError, match=message):
            TrainingReader([good, tmp_path / name])


lines = st.lists(
    st.binary()
    | st.fixed_dictionaries(
        {},
        optional={
            "id": st.integers(0, 5) | st.none(),
            "provider": st.sampled_from(["ann", "bob", "Bad", 3]),
            "text": st.sampled_from(["a", "b", "", "\ud800", None]),
        },
    ).map(lambda record: json.dumps(record).encode()),
    min_size=1,
)


@given(lines)
def test_every_line_is_used_or_left_out_or_quarantined_or_blank(tmp_path_factory, lines):
    content = b"\n" + b"\n".join(lines)
    path = tmp_path_factory.mktemp("fuzz") / "data.jsonl"
    path.write_bytes(content)
    reader = TrainingReader([path])
    try:
        records = list(reader)
    except InputError as error:
        assert "holds no records" in str(error)  # noqa: PT017 - right for a file of blank lines alone
        records = []
    counts = reader.counts
    filled = [raw for raw in content.split(b"\n") if raw.removesuffix(b"\r").strip()]
    assert counts.records == len(records) == len({record.id for record in records})
    assert counts.records + counts.duplicates + counts.repeats + counts.quarantined == len(filled)


def test_a_record_of_many_keys_gives_a_notice_of_bounded_length(tmp_path):
    record = {"id": "r1", "provider": "ann", "collection": "c", "text": "x"} | {
        f"k{n:06}" * 20: 1 for n in range(30_000)
    }
    (tmp_path / "train.jsonl").write_text(json.dumps(record))
    reader = TrainingReader([tmp_path / "train.jsonl"])
    assert len(list(reader)) == 1
    assert reader.notices[-1] == "29980 other fields not used"
    assert len("".join(reader.notices)) < 5000


@pytest.mark.parametrize("field", ["collection", "provider"])
def test_invisible_characters_in_names_are_refused_by_their_code_point(tmp_path, field):
    record = {"id": "r1", "provider": "ann", "collection": "c", "text": "x"}
    (tmp_path / "train.jsonl").write_text(json.dumps(record | {field: "an\u200bn"}))
    reader = TrainingReader([tmp_path / "train.jsonl"])
    assert list(reader) == []
    words = "holds the invisible character U+200B" if field == "collection" else r"'an\u200bn' is not a provider key"
    assert words in reader.quarantined[0].error
