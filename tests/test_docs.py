"""The pages are true: commands and Python run, the demo is the demo's, links and names of files lead somewhere.

So do the references in docstrings and comments of `credit`, and the table of `docs/architecture.md` that tells which
files to change names the registries that the code reads.
"""

from __future__ import annotations

import ast
import io
import os
import re
import shlex
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from typing import get_args

import click
import pytest

from credit.accounting.statement_lines import STATEMENT_LINES
from credit.accounting.waterfall import Waterfall
from credit.cli.main import cli
from credit.ingest.apis import APIS
from credit.ingest.formats import FORMATS
from credit.ingest.formats.pairs import PairReader
from credit.ledger.transaction_kinds import TransactionKind
from credit.ledger.verify import CHECKS
from credit.payments.channels import CHANNELS
from credit.records import PaymentFormat
from tests.models import save_tiny_model

ROOT = Path(__file__).parent.parent
CREDIT = ROOT / "credit"
PAGES = {
    path: path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
}
README = PAGES[ROOT / "README.md"]
COMMANDS = PAGES[ROOT / "docs" / "commands.md"]
ARCHITECTURE = PAGES[ROOT / "docs" / "architecture.md"]
SOURCES = {path: path.read_text(encoding="utf-8") for path in sorted(CREDIT.rglob("*.py"))}
REGISTRIES = {
    "log format": "credit.ingest.formats:FORMATS",
    "API of a model server": "credit.ingest.apis:APIS",
    "payment channel": "credit.payments.channels:CHANNELS",
    "line of a statement": "credit.accounting.statement_lines:STATEMENT_LINES",
    "projection": "credit.valuation.projection:PROJECTIONS",
    "report": "credit.cli.report:report",
    "ledger rule": "credit.ledger.rules:rules",
    "kind of transaction": "credit.ledger.transaction_kinds:TransactionKind",
    "check of `verify`": "credit.ledger.verify:CHECKS",
    "action that needs two people": "credit.approval.actions:ACTIONS",
    "kind of account": "credit.ledger.accounts:AccountKind",
    "engine": "credit.engines.choice:ENGINES",
}
"""For each thing that people add, the registry that everything else reads: its module and its name."""


def _blocks(marker: str) -> list[str]:
    return re.findall(rf"<!-- {marker} -->\n```\w+\n(.*?)```", "".join(PAGES.values()), re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    save_tiny_model(folder / "my-model")
    for name, content in re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", README, re.DOTALL):
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def _environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("CREDIT_")} | more


def _credit(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "credit", *arguments],
        cwd=folder,
        env=_environment(),
        text=True,
        capture_output=True,
        check=False,
    )


def test_the_commands_for_ones_own_data_work_as_written(folder):
    commands = [line for block in _blocks("commands") for line in block.splitlines()]
    assert len(commands) == 11
    printed = {}
    for command in commands:
        prompt, program, *arguments = shlex.split(command)
        assert (prompt, program) == ("$", "credit")
        done = _credit(folder, *arguments)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        printed[" ".join(arguments[:2])] = done.stdout
    assert "2 outputs valued, 3.000000 credits posted" in printed["compute"]
    assert "novels" in printed["report attribution"]
    assert sorted(path.name for path in (folder / "statements-2026-01").iterdir()) == ["anna", "ben"]
    assert "everything is as it was written" in printed["verify"]


def test_the_page_on_python_runs_from_top_to_bottom(folder, tmp_path):
    for name in ("my-model", "providers.csv", "train.jsonl", "outputs.jsonl"):
        (tmp_path / name).symlink_to(folder / name)
    page = PAGES[ROOT / "docs" / "python.md"]
    program = "".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    environment = _environment(PYTHONPATH=str(ROOT))
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "2 outputs, 0 bad records" in done.stdout
    assert "2 valued, 3.0 credits" in done.stdout
    assert "create it" not in done.stdout
    assert sorted(path.name for path in (tmp_path / "statements").iterdir()) == ["anna", "ben"]


