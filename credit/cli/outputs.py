"""`credit ingest-outputs` and `credit outputs`: logged outputs until they are valued."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from credit.cli.options import DAY, FILE, CommandGroup, field_option, ledger_options, reason_option, user_key_option
from credit.cli.printing import ingested, say, warn
from credit.errors import EXIT_PARTIAL, CreditError
from credit.text import counted

if TYPE_CHECKING:
    from credit.ledger.unvalued import UnvaluedEvent
    from credit.pipeline.purge import PurgeReport
    from credit.pipeline.workspace import Workspace

R = TypeVar("R")

_STDIN = Path("-")


@click.command(name="ingest-outputs")
@click.argument("files", type=FILE, nargs=-1, required=True, metavar="FILE...")
@click.option("--source", help="Name within which ids are unique.  [default: the log's format]")
@field_option
@click.option("--occurred-at", metavar="TIME", help="Time of outputs whose log has none (Anthropic messages).")
@click.option("--model-name", metavar="NAME", help="Model of outputs whose log names none (some traces, llama.cpp).")
@click.option(
    "--max-weight",
    envvar="CREDIT_MAX_WEIGHT",
    default="1000",
    show_default=True,
    show_envvar=True,
    metavar="WEIGHT",
    help="Largest weight of an output; a greater one is quarantined.",
)
@click.option(
    "--max-ahead",
    envvar="CREDIT_MAX_AHEAD",
    type=click.IntRange(0, 36_500),
    default=1,
    show_default=True,
    show_envvar=True,
    metavar="DAYS",
    help="Days by which an output may lie ahead of this machine's clock; a later one is quarantined.",
)
@user_key_option
@click.option("--new-user-key", is_flag=True, help="Go on with another key: users known so far count as others.")
@click.option("--strict", is_flag=True, help="Log nothing of a file if any of its records is bad.")
@click.option("--reread", is_flag=True, help="Read files again that are as an earlier run read them.")
@click.option("--complete", is_flag=True, help="Nobody writes these files any more: judge an unfinished end now.")
@ledger_options
def ingest_outputs(
    workspace: Workspace,
    files: tuple[Path, ...],
    source: str | None,
    fields: dict[str, str],
    occurred_at: str | None,
    model_name: str | None,
    max_weight: str,
    max_ahead: int,
    user_key: Path | None,
    new_user_key: bool,
    strict: bool,
    complete: bool,
    reread: bool,
) -> None:
    """Log a model's outputs from FILE..., in credit's own format or that of other software.

    Own format (JSON, CSV, Parquet): id, occurred_at (with time zone), model, prompt or messages, completion; optional
    thoughts, weight, source, user. Other formats are recognised record by record: requests and responses of OpenAI's
    and Anthropic's APIs, Ollama, llama.cpp, SGLang, Gemini and Converse; batches (give requests and results in one
    call); LiteLLM, OpenTelemetry, OpenInference, Langfuse, LangSmith, MLflow, Helicone, Weave, Bedrock, Vertex AI.
    docs/logs.md describes each.

    Thoughts of a model are context of its answer: the answer alone is paid for.

    A user's id is kept as a pseudonym, a keyed hash. Machines that log into one ledger need one --user-key.

    Good records are logged. Bad ones, and those beyond --max-weight or --max-ahead, are quarantined with file, line and
    reason. A record that is still being written waits for the next run. Logging a file again changes nothing; of a file
    that has grown, only what is new is read.

    FILE is a file, a folder, a quoted pattern, or - for standard input.

    \b
    Example: credit ingest-outputs logs/2026-10-*.jsonl
             credit ingest-outputs export.csv --field occurred_at=timestamp --field completion=answer
             credit ingest-outputs logs/ "more/**/*.jsonl.gz"
             zstdcat log.zst | credit ingest-outputs -
             credit ingest-outputs batch-input.jsonl batch-output.jsonl
    """
    from credit.ingest.batch_requests import read_batch_requests
    from credit.ingest.files import expand_inputs
    from credit.ingest.outputs import OutputLimits
    from credit.ingest.pseudonyms import read_key
    from credit.pipeline.ingest_outputs import ingest_outputs as ingest

    paths, notices = expand_inputs(files)
    warn(*notices)
    copy = _standard_input() if _STDIN in paths else None
    places = {path: copy if copy and path == _STDIN else path for path in paths}
    moment, requests = _moment(occurred_at), read_batch_requests(places.values())
    limits = OutputLimits(_weight(max_weight), max_ahead)
    key = None if user_key is None else read_key(user_key)
    reports, failures = [], []
    for file, place in places.items():
        try:
            report = ingest(
                workspace,
                place,
                source=source,
                fields=fields,
                requests=requests,
                occurred_at=moment,
                model=model_name or "",
                limits=limits,
                key=key,
                new_key=new_user_key,
                strict=strict,
                complete=complete or file == _STDIN,
                reread=reread,
                name="standard input" if file == _STDIN else "",
            )
        except CreditError as error:
            if len(places) == 1:
                raise
            failures.append(error)  # one bad file must not keep the others out
            warn(f"Error: {error}")
            continue
        reports.append(report)
        warn(*(() if report.is_old else report.notices), *report.problems)
    partial = failures or any(report.quarantined_now or report.doubled for report in reports)
    say(
        {"files": reports, "failed": [str(error) for error in failures]},
        *(ingested(report, "logged", "known already") for report in reports),
        exit_code=failures[0].exit_code if failures and not reports else EXIT_PARTIAL if partial else 0,
    )


def _standard_input() -> Path:
    """Copy standard input to a file that goes when the command ends: readers look at a file's beginning twice."""
    file = tempfile.NamedTemporaryFile(prefix="credit-", suffix=".jsonl")  # noqa: SIM115 - closed with the command
    shutil.copyfileobj(sys.stdin.buffer, file)
    file.flush()
    click.get_current_context().with_resource(file)
    return Path(file.name)


