"""`credit ingest-outputs`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from credit.cli.options import FILE, field_mapping, field_option, intake_line, json_option, say, warn, workspace_options
from credit.errors import EXIT_PARTIAL, CreditError

if TYPE_CHECKING:
    from credit.pipeline.workspace import Workspace


@click.command(name="ingest-outputs")
@click.argument("files", type=FILE, nargs=-1, required=True, metavar="FILE...")
@click.option("--source", help="What the ids are unique within. [default: the name of the log's format]")
@field_option
@click.option("--strict", is_flag=True, help="Log nothing of a file if any of its records is bad.")
@workspace_options
@json_option
@click.pass_context
def ingest_outputs(
    ctx: click.Context,
    workspace: Workspace,
    files: tuple[Path, ...],
    source: str | None,
    fields: tuple[str, ...],
    strict: bool,
    as_json: bool,
) -> None:
    """Log a model's outputs from FILE...: credit's own format (JSON Lines, CSV, Parquet) or OpenAI chat logs.

    Own format: id, occurred_at (with time zone), model, prompt or messages, completion; optional weight, source.
    Bad records are set aside with file, line and reason; the good ones go in. Logging a file again changes nothing.

    \b
    Example: credit ingest-outputs logs/2026-10-*.jsonl
             credit ingest-outputs export.csv --field occurred_at=timestamp --field completion=answer
    """
    from dataclasses import asdict

    from credit.pipeline.intake import ingest_outputs as ingest

    mapping = field_mapping(fields)
    reports, failures = [], []
    for file in files:
        try:
            report = ingest(workspace, file, source=source, fields=mapping, strict=strict)
        except CreditError as error:
            if len(files) == 1:
                raise
            failures.append(error)  # one bad file must not keep the others out
            warn([f"Error: {error}"])
            continue
        reports.append(report)
        warn([*report.notices, *report.problems])
    lines = [intake_line(report, "logged", "known already") for report in reports]
    facts = {"files": [asdict(report) for report in reports], "failed": [str(error) for error in failures]}
    say(as_json, facts, "\n".join(lines))
    if failures and not reports:
        ctx.exit(failures[0].exit_code)
    if failures or any(report.set_aside_now for report in reports):
        ctx.exit(EXIT_PARTIAL)