def test_an_index_by_spawned_workers_and_by_the_jobs_of_an_array_has_the_same_bytes(folder, tmp_path):
    """Each worker is a new Python, as for users. A job of the array does its work in the command's own process."""
    made = []
    for marker, count in (("one machine", 1), ("job array", 2)):
        site = tmp_path / marker
        site.mkdir()
        for name in ("my-model", "train.jsonl", "providers.csv"):
            (site / name).symlink_to(folder / name)
        for words in ("init", "providers import providers.csv"):
            assert _credit(site, *words.split()).returncode == 0
        (block,) = _blocks(marker)
        commands = "\n".join(line.removeprefix("$ ") for line in block.splitlines()[:count])
        script = f'set -e; credit() {{ {shlex.quote(sys.executable)} -m credit "$@"; }}\n{commands}'
        environment = _environment(OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))
        shell = ["bash", "-c", script]
        done = subprocess.run(shell, cwd=site, env=environment, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        made.append({path.name: path.read_bytes() for path in (site / "my-index").iterdir() if path.name != ".lock"})
    assert made[0] == made[1]
    assert "manifest.json" in made[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_commands_on_a_page_have_the_options_that_they_are_given(page):
    for block in re.findall(r"```(?:console|bash)\n(.*?)```", PAGES[page], re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            typed = re.search(r"""(?:^|^\$ |do |-- +|--wrap ")credit (.*)""", line)
            if typed is None:
                continue
            words = shlex.split(typed[1].removesuffix('"') if "--wrap" in line else typed[1], comments=True)
            command: click.Command = cli
            while isinstance(command, click.Group):
                context = click.Context(command)
                _, words, _ = command.make_parser(context).parse_args(words)
                _, found, words = command.resolve_command(context, words)
                assert found is not None
                command = found
            try:
                command.make_parser(click.Context(command)).parse_args(words)
            except click.UsageError as error:
                pytest.fail(f"{line}: {error.format_message()}")


@pytest.mark.parametrize("block", _blocks("python"), ids=lambda block: block.splitlines()[-1].split("#")[0])
def test_the_python_examples_run(folder, block):
    done = subprocess.run([sys.executable, "-c", block], cwd=folder, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Group(provider='anna', collection=" in done.stdout


def _leaves(command: click.Command, path: str) -> Iterator[str]:
    """Yield every command that is no group, as typed."""
    if not isinstance(command, click.Group):
        yield path
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert child is not None
        yield from _leaves(child, f"{path} {name}")


def test_every_command_is_named():
    named = re.findall(r"^\| `(credit [^`]+)` \|", COMMANDS, re.MULTILINE)
    for command in _leaves(cli, "credit"):
        assert any(f"{line} ".startswith(f"{command} ") for line in named), f"docs/commands.md does not name {command}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", PAGES[page])
    for target, heading in links:
        place = page.parent / target if target else page
        assert place.exists(), f"{page.name} links to {target}, which is not there"
        if heading:
            headings = re.findall(r"^#+ (.+)$", place.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings}, heading


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    """Pages name files from the root or from `credit/`; a bare name is that of a file somewhere below `credit/`."""
    packages = {path.name for path in CREDIT.iterdir()}
    for name in re.findall(r"`([\w./-]+)`", PAGES[page]):
        first = name.partition("/")[0]
        if "/" in name and first == "credit":
            assert (ROOT / name).exists(), f"{page.name} names {name}, which is not there"
        elif "/" in name and first in packages:
            assert (CREDIT / name).exists(), f"{page.name} names {name}, which is not in credit"
        elif name.endswith(".py"):
            found = (ROOT / name).exists() if "/" in name else any(path.name == name for path in SOURCES)
            assert found, f"{page.name} names {name}, which is not there"


def _files_to_change() -> dict[str, list[str]]:
    """Return the table "To add a ...": for each thing the files to change."""
    (table,) = re.findall(r"<!-- to add -->\n(.*?)<!-- /to add -->", ARCHITECTURE, re.DOTALL)
    rows = [line.strip("|").split("|") for line in table.splitlines()[2:]]
    return {thing.strip(): re.findall(r"`([^`]+)`", files) for thing, files in rows}


@pytest.mark.parametrize(("thing", "files"), _files_to_change().items())
def test_the_files_to_change_exist_and_one_holds_the_registry(thing, files):
    assert len(files) <= 4
    for name in files:
        assert (ROOT / name).exists(), name
    registry = resolve_name(REGISTRIES[thing])
    assert registry
    module = import_module(REGISTRIES[thing].partition(":")[0])
    assert str(Path(module.__file__ or "").relative_to(ROOT)) in files


def _names_in(folder: str) -> set[str]:
    return {path.stem for path in (CREDIT / folder).glob("*.py")} - {"__init__"}


def test_every_file_of_a_registered_folder_is_in_its_registry():
    readers = {log.reader.__name__.rpartition(".") for log in FORMATS if not isinstance(log.reader, PairReader)}
    assert _names_in("ingest/formats") == {name for package, _, name in readers if package == "credit.ingest.formats"}
    assert {f"credit.ingest.apis.{name}" for name in _names_in("ingest/apis")} == {api.__name__ for api in APIS}
    channels = [import_module(f"credit.payments.channels.{name}") for name in _names_in("payments/channels")]
    assert {module.CHANNEL.name for module in channels if hasattr(module, "CHANNEL")} == set(CHANNELS)
    assert set(CHANNELS) == set(get_args(PaymentFormat))
    checking = {check.__module__.rpartition(".")[2] for check in CHECKS}
    assert _names_in("ledger/verify") == checking | {"report"}  # which holds no checks


def test_every_line_of_a_statement_has_an_amount_and_a_kind_of_transaction():
    for line in STATEMENT_LINES:
        assert hasattr(Waterfall, f"{line.name}_minor"), line.name
        assert not line.transaction or line.transaction in set(TransactionKind)


def _prose(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of every docstring and comment."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_and_comments_refer_to_what_is_there(path):
    for number, said in _prose(SOURCES[path]):
        place = f"{path.relative_to(ROOT)}:{number}"
        assert not re.search(r"\b(DESIGN|STYLE)\b", said), f"{place} refers to a page that does not come with the code"
        for name in re.findall(r"`(credit(?:\.\w+)+)", said):
            try:
                resolve_name(name)
            except (ImportError, AttributeError):
                pytest.fail(f"{place} refers to {name}, which is not there")
        for name in re.findall(r"`([\w./-]+\.py)`", said):
            assert any((folder / name).exists() for folder in (ROOT, CREDIT, path.parent)), f"{place} refers to {name}"


def test_the_demos_commands_are_those_that_the_demo_types():
    (demo,) = re.findall(r"<!-- demo -->(.*?)<!-- /demo -->", README, re.DOTALL)
    typed = re.findall(r"^\$ credit (\S+)", demo, re.MULTILINE)
    assert typed[:7] == ["init", "providers", "index", "overlap", "membership", "ingest-outputs", "compute"]
    assert {"pool", "close", "report", "export"} <= set(typed)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"], ids=str)
def test_no_row_of_a_table_or_item_of_a_list_stands_twice(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    cells = [line.split("|")[1].strip() for line in lines if line.startswith("| `")]
    items = [line for line in lines if line.startswith("- ")]
    assert [text for text, count in Counter([*cells, *items]).items() if count > 1] == []


def test_no_two_classes_have_one_name():
    """A name that stands for two things sends readers to the wrong one."""
    places: dict[str, list[str]] = {}
    for path, source in SOURCES.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    "package", [path.parent for path in SOURCES if path.name == "__init__.py"], ids=lambda path: path.name
)
def test_a_package_says_in_which_order_to_read_it(package):
    """Each module once. Modules of a registry stand in its table; those of `credit` itself in docs/architecture.md."""
    modules = {path.stem for path in package.glob("*.py")} - {"__init__", "__main__"}
    source = SOURCES[package / "__init__.py"]
    named = re.findall(r"`(\w+)`", ast.get_docstring(ast.parse(source)) or "")
    if package == CREDIT:
        named = re.findall(r"\b(\w+)(?:\.py)?\b", "".join(ARCHITECTURE.split("## The words")[:2]))
        assert modules <= set(named)
    elif package.name in {"formats", "apis", "channels"}:
        assert modules - {"channel"} <= set(re.findall(r"\b\w+\b", source))
    else:
        assert {name: named.count(name) for name in modules} == dict.fromkeys(modules, 1)
