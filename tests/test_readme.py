"""The README and the pages beside it are true: files are read, commands and Python run, the demo is the demo's."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from credit.cli.main import cli
from tests.models import save_tiny_model

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").iterdir()))}


COMMANDS = PAGES[ROOT / "docs" / "commands.md"]


def _blocks(marker: str) -> list[str]:
    return re.findall(rf"<!-- {marker} -->\n```\w+\n(.*?)```", "".join(PAGES.values()), re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    save_tiny_model(folder / "my-model")
    for name, content in re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", README, re.DOTALL):
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def _credit(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CREDIT_")}
    return subprocess.run(
        [sys.executable, "-m", "credit", *arguments],
        cwd=folder,
        env=environment,
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


def test_the_demos_commands_are_those_that_the_demo_types():
    (demo,) = re.findall(r"<!-- demo -->(.*?)<!-- /demo -->", README, re.DOTALL)
    typed = re.findall(r"^\$ credit (\S+)", demo, re.MULTILINE)
    assert typed[:5] == ["init", "providers", "index", "ingest-outputs", "compute"]
    assert {"pool", "close", "report", "export"} <= set(typed)
