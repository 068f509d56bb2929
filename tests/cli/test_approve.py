"""Two people at the command line: what one proposes, the other approves."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import Result

from tests.approval.people import url_of
from tests.cli.helpers import Command

THIS_MONTH = f"{datetime.now(UTC):%Y-%m}"


class Person(Command):
    """Somebody with a name, and on PostgreSQL a database role."""

    def __init__(self, url: str, folder: Path, name: str) -> None:
        super().__init__(url, folder)
        self.name = name

    def run(self, *arguments: str, typed: str | None = None) -> Result:
        return super().run("--actor", self.name, *arguments, typed=typed)


@pytest.fixture
def people(credit: Command) -> tuple[Command, Command]:
    """Anna and ben, each with a name and a database role."""

    anna, ben = (Person(url_of(credit.url, name), credit.folder, name) for name in ("anna", "ben"))
    return anna, ben


PROPOSALS = (
    f"pool add {THIS_MONTH} 100 EUR",
    "providers terms ann --currency EUR --rate 70%",
    "providers details ann --town Berlin --country DE",
    f"adjust ann -7 EUR --period {THIS_MONTH} --reason twice",
    "providers advance ann 5 EUR --paid-on 2026-01-15 --reference t-1",
    "remit house 5 EUR --paid-on 2026-01-15 --reference t-2",
)


def test_a_command_proposes_and_another_person_does_it(people):
    anna, ben = people
    assert "no proposal waits" in anna("approve list")
    assert "needed for: adjustment, advance, close" in anna("approve require")
    for number, line in enumerate(PROPOSALS, start=1):
        assert "proposed, not done: " in anna(line, code=5)
        assert f"approve give {number}" in anna(line, code=5), "the same proposal again is the same"
        assert f"proposal {number}  " in ben("approve list", code=5)
        assert "it still does the same" in ben(f"approve show {number}")
        assert f"anna proposed {number} and cannot approve it" in anna(f"approve give {number}", code=1)
        assert "done: " in ben(f"approve give {number}")
        assert "you gave it before" in ben(f"approve give {number}")
        anna(line)
    assert "no proposal waits" in anna("approve list")
    listed = json.loads(anna("approve list --all --json"))["proposals"]
    assert {item["decision"]["decided_by"] for item in listed} == {"ben"}
    assert "everything is as it was written" in anna("verify")


def test_refusing_and_switching_off(people):
    anna, ben = people
    anna("approve require pool")
    facts = json.loads(anna(f"pool add {THIS_MONTH} 100 EUR --json", code=5))
    assert (facts["proposal"], facts["done"]) == (1, False)
    assert "proposal 1 is refused: a slip" in ben("approve refuse 1 --reason", "a slip")
    assert "reason: a slip" in anna("approve list --all")
    assert "was refused by ben" in ben("approve give 1", code=1)
    anna("approve require --off pool", code=5)
    ben("approve give 2")
    anna(f"pool add {THIS_MONTH} 100 EUR")
    assert "no proposal 9" in ben("approve show 9", code=1)
    assert "no action" in anna("approve require pools", code=2)
    assert "one action at a time" in anna("approve require --off", code=2)


def test_a_close_and_an_export_are_approved_and_the_file_is_written_after(people, tmp_path):
    anna, ben = people
    anna("pool add 2026-01 0 EUR")
    anna("providers details ann --legal-name Ann --iban DE02120300000000202051 --town Berlin --country DE")
    anna("adjust ann 7 EUR --period 2026-01 --reason gift")
    anna("approve require close payment-export")
    close = ("close 2026-01 --unreviewed none --unvalidated", "a test")
    assert "7.00 EUR payable to 1 provider" in anna(*close, code=5)
    anna("adjust ann 1 EUR --period 2026-01 --reason more")
    assert "not any more: 7.00 EUR payable" in ben("approve give 1", code=1)
    assert "8.00 EUR payable" in anna(*close, code=5)
    assert "done: close of 2026-01" in ben("approve give 2")
    export = f"pay export 2026-01 --out {tmp_path / 'payments.csv'}"
    assert "csv payment of 1 payout of 2026-01, 8.00 EUR" in anna(export, code=5)
    assert not (tmp_path / "payments.csv").exists()
    assert "write its file: credit pay export 2026-01 --batch 1" in ben("approve give 3")
    assert "written again" in anna(export)
    assert "DE02120300000000202051" in (tmp_path / "payments.csv").read_text()
    assert "everything is as it was written" in anna("verify")