def _moment(text: str | None) -> datetime | None:
    from credit.ingest.fields import FieldError, timestamp

    try:
        return None if text is None else timestamp(text)
    except FieldError as error:
        raise click.UsageError(f"--occurred-at {error}") from error


def _weight(text: str) -> int:
    from credit.ingest.fields import FieldError, weight_micro

    try:
        return weight_micro(text)
    except FieldError as error:
        raise click.UsageError(f"--max-weight {error}") from error


@click.group(cls=CommandGroup)
def outputs() -> None:
    """Pending outputs, and unvalued ones, which a person took out.

    \b
    Example: credit outputs unvalue o117 --reason "empty completion"
    """


def _named_outputs(command: Callable[..., R]) -> Callable[..., R]:
    """Add the names of outputs, and `--reason`."""
    return click.argument("names", nargs=-1, required=True, metavar="NAME...")(reason_option(command))


@outputs.command()
@_named_outputs
@ledger_options
def unvalue(workspace: Workspace, names: tuple[str, ...], reason: str) -> None:
    """Take out outputs that can never be valued, so their period can close; they distribute nothing.

    All outputs are taken out, or none. Repeating the command changes nothing.

    \b
    Example: credit outputs unvalue o117 openai:chatcmpl-9 --reason "empty completion"
    """
    from credit.ledger.unvalued import unvalue as act

    with workspace.open() as ledger, ledger.write() as conn:
        done = [act(conn, name, reason, now=datetime.now(UTC)) for name in names]
    say({"outputs": done}, *map(_line, done))


@outputs.command()
@_named_outputs
@ledger_options
def restore(workspace: Workspace, names: tuple[str, ...], reason: str) -> None:
    """Make unvalued outputs pending again. Their credits will count in the open period.

    \b
    Example: credit outputs restore o117 --reason "the new index can value it"
    """
    from credit.ledger.unvalued import restore as act

    with workspace.open() as ledger, ledger.write() as conn:
        done = [act(conn, name, reason, now=datetime.now(UTC)) for name in names]
    say({"outputs": done}, *map(_line, done))


