from __future__ import annotations

import contextlib
import gzip
import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit.errors import InputError
from credit.ingest import json_documents
from credit.ingest.files import Parsed
from credit.ingest.json_documents import is_in_lines, parse_json_object, read_documents
from credit.ingest.outputs import OutputReader

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(['"', "\\", '\\"', "[{", "]}", "\u2028"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
records = st.lists(st.dictionaries(st.text(), values, max_size=4), min_size=1, max_size=6)
ways = st.sampled_from(
    [
        json.dumps,
        lambda rows: json.dumps(rows, indent=2, ensure_ascii=False),
        lambda rows: "[\r\n" + ",\r\n".join(json.dumps(row) for row in rows) + "\r\n]\r\n",
        lambda rows: "\n".join(json.dumps({"": 1} | row, indent=1) for row in rows),
    ]
)


@given(records, ways, st.integers(3, 40), st.booleans())
def test_every_object_comes_back_as_it_stands_wherever_a_piece_of_the_file_ends(
    tmp_path_factory, rows, way, piece, packed
):
    text = way(rows)
    path = tmp_path_factory.mktemp("documents") / "log.json"
    raw = text.encode(errors="surrogatepass")
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + raw) if packed else raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_documents, "PIECE", piece)
        found = list(read_documents(path))
    assert not [line for line in found if line.problem]
    bare = [{name: value for name, value in json.loads(line.raw).items() if name} for line in found]
    assert bare == [{name: value for name, value in row.items() if name} for row in rows]
    lines = text.encode(errors="surrogatepass").split(b"\n")
    for line in found:
        assert lines[line.number - 1].find(line.raw.split(b"\n")[0]) >= 0


GOOD = b'{"a": "\\"}{", "b": [{}]}'


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[" + GOOD + b"]", [(1, GOOD, "")]),
        (b"[" + GOOD + b"\n" + GOOD, [(1, GOOD, ""), (2, GOOD, ""), (2, b"", "the file ends before its list does")]),
        (b"[{}, {\n", [(1, b"{}", ""), (1, b"{\n", "the file ends before this record does")]),
        (b'[{}, {"a": "b}, {}]', [(1, b"{}", ""), (1, b'{"a": "b}, {}]', "the file ends before this record does")]),
        (b"[{},\n17, x\n{}]", [(1, b"{}", ""), (2, b"17, x", ""), (3, b"{}", "")]),
        (b"[{}]{} ]\n[{}]", [(1, b"{}", ""), (1, b"{}", ""), (1, b"]", ""), (2, b"{}", "")]),
        (b"[{'a': 1}, {}]", [(1, b"{'a': 1}", ""), (1, b"{}", "")]),
        (b"[{}, {" + b" " * 40 + b"}, {}]", [(1, b"{}", ""), (1, b"{" + b" " * 30, "the record is longer than 30")]),
    ],
)
def test_what_is_no_object_is_named_and_what_surrounds_it_is_read(tmp_path, monkeypatch, content, expected):
    monkeypatch.setattr(json_documents, "PIECE", 3)
    path = tmp_path / "log.json"
    path.write_bytes(content)
    found = list(read_documents(path, limit=30))
    assert [(line.number, line.raw[:31], line.problem[: len(words)]) for line, (_, _, words) in zip(
        found, expected, strict=True
    )] == expected  # fmt: skip


def test_a_gzip_stream_that_is_cut_is_named_and_what_precedes_it_is_read(tmp_path):
    path = tmp_path / "log.json.gz"
    rows = [{"id": f"{number:x}" * 50} for number in range(5000)]
    path.write_bytes(gzip.compress(json.dumps(rows).encode())[:-9])
    *good, last = read_documents(path)
    assert [json.loads(line.raw) for line in good] == rows[: len(good)]
    assert "the gzip stream is damaged here" in last.problem


@pytest.mark.parametrize(
    ("head", "in_lines"),
    [
        (b'{"a": 1}\n', True),
        (b"[2026-01-01] starting\n", True),
        (b"[]", True),
        (b"{\n{}", True),
        (b"\n \n[ \n{", False),
        (b'\xef\xbb\xbf[{"a"', False),
        (b'{\r\n  "a": 1\r\n}', False),
        (b'{ "a":\n 1}', True),
    ],
)
def test_a_list_of_objects_or_an_object_over_lines_is_told_from_lines(tmp_path, head, in_lines):
    (tmp_path / "log").write_bytes(head)
    assert is_in_lines(tmp_path / "log") == in_lines


def test_a_list_of_outputs_says_the_same_as_lines_of_them(tmp_path):
    rows = [
        {"id": f"o{n}", "occurred_at": "2025-01-07T09:30:00Z", "model": "m", "completion": "A"} for n in range(3)
    ] + [{"id": "bad"}]
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "list.json").write_text(json.dumps(rows, indent=2))
    lines, listed = list(OutputReader(tmp_path / "lines.jsonl")), list(OutputReader(tmp_path / "list.json"))
    assert [item.record for item in lines[:3]] == [item.record for item in listed[:3] if isinstance(item, Parsed)]
    assert lines[3].error == listed[3].error
    assert [item.place.line for item in listed] == [2, 8, 14, 20]
    assert json.loads(listed[3].raw) == {"id": "bad"}


scalars = st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"))
objects = st.dictionaries(st.text(st.characters(codec="utf-8")), scalars | st.lists(scalars))


@given(objects)
def test_json_objects_are_read_as_they_were_written(value):
    assert parse_json_object(json.dumps(value).encode()) == value


def test_fractions_stay_exact():
    assert parse_json_object(b'{"weight": 0.1}') == {"weight": Decimal("0.1")}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"id": "1"', "malformed JSON: Expecting ',' delimiter at character 11"),
        (b"", "malformed JSON"),
        (b'{"id": 1} {"id": 2}', "malformed JSON: Extra data"),
        (b'{"id": "a\tb"}', "malformed JSON: Invalid control character"),
        (b'{"id": "caf\xe9"}', "byte 0xe9 at position 12 is not UTF-8"),
        (b'{"weight": NaN}', "NaN is not a JSON number"),
        (b'{"weight": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"id": 1, "id": 2}', "the key 'id' stands there twice"),
        (b'{"a": {"b": 1, "b": 1}}', "the key 'b' stands there twice"),
        (b'{"weight": 1e99999999999999999999}', "exponent is out of all range"),
        (b'{"id": %s}' % (b"9" * 5000), "malformed JSON: Exceeds the limit"),
        (b"[" * 200_000, "nested too deeply"),
        (b'["id"]', "must be a JSON object in one line"),
        (b"null", "must be a JSON object in one line"),
    ],
)
def test_what_is_not_strict_json_is_refused_with_the_reason(raw, message):
    with pytest.raises(InputError) as refusal:
        parse_json_object(raw)
    assert message in str(refusal.value)


@given(st.binary())
def test_any_bytes_are_an_object_or_an_input_error(raw):
    with contextlib.suppress(InputError):
        assert isinstance(parse_json_object(raw), dict)
