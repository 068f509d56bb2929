from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit.ingest.quarantine import QuarantineFile, QuarantineSummary, quarantine_line, quarantine_name
from credit.records import Place, Quarantined

ITEM = Quarantined(Place("in.jsonl", 3), "malformed", b"{")
SHA = "0123456789abcdef" * 4


@given(st.binary(), st.text())
def test_every_raw_record_comes_back_byte_for_byte(raw, error):
    line = quarantine_line(Quarantined(Place("in.jsonl", 7), error, raw))
    assert line.count(b"\n") == 1
    found = json.loads(line)
    assert (found["file"], found["line"], found["error"]) == ("in.jsonl", 7, error)
    restored = found["raw"].encode() if "raw" in found else base64.b64decode(found["raw_base64"])
    assert restored == raw


def test_there_is_no_file_when_nothing_is_quarantined_also_not_an_old_one(tmp_path):
    folder = tmp_path / "quarantine"
    for items in ([ITEM], []):
        with QuarantineFile(folder, Path("in.jsonl"), lambda: SHA) as quarantine:
            for item in items:
                quarantine.add(item)
        assert quarantine.path.exists() == bool(items)
        assert quarantine.count == len(items)
    with QuarantineFile(tmp_path / "never", Path("in.jsonl"), lambda: SHA):
        pass
    assert not (tmp_path / "never").exists()


def test_the_same_input_always_gets_the_same_bytes_under_the_same_name(tmp_path):
    contents = []
    for _ in range(2):
        with QuarantineFile(tmp_path, Path("logs/in.jsonl"), lambda: SHA) as quarantine:
            quarantine.add(ITEM)
        contents.append(quarantine.path.read_bytes())
    assert contents[0] == contents[1]
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl.0123456789abcdef.jsonl"]


def test_a_run_that_fails_leaves_the_file_of_the_run_before(tmp_path):
    with QuarantineFile(tmp_path, Path("in.jsonl"), lambda: SHA) as quarantine:
        quarantine.add(ITEM)
    before = quarantine.path.read_bytes()
    with pytest.raises(KeyError), QuarantineFile(tmp_path, Path("in.jsonl"), lambda: SHA) as again:  # noqa: PT012 - the block is what fails
        again.add(ITEM)
        again.add(ITEM)
        raise KeyError
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]
    with pytest.raises(KeyError), QuarantineFile(tmp_path, Path("in.jsonl"), lambda: SHA):
        raise KeyError
    assert quarantine.path.read_bytes() == before


def test_an_earlier_file_goes_when_a_later_one_holds_all_of_it_and_stays_otherwise(tmp_path):
    items = [Quarantined(Place("in.jsonl", number), "malformed", b"{" * number) for number in range(4)]
    elsewhere = Quarantined(Place("other/in.jsonl", 1), "malformed", b"{")
    runs = [(items[:2], 2), (items[:3], 1), (items[2:], 1), ([elsewhere], 1), (items, 0)]
    left = [1, 1, 2, 3, 2]
    for number, ((some, new), files) in enumerate(zip(runs, left, strict=True)):
        with QuarantineFile(tmp_path, Path("in.jsonl"), f"{number:064x}"[::-1].__str__) as quarantine:
            assert sum(quarantine.add(item) for item in some) == new
        assert quarantine.before == len(some) - new
        assert len(list(tmp_path.iterdir())) == files
    quarantine.path.write_bytes(b"\xff\n[]\n" + quarantine.path.read_bytes())  # what a person did to it
    with QuarantineFile(tmp_path, Path("in.jsonl"), lambda: SHA) as again:
        assert not any([again.add(item) for item in items])
        assert again.add(replace(items[0], error="for another reason"))


@pytest.mark.parametrize("name", ["../evil", "a b\n.jsonl", ".hidden", "x" * 250, "naïve.csv"])
def test_names_are_plain_whatever_the_input_is_called(name):
    found = quarantine_name(Path("folder") / name, SHA)
    assert found.isascii()
    assert len(found) < 150
    assert not found.startswith(".")
    assert "/" not in found


def test_the_most_frequent_reason_is_shown_however_late_it_comes_and_every_record_is_counted():
    problems = QuarantineSummary()
    for number in range(500):
        problems.add(Quarantined(Place("in.csv", number), f"reason {number}", b""))
    assert problems.lines()[-1] == "and 495 more, for other reasons"
    for number in range(3):
        problems.add(Quarantined(Place("more.csv", number), "reason 7", b""))
    assert "in.csv:7: reason 7 (and 3 more like it)" in problems.lines()
    assert len(problems.lines()) == 6
    assert QuarantineSummary().lines() == ()