@outputs.command()
@click.argument("pseudonyms", nargs=-1, required=True, metavar="PSEUDONYM...")
@user_key_option
@ledger_options
def find(workspace: Workspace, pseudonyms: tuple[str, ...], user_key: Path | None) -> None:
    """Tell the outputs behind pseudonyms, as they stand in a provider's outputs.csv.

    \b
    Example: credit outputs find 5f3a9c1e-0b7d4c2a9e8f6d5b4a3c2e1f0b7d4c2a
    """
    from credit.errors import LedgerError
    from credit.ledger.outputs import named_outputs
    from credit.pipeline.workspace import ledger_key

    asked = set(pseudonyms)
    with workspace.open() as ledger, ledger.read() as conn:
        key = ledger_key(workspace, conn, user_key)
        shown = ((key.output(name), name) for name in named_outputs(conn))
        names = {pseudonym: name for pseudonym, name in shown if pseudonym in asked}
    unknown = [item for item in pseudonyms if item not in names]
    if unknown:
        raise LedgerError(f"no output has the pseudonym {unknown[0]}; look for it in outputs.csv, column output_id")
    say({"outputs": names}, *(f"{item}: {names[item]}" for item in pseudonyms))


@outputs.command(name="list")
@click.option("--history", is_flag=True, help="Include restored outputs.")
@click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, help="Pending outputs to name.")
@ledger_options
def list_all(workspace: Workspace, history: bool, limit: int) -> None:
    """List the pending outputs and the unvalued ones.

    \b
    Example: credit outputs list --history
    """
    from credit.ledger.outputs import pending_count, pending_names
    from credit.ledger.unvalued import history as everything
    from credit.ledger.unvalued import unvalued_outputs

    with workspace.open() as ledger, ledger.read() as conn:
        waiting, names = pending_count(conn, weighty=True), pending_names(conn, limit=limit)
        events = everything(conn) if history else unvalued_outputs(conn)
    named = [*names, "..."] if waiting > len(names) else names
    say(
        {"waiting": waiting, "names": names, "unvalued": events},
        f"{counted(waiting, 'output')} pending" + (f": {', '.join(named)}" if names else ""),
        *(map(_line, events) if events else ["no output is unvalued"]),
    )


@click.command()
@click.option("--before", type=DAY, required=True, metavar="DAY", help="First day (UTC) to keep, YYYY-MM-DD.")
@reason_option
@click.option("--dry-run", is_flag=True, help="Count, delete nothing.")
@ledger_options
def purge(workspace: Workspace, before: datetime, reason: str, dry_run: bool) -> None:
    """Delete prompts and completions of valued outputs from before a day, and old quarantined records.

    Credits, statements, payouts, corrections by policy and `verify` work as before: names, times, weights, hashes and
    scores stay. Gone with the texts are `explain output`, `restate --index` and validation on these outputs. Pending
    outputs keep their texts.

    The bytes leave the database's files too. Outside them, texts stay in the logs you ingested, in backups, and on
    PostgreSQL in the write-ahead log (pg_wal), archives of it and replicas until the server recycles them.

    Exits with 11 while another session still keeps texts in the files; run it again later.

    \b
    Example: credit purge --before 2026-10-01 --reason "kept for 60 days, as agreed"
    """
    from credit.pipeline.purge import purge as run

    done = run(workspace, before.date(), reason=reason, dry_run=dry_run)
    say(done, purged(done))


def purged(report: PurgeReport) -> str:
    """Return a line about a purge."""
    did = "would be purged" if report.dry_run else "purged"
    files = counted(report.quarantine_files, "quarantine file")
    return f"{counted(report.outputs, 'output')} and {files} from before {report.before} {did}"


def _line(item: UnvaluedEvent) -> str:
    from credit.accounting.amounts import amount_text
    from credit.records import CREDIT

    since = "unvalued since" if item.action == "unvalued" else "restored on"
    return (
        f"{item.output} ({amount_text(item.weight_micro, CREDIT)} credits, {item.period}): {since}"
        f" {item.recorded_at:%Y-%m-%d}, transaction {item.txn_id}: {item.reason}"
    )
