"""A purge: no byte of a text is left, and no number changes; killed, or beside a reader, it is finished by the next."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from credit.errors import EXIT_FAILED, EXIT_INTEGRITY, EXIT_PARTIAL, LedgerError
from credit.ledger.database import Ledger
from credit.ledger.verify import verify
from tests.commands import held_open, left, run
from tests.ledger.tampering import unguarded
from tests.pipeline.samples import FIRST, SECOND, Site, output_row

CANARIES = ["Xq7zebra-prompt", "Xq8zebra-answer", "Xq9zebra-system", "Xq6zebra-broken"]
PURGE = f"purge --before {SECOND}-01 --reason 'kept for a month'"


def _log(site: Site) -> None:
    rows = [
        output_row(100, prompt=f"say {CANARIES[0]}", completion=f" {CANARIES[1]} again"),
        output_row(
            102,
            prompt=None,
            messages=[{"role": "system", "content": CANARIES[2]}, {"role": "user", "content": "la"}],
            completion=" so",
        ),
        output_row(104, completion=f" {CANARIES[3]}", weight=-1),
    ]
    site.log("canaries.jsonl", rows, code=EXIT_PARTIAL)
    for path in (site.data_dir / "quarantine").iterdir():
        os.utime(path, times=(0, datetime(2025, 3, 20, tzinfo=UTC).timestamp()))


def _closed(site: Site) -> Site:
    """Close the first month of a site with canaries in prompts, answers and quarantine; one output stays pending."""
    _log(site)
    site.run("compute", code=EXIT_PARTIAL)
    site.run("outputs", "unvalue", "o102", "--reason", "a chat, and the model has no template")
    site.log("late.jsonl", [output_row(106, completion=" pending still")])
    site.run("pool", "add", FIRST, "100.00", "EUR")
    site.close(FIRST, "--leave-pending")
    return site


@pytest.fixture(scope="module")
def kept(inputs: Path, pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a site on SQLite, closed, to be copied and never used."""
    folder = shutil.copytree(pristine, tmp_path_factory.mktemp("closed") / "site")
    _closed(Site(inputs, f"sqlite:///{folder / 'credit.db'}", folder / "credit-data"))
    return folder


@pytest.fixture
def closed(inputs: Path, kept: Path, tmp_path: Path) -> Site:
    """A fresh copy of the closed site, on SQLite."""
    folder = shutil.copytree(kept, tmp_path / "site", copy_function=shutil.copy2)
    return Site(inputs, f"sqlite:///{folder / 'credit.db'}", folder / "credit-data")


@pytest.fixture
def closed_on_engine(engine_name: str, request: pytest.FixtureRequest) -> Site:
    """The closed site, on each engine."""
    if engine_name == "sqlite":
        site: Site = request.getfixturevalue("closed")
        return site
    return _closed(request.getfixturevalue("make_on_engine")("closed"))


def _left(site: Site) -> list[str]:
    """The canaries that a file of the database, or of the data folder, still holds."""
    with Ledger.open(site.url) as ledger:
        found = left(ledger, site.url, CANARIES)
    content = b"".join(path.read_bytes() for path in site.data_dir.rglob("*") if path.is_file())
    return [item for item in CANARIES if item in found or item.encode() in content]


NUMBERS = ("statement", "allocation", "payout", "ledger_entry", "ledger_txn", "valuation", "score_book")


def test_no_byte_of_a_text_is_left_and_every_number_is_as_it_was(closed_on_engine):
    closed = closed_on_engine

    def told() -> list[str]:
        asked = (["report", "attribution", FIRST, "--by", "output"], ["report", "payouts", FIRST])
        return [closed.run(*arguments, "--format", "json").stdout for arguments in asked]

    assert _left(closed) == CANARIES
    before, numbers = closed.tables(), told()
    assert (
        "22 outputs and 1 quarantine file from before 2025-04-01 would be purged"
        in closed.run(*_words(PURGE), "--dry-run").stdout
    )
    assert _left(closed) == CANARIES
    said = closed.run(*_words(PURGE)).stdout
    assert "22 outputs and 1 quarantine file from before 2025-04-01 purged" in said
    assert _left(closed) == []
    after = closed.tables()
    assert {name: after[name] for name in NUMBERS} == {name: before[name] for name in NUMBERS}
    assert told() == numbers
    closed.run("verify")
    closed.run("explain", "payout", "ann", FIRST)
    assert "o106" in closed.run("outputs", "list").stdout
    closed.run("compute")  # what was pending has kept its text
    closed.run("verify")


def test_texts_that_are_gone_are_said_to_be_gone(closed):
    closed.run(*_words(PURGE))
    refused = closed.run("explain", "output", "o100", closed.folder / "train.jsonl", code=EXIT_FAILED).stderr
    assert "the text of output 'o100' was purged" in refused
    assert f"credit report attribution {FIRST} --by output" in refused
    restored = closed.run("outputs", "restore", "o102", "--reason", "x", code=EXIT_FAILED).stderr
    assert "an output without its texts stays unvalued" in restored
    again = closed.run("restate", FIRST, "--index", closed.folder / "index", "--reason", "x", code=EXIT_FAILED).stderr
    assert "the texts of 21 outputs were purged" in again
    assert "restate by policy" in again
    changed = closed.json("restate", FIRST, "--measure", "support", "--reason", "as agreed")
    assert changed["txn_id"] is not None


