"""`credit month`: the commands of a month, one after the other, up to where a person must decide."""

from __future__ import annotations

import io
import json
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from credit.cli.options import FILE, PERIOD, ledger_options
from credit.cli.printing import is_json, say
from credit.errors import EXIT_FAILED, EXIT_PARTIAL, EXIT_PROPOSED, InputError
from credit.text import counted, printable_lines

if TYPE_CHECKING:
    from credit.pipeline.workspace import Workspace

STEPS = ("ingest", "compute", "pools", "check", "close", "export")
_POOL_COLUMNS = ("period", "amount", "currency", "deductions", "reference")
_INDENT = "    "


@dataclass(slots=True)
class StepReport:
    """A step that was done: its commands, the worst of their exit codes, and what came of it.

    Attributes:
        step: one of `STEPS`.
        commands: as a person would type them.
        exit_code: 0, or that of the first command that did not end with 0.
        seconds: its time.
        said: the outcome in a line.
        facts: what the commands print with `--json`.
        details: lines below it.
    """

    step: str
    commands: list[str] = field(default_factory=list)
    exit_code: int = 0
    seconds: float = 0.0
    said: str = ""
    facts: list[Any] = field(default_factory=list)
    details: list[str] = field(default_factory=list)


@dataclass(slots=True)
class MonthReport:
    """The steps of `credit month`, and the decision or day that it waits for; empty at the end of a whole month."""

    period: str
    steps: list[StepReport] = field(default_factory=list)
    waits_for: str = ""


@click.command()
@click.argument("period", type=PERIOD, required=False)
@click.option("--logs", type=FILE, multiple=True, help="Log, folder or quoted pattern to ingest. May be repeated.")
@click.option("--pools", type=FILE, help="CSV file of pools: period,amount,currency[,deductions,reference].")
@click.option("--until", type=click.Choice(STEPS), default="export", show_default=True, help="Last step.")
@click.option("--approve", is_flag=True, help="Go on to the close and the export: somebody has looked at the check.")
@click.option("--out", type=FILE, help="Folder of the export.  [default: statements-PERIOD]")
@click.option("--signing-key", type=FILE, envvar="CREDIT_SIGNING_KEY", show_envvar=True, help="Signs the export.")
@ledger_options
def month(
    workspace: Workspace,
    period: str | None,
    logs: tuple[Path, ...],
    pools: Path | None,
    until: str,
    approve: bool,
    out: Path | None,
    signing_key: Path | None,
) -> None:
    """Do a month's commands in order: ingest, compute, pools, check, close, export.

    PERIOD (YYYY-MM) is the month before unless named. Each step is a command of its own, prints a line, and does
    nothing twice: run it again after an interruption, or every night from cron. Before the month is over it ingests
    and computes. Afterwards it adds the pools of the file and tries the close (credit close --dry-run).

    There it stops: a person looks at the check, and runs the same with --approve. What needs more than that, such as
    --unvalidated or --accept-concentration, is said to credit close itself; then credit month goes on.

    Exit codes: 0 done so far as --until and the calendar allow, or waiting for --approve; 3 a person must decide
    something first, or records were quarantined; 5 the close waits for a second person; others as the commands'.

    \b
    Example: credit month --logs logs/ --pools pools.csv
             credit month 2026-10 --logs 'logs/*.jsonl' --pools pools.csv --approve
    """
    done = MonthReport(period or _month_before(datetime.now(UTC).date()))
    run = _Run(workspace, done)
    steps: dict[str, Callable[[], str]] = {
        "ingest": lambda: run.ingest(logs),
        "compute": run.compute,
        "pools": lambda: run.pools(pools),
        "check": run.check,
        "close": lambda: run.close(approve=approve),
        "export": lambda: run.export(out or Path(f"statements-{done.period}"), signing_key),
    }
    for name in STEPS[: STEPS.index(until) + 1]:
        done.waits_for = run.step(name, steps[name])
        if done.waits_for:
            break
    # What ends the run is its outcome; records in quarantine did not.
    ended = done.steps[-1].exit_code if done.waits_for else 0
    exit_code = ended or max(item.exit_code for item in done.steps)
    last = f"waits for {done.waits_for}" if done.waits_for else f"done until {until}"
    say(done, f"{_now()} {done.period}  {last}", exit_code=exit_code)


