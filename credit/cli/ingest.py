"""`credit ingest-outputs`."""

from __future__ import annotations

from datetime import datetime
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
@click.option(
    "--occurred-at", metavar="TIME", help="When outputs occurred whose log does not say so (Anthropic batches)."
)
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
    occurred_at: str | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Log a model's outputs from FILE...: credit's own format, or what other software writes.

    Own format (JSON, CSV, Parquet): id, occurred_at (with time zone), model, prompt or messages, completion; optional
    weight, source. Others, told for every record: OpenAI chat completions, OpenAI and Anthropic batches (their requests
    and results in one call), LiteLLM's logging payloads, OpenTelemetry spans (OTLP JSON), Langfuse observations, MLflow
    traces.

    Bad records are quarantined with file, line and reason; the good ones go in. Logging a file again changes nothing.

    \b
    Example: credit ingest-outputs logs/2026-10-*.jsonl
             credit ingest-outputs export.csv --field occurred_at=timestamp --field completion=answer
             credit ingest-outputs batch-input.jsonl batch-output.jsonl
    """
    from dataclasses import asdict

    from credit.ingest.batch_requests import read_batch_requests
    from credit.pipeline.ingest import ingest_outputs as ingest

    mapping, moment = field_mapping(fields), _moment(occurred_at)
    requests = read_batch_requests(files)
    reports, failures = [], []
    for file in files:
        try:
            report = ingest(
                workspace, file, source=source, fields=mapping, requests=requests, occurred_at=moment, strict=strict
            )
        except CreditError as error:
            if len(files) == 1:
                raise
            failures.append(error)  # one bad file must not keep the others out
            warn([f"Error: {error}"])
            continue
        reports.append(report)
        warn([*(() if report.is_old else report.notices), *report.problems])
    lines = [intake_line(report, "logged", "known already") for report in reports]
    facts = {"files": [asdict(report) for report in reports], "failed": [str(error) for error in failures]}
    say(as_json, facts, "\n".join(lines))
    if failures and not reports:
        ctx.exit(failures[0].exit_code)
    if failures or any(report.quarantined_now for report in reports):
        ctx.exit(EXIT_PARTIAL)


def _moment(text: str | None) -> datetime | None:
    from credit.ingest.fields import FieldError, timestamp

    try:
        return None if text is None else timestamp(text)
    except FieldError as error:
        raise click.UsageError(f"--occurred-at {error}") from error
