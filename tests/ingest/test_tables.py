"""Parquet files and Arrow streams of any content are read within a limit of memory; ordinary ones as they are."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credit.errors import InputError, InvalidRequestError
from credit.ingest import table_process
from credit.ingest.parquet_footer import row_groups
from credit.ingest.table_process import ARROW, MESSAGE, PARQUET, TableReader, Told
from credit.ingest.tables import MEMORY, TableFile
from tests.ingest import parquet_bombs

LIMIT = 128
"""MiB in which the bombs are read."""
TO_DECODE = f"takes more than {LIMIT} MiB to decode"
TOO_MUCH = f"holds more than {LIMIT}.0 MiB of records, 1000 times its own size"
DAMAGED = "is not a whole Parquet file"
EXPECTED = {
    "dictionary": TOO_MUCH,
    "nested": TO_DECODE,
    "nested_nulls": TO_DECODE,
    "huge_cell": TO_DECODE,
    "zeros": TO_DECODE,
    "repeated_beginnings": TO_DECODE,
    "lying_rows": DAMAGED,
    "lying_sizes": "",
    "many_rows": DAMAGED,
    "arrow_zeros": TO_DECODE,
    "line": "",
}

READ_ALL = """
import json, resource, sys
from collections import Counter
from pathlib import Path
from credit.errors import InputError
from credit.ingest.files import read_rows
from credit.ingest.tables import TableFile

found = {}
for name in sys.argv[1:]:
    try:
        for row in read_rows(Path(name), {"text", "messages"}, Counter()):
            pass
        found[name] = ""
    except InputError as error:
        found[name] = str(error)
