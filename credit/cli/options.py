"""Options that commands share, and how commands talk."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    pass

P = ParamSpec("P")
R = TypeVar("R")

FILE = click.Path(path_type=Path)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
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
    """Print the facts as JSON, or the text."""
    click.echo(json.dumps(facts, default=str, sort_keys=True) if as_json else text)


def warn(lines: Sequence[str]) -> None:
    """Print lines to standard error."""
    for line in lines:
        click.echo(line, err=True)


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
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(description, total=None, rate="")

        def update(done: int, total: int) -> None:
            speed = progress.tasks[0].speed
            progress.update(task, completed=done, total=total, rate=f"{speed:,.0f}/s" if speed else "")

        yield update
