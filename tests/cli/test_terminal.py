"""The layout of what commands print: short, bounded, and wrapped where a reader can bear it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from credit.ledger.database import Ledger
from credit.records import Group
from tests.cli.helpers import Command
from tests.conftest import ON_SQLITE
from tests.pipeline.scored import Scored, at, credit_outputs

MANY = 300
CLOSE = ("close 2026-01 --unreviewed none --unvalidated", "a test")
KEPT = Path(__file__).parent / "terminal"


@pytest.fixture(scope="module")
def crowded_folder(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the ledger of `crowd`, to be copied and never used."""
    folder = tmp_path_factory.mktemp("crowd") / "crowd"
    folder.mkdir()
    shutil.copyfile(sqlite_template, folder / "credit.db")
    credit = Command(f"sqlite:///{folder / 'credit.db'}", folder)
    credit("providers add ann Ann")
    keys = [f"p{number:03}" for number in range(MANY)]
    rows = [f"{key},Provider {key},EUR,{100 if number % 3 == 0 else 0}" for number, key in enumerate(keys)]
    (folder / "providers.csv").write_text("\n".join(["key,name,currency,minimum_payout", *rows, ""]))
    credit("providers import FOLDER/providers.csv")
    measures = {Group(key): (1.0 + number, 1.0) for number, key in enumerate(keys)}
    with Ledger.open(credit.url) as ledger:
        credit_outputs(ledger, folder / "books", [Scored("o1", at(1, 5), measures)])
    credit("pool add 2026-01 9999.99 EUR")
    credit("hold place p299 --reason 'a dispute'")
    return folder


@pytest.fixture
def crowd(crowded_folder: Path, tmp_path: Path) -> Command:
    """A ledger with many providers, all of them credited in January, some with a minimum payout or on hold."""
    folder = shutil.copytree(crowded_folder, tmp_path / "crowd")
    return Command(f"sqlite:///{folder / 'credit.db'}", folder)


def test_a_close_of_many_providers_says_totals_and_exceptions_first_and_shows_few_rows(crowd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    lines = crowd(*CLOSE).splitlines()
    assert len(lines) <= 80
    assert lines[1] == "heaviest output: o1, 100.00 % of the credits"
    lines = [line for line in lines if not line.startswith("heaviest ")]
    assert lines[1].startswith("pool main: 9999.99 EUR for 1.000000 credits: 9999.99 EUR to providers, 0.00 to the h")
    payable, carried = re.match(r"(\S+) EUR payable to 199 providers, (\S+) carried forward", lines[2]).groups()
    assert float(payable) + float(carried) == pytest.approx(9999.99)
    assert any(line.startswith("not paid: 100 balances, ") and "below the minimum" in line for line in lines[3:8])
    assert any(line.startswith("not paid: 1 balance, ") and "a dispute" in line for line in lines[3:8])
    assert "... and 280 providers more; --json gives all" in lines
    assert "... and 280 balances more; --json gives all" in lines
    assert sum("below the minimum" in line for line in lines) <= 22


def test_every_amount_of_a_close_is_in_its_json(crowd):
    found = json.loads(crowd(*CLOSE, "--dry-run", "--json"))
    assert len(found["waterfalls"]) == MANY
    assert sum(fall["earned_minor"] for fall in found["waterfalls"]) == 999_999


def test_the_success_of_verify_is_a_few_short_lines(crowd):
    *lines, unchecked, unknown = crowd("verify").splitlines()
    assert unknown.startswith("unknown     whether everything was written anew")
    assert unchecked.startswith("unchecked   the index "), "the index of this ledger has no files"
    assert lines[0] == "everything is as it was written"
    assert len(lines) == 4
    assert max(map(len, lines)) < 80
    found = json.loads(crowd("verify --json"))
    assert f"{found['chain_seq']} transactions" in lines[1]
    assert found["chain_head"] in lines[2]
    assert found["seal_head"] in lines[3]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_an_explanation_breaks_at_spaces_only(crowd, monkeypatch, width):
    crowd(*CLOSE)
    monkeypatch.setenv("COLUMNS", "10000")
    words = crowd("explain payout p298 2026-01").split()
    monkeypatch.setenv("COLUMNS", str(width))
    said = crowd("explain payout p298 2026-01")
    assert said.split() == words
    assert all(len(line) <= width or " " not in line.strip() for line in said.splitlines())


@ON_SQLITE
def test_a_debt_that_is_carried_forward_is_shown_as_negative(credit):
    credit("adjust ann -1.19 EUR --period 2026-01 --reason", "counted twice")
    credit(*CLOSE)
    assert "carried forward: -1.19 = " in credit("explain payout ann 2026-01")


def test_status_counts_providers_without_the_house_and_names_the_export(crowd):
    assert re.search(rf"^providers +{MANY + 1}$", crowd("status"), re.MULTILINE), "ann and the crowd"
    crowd(*CLOSE)
    assert "next: credit export 2026-01 --out DIR" in crowd("status")


@ON_SQLITE
def test_rests_below_a_unit_are_no_unpaid_balances_and_one_line_tells_of_all(credit, tmp_path):
    for key in ("ben", "cyd"):
        credit(f"providers add {key} {key.title()}")
        credit(f"providers terms {key} --currency HUF --channel paypal --from 2026-01-01")
    measures = {Group("ben"): (1.0, 1.0), Group("cyd"): (3.0, 1.0)}
    with Ledger.open(credit.url) as ledger:
        credit_outputs(ledger, tmp_path / "books", [Scored("o1", at(1, 5), measures)])
    credit("pool add 2026-01 1000.00 HUF")
    said = " ".join(credit(*CLOSE).split())
    assert "not paid whole: 2 balances, 1.00 HUF: PayPal carries whole HUF alone; the rest is carried forward" in said
    assert "not paid: " not in said


@ON_SQLITE
def test_an_export_shows_its_progress_on_a_terminal_alone(credit, monkeypatch):
    credit("adjust ann 5.00 EUR --period 2026-01 --reason 'owed from before'")
    credit("pool add 2026-01 0 EUR")
    credit(*CLOSE)
    piped = credit.run("export", "2026-01", "--out", str(credit.folder / "piped"))
    assert piped.stderr == "statements are not signed; make a key to sign them: credit signing-key --help\n"
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes any stream for a terminal
    shown = credit.run("export", "2026-01", "--out", str(credit.folder / "shown"))
    assert "exporting" in shown.stderr
    assert shown.stdout == f"{credit.folder / 'shown' / 'ann'}\n"


PRINTED = {
    "close": "close 2026-01 --dry-run --unreviewed none --unvalidated 'a test'",
    "attribution": "report attribution 2026-01",
    "trends": "report trends",
    "payouts": "report payouts 2026-01",
    "explain-payout": "explain payout p297 2026-01",
}
"""Commands with the files of what they print, in this order; `payouts` and the rest follow a close."""


@pytest.mark.parametrize("width", [80, 120])
def test_what_a_terminal_shows_is_as_kept(crowd, monkeypatch, width):
    """To keep what is shown now, delete the files in `tests/cli/terminal` and run this test twice."""
    monkeypatch.setenv("COLUMNS", str(width))
    missing = []
    for name, line in PRINTED.items():
        if name == "payouts":
            crowd(*CLOSE)
        shown = crowd(line)
        kept = KEPT / f"{name}-{width}.txt"
        if kept.exists():
            assert shown == kept.read_text("utf-8"), kept.name
        else:
            kept.write_text(shown, "utf-8")
            missing.append(kept.name)
        assert max(map(len, shown.splitlines())) <= width, name
    assert not missing, "written now; look at them"