status = Path("/proc/self/status").read_text().splitlines()
mine = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
print(json.dumps([found, mine // 1024, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems limit no memory")
def test_a_file_of_any_content_is_read_or_refused_within_the_limit_of_memory(tmp_path):
    paths = {name: tmp_path / f"{name}.parquet" for name in parquet_bombs.BOMBS}
    for name, path in paths.items():
        parquet_bombs.BOMBS[name](path)
    folder = tmp_path / "saved"
    parquet_bombs.save(folder, parquet_bombs.arrow_zeros)
    paths["arrow_zeros"] = folder
    paths["line"] = tmp_path / "line.jsonl.zst"
    parquet_bombs.line(paths["line"])
    command = [sys.executable, "-c", READ_ALL, *map(str, paths.values())]
    environment = {**os.environ, MEMORY: str(LIMIT)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=300)
    found, mine, childs = json.loads(done.stdout)
    for name, path in paths.items():
        assert bool(found[str(path)]) == bool(EXPECTED[name]), name
        assert EXPECTED[name] in found[str(path)]
        if TO_DECODE in found[str(path)]:
            assert f"if the file is right, raise the limit: {MEMORY}=256" in found[str(path)]
    assert "row group 1 (1025 rows, 1.9 MiB by the footer), from row 1 " in found[str(paths["repeated_beginnings"])]
    # What Python, polars and the longest line, or one piece of records, take by themselves is the rest.
    assert mine < 250
    assert childs < LIMIT + 150


def messages(path: Path, kind: str, known: set[str], limit: int = 1 << 40) -> list[tuple[Told, bytes]]:
    """What the reader of a file tells, in this process."""
    out = io.BytesIO()
    TableReader(path, frozenset(known), limit, out).read(kind)
    out.seek(0)
    found = []
    while head := out.read(MESSAGE.size):
        told, size = MESSAGE.unpack(head)
        found.append((Told(told), out.read(size)))
    return found


values = st.none() | st.text(max_size=5) | st.just("long " * 30)
rows = st.fixed_dictionaries(
    {
        "text": values,
        "count": st.none() | st.integers(-5, 5),
        "messages": st.none() | st.lists(st.fixed_dictionaries({"role": values, "content": values}), max_size=3),
        "splits": st.lists(st.lists(st.integers(0, 9), max_size=2), max_size=2),
        "unread": values,
    }
)
SCHEMA = {
    "text": pl.String,
    "count": pl.Int64,
    "messages": pl.List(pl.Struct({"role": pl.String, "content": pl.String})),
    "splits": pl.List(pl.List(pl.Int64)),
    "unread": pl.String,
}


@settings(max_examples=40)
@given(st.lists(rows, min_size=1, max_size=40), st.integers(1, 9), st.integers(1, 5000), st.integers(1, 5000))
def test_ordinary_rows_come_as_a_plain_reader_gives_them_whatever_their_groups_and_the_pieces(
    tmp_path_factory, records, group, decoded, sent
):
    frame = pl.DataFrame(records, schema=SCHEMA)
    path = tmp_path_factory.getbasetemp() / "rows.parquet"
    stream = path.with_suffix(".arrow")
    frame.write_parquet(path, row_group_size=group)
    pl.concat([frame[:group], frame[group:]], rechunk=False).write_ipc_stream(stream)
    known = set(SCHEMA) - {"unread"} | {"other"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_process, "_DECODED", decoded)
        patch.setattr(table_process, "_SENT", sent)
        found = [messages(path, PARQUET, known), messages(stream, ARROW, known)]
    for told in found:
        assert json.loads(told[0][1]) == list(SCHEMA)
        assert told[-1][0] is Told.END
        pieces = [pl.read_ipc_stream(io.BytesIO(content)) for kind, content in told if kind is Told.FRAME]
        assert pl.concat(pieces).equals(frame.drop("unread"))
    assert sum(item.rows for item in row_groups(path, known)) == frame.height


def test_a_row_too_long_for_a_record_is_quarantined_and_its_neighbours_are_read(tmp_path, monkeypatch):
    pl.DataFrame({"text": ["a", "x" * 9000, "b"]}).write_parquet(tmp_path / "log.parquet")
    monkeypatch.setattr(table_process, "LINE_LIMIT", 8000)
    monkeypatch.setattr(table_process, "_SENT", 8000)
    told = messages(tmp_path / "log.parquet", PARQUET, {"text"})
    assert [kind for kind, _ in told if kind is not Told.AT] == [
        Told.COLUMNS, Told.FRAME, Told.LONG_ROW, Told.FRAME, Told.END,
    ]  # fmt: skip
    ((_, size),) = [item for item in told if item[0] is Told.LONG_ROW]
    assert 9000 < int(size) < 10_000


def test_a_row_group_or_batch_above_the_limit_is_refused_before_it_is_read(tmp_path):
    frame = pl.DataFrame({"text": [f"text {number}" for number in range(500)]})
    frame.write_parquet(tmp_path / "log.parquet")
    frame.write_ipc_stream(tmp_path / "log.arrow")
    for name, kind, place in (
        ("log.parquet", PARQUET, "row group 1 (500 rows, "),
        ("log.arrow", ARROW, "record batch 1 "),
    ):
        told, content = messages(tmp_path / name, kind, {"text"}, limit=100)[-1]
        assert told is Told.OVER_LIMIT
        assert content.decode().startswith(place)
        assert content.decode().endswith("write it with fewer rows in a group")


def test_a_run_of_nulls_is_given_up_beyond_the_limit_and_beyond_what_its_size_can_hold(tmp_path):
    path = tmp_path / "log.parquet"
    parquet_bombs.nulls(path)
    *_, (told, content) = messages(path, PARQUET, {"text"}, limit=1 << 20)
    assert told is Told.OVER_LIMIT
    most = table_process.EXPANSION * path.stat().st_size / table_process.MIB
    assert content.decode() == f"holds more than {most:.1f} MiB of records, 1000 times its own size"


@settings(max_examples=40)
@given(st.binary())
def test_a_footer_of_any_bytes_is_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "footer.parquet"
    path.write_bytes(b"PAR1" + content + len(content).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(InputError, match="its footer"):
        row_groups(path, {"text"})


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (signal.SIGSEGV, r"is not a whole Parquet file: row group 1 .* stops its reader \(signal 11\); write it again"),
        (signal.SIGABRT, r"row group 1 .* takes more than 1024 MiB to decode; write it with fewer rows in a group; if"),
        (signal.SIGALRM, r"row group 1 .* takes more than 600 seconds to decode; write it with fewer rows in a group"),
    ],
)
def test_a_reader_that_dies_is_named_with_its_place(tmp_path, end, message):
    path = tmp_path / "log.parquet"
    pl.DataFrame({"text": ["a" * 100_000] * 2000}).write_parquet(path)
    with TableFile(path, PARQUET, {"text"}) as table:
        pieces: Any = table.pieces()
        next(pieces)
        os.kill(table._process.pid, end)
        with pytest.raises(InputError, match=message):
            list(pieces)


def test_a_reading_that_ends_early_leaves_no_process(tmp_path):
    path = tmp_path / "log.parquet"
    pl.DataFrame({"text": ["a" * 100_000] * 2000}).write_parquet(path)
    with TableFile(path, PARQUET, {"text"}) as table:
        next(table.pieces())
    assert table._process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("said", ["much", "0", "-1", "1e3", "63", "٣٠٠"])
def test_a_limit_of_memory_that_makes_no_sense_is_refused(tmp_path, monkeypatch, said):
    monkeypatch.setenv(MEMORY, said)
    with (
        pytest.raises(InvalidRequestError, match=f"{MEMORY} is .* must be a whole number of MiB"),
        TableFile(tmp_path, PARQUET, {"text"}),
    ):
        pass
