"""What commands print: text or JSON, warnings, tables as wide as the terminal, and progress."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING

import click

from credit.text import counted, printable_lines

if TYPE_CHECKING:
    from rich.progress import Progress

    from credit.ledger.journal import Posted
    from credit.pipeline.ingest import IngestReport

_JSON = "credit.json"


def ask_for_json(ctx: click.Context) -> None:
    """Make this command print JSON, for its result and for an error."""
    ctx.meta[_JSON] = True


def is_json(ctx: click.Context | None = None) -> bool:
    """Return True under `--json`."""
    return bool((ctx or click.get_current_context()).meta.get(_JSON))


def say(facts: object, *lines: str, exit_code: int = 0) -> None:
    """Print the result of a command: the lines, or with `--json` the facts as one JSON object.

    Args:
        facts: a dataclass, or a dict of them.
        lines: the same for people, without characters that steer a terminal.
        exit_code: ends the command with it, unless 0.
    """
    # JSON escapes control characters itself; text may hold names that steer the terminal.
    text = as_json(facts) if is_json() else printable_lines("\n".join(lines))
    click.echo(text)
    if exit_code:
        click.get_current_context().exit(exit_code)


def as_json(facts: object) -> str:
    """Return facts, dataclasses among them, as one JSON object."""
    return json.dumps(facts, default=_jsonable, sort_keys=True)


def _jsonable(value: object) -> object:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def say_posted(done: Posted, what: str, verb: str = "posted") -> None:
    """Print a command's transaction, posted now or before."""
    facts = {"transaction": done.txn_id, "hash": done.hash, "replayed": done.replayed}
    say(facts, f"{what} {f'was {verb} before' if done.replayed else f'is {verb}'}, as transaction {done.txn_id}")


def say_error(ctx: click.Context, message: str, exit_code: int) -> None:
    """Print an error as JSON to standard output, where the command was asked for JSON."""
    if is_json(ctx):
        click.echo(json.dumps({"error": message, "exit_code": exit_code}, sort_keys=True))


def warn(*lines: str) -> None:
    """Print lines to standard error, without control characters."""
    for line in lines:
        click.echo(printable_lines(line), err=True)


def ingested(report: IngestReport, accepted: str, known: str) -> str:
    """Return a line on an ingested file; `accepted` and `known` are the words for its new and its old records."""
    if report.is_unchanged:
        before = f", {report.quarantined_before} quarantined before" if report.quarantined_before else ""
        waiting = f", {counted(report.unfinished, 'unfinished record')} at the end" if report.unfinished else ""
        return f"{report.file}: nothing new since it was last read, 0 quarantined{before}{waiting}"
    counts = f"{report.accepted} {accepted}, {report.duplicates} {known}, {report.quarantined_now} quarantined"
    if report.quarantined_before:
        counts += f", {report.quarantined_before} quarantined before"
    if report.quarantine_file:
        counts += f" in {report.quarantine_file}"
    lines = [f"{report.file}: {counts}"]
    lines += [f"{count} skipped: {reason}" for reason, count in report.skipped.items()]
    if report.told:
        lines.append(f"{report.told} of the known are calls that another span, logger or moment told of")
    if report.lookalikes:
        alike = counted(report.lookalikes, "output")
        lines.append(
            f"{alike} as in another log: the same model and text, seconds apart, and no id in common; log each call by"
            " one of them"
        )
    if report.unfinished:
        lines.append(f"{counted(report.unfinished, 'unfinished record')} at the end, for the next run")
    if report.read:
        sums = [(report.accepted, accepted), (report.duplicates, known), (report.quarantined, "quarantined")]
        sums.append((sum(report.skipped.values()), "skipped"))
        lines.append(f"{report.read} read = " + " + ".join(f"{count} {word}" for count, word in sums))
    return "\n  ".join(lines)


def terminal_width() -> int:
    """Return the characters in a line of the terminal, or of `COLUMNS`; 120 where there is neither."""
    return max(shutil.get_terminal_size((120, 24)).columns, 40)


def wrapped(line: str, width: int) -> list[str]:
    """Break a line at spaces only, never inside a number or a name; what follows stands further in."""
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(
        line.strip(),
        width,
        initial_indent=indent,
        subsequent_indent=indent + "    ",
        break_long_words=False,
        break_on_hyphens=False,
    ) or [""]


def aligned(rows: Sequence[Sequence[str]], right: int | None = None) -> list[str]:
    """Return rows with their columns under each other, two spaces apart; column `right` is aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
    return [
        "  ".join(
            cell.rjust(width) if number == right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


class ProgressBar:
    """Bar of a task on a terminal."""

    def __init__(self, progress: Progress, description: str) -> None:
        self._progress, self._description = progress, description
        self._task = progress.add_task(description, total=None, rate="")

    def __call__(self, done: int, total: int) -> None:
        """Show how much is done, and of how much."""
        # None until rich has seen two updates.
        speed = self._progress.tasks[0].speed
        self._progress.update(self._task, completed=done, total=total, rate=f"{speed:,.0f}/s" if speed else "")

    def workers(self, ready: int, wanted: int) -> None:
        """Show how many workers there are, and how many are still to come."""
        count = counted(ready, "worker") if ready == wanted else f"{ready} of {counted(wanted, 'worker')}"
        self._progress.update(self._task, description=f"{self._description}, {count}")


@contextmanager
def progress_bar(description: str, unit: str) -> Iterator[ProgressBar]:
    """Show a progress bar on a terminal's standard error, and nothing elsewhere; yield it to call (done, total)."""
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
    # On a terminal, other output appears above the bar; in a pipe or file it stays where it belongs.
    shown, above = console.is_terminal, sys.stdout.isatty()
    with Progress(*columns, console=console, disable=not shown, transient=True, redirect_stdout=above) as progress:
        yield ProgressBar(progress, description)
