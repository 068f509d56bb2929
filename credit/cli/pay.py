"""`credit pay`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from credit.cli.options import FILE, NUMBER, PERIOD, Group, json_option, say, warn, workspace_options
from credit.errors import EXIT_PARTIAL
from credit.payments.channels import CHANNELS
from credit.text import counted

if TYPE_CHECKING:
    from credit.payments.channels.channel import Payer
    from credit.pipeline.workspace import Workspace
    from credit.records import PaymentFormat


@click.group(cls=Group)
def pay() -> None:
    """Payment files out, a bank's results in.

    \b
    Example: credit pay export 2026-10 --format csv --out payments.csv
    """


@pay.command()
@click.argument("period", type=PERIOD)
@click.option(
    "--format",
    "file_format",
    type=click.Choice([*CHANNELS, "beancount"]),
    default="csv",
    show_default=True,
    help=f"{' '.join(item.help for item in CHANNELS.values())} beancount writes the period's books and pays nothing.",
)
@click.option("--out", type=FILE, required=True, help="The file to write; it holds bank details, for its owner alone.")
@click.option("--currency", help="Which payouts, where a period has several currencies.")
@click.option("--retry", is_flag=True, help="A new batch of payouts that failed or came back, not of pending ones.")
@click.option("--batch", type=NUMBER, help="Write the file of this batch again, byte for byte.")
@click.option("--strict", is_flag=True, help="Export nothing if any payout is unpayable.")
@click.option("--dry-run", is_flag=True, help="Show every line, write nothing.")
@click.option("--payer-name", envvar="CREDIT_PAYER_NAME", help="SEPA: who pays, as the bank has it.")
@click.option("--payer-iban", envvar="CREDIT_PAYER_IBAN", help="SEPA: the account that pays.")
@click.option("--payer-bic", envvar="CREDIT_PAYER_BIC", default="", help="SEPA: its bank, if that asks for it.")
@click.option("--payer-town", envvar="CREDIT_PAYER_TOWN", help="SEPA: the payer's town.")
@click.option("--payer-country", envvar="CREDIT_PAYER_COUNTRY", help="SEPA: the payer's country, such as DE.")
@click.option("--execute-on", metavar="DAY", help="SEPA: YYYY-MM-DD, in UTC; today if not given.")
@workspace_options
@json_option
@click.pass_context
def export(
    ctx: click.Context,
    workspace: Workspace,
    period: str,
    file_format: PaymentFormat | Literal["beancount"],
    out: Path,
    currency: str | None,
    retry: bool,
    batch: int | None,
    strict: bool,
    dry_run: bool,
    payer_name: str | None,
    payer_iban: str | None,
    payer_bic: str,
    payer_town: str | None,
    payer_country: str | None,
    execute_on: str | None,
    as_json: bool,
) -> None:
    """Put the payouts of PERIOD (YYYY-MM) that wait into a batch, and write its payment file.

    No payout leaves twice: run again, it writes the file of the same batch. A payout that cannot stand in the file is
    unpayable: it stays behind, with the reason (exit code 3).

    \b
    Example: credit pay export 2026-10 --format csv --out payments.csv
             credit pay export 2026-10 --format pain001 --out sepa.xml --payer-name "Example GmbH"
               --payer-iban DE02120300000000202051 --payer-town Berlin --payer-country DE
    """
    from credit.accounting.amounts import format_amount
    from credit.payments.export import ExportRequest, export_payments
    from credit.reporting.books import beancount_text
    from credit.storage import write_whole

    if file_format == "beancount":
        with workspace.open() as ledger:
            text = beancount_text(ledger, period)
        write_whole(out, text.encode(), mode=0o600)
        say(as_json, {"out": str(out)}, f"books of {period}: {out}; check them: bean-check {out}")
        return
    payer = _payer(payer_name, payer_iban, payer_bic, payer_town, payer_country, execute_on)
    request = ExportRequest(period, file_format, out, currency, payer, retry, batch, strict, dry_run)
    with workspace.open() as ledger:
        report = export_payments(ledger, request)
    warn([*(f"unpayable: {item}" for item in report.unpayable), *report.notices])
    lines = [
        f"{item.provider}: {format_amount(item.amount_minor, item.currency)} {item.currency}"
        for item in report.payouts
        if dry_run
    ]
    if report.batch is None:
        lines.append(
            f"{counted(len(report.payouts), 'payout')} would leave (dry run)" if dry_run else "nothing to export"
        )
    else:
        done = report.batch
        total = f"{format_amount(done.amount_minor, done.currency)} {done.currency}"
        state = f"written again, as it left on {done.created_at:%Y-%m-%d}" if report.again else "exported"
        lines.append(f"batch {done.id} {state}: {counted(done.payout_count, 'payout')}, {total}, {out}")
        if report.again:
            lines.append("pay it once: if its file reached the bank before, this one must not")
    facts = {
        "batch": report.batch.id if report.batch else None,
        "reference": report.batch.reference if report.batch else None,
        "file_sha256": report.batch.file_sha256 if report.batch else None,
        "again": report.again,
        "payouts": [item.id for item in report.payouts],
        "unpayable": report.unpayable,
    }
    say(as_json, facts, "\n".join(lines))
    if report.unpayable:
        ctx.exit(EXIT_PARTIAL)


@pay.command()
@click.argument("file", type=FILE)
@click.option("--batch", type=NUMBER, help="Refuse results of any other batch.")
@workspace_options
@json_option
def confirm(workspace: Workspace, file: Path, batch: int | None, as_json: bool) -> None:
    """Record a bank's results: a CSV file with payout_id, status (paid, failed, returned), reference and reason.

    The last two may be left out, but what failed or came back has a reason. Returned is what was paid and came back
    later. What failed or came back can leave again: credit pay export --retry. All of the file counts or nothing; the
    same file again changes nothing.

    \b
    Example: credit pay confirm results.csv
    """
    from dataclasses import asdict

    from credit.payments.results import confirm_payments

    with workspace.open() as ledger:
        report = confirm_payments(ledger, file, batch_number=batch)
    back = f", {report.returned} returned" if report.returned else ""
    text = f"{report.paid} paid, {report.failed} failed{back}, {report.known} known before"
    if report.failed or report.returned:
        text += "\nnext: correct the details, then credit pay export PERIOD --retry --out FILE"
    say(as_json, asdict(report), text)


@pay.command(name="list")
@workspace_options
@json_option
def list_all(workspace: Workspace, as_json: bool) -> None:
    """List the batches that left, with what became of their payouts.

    \b
    Example: credit pay list
    """
    from credit.accounting.amounts import format_amount
    from credit.ledger.payouts import batch_items, batches

    lines, facts = [], []
    with workspace.open() as ledger, ledger.read() as conn:
        for item in batches(conn):
            items = batch_items(conn, item)
            counts = {name: sum(one.outcome == name for one in items) for name in ("paid", "failed", "returned", None)}
            back = f" {counts['returned']} returned," if counts["returned"] else ""
            total = f"{format_amount(item.amount_minor, item.currency)} {item.currency}"
            lines.append(
                f"batch {item.id}  {item.period}  {item.format}  {total}: {counts['paid']} paid,"
                f" {counts['failed']} failed,{back} {counts[None]} waiting"
            )
            facts.append(
                {
                    "batch": item.id,
                    "period": item.period,
                    "format": item.format,
                    "reference": item.reference,
                    "file_sha256": item.file_sha256,
                    "payouts": {one.reference: one.outcome or "exported" for one in items},
                }
            )
    say(as_json, {"batches": facts}, "\n".join(lines) or "no payments have left")


def _payer(
    name: str | None, iban: str | None, bic: str, town: str | None, country: str | None, execute_on: str | None
) -> Payer | None:
    from credit.payments.channels.channel import Payer

    if not any((name, iban, town, country)):
        return None
    return Payer(name or "", iban or "", bic, town or "", country or "", execute_on or "")