def test_a_purged_output_is_known_when_it_is_logged_again(closed):
    closed.run(*_words(PURGE))
    said = closed.run("ingest-outputs", closed.data_dir.parent / "canaries.jsonl", code=EXIT_PARTIAL).stdout
    assert "0 logged, 2 known already, 1 quarantined" in said
    assert _left(closed) == [CANARIES[3]]  # the quarantined record is there again, and new


def test_a_purge_needs_a_reason_without_personal_data_and_a_day_that_is_over(closed):
    closed.run("providers", "details", "ann", "--email", "ann@example.org")
    for arguments, fault in (
        (["--before", "2999-01-01", "--reason", "x"], "2999-01-01 is still to come"),
        (["--before", f"{SECOND}-01", "--reason", " "], "needs a reason"),
        (["--before", f"{SECOND}-01", "--reason", "for ann@example.org"], "the reason holds the email of ann"),
    ):
        assert fault in closed.run("purge", *arguments, code=EXIT_FAILED).stderr
    assert _left(closed) == CANARIES


def test_compute_keeps_texts_for_so_many_days(closed):
    days = (datetime.now(UTC) - datetime(2025, 4, 1, tzinfo=UTC)).days
    assert "23 outputs and 1 quarantine file" in closed.run("compute", "--retain", str(days)).stdout
    assert _left(closed) == []
    assert "0 outputs and 0 quarantine files" in closed.run("compute", "--retain", str(days)).stdout


def test_beside_a_reader_the_texts_leave_the_ledger_and_it_says_that_bytes_remain(closed_on_engine):
    closed = closed_on_engine
    folder = closed.data_dir.parent
    with held_open(closed.url, "SELECT prompt FROM output"):
        code, said = run(closed.url, PURGE, folder / "said")
        assert (code, "22 outputs purged in the ledger, but bytes may remain in its files" in said) == (11, True), said
    code, said = run(closed.url, PURGE, folder / "said")
    assert (code, "0 outputs and 0 quarantine files" in said) == (0, True), said
    assert _left(closed) == []


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_step_it_is_finished_by_the_next(closed, seed):
    step = random.Random(seed).randrange(200, 60_000)
    code, _ = run(closed.url, PURGE, closed.data_dir.parent / "said", last_step=step)
    assert code in {-signal.SIGKILL, 0}
    with closing(sqlite3.connect(closed.data_dir.parent / "credit.db")) as other:  # keeps the write-ahead log
        other.execute("SELECT key FROM provider").fetchall()
        assert run(closed.url, PURGE, closed.data_dir.parent / "said")[0] == 0
        assert _left(closed) == []
    with Ledger.open(closed.url) as ledger:
        assert verify(ledger, None).problems == ()


def test_an_output_that_was_altered_keeps_its_text(closed):
    with unguarded(closed.url) as conn:
        conn.execute(text("UPDATE output SET weight_micro = 9 WHERE external_id = 'o100'"))
    refused = closed.run(*_words(PURGE), code=EXIT_INTEGRITY).stderr
    assert "does not have its stored hash, so its text stays; run credit verify" in refused
    assert _left(closed) == CANARIES


def test_what_is_left_of_a_purged_output_is_sealed(closed):
    closed.run(*_words(PURGE))
    with unguarded(closed.url) as conn:
        conn.execute(text("UPDATE output SET weight_micro = 9 WHERE external_id = 'o100'"))
    assert "purge 1" in closed.run("verify", code=EXIT_INTEGRITY).output


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("SET prompt = '' WHERE external_id = 'o100'", "the last purge on record may empty"),
        ("SET completion = 'x' WHERE purge_id IS NOT NULL", "the last purge on record may empty"),
        ("SET weight_micro = 1 WHERE external_id = 'o1'", "the last purge on record may empty"),
        ("SET prompt = '', messages_json = NULL, completion = '', salt = NULL, purge_id = 1 WHERE external_id = 'o1'",
         "the last purge on record may empty"),  # of the second month
        ("SET prompt = '', messages_json = NULL, completion = '', salt = NULL, purge_id = 1 WHERE external_id = 'o106'",
         "the texts of a pending output stay"),
    ],
)  # fmt: skip
def test_the_database_empties_no_other_output(closed, change, fault):
    closed.run(*_words(PURGE))
    with Ledger.open(closed.url) as ledger, pytest.raises(LedgerError, match=fault), ledger.write() as conn:
        conn.execute(text(f"UPDATE output {change}"))


def _words(line: str) -> list[str]:
    return [part.strip("'") for part in line.replace("'kept for a month'", "kept").split()]
