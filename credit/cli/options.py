"""Options that commands share, and how commands talk."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from credit.records import is_period
from credit.text import printable_lines

if TYPE_CHECKING:
    from credit.pipeline.ingest import IntakeReport

R = TypeVar("R")

FILE = click.Path(path_type=Path, readable=False)
"""A path as it is: one that cannot be read is an error of its own, and must not keep other files out."""
NUMBER = click.IntRange(1, 2**63 - 1)
"""Of a row in the ledger."""
DAY = click.DateTime(["%Y-%m-%d"])


class _Period(click.ParamType[str]):
    """A calendar month, as the ledger names it."""

    name = "YYYY-MM"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not is_period(str(value)):
            self.fail(f"{value!r} is not a period; a period is a month, written YYYY-MM", param, ctx)
        return str(value)


PERIOD = _Period()

_JSON = "credit.json"


def note_json(ctx: click.Context) -> None:
    """Have errors of this command printed as JSON."""
    ctx.meta[_JSON] = True


def _note_json(ctx: click.Context, _param: click.Parameter, value: bool) -> bool:
    if value:
        note_json(ctx)
    return value


json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    is_eager=True,  # known before any other option can be refused
    callback=_note_json,
    help="Print one JSON object instead of text, also of an error.",
)
field_option = click.option(
    "--field", "fields", multiple=True, metavar="OURS=THEIRS", help="A field that the files name otherwise."
)


def workspace_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add `--database` and `--data-dir`, and pass them on as one `workspace`."""

    @click.option(
        "--database",
        envvar="CREDIT_DATABASE_URL",
        default="sqlite:///credit.db",
        show_default=True,
        show_envvar=True,
        help="The ledger: sqlite:///FILE or postgresql://...",
    )
    @click.option(
        "--data-dir",
        envvar="CREDIT_DATA_DIR",
        default="credit-data",
        show_default=True,
        show_envvar=True,
        type=FILE,
        help="Folder of the ledger's files: score books and quarantined records.",
    )
    @functools.wraps(command)
    def wrapped(database: str, data_dir: Path, *args: Any, **kwargs: Any) -> R:
        from credit.pipeline.workspace import Workspace

        return command(*args, workspace=Workspace(database, data_dir), **kwargs)

    return wrapped


def field_mapping(pairs: Sequence[str]) -> dict[str, str]:
    """Return what `--field` names: ours to theirs.

    Raises:
        click.UsageError: a pair is none, or two are about the same field.
    """
    fields = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    if len(fields) != len(pairs):
        raise click.UsageError("--field takes OURS=THEIRS, each of ours once, such as --field text=content")
    return fields


def say(as_json: bool, facts: dict[str, Any], text: str) -> None:
    """Print the facts as JSON, or the text without what could steer a terminal."""
    click.echo(json.dumps(facts, default=str, sort_keys=True) if as_json else printable_lines(text))


def intake_line(report: IntakeReport, accepted: str, known: str) -> str:
    """Say what became of a file; `accepted` and `known` are words for what it brought, and did not."""
    text = f"{report.file}: {report.accepted} {accepted}, {report.duplicates} {known}"
    text += f", {report.quarantined_now} quarantined"
    if report.quarantined_before:
        text += f", {report.quarantined_before} quarantined before"
    if report.quarantine_file:
        text += f" in {report.quarantine_file}"
    return text + "".join(f"\n  {count} skipped: {reason}" for reason, count in report.skipped.items())


def terminal_width() -> int:
    """Return the characters in a line of the terminal, or of `COLUMNS`; 120 where there is neither."""
    return max(shutil.get_terminal_size((120, 24)).columns, 40)


def say_error(ctx: click.Context, message: str, exit_code: int) -> None:
    """Print an error as JSON to standard output, where the command was asked for JSON."""
    if ctx.meta.get(_JSON):
        say(True, {"error": message, "exit_code": exit_code}, message)


def warn(lines: Sequence[str]) -> None:
    """Print lines to standard error, without what could steer a terminal."""
    for line in lines:
        click.echo(printable_lines(line), err=True)


class Group(click.Group):
    """A group whose help shows the line of every command whole."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with their lines."""
        commands = [(name, self.commands[name]) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(limit=500)) for name, command in commands])


@contextmanager
def progress_bar(description: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on a terminal's standard error; yields `update(done, total)`. Silent under cron."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit} {{task.fields[rate]}}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    # On a terminal, what is printed meanwhile goes above the bar; in a pipe or file it stays where it belongs.
    shown, above = console.is_terminal, sys.stdout.isatty()
    with Progress(*columns, console=console, disable=not shown, transient=True, redirect_stdout=above) as progress:
        task = progress.add_task(description, total=None, rate="")

        def update(done: int, total: int) -> None:
            speed = progress.tasks[0].speed
            progress.update(task, completed=done, total=total, rate=f"{speed:,.0f}/s" if speed else "")

        yield update
