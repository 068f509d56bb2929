"""Files of outputs in the ledger: still being written, split, shuffled and doubled, in whatever files and runs."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credit.errors import InputError, LedgerError
from credit.ingest.files import expand_inputs
from credit.ingest.outputs import OutputLimits
from credit.ingest.streams import STILL_SECONDS, zstd
from credit.ledger.aliases import add_alias
from credit.ledger.database import Ledger
from credit.ledger.outputs import pending_outputs
from credit.ledger.verify import verify
from credit.pipeline.ingest import IngestReport
from credit.pipeline.ingest_outputs import ingest_outputs
from credit.pipeline.workspace import Workspace
from credit.storage import sha256_file
from tests.cli.helpers import Command
from tests.ingest.sample_logs import LOGS, NAMES
from tests.ingest.sample_logs import records as sample_records
from tests.ingest.spoiling import fuzz, spoilt
from tests.ledger import samples
from tests.ledger.samples import MODEL, NOW

AT_ANY_TIME = OutputLimits(max_days_ahead=36_500)


@pytest.fixture
def workspace(database_url, tmp_path) -> Workspace:
    with Ledger.open(database_url) as ledger, ledger.write() as conn:
        samples.add_index(conn)
    return Workspace(database_url, tmp_path / "credit-data")


def record(number: int, text: str = "It lay still.") -> dict[str, str]:
    moment = "2026-09-02T08:00:00Z"
    return {"id": f"o{number}", "occurred_at": moment, "model": MODEL, "prompt": "How?", "completion": text}


def lines(*numbers: int) -> bytes:
    return b"".join(json.dumps(record(number)).encode() + b"\n" for number in numbers)


def table(*numbers: int) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(record(0)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(record(number, 'It "lay"\nstill.') for number in numbers)
    return text.getvalue().encode()


def documents(*numbers: int) -> bytes:
    return json.dumps([record(number) for number in numbers], indent=1).encode()


def parquet(*numbers: int) -> bytes:
    written = io.BytesIO()
    pl.DataFrame([record(number) for number in numbers]).write_parquet(written)
    return written.getvalue()


def ids(workspace: Workspace) -> list[str]:
    with workspace.open() as ledger, ledger.read() as conn:
        return sorted(item.output.external_id for item in pending_outputs(conn, MODEL, 0, 10**6))


def age(path: Path) -> Path:
    long_ago = time.time() - STILL_SECONDS - 60
    os.utime(path, (long_ago, long_ago))
    return path


WRITERS = {"log.jsonl": lines, "log.json": documents, "log.csv": table, "log.parquet": parquet}
PACKERS = {"": bytes, ".gz": gzip.compress, ".zst": zstd.compress}
FILES = [(name + ending, write, pack) for name, write in WRITERS.items() for ending, pack in PACKERS.items()
         if write is not parquet or pack is bytes]  # fmt: skip


@pytest.mark.parametrize(("name", "write", "pack"), FILES, ids=[name for name, _, _ in FILES])
def test_wherever_a_file_ends_it_is_no_alarm_and_the_whole_is_logged_once_by_the_next_run(
    workspace, tmp_path, name, write, pack
):
    whole = pack(write(1, 2, 3))
    path = tmp_path / name
    waited = 0
    for end in sorted({0, 1, 3, 5, len(whole) // 3, len(whole) // 2, len(whole) - 30, len(whole) - 2, len(whole) - 1}):
        path.write_bytes(whole[:end])
        report = ingest_outputs(workspace, path)
        assert (report.quarantined, report.problems) == (0, ()), (end, report.problems)
        waited += report.unfinished
    assert waited
    path.write_bytes(whole)
    assert ingest_outputs(workspace, path, complete=True).quarantined == 0
    assert ids(workspace) == ["o1", "o2", "o3"]
    with workspace.open() as ledger, ledger.read() as conn:
        assert {item.output.completion for item in pending_outputs(conn, MODEL, 0, 10)} in (
            {"It lay still."}, {'It "lay"\nstill.'}
        )  # fmt: skip


@pytest.mark.parametrize("name", ["log.csv", "log.json", "log.jsonl.gz"])
def test_an_end_that_stays_as_it_is_for_an_hour_is_judged(workspace, tmp_path, name):
    pack = gzip.compress if name.endswith(".gz") else bytes
    path = tmp_path / name
    path.write_bytes(pack(WRITERS[name.removesuffix(".gz")](1, 2))[:-5])
    assert ingest_outputs(workspace, path).quarantined == 0
    assert ingest_outputs(workspace, age(path)).quarantined == 1


def test_a_csv_whose_writer_leaves_out_the_last_newline_is_read_when_it_is_complete(workspace, tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(table(1, 2).rstrip(b"\n"))
    assert ingest_outputs(workspace, path).unfinished == 1
    assert ids(workspace) == ["o1"]
    assert ingest_outputs(workspace, path, complete=True).accepted == 1
    assert ids(workspace) == ["o1", "o2"]


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv", "log.json"])
def test_a_file_that_was_just_rotated_is_no_alarm_at_any_age(workspace, tmp_path, name):
    path = tmp_path / name
    path.touch()
    for found in (path, age(path)):
        assert ingest_outputs(workspace, found) == IngestReport(str(path))


def test_the_hash_in_the_ledger_is_that_of_the_bytes_that_were_read(workspace, tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(lines(1))
    ingest_outputs(workspace, path)
    first = sha256_file(path)
    with path.open("ab") as file:
        file.write(lines(2) + b'{"id": ')
    ingest_outputs(workspace, path)
    with workspace.open() as ledger, ledger.read() as conn:
        found = conn.exec_driver_sql("SELECT sha256 FROM ingest_file ORDER BY id").scalars().all()
    assert found == [first, sha256_file(path)]


def span(number: int, parent: int | None, text: str) -> dict[str, object]:
    def value(content: str) -> dict[str, str]:
        return {"stringValue": content}

    said = {
        "gen_ai.operation.name": "chat",
        "gen_ai.response.model": MODEL,
        "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": "Q"}]}]),
        "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": text}]}]),
    }
    return {
        "traceId": f"{number // 2:032x}",
        "spanId": f"{number:016x}",
        **({} if parent is None else {"parentSpanId": f"{parent:016x}"}),
        "startTimeUnixNano": str(1788336000_000_000_000 + number),
        "attributes": [{"key": key, "value": value(content)} for key, content in said.items()],
    }


def spans(count: int) -> Iterator[dict[str, object]]:
    """Calls that a framework and its client both tell of: an even number around the odd one after it."""
    for number in range(0, 2 * count, 2):
        for item in (span(number, None, f"T{number}"), span(number + 1, number, f"T{number}")):
            yield {"resourceSpans": [{"scopeSpans": [{"spans": [item]}]}]}


@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_split_shuffled_doubled_and_interleaved_files_over_several_runs_give_the_outputs_of_one(
    tmp_path_factory, shared_database, data
):
    folder = tmp_path_factory.mktemp("split")
    url = shared_database()
    with Ledger.open(url) as ledger, ledger.write() as conn:
        samples.add_index(conn)
    place = Workspace(url, folder / "credit-data")
    records = [json.dumps(item) for item in (*spans(3), *(record(number, f"T{number}") for number in range(10, 14)))]
    told = data.draw(st.permutations(records + data.draw(st.lists(st.sampled_from(records), max_size=6))))
    files = data.draw(st.lists(st.integers(0, 2), min_size=len(told), max_size=len(told)))
    for run in range(2):
        for number in range(3):
            path = folder / f"{run}-{number}.jsonl"
            path.write_text("".join(f"{item}\n" for item, file in zip(told, files, strict=True) if file == number))
            report = ingest_outputs(place, path)
            assert report.quarantined == 0
            assert report.read == report.accepted + report.duplicates + sum(report.skipped.values())
            assert run == 0 or not report.accepted
    with place.open() as ledger, ledger.read() as conn:
        found = sorted(item.output.completion for item in pending_outputs(conn, MODEL, 0, 100))
    assert found == sorted([*(f"T{number}" for number in (0, 2, 4)), *(f"T{number}" for number in range(10, 14))])


SAMPLES = [name for name in NAMES if "batch" not in name and "events" not in name]
"""Logs whose records stand alone. Events and results of batches need others, in their file."""


def said(place: Workspace) -> list[tuple[object, ...]]:
    with place.open() as ledger, ledger.read() as conn:
        outputs = [item.output for item in pending_outputs(conn, MODEL, 0, 1000)]
    return sorted((output.completion, str(output.messages), output.model) for output in outputs)


@settings(max_examples=fuzz(3))
@given(data=st.data())
def test_logs_of_any_formats_split_shuffled_doubled_and_mixed_give_the_outputs_of_one_file_and_twice_is_once(
    tmp_path_factory, shared_database, data
):
    names = data.draw(st.lists(st.sampled_from(SAMPLES), min_size=1, max_size=3, unique=True))
    once = [json.dumps(item, default=float) for name in names for item in sample_records(name)]
    told = data.draw(st.permutations(once + data.draw(st.lists(st.sampled_from(once), max_size=6))))
    files = data.draw(st.lists(st.integers(0, 2), min_size=len(told), max_size=len(told)))
    found = []
    for parts in (
        [once],
        [[item for item, file in zip(told, files, strict=True) if file == number] for number in range(3)],
    ):
        folder = tmp_path_factory.mktemp("mixed")
        url = shared_database()
        with Ledger.open(url) as ledger, ledger.write() as conn:
            samples.add_index(conn)
            add_alias(conn, "*", MODEL, now=NOW)
        place = Workspace(url, folder / "credit-data")
        for run in range(2):
            for number, part in enumerate(parts):
                path = folder / f"{run}-{number}.jsonl"
                path.write_text("".join(f"{item}\n" for item in part))
                report = ingest_outputs(place, path)
                kept = report.accepted + report.duplicates + report.quarantined
                assert report.read == kept + sum(report.skipped.values())
                assert report.quarantined == 0
                assert run == 0 or not report.accepted
        found.append(said(place))
    assert found[0] == found[1]


@settings(max_examples=fuzz(3))
@given(data=st.data())
def test_spoilt_records_of_any_format_are_all_accounted_for_and_known_the_second_time(
    tmp_path_factory, shared_database, data
):
    name = data.draw(st.sampled_from(SAMPLES))
    records = data.draw(spoilt(sample_records(name)))
    folder = tmp_path_factory.mktemp("spoilt")
    url = shared_database()
    with Ledger.open(url) as ledger, ledger.write() as conn:
        samples.add_index(conn)
        add_alias(conn, "*", MODEL, now=NOW)
    place = Workspace(url, folder / "credit-data")
    path = folder / "log.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in records))
    first = ingest_outputs(place, path, complete=True)
    again = ingest_outputs(place, path, complete=True, reread=True)
    assert (first.read, again.accepted, again.quarantined) == (again.read, 0, first.quarantined)
    assert first.read == first.accepted + first.duplicates + first.quarantined + sum(first.skipped.values())
    assert again.quarantined_before == again.quarantined
    with place.open() as ledger:
        assert verify(ledger, None).problems == ()


def readings(workspace: Workspace) -> list[tuple[object, ...]]:
    with workspace.open() as ledger, ledger.read() as conn:
        query = "SELECT size, finished_bytes, quarantined, unfinished FROM file_reading ORDER BY id"
        return [tuple(row) for row in conn.exec_driver_sql(query)]


def test_a_file_that_is_as_it_was_is_not_read_again_and_one_that_has_grown_is_read_on(workspace, tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(lines(1, 2) + b'{"id": ')
    assert ingest_outputs(workspace, path).accepted == 2
    again = ingest_outputs(workspace, path)
    assert (again.is_unchanged, again.read, again.unfinished) == (True, 0, 1)
    path.write_bytes(lines(1, 2, 3) + b"bad\n")
    grown = ingest_outputs(workspace, path)
    assert (grown.read, grown.accepted, grown.quarantined) == (2, 1, 1)
    assert grown.problems[0].startswith(f"{path}:4: ")
    assert (ingest_outputs(workspace, path).is_unchanged, ingest_outputs(workspace, path).quarantined_now) == (True, 0)
    assert ingest_outputs(workspace, path, reread=True).duplicates == 3
    assert readings(workspace) == [(len(lines(1, 2)) + 7, len(lines(1, 2)), 0, 1), (path.stat().st_size,) * 2 + (1, 0)]
    with path.open("ab") as file:
        file.write(lines(4))
    path.write_bytes(b" " + path.read_bytes()[1:])
    assert ingest_outputs(workspace, path).read == 5
    with workspace.open() as ledger:
        assert verify(ledger, None).problems == ()


def test_a_change_that_leaves_size_and_time_as_they_were_is_seen_while_the_time_is_new(workspace, tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(lines(1))
    ingest_outputs(workspace, path)
    status = path.stat()
    path.write_bytes(lines(2))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert ingest_outputs(workspace, path).accepted == 1


def test_an_alias_lets_in_what_waited_for_it_and_is_the_same_output_by_either_name(workspace, tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(record(1) | {"model": name}) + "\n" for name in (f"openai/{MODEL}", MODEL)))
    first = ingest_outputs(workspace, path)
    assert (first.accepted, first.quarantined) == (1, 1)
    remedy = f"if it is one of them: credit models alias openai/{MODEL} {MODEL}; if not: credit index"
    assert remedy in first.problems[0]
    with workspace.open() as ledger, ledger.write() as conn:
        assert add_alias(conn, "openai/*", MODEL, now=NOW)
        assert not add_alias(conn, "openai/*", MODEL, now=NOW)
        with pytest.raises(LedgerError, match="unknown model 'nobody'"):
            add_alias(conn, "x", "nobody", now=NOW)
    second = ingest_outputs(workspace, path)
    assert (second.duplicates, second.quarantined) == (2, 0)
    with workspace.open() as ledger:
        assert verify(ledger, None).problems == ()


@pytest.mark.parametrize(
    ("write", "pack", "count"),
    [(lines, bytes, 2500), (lines, gzip.compress, 40), (lines, zstd.compress, 40), (documents, bytes, 40)],
)
def test_standard_input_is_a_log_of_any_size_and_a_second_time_known(workspace, write, pack, count):
    credit = Command(workspace.database, workspace.data_dir)
    assert "1 read = 1 logged" in credit("ingest-outputs -", typed=pack(write(0)))
    many = pack(write(*range(count)))  # 2500 are more than any buffer holds
    first = credit("ingest-outputs -", typed=many)
    assert first.startswith("standard input: ")
    assert f"{count} read = {count - 1} logged + 1 known already + 0 quarantined + 0 skipped" in first
    assert f"{count} read = 0 logged + {count} known already" in credit("ingest-outputs -", typed=many)
    assert len(ids(workspace)) == count


def test_standard_input_has_ended_so_half_a_record_at_its_end_is_quarantined(workspace):
    credit = Command(workspace.database, workspace.data_dir)
    cut = credit("ingest-outputs -", typed=lines(1, 2)[:-20], code=3)
    assert "standard input:2: malformed JSON" in cut
    assert "2 read = 1 logged + 0 known already + 1 quarantined" in cut
    assert credit("ingest-outputs -", typed=b"").startswith("standard input: 0 logged")


def chat(number: int, text: str, ident: str | None = None) -> dict[str, object]:
    message = {"role": "assistant", "content": text}
    head = {"id": ident or f"chatcmpl-{number}", "object": "chat.completion", "created": 1788336000, "model": MODEL}
    return {**head, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


def proxied(number: int, text: str, response: object = None) -> dict[str, object]:
    """A line of a logging proxy; without another response that of a server whose responses have no id."""
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "How?"}]}
    plain = {"model": MODEL, "created_at": "2026-09-02T08:00:00Z", "done": True, "message": {"content": text}}
    return {"request_id": f"r{number}", "request": asked, "response": response or plain}


def paid_for(number: int, text: str, at: float = 1788336000) -> dict[str, object]:
    """A payload of LiteLLM, which gives the response an id of its own."""
    call = {"id": f"litellm-{number}", "litellm_call_id": f"r{number}", "call_type": "acompletion", "startTime": at}
    asked = [{"role": "user", "content": "How?"}]
    return {**call, "model": MODEL, "messages": asked, "response": chat(number, text, f"litellm-{number}")}


@pytest.mark.parametrize("backwards", [False, True])
def test_two_loggers_of_one_call_that_share_the_id_of_the_request_are_one_output(workspace, tmp_path, backwards):
    logs = [("proxy.jsonl", proxied(1, "It lay still.")), ("litellm.jsonl", paid_for(1, "It lay still."))]
    for name, record in reversed(logs) if backwards else logs:
        (tmp_path / name).write_text(json.dumps(record) + "\n")
    found = [ingest_outputs(workspace, tmp_path / name) for name, _ in (reversed(logs) if backwards else logs)]
    assert [(report.accepted, report.duplicates, report.told) for report in found] == [(1, 0, 0), (0, 1, 1)]
    assert len(ids(workspace)) == 1
    (tmp_path / "other.jsonl").write_text(json.dumps(paid_for(1, "It lay on its side.") | {"id": "litellm-9"}) + "\n")
    other = ingest_outputs(workspace, tmp_path / "other.jsonl")
    assert (other.accepted, other.quarantined) == (0, 1)


@pytest.mark.parametrize(
    ("seconds", "text", "expected"), [(4, "It lay still.", 1), (6, "It lay still.", 0), (4, "A", 0)]
)
def test_calls_of_two_loggers_without_an_id_in_common_are_counted_where_they_look_alike(
    workspace, tmp_path, seconds, text, expected
):
    (tmp_path / "proxy.jsonl").write_text(
        "".join(json.dumps(proxied(number, "It lay still.")) + "\n" for number in (1, 2))
    )
    assert ingest_outputs(workspace, tmp_path / "proxy.jsonl").lookalikes == 0, "two calls of one log are two"
    (tmp_path / "litellm.jsonl").write_text(json.dumps(paid_for(7, text, 1788336000 + seconds)) + "\n")
    credit = Command(workspace.database, workspace.data_dir)
    said = credit(f"ingest-outputs {tmp_path / 'litellm.jsonl'}")
    assert ("1 output as in another log: the same model and text, seconds apart" in said) == bool(expected)
    assert len(ids(workspace)) == 3
    again = ingest_outputs(workspace, tmp_path / "litellm.jsonl", reread=True)
    assert (again.lookalikes, again.duplicates) == (0, 1)


TWINS = [
    ("mlflow.json", "mlflow.parquet", "mlflow-artifact.jsonl"),
    ("mlflow2.parquet", "mlflow2-artifact.jsonl", "mlflow2.json"),
    ("litellm-spend.jsonl", "litellm-proxy.jsonl"),
    ("langsmith.parquet", "langsmith.jsonl"),
]


@pytest.mark.parametrize("names", TWINS, ids=[names[0] for names in TWINS])
def test_a_loggers_other_forms_of_its_log_tell_of_the_same_outputs(workspace, names):
    with workspace.open() as ledger, ledger.write() as conn:
        add_alias(conn, "*my-llm", MODEL, now=NOW)
    first, *others = (ingest_outputs(workspace, LOGS / name, limits=AT_ANY_TIME) for name in names)
    assert first.accepted
    assert not first.quarantined
    for report in others:
        assert (report.accepted, report.quarantined, report.doubled) == (0, 0, 0)
        assert report.duplicates == first.accepted


def test_folders_and_patterns_name_their_logs_once(tmp_path):
    for name in ("a/1.jsonl", "a/b/2.csv.gz", "a/README.md", "a/.tmp/3.jsonl", "c.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found, notices = expand_inputs([tmp_path / "a", tmp_path / "**/*.csv.gz", tmp_path / "c.parquet", Path("-")])
    assert [str(path.relative_to(tmp_path)) for path in found[:-1]] == ["a/1.jsonl", "a/b/2.csv.gz", "c.parquet"]
    assert found[-1] == Path("-")
    assert notices == (f"1 file of {tmp_path / 'a'} passed over, by the name",)
    with pytest.raises(InputError, match="has no file that can be a log"):
        expand_inputs([tmp_path / "*.xml"])
