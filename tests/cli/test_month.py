"""`credit month`: every step once and in order, a stop where a person decides, and no harm in running it again."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from credit.errors import EXIT_FAILED, EXIT_PARTIAL, EXIT_PROPOSED, EXIT_USAGE
from credit.ledger.database import Ledger
from tests.pipeline.certificates import certificate, membership_review, overlap_review, record, register
from tests.pipeline.samples import FIRST, OUTPUTS, SECOND, Site, output_row, write_jsonl

DOCS = Path(__file__).parents[2] / "docs" / "commands.md"


@pytest.fixture
def logged(site: Site, tmp_path: Path) -> Site:
    """A ledger with outputs, beside a new log and a file of pools."""
    (tmp_path / "logs").mkdir()
    write_jsonl(tmp_path / "logs" / "more.jsonl", [output_row(100), output_row(101), {"id": "broken"}])
    (tmp_path / "pools.csv").write_text(f"period,amount,currency,reference\n{FIRST},100.00,EUR,main\n{SECOND},7,EUR,\n")
    return site


def checked(site: Site) -> None:
    """Validate the index, and review its data."""
    index = site.named("attribution_index")[0]["fingerprint"]
    with Ledger.open(site.url) as ledger:
        register(ledger, certificate(index=index))
        record(ledger, overlap_review(index=index), membership_review(index=index))


def arguments(tmp_path: Path, *more: str | Path) -> list[str | Path]:
    return ["month", FIRST, "--logs", tmp_path / "logs", "--pools", tmp_path / "pools.csv", *more]


def test_a_month_goes_as_far_as_the_check_and_with_an_approval_to_its_end(logged, tmp_path):
    checked(logged)
    out = tmp_path / "statements"
    first = logged.json(*arguments(tmp_path), code=EXIT_PARTIAL)
    assert [item["step"] for item in first["steps"]] == ["ingest", "compute", "pools", "check", "close"]
    assert [item["exit_code"] for item in first["steps"]] == [EXIT_PARTIAL, 0, 0, 0, 0], "a record is quarantined"
    assert first["steps"][0]["said"] == "1 file: 2 logged, 1 quarantined"
    assert first["steps"][1]["said"] == f"{OUTPUTS + 2} outputs valued, 1 score book"
    assert [line["commands"] for line in first["steps"]][2] == [
        f"credit pool add {FIRST} 100.00 EUR --reference main"
    ], "the pool of another month waits for it"
    assert first["waits_for"] == f"somebody who has looked at the check: credit month {FIRST} --approve"
    assert logged.named("period")[0]["status"] == "open"
    before = logged.tables()
    again = logged.run(*arguments(tmp_path))
    assert "1 file: 0 logged, 0 quarantined" in again.stdout
    assert f"period {FIRST} would be closed" in again.stdout, "people see the check"
    assert logged.tables() == before
    done = logged.json(*arguments(tmp_path, "--approve", "--out", out))
    assert [item["step"] for item in done["steps"]][-2:] == ["close", "export"]
    assert done["waits_for"] == ""
    assert sorted(path.name for path in out.iterdir()) == ["ann", "ben"]
    closed = logged.tables()
    shown = logged.run(*arguments(tmp_path, "--out", out)).stdout.splitlines()
    assert [line.split()[1] for line in shown] == ["ingest", "compute", "pools", "check", "close", "export", FIRST]
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", line) for line in shown)
    assert logged.tables() == closed


def test_what_needs_a_decision_stops_the_month_until_somebody_has_taken_it(logged, tmp_path):
    stopped = logged.run(*arguments(tmp_path, "--approve"), code=EXIT_PARTIAL).stdout
    assert "it was not validated" in stopped
    assert stopped.splitlines()[-1].endswith("waits for a person to decide; then credit month goes on")
    assert logged.named("statement") == []
    logged.close(FIRST)
    assert logged.json(*arguments(tmp_path, "--out", tmp_path / "out"))["waits_for"] == ""


def test_a_close_that_needs_two_people_is_proposed_and_waits(logged, tmp_path):
    checked(logged)
    logged.run("approve", "require", "close")
    logged.json(*arguments(tmp_path), code=EXIT_PARTIAL)
    before = logged.tables()
    assert logged.json("close", FIRST, "--dry-run")["statements"] == 2, "one person may look where two must close"
    assert logged.tables() == before
    waiting = logged.json(*arguments(tmp_path, "--approve"), code=EXIT_PROPOSED)
    assert waiting["waits_for"] == "a second person: credit approve list"
    assert logged.named("period")[0]["status"] == "open"
    logged.run("--actor", "zoe", "approve", "give", str(waiting["steps"][-1]["facts"][0]["proposal"]))
    assert logged.json(*arguments(tmp_path, "--out", tmp_path / "out"))["waits_for"] == ""


def test_a_month_that_is_not_over_is_valued_and_raises_no_alarm(site):
    found = site.json("month", "9998-12")
    assert [item["step"] for item in found["steps"]] == ["ingest", "compute", "pools", "check"]
    assert found["steps"][1]["facts"][0]["valued"] == OUTPUTS
    assert found["waits_for"] == "9999-01-01 (UTC)"


def test_a_step_that_fails_ends_the_month_with_its_error_and_exit_code(logged, tmp_path):
    (tmp_path / "pools.csv").write_text(f"period,amount,currency\n{FIRST},1e2,EUR\n")
    failed = logged.json(*arguments(tmp_path), code=EXIT_USAGE)
    assert [item["step"] for item in failed["steps"]][-1] == "pools"
    assert "is not an amount" in failed["steps"][-1]["said"]
    for text in (
        "period,amount\n",
        f"period,amount,currency,colour\n{FIRST},1,EUR,red\n",
        "period,amount,currency\nx\n",
    ):
        (tmp_path / "pools.csv").write_text(text)
        assert "pools.csv" in logged.run(*arguments(tmp_path), code=EXIT_FAILED).stderr
    assert logged.named("pool") == []


def test_until_ends_a_month_earlier(logged, tmp_path):
    found = logged.json(*arguments(tmp_path, "--until", "compute"), code=EXIT_PARTIAL)
    assert [item["step"] for item in found["steps"]] == ["ingest", "compute"]
    assert found["waits_for"] == ""


def _sample(name: str) -> str:
    return DOCS.read_text().split(f"<!-- {name} -->\n```\n")[1].split("```")[0]


@pytest.mark.parametrize("name", ["crontab", "systemd"])
def test_the_samples_of_the_page_run_as_they_stand(name, logged, tmp_path):
    """In a shell of their own, with the folder of the test in place of the page's."""
    if name == "crontab":
        lines = [" ".join(line.split()[5:]) for line in _sample(name).splitlines()]
    else:
        unit = dict(line.split("=", 1) for line in _sample(name).splitlines() if "=" in line)
        lines = [f"cd {unit['WorkingDirectory']} && {unit['ExecStart']}"]
    home = tmp_path / "srv"
    home.mkdir()
    shutil.move(tmp_path / "logs", home / "logs")
    shutil.move(tmp_path / "pools.csv", home / "pools.csv")
    scripts = Path(sys.executable).parent
    environment = {**os.environ, **logged.environment, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    said = ""
    for line in lines:
        command = line.replace("/srv/credit/.venv/bin/", "").replace("/srv/credit", str(home))
        done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=False)
        said += done.stdout + done.stderr
    log = (home / "credit.log").read_text() if name == "crontab" else said
    assert f"{OUTPUTS + 2} outputs valued" in log
    if name == "crontab":
        assert json.loads(log.splitlines()[0])["files"][0]["accepted"] == 2
        assert log.splitlines()[-1] in said, "cron mails the last lines, for the month waits for a person"
