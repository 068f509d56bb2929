from __future__ import annotations

import gzip
import hashlib
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit.errors import InputError
from credit.ingest.lines import Line, read_lines
from credit.ingest.streams import Reading, zstd
from credit.storage import sha256_file

CHECKED = {zstd.CompressionParameter.checksum_flag: 1}


@given(st.binary(min_size=1))
def test_any_bytes_come_back_whole_line_by_line(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("lines") / "file"
    path.write_bytes(b"#" + content)  # not a magic number of a compression
    lines = list(read_lines(path))
    endings = (b"#" + content).removesuffix(b"\n").split(b"\n")
    assert [line.raw for line in lines] == [ending.removesuffix(b"\r") for ending in endings]
    assert [line.number for line in lines] == list(range(1, len(endings) + 1))


def test_line_endings_and_a_byte_order_mark_are_no_content(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\r\n\xef\xbb\xbfthree")
    assert list(read_lines(path)) == [Line(1, b"\xef\xbb\xbfone"), Line(2, b""), Line(3, b"\xef\xbb\xbfthree")]
    assert [line.content for line in read_lines(path)] == [b"one", b"", b"\xef\xbb\xbfthree"]


def test_a_line_over_the_limit_is_reported_and_the_lines_around_it_are_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"good\n" + b"x" * 5000 + b"\n" + b"y" * 10 + b"\nlast")
    good, long, at_limit, last = read_lines(path, limit=10)
    assert (good.raw, at_limit, last.raw) == (b"good", Line(3, b"y" * 10), b"last")
    assert long.number == 2
    assert long.problem == "the line is 5001 bytes long; the limit is 10"
    assert long.raw == b"x" * 11


def test_a_long_last_line_without_an_ending_is_reported_too(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 11)
    assert [bool(line.problem) for line in read_lines(path, limit=10)] == [True]


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress])
def test_a_compression_is_recognised_whatever_the_name_and_its_members_follow_one_another(tmp_path, compress):
    path = tmp_path / "outputs.jsonl"
    long = b"x" * 3_000_000
    path.write_bytes(compress(b"one\ntw") + compress(b"") + compress(b"o\n" + long))
    assert [line.raw for line in read_lines(path)] == [b"one", b"two", long]


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
@pytest.mark.parametrize("damage", ["cut", "checksum", "noise"])
def test_a_damaged_stream_is_reported_at_its_place(tmp_path, damage, kind):
    compress = gzip.compress if kind == "gzip" else partial(zstd.compress, options=CHECKED)
    whole = compress(b"".join(b"line %d\n" % number for number in range(20_000)))
    path = tmp_path / "outputs.jsonl.gz"
    path.write_bytes(
        {"cut": whole[:-20], "checksum": whole[:-4] + b"\0" * 4, "noise": whole[:10] + b"\xff" * 50}[damage]
    )
    *good, last = read_lines(path)
    assert f"the {kind} stream is damaged here" in last.problem
    assert last.number == len(good) + 1
    assert all(line.raw == b"line %d" % number and not line.problem for number, line in enumerate(good))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
    ],
)
def test_a_file_that_holds_nothing_to_read_is_an_error_that_names_it(tmp_path, content, message):
    path = tmp_path / "outputs.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"outputs.jsonl .*{message}"):
        list(read_lines(path))


def test_a_folder_or_a_device_is_an_error(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        list(read_lines(tmp_path))
    with pytest.raises(InputError, match="not a regular file"):
        list(read_lines(tmp_path.__class__("/dev/null")))


@pytest.mark.parametrize("pack", [bytes, partial(gzip.compress, mtime=0), zstd.compress])
def test_the_hash_of_a_reading_is_that_of_the_bytes_that_it_read(tmp_path, pack):
    path = tmp_path / "file"
    before = pack(b"one\n" * 200_000)
    path.write_bytes(before)
    reading = Reading(path)
    lines = read_lines(path, reading)
    next(lines)
    with path.open("ab") as file:  # a logger that writes meanwhile
        file.write(pack(b"two\n"))
    assert [line.raw for line in lines][-1] == b"two"
    assert reading.sha256 == sha256_file(path) == hashlib.sha256(before + pack(b"two\n")).hexdigest()
    assert reading.size == path.stat().st_size


@given(st.lists(st.binary(), min_size=1, max_size=5), st.data())
def test_a_reading_goes_on_where_an_earlier_one_ended(tmp_path_factory, parts, data):
    path = tmp_path_factory.mktemp("grown") / "file"
    whole = b"#" + b"\n".join(parts)
    cut = data.draw(st.integers(1, len(whole)))
    path.write_bytes(whole[:cut])
    first = Reading(path)
    list(read_lines(path, first))
    end = whole[:cut].rfind(b"\n") + 1
    path.write_bytes(whole)
    again = Reading(path)
    assert again.resume(first.size, first.sha256, end, whole[:end].count(b"\n"))
    assert list(read_lines(path, again)) == list(read_lines(path))[whole[:end].count(b"\n") :]
    assert (again.sha256, again.size) == (sha256_file(path), len(whole))
    path.write_bytes(b"!" + whole[1:])
    assert not Reading(path).resume(first.size, first.sha256, end, 0)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_file_in_utf16_is_refused_by_name(tmp_path, encoding):
    path = tmp_path / "file"
    path.write_bytes("\ufeff{}".encode(encoding))
    with pytest.raises(InputError, match=r"is UTF-16 .*; write it as UTF-8"):
        list(read_lines(path))
