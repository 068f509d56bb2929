"""The commands together: help, exit codes, the rules of closing, and the whole way on both engines."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click
import pytest
from click.testing import CliRunner
from filelock import FileLock

from credit.cli.main import cli
from credit.errors import EXIT_FAILED, EXIT_INTEGRITY, EXIT_LOCKED, EXIT_USAGE
from credit.ingest.pseudonyms import PseudonymKey, read_key
from tests.pipeline.samples import FIRST, MODEL, OUTPUTS, SECOND, Site, output_row

HEAVY = ("torch", "transformers", "sqlalchemy", "polars", "pydantic", "rich", "jinja2")


def _commands() -> Iterator[tuple[str, ...]]:
    """The path of every command and group, as typed."""

    def below(path: tuple[str, ...], command: click.Command) -> Iterator[tuple[str, ...]]:
        yield path
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None, f"{name} is listed, but is not there"
                yield from below((*path, name), child)

    return below((), cli)


@pytest.mark.parametrize("path", list(_commands()), ids=lambda path: " ".join(path) or "credit")
def test_every_help_text_ends_with_an_example_of_that_command(path):
    result = CliRunner().invoke(cli, [*path, "--help"])
    assert result.exit_code == 0
    example = result.output.partition("Example: ")[2]
    assert example.startswith(" ".join(["credit", *path])), result.output


@pytest.mark.parametrize("path", list(_commands()), ids=lambda path: " ".join(path) or "credit")
def test_every_example_in_a_help_text_is_understood_as_it_stands(path):
    shown = CliRunner().invoke(cli, [*path, "--help"]).output.partition("Example: ")[2].partition("\n\nOptions:")[0]
    examples = [" ".join(text.split()) for text in re.split(r"^ *(?=credit |PYTHONPATH=)", shown, flags=re.MULTILINE)]
    for example in filter(None, examples):
        arguments = shlex.split(example)
        arguments = arguments[arguments.index("credit") + 1 :]
        command, context = cli, click.Context(cli, info_name="credit")
        while isinstance(command, click.Group):
            command = command.get_command(context, arguments.pop(0))
            assert command is not None, example
        command.make_context(command.name, arguments, parent=context)


def _leaf(path: Sequence[str]) -> click.Command | None:
    command = cli
    for name in path:
        command = command.get_command(click.Context(command), name)
    return None if isinstance(command, click.Group) else command


@pytest.mark.parametrize("path", [path for path in _commands() if _leaf(path) and path != ("demo",)], ids=" ".join)
def test_every_command_can_speak_json(path):
    assert "--json" in [name for option in _leaf(path).params for name in option.opts]


def test_the_help_of_a_group_shows_the_line_of_every_command_whole():
    shown = " ".join(CliRunner().invoke(cli, ["pay", "--help"]).output.split())
    assert "its own file (pain.002, camt.053, camt.054), or CSV." in shown
    assert "..." not in shown.partition("Commands:")[2]


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        ("reprot", "did you mean report or export?"),
        ("Close 2026-01", "did you mean close?"),
        ("providers imprt x.csv", "did you mean import?"),
        ("xyzzy", "No such command 'xyzzy'"),
    ],
)
def test_a_mistyped_command_gets_a_suggestion(arguments, suggestion):
    said = CliRunner().invoke(cli, arguments.split())
    assert said.exit_code == EXIT_USAGE
    assert suggestion in said.stderr


def test_a_mistyped_provider_gets_a_suggestion(site):
    said = site.run("explain", "payout", "Ann", FIRST, code=EXIT_FAILED).stderr
    assert "unknown provider 'Ann'; did you mean ann?" in said


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("status", EXIT_FAILED),
        ("compute --chunk 0", EXIT_USAGE),
        ("report payouts 2026-01", EXIT_FAILED),
        ("report attribution 2026-01 --by nothing", EXIT_USAGE),
    ],
)
def test_an_error_is_json_as_well_where_json_was_asked_for(tmp_path, arguments, code):
    environment = {"CREDIT_DATABASE_URL": f"sqlite:///{tmp_path}/none.db"}
    said = CliRunner(env=environment).invoke(cli, [*arguments.split(), "--json"])
    assert (said.exit_code, "Error: " in said.stderr) == (code, True)
    found = json.loads(said.stdout)
    assert found["exit_code"] == code
    assert found["error"] in said.stderr
    assert CliRunner(env=environment).invoke(cli, arguments.split()).stdout == ""
    if arguments.startswith("report"):
        assert CliRunner(env=environment).invoke(cli, [*arguments.split(), "--format", "json"]).stdout == said.stdout


def test_text_from_outside_cannot_steer_the_terminal(site):
    refused = site.run("providers", "add", "bidi", "Ann \u202eresrever", code=EXIT_FAILED)
    assert "the name of bidi holds the invisible character U+202E; take it out" in refused.output
    site.run("providers", "add", "bidi", "Ann")
    site.run("hold", "place", "bidi", "--reason", "said \u2067so\u202e")
    shown = site.run("hold", "list").stdout
    assert "said <U+2067>so<U+202E>" in shown
    assert not {"\u202e", "\u2067"} & set(shown)


def _imported(program: str, environment: dict[str, str]) -> set[str]:
    """Which heavy modules a fresh interpreter has imported after running `credit` with these arguments."""
    code = f"import sys\nfrom credit.cli.main import cli\ncli({program!r}.split(), standalone_mode=False)\n"
    code += f"print('imported', *[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_help_imports_nothing_heavy_and_ledger_commands_import_no_model_library(site):
    assert _imported("--help", {}) == set()
    for command in (
        "status",
        "providers list",
        f"pool add {FIRST} 5 EUR",
        f"ingest-outputs {site.folder}/outputs.jsonl",
    ):
        assert not _imported(command, site.environment) & {"torch", "transformers"}, command


@pytest.mark.parametrize(
    "arguments",
    [
        "providers list",
        "providers add ann Ann",
        "compute",
        f"pool add {FIRST} 5 EUR",
        f"close {FIRST}",
        f"report attribution {FIRST}",
        f"export {FIRST} --out out",
        "status",
        "verify",
    ],
)
def test_without_a_ledger_every_command_says_how_to_create_one(tmp_path, arguments):
    environment = {"CREDIT_DATABASE_URL": f"sqlite:///{tmp_path}/none.db", "CREDIT_DATA_DIR": str(tmp_path / "data")}
    result = CliRunner(env=environment).invoke(cli, arguments.split())
    assert result.exit_code == EXIT_FAILED, result.output
    assert "create it: credit init" in result.stderr
    assert not list(tmp_path.iterdir()), "something was created"


@pytest.mark.parametrize(
    "arguments",
    [
        "nonsense",
        "compute --nonsense",
        "compute --chunk 0",
        "ingest-outputs",
        "index MODEL DATA",
        "index MODEL DATA --out x --rows-per-group some",
        "index MODEL DATA --out x --field text",
        "pool add 2025-3 5 EUR",
        "pool add 2025-03 5.001 EUR",
        "pool add 2025-03 five EUR",
        "close March",
        "status --database mysql://x/y",
        "providers add ann Ann --currency EUR",
    ],
)
def test_wrong_usage_exits_2_and_changes_nothing(site, arguments):
    before = site.tables()
    site.run(*arguments.split(), code=EXIT_USAGE)
    assert site.tables() == before


def test_a_password_in_the_url_is_never_printed(tmp_path):
    url = "postgresql://ann:hunter2@localhost:1/none"
    result = CliRunner(env={"CREDIT_DATABASE_URL": url}).invoke(cli, ["status"])
    assert result.exit_code == EXIT_FAILED
    assert "localhost" in result.stderr
    assert "hunter2" not in result.output


def test_a_second_build_in_the_same_folder_exits_11(site, tmp_path):
    out = tmp_path / "index"
    out.mkdir()
    with FileLock(out / ".lock"):
        data = site.folder / "train.jsonl"
        result = site.run("index", site.folder / MODEL, data, "--out", out, "--name", "x", code=EXIT_LOCKED)
    assert "another build is at work" in result.stderr


def test_setting_up_twice_changes_nothing(site):
    before = site.tables()
    site.run("init")
    assert "0 added or changed, 3 unchanged" in site.run("providers", "import", site.folder / "providers.csv").stdout
    arguments = ("--out", site.folder / "index", "--name", MODEL, "--rank", "4")
    assert "was there already" in site.run("index", site.folder / MODEL, site.folder / "train.jsonl", *arguments).stdout
    log = site.folder / "outputs.jsonl"
    assert "nothing new since it was last read" in site.run("ingest-outputs", log).stdout
    assert f"{OUTPUTS} known already" in site.run("ingest-outputs", log, "--reread").stdout
    site.run("pool", "add", FIRST, "100", "EUR")
    with_pool = site.tables()
    site.run("pool", "add", FIRST, "100.00", "EUR")
    assert site.tables() == with_pool
    assert {name for name in before if before[name] != with_pool[name]} == {
        "account", "ledger_entry", "ledger_txn", "period", "pool", "seal",
    }  # fmt: skip
    site.run("pool", "add", FIRST, "101", "EUR", code=EXIT_FAILED)
    assert site.tables() == with_pool


def test_verify_exits_4_and_names_what_was_changed(site):
    site.run("compute")
    site.run("verify")
    (book,) = (site.data_dir / "books").glob("*.parquet")
    content = book.read_bytes()
    book.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    assert book.name in site.run("verify", code=EXIT_INTEGRITY).output
    book.unlink()
    assert book.name in site.run("verify", code=EXIT_INTEGRITY).output
    book.write_bytes(content)
    site.run("verify")


def test_a_period_is_closed_only_when_it_is_over_in_order_valued_funded_and_once(site):
    assert "is not over; it can be closed from 3000-01-01" in _refused(site, "2999-12")
    assert "there is no period 2019-12; it opens with its first output or pool" in _refused(site, "2019-12")
    assert f"not valued yet: 20 outputs of {FIRST} (" in _refused(site, FIRST)
    site.run("pool", "add", FIRST, "100", "EUR")
    assert f"not valued yet: 20 outputs of {FIRST} (" in _refused(site, FIRST)
    site.run("compute")
    assert f"period {FIRST} is still open; close it first" in _refused(site, SECOND)
    site.close(FIRST)
    assert f"period {FIRST} is closed" in _refused(site, FIRST)
    assert "closed" in site.run("pool", "add", FIRST, "1", "EUR", "--reference", "late", code=EXIT_FAILED).stderr
    assert f"period {SECOND} has credits but no pool; add one: credit pool add" in _refused(site, SECOND)
    site.run("pool", "add", SECOND, "50", "EUR")
    site.close(SECOND)
    site.run("verify")


def _refused(site: Site, period: str) -> str:
    before = site.tables()
    message = site.close(period, code=EXIT_FAILED).stderr
    assert site.tables() == before
    return message


def test_a_dry_run_shows_what_a_close_does_and_writes_nothing(site):
    site.run("compute")
    site.run("pool", "add", FIRST, "100", "EUR")
    before = site.tables()
    dry = site.close(FIRST, "--dry-run").stdout
    assert "would be closed (dry run, nothing written)" in dry
    assert site.tables() == before
    wet = site.close(FIRST).stdout
    assert dry.splitlines()[:-1] == wet.splitlines()[:-1]
    assert "heaviest output: o2, 7.50 % of the credits\nheaviest day: 2025-03-05, 12.50 % of the credits" in wet
    earned = [line.split()[-1].replace(".", "") for line in wet.splitlines() if " 100% " in line]
    assert len(earned) == 2
    to_providers = sum(map(int, earned)) / 100
    words = " ".join(wet.split())  # wherever the line was wrapped
    assert f"credits: {to_providers:.2f} EUR to providers, {100 - to_providers:.2f} to the house" in words
    assert sum(_amounts(site, "allocation", "amount_minor")) == 10_000


def _amounts(site: Site, table: str, column: str) -> list[Any]:
    return [row[column] for row in site.named(table)]


def test_status_names_the_commands_that_come_next(site):
    def steps() -> list[str]:
        return site.json("status")["next"]

    assert steps() == ["credit compute"]
    site.run("compute")
    assert steps() == [f"credit pool add {FIRST} AMOUNT CURRENCY"]
    site.run("pool", "add", FIRST, "100", "EUR")
    review = f"--register {site.folder / 'index'}"
    assert steps() == [
        f"credit overlap DATA {review}",
        f"credit membership MODEL EARLIER DATA {review}",
        f"credit close {FIRST} --dry-run",
    ]
    site.close(FIRST)
    send = [f"credit export {FIRST} --out DIR", f"credit pay export {FIRST} --out FILE"]
    assert steps() == [f"credit pool add {SECOND} AMOUNT CURRENCY", *send]
    shown = site.run("status").stdout
    assert f"period {FIRST}  closed; pools: 100.00 EUR; payouts: 2 pending" in shown
    assert f"next: credit pay export {FIRST} --out FILE" in shown


def test_outputs_that_come_late_are_credited_in_the_next_open_period_on_their_own_day(site):
    site.run("compute")
    site.run("pool", "add", FIRST, "100", "EUR")
    site.close(FIRST)
    frozen = site.named("allocation"), site.named("statement")
    site.log("late.jsonl", [output_row(60, occurred_at=f"{FIRST}-17T10:00:00Z")])
    site.run("pool", "add", SECOND, "50", "EUR")
    stopped = f"not valued yet: 1 output up to the end of {SECOND} (1 of earlier months) ("
    assert stopped in _refused(site, SECOND)
    assert site.json("compute")["valued"] == 1
    assert (site.named("allocation"), site.named("statement")) == frozen
    (late,) = [
        row for row in site.named("ledger_txn") if (row["period_id"], row["effective_on"][:7]) == (SECOND, FIRST)
    ]
    assert (late["kind"], late["effective_on"]) == ("credits", f"{FIRST}-17")
    site.close(SECOND)
    assert sum(_amounts(site, "allocation", "amount_minor")) == 15_000
    site.run("verify")


def test_outputs_left_pending_at_a_close_are_credited_later(site):
    site.run("pool", "add", FIRST, "0", "EUR")
    assert "20 outputs left for a later period" in site.close(FIRST, "--leave-pending").stdout
    site.run("compute")
    assert {row["period_id"] for row in site.named("ledger_txn") if row["kind"] == "credits"} == {SECOND}
    site.run("verify")


def test_an_amount_below_the_minimum_is_carried_forward_and_paid_with_the_next_close(site):
    site.run("compute")
    for period in (FIRST, SECOND):
        site.run("pool", "add", period, "10", "EUR")
    (ben,) = [row["id"] for row in site.named("provider") if row["key"] == "ben"]
    first = site.close(FIRST).stdout
    lines = first.splitlines()
    (place,) = [number for number, line in enumerate(lines) if line.split()[:2] == ["ben", "EUR"]]
    assert "below the minimum payout" in lines[place + 1]
    assert ben not in _amounts(site, "payout", "provider_id")
    site.close(SECOND)
    earned = [row["amount_minor"] for row in site.named("allocation") if row["provider_id"] == ben]
    assert len(earned) == 2
    assert max(earned) < 500 <= sum(earned), "the sample must stay below the minimum once, and pass it in sum"
    (paid,) = [row for row in site.named("payout") if row["provider_id"] == ben]
    assert (paid["period_id"], paid["amount_minor"]) == (SECOND, sum(earned))
    site.run("verify")


def test_the_whole_way_ends_alike_on_both_engines(make_on_engine, new_site, engine_name):
    ends = []
    for site in (new_site("reference"), make_on_engine(engine_name)):
        site.run("compute")
        for period, amount in ((FIRST, "123.45"), (SECOND, "0.07")):
            site.run("pool", "add", period, amount, "EUR")
            site.close(period)
            site.run("report", "attribution", period)
            site.run("report", "payouts", period)
        site.run("verify")
        ends.append({name: rows for name, rows in site.tables().items() if name != "statement"})
    reference, here = ends
    for name, rows in reference.items():
        assert here[name] == rows, name


def test_every_transaction_of_credits_sums_to_the_weights_of_its_day(site):
    site.run("compute", "--chunk", "7")
    weights: dict[str, int] = {}
    for row in site.named("output"):
        weights[row["occurred_at"][:10]] = weights.get(row["occurred_at"][:10], 0) + row["weight_micro"]
    issued: dict[str, int] = {}
    days = {row["id"]: row["effective_on"] for row in site.named("ledger_txn") if row["kind"] == "credits"}
    for entry in site.named("ledger_entry"):
        if entry["txn_id"] in days and entry["amount"] > 0:
            issued[days[entry["txn_id"]]] = issued.get(days[entry["txn_id"]], 0) + entry["amount"]
    assert issued == weights


def test_an_output_is_found_by_the_pseudonym_that_a_provider_names(site):
    key = read_key(site.folder / "users.key")
    one, other = key.output("o1"), key.output("o2")
    assert site.run("outputs", "find", other, one).stdout == f"{other}: o2\n{one}: o1\n"
    unknown = PseudonymKey(bytes(32)).output("o1")
    assert f"no output has the pseudonym {unknown}" in site.run("outputs", "find", unknown, code=EXIT_FAILED).stderr