class _Run:
    """Steps of a month. Each returns what it waits for, or nothing; then the next one comes."""

    def __init__(self, workspace: Workspace, done: MonthReport) -> None:
        self._done, self._step = done, StepReport("")
        self._place = ["--database", workspace.database, "--data-dir", str(workspace.data_dir)]
        self._actor = ["--actor", workspace.actor] if workspace.actor else []
        self._closed = _is_closed(workspace, done.period)
        self._first_day_after = _first_day_after(done.period)
        self._over = datetime.now(UTC).date() >= self._first_day_after

    def step(self, name: str, do: Callable[[], str]) -> str:
        """Do a step and print its line."""
        self._step, begin = StepReport(name), time.monotonic()
        self._done.steps.append(self._step)
        waits_for = do()
        self._step.seconds = round(time.monotonic() - begin, 1)
        if not is_json():
            lines = [f"{_now()} {name:<8} {self._step.said}", *(_INDENT + line for line in self._step.details)]
            click.echo(printable_lines("\n".join(lines)))
        return waits_for

    def ingest(self, logs: Sequence[Path]) -> str:
        if not logs:
            return self._passed("no logs named (--logs)")
        facts = self._run("ingest-outputs", *map(str, logs))
        if facts is None:
            return self._failed()
        files = facts["files"]
        new, bad, old = (sum(f[name] for f in files) for name in ("accepted", "quarantined", "quarantined_before"))
        self._step.said = f"{counted(len(files), 'file')}: {new} logged, {bad - old} quarantined"
        self._step.details = [line for item in files for line in item["problems"][:3]] + facts["failed"]
        return ""

    def compute(self) -> str:
        facts = self._run("compute")
        if facts is None:
            return self._failed()
        self._step.said = f"{counted(facts['valued'], 'output')} valued, {counted(facts['books'], 'score book')}"
        self._step.details = [f"not valued: {line}" for line in facts["refused"][:5]]
        return ""

    def pools(self, file: Path | None) -> str:
        if self._closed or file is None:
            return self._passed("the period is closed" if self._closed else "no file named (--pools)")
        rows = list(_pool_rows(file, self._done.period))
        for arguments in rows:
            if self._run("pool", "add", *arguments) is None:
                return self._failed()
        self._step.said = f"{counted(len(rows), 'pool')} of {file}"
        return self._proposed()

    def check(self) -> str:
        if self._closed:
            return self._passed("the period is closed")
        if not self._over:
            self._passed(f"{self._done.period} is not over")
            return f"{self._first_day_after} (UTC)"
        arguments = ("close", self._done.period, "--dry-run")
        facts = self._run(*arguments)
        if facts is None:
            # A refused close is no fault of the run: a person decides, and closes with what the message names.
            self._step.exit_code = EXIT_PARTIAL if self._step.exit_code == EXIT_FAILED else self._step.exit_code
            return "a person to decide; then credit month goes on"
        self._step.said = f"{counted(facts['statements'], 'statement')} would be written"
        if not is_json():
            self._step.details = self._call([*arguments, *self._place])[1].splitlines()
        return ""

    def close(self, *, approve: bool) -> str:
        if self._closed:
            return self._passed("the period is closed")
        if not approve:
            self._passed("nobody has approved the check")
            return f"somebody who has looked at the check: credit month {self._done.period} --approve"
        facts = self._run("close", self._done.period)
        if facts is None:
            return self._failed()
        if self._step.exit_code != EXIT_PROPOSED:
            self._step.said = f"{counted(facts['statements'], 'statement')} written"
        return self._proposed()

    def export(self, out: Path, key: Path | None) -> str:
        signed = ["--signing-key", str(key)] if key else []
        facts = self._run("export", self._done.period, "--out", str(out), *signed)
        if facts is None:
            return self._failed()
        self._step.said = (
            f"{counted(len(facts['folders']), 'folder')} in {out}{'' if facts['signed'] else ', not signed'}"
        )
        return ""

    def _passed(self, why: str) -> str:
        self._step.said = f"nothing to do: {why}"
        return ""

    def _failed(self) -> str:
        return "a remedy; then the same command goes on"

    def _proposed(self) -> str:
        """Return the wait for a second person after a command that was only a proposal; empty after any other."""
        if self._step.exit_code != EXIT_PROPOSED:
            return ""
        self._step.said = "proposed, not done"
        return "a second person: credit approve list"

    def _run(self, *arguments: str) -> Any:
        """Run a command, and return what it prints with `--json`; None where it failed."""
        code, text = self._call([*arguments, *self._place, "--json"])
        self._step.commands.append(shlex.join(("credit", *arguments)))
        self._step.exit_code = max(self._step.exit_code, code)
        facts = json.loads(text)
        self._step.facts.append(facts)
        if isinstance(facts, dict) and "error" in facts:
            self._step.said = str(facts["error"])
            return None
        return facts

    def _call(self, arguments: Sequence[str]) -> tuple[int, str]:
        from credit.cli.main import cli

        said = io.StringIO()
        with redirect_stdout(said):
            try:
                code = cli.main([*self._actor, *arguments], prog_name="credit", standalone_mode=False)
            except click.ClickException as error:
                code = error.exit_code
        return code if isinstance(code, int) else 0, said.getvalue()


def _pool_rows(file: Path, period: str) -> Iterator[list[str]]:
    """Yield the arguments of `credit pool add` for each row of a period.

    Raises:
        InputError: the file lacks a column, has one that is not known, or a row with too few or too many cells.
    """
    from credit.ingest.files import read_csv
    from credit.records import Quarantined

    for row in read_csv(file, required=_POOL_COLUMNS[:3]):
        if isinstance(row, Quarantined):
            raise InputError(f"{row.place}: {row.error}")
        cells = {name: str(value) for name, value in row.record.items()}
        if odd := sorted(cells.keys() - set(_POOL_COLUMNS)):
            raise InputError(f"{row.place}: there is no column {odd[0]!r}; columns are {', '.join(_POOL_COLUMNS)}")
        if lacking := [name for name in _POOL_COLUMNS[:3] if name not in cells]:
            raise InputError(f"{row.place}: the {lacking[0]} is missing")
        if cells["period"] != period:
            continue
        more = [(f"--{name}", cells[name]) for name in _POOL_COLUMNS[3:] if name in cells]
        yield [period, cells["amount"], cells["currency"], *(part for pair in more for part in pair)]


def _is_closed(workspace: Workspace, period: str) -> bool:
    from credit.ledger.periods import periods

    with workspace.open() as ledger, ledger.read() as conn:
        return any(item.id == period and item.status == "closed" for item in periods(conn))


def _first_day_after(period: str) -> date:
    from credit.ledger.values import first_day, following

    return first_day(following(period))


def _month_before(day: date) -> str:
    return (day.replace(day=1) - timedelta(days=1)).isoformat()[:7]


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
