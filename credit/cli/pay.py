"""`credit pay`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from credit.cli.approve import act
from credit.cli.options import (
    CURRENCY,
    FILE,
    NUMBER,
    PERIOD,
    CommandGroup,
    ledger_options,
    reason_option,
    waiting_option,
)
from credit.cli.printing import say, say_posted, warn
from credit.errors import EXIT_PARTIAL
from credit.payments.channels import CHANNELS
from credit.text import counted

if TYPE_CHECKING:
    from credit.payments.channels.channel import Payer
    from credit.payments.export import ExportReport, ExportRequest
    from credit.pipeline.workspace import Workspace
    from credit.records import PaymentFormat, VoidTo

_SHOWN = 10
"""Red flags that a person reads."""


@click.group(cls=CommandGroup)
def pay() -> None:
    """Payments: write payment files, record the bank's results.

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
@click.option(
    "--out", type=FILE, required=True, help="The file to write. It holds bank details: only its owner can read it."
)
@click.option("--currency", type=CURRENCY, help="Currency of the payouts, where a period has several.")
@click.option("--retry", is_flag=True, help="Make a new batch of failed and returned payouts, not of pending ones.")
@click.option("--batch", type=NUMBER, help="Write the file of this batch again, the same bytes.")
@click.option("--strict", is_flag=True, help="Export nothing if any payout is unpayable.")
@click.option("--dry-run", is_flag=True, help="Print every line, write nothing.")
@click.option("--payer-name", envvar="CREDIT_PAYER_NAME", help="SEPA: the payer's name at the bank.")
@click.option("--payer-iban", envvar="CREDIT_PAYER_IBAN", help="SEPA: the payer's account.")
@click.option(
    "--payer-bic", envvar="CREDIT_PAYER_BIC", default="", help="SEPA: the payer's bank, if the bank asks for it."
)
@click.option("--payer-town", envvar="CREDIT_PAYER_TOWN", help="SEPA: the payer's town.")
@click.option("--payer-country", envvar="CREDIT_PAYER_COUNTRY", help="SEPA: the payer's country, such as DE.")
@click.option(
    "--execute-on", metavar="DAY", help="SEPA: YYYY-MM-DD, in UTC.  [default: today, by this machine's clock]"
)
@waiting_option
@click.option(
    "--accept",
    nargs=2,
    multiple=True,
    metavar="PROVIDER 'NAME: REASON'",
    help="Pay a provider in spite of its red flags; stays on record. May be repeated.",
)
@ledger_options
def export(
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
    waiting_days: int,
    accept: tuple[tuple[str, str], ...],
) -> None:
    """Put the pending payouts of PERIOD (YYYY-MM) into a batch, and write its payment file.

    Every payout leaves once: repeating the command writes the file of the same batch. An unpayable payout stays
    pending, with the reason (exit code 3).

    Red flags in payment details are named. A payout stays pending if it goes to the payer's own account, to an account
    of several providers, or to an account changed within the last --waiting-days. Find out why, best by a call on a
    number known before. If it is right, --accept pays it; that holds until the account changes.

    \b
    Example: credit pay export 2026-10 --format csv --out payments.csv
             credit pay export 2026-10 --format pain001 --out sepa.xml --payer-name "Example GmbH"
               --payer-iban DE02120300000000202051 --payer-town Berlin --payer-country DE
             credit pay export 2026-10 --out payments.csv --accept anna-books "Eve Sommer: called her, it is her bank"
    """
    from dataclasses import asdict, replace

    from credit.approval.actions import ExportPayments
    from credit.ledger.approvals import required_actions
    from credit.payments.export import ExportRequest, export_payments
    from credit.reporting.books import beancount_text
    from credit.storage import write_whole

    if file_format == "beancount":
        with workspace.open() as ledger:
            text = beancount_text(ledger, period)
        write_whole(out, text.encode())
        say({"out": str(out)}, f"books of {period}: {out}; check them: bean-check {out}")
        return
    payer = _payer(payer_name, payer_iban, payer_bic, payer_town, payer_country, execute_on)
    request = ExportRequest(
        period, file_format, out, currency, payer, retry, batch, strict, dry_run, waiting_days, accept
    )
    with workspace.open() as ledger:
        if not dry_run and batch is None:
            with ledger.read() as conn:
                guarded = ExportPayments.name in required_actions(conn)
            if guarded:  # where something is left to propose, this ends the command
                act(workspace, ExportPayments(replace(request, out=None)))
        report = export_payments(ledger, request)
    warn(*(f"unpayable: {item}" for item in report.unpayable), *_named_flags(report), *report.notices)
    facts = {
        "batch": report.batch.id if report.batch else None,
        "reference": report.batch.reference if report.batch else None,
        "file_sha256": report.batch.file_sha256 if report.batch else None,
        "again": report.again,
        "payouts": [item.id for item in report.payouts],
        "unpayable": report.unpayable,
        "red_flags": [asdict(flag) | {"holds": flag.holds} for flag in report.red_flags],
    }
    say(facts, *_export_lines(request, report), exit_code=EXIT_PARTIAL if report.unpayable else 0)


def _named_flags(report: ExportReport) -> Iterator[str]:
    """Yield the accepted red flags, and those that hold nothing back."""
    found = [flag for flag in report.red_flags if not flag.holds]
    for flag in found[:_SHOWN]:
        yield f"accepted: {flag} ({flag.accepted})" if flag.accepted else f"red flag: {flag}"
    if len(found) > _SHOWN:
        yield f"... and {counted(len(found) - _SHOWN, 'red flag')} more; --json gives all"


def _export_lines(request: ExportRequest, report: ExportReport) -> Iterator[str]:
    from credit.accounting.amounts import money_text

    if request.dry_run:
        for item in report.payouts:
            yield f"{item.provider}: {money_text(item.amount_minor, item.currency)}"
    done = report.batch
    if done is None:
        would = f"{counted(len(report.payouts), 'payout')} would leave (dry run)"
        yield would if request.dry_run else "nothing to export"
        return
    total = money_text(done.amount_minor, done.currency)
    state = f"written again, as it left on {done.created_at:%Y-%m-%d}" if report.again else "exported"
    yield f"batch {done.id} {state}: {counted(done.payout_count, 'payout')}, {total}, {request.out}"
    if report.again:
        yield "pay it once: if its file reached the bank before, this one must not"


@pay.command()
@click.argument("file", type=FILE)
@click.option("--batch", type=NUMBER, help="Accept results of this batch only.")
@ledger_options
def confirm(workspace: Workspace, file: Path, batch: int | None) -> None:
    """Record the bank's results: its own file (pain.002, camt.053, camt.054), or CSV. Repeating it changes nothing.

    Of a bank's file, bookings are matched by end-to-end id, amount and date, or as a whole batch. What looks like a
    payout and does not match is reported (exit code 3); the rest is recorded. Other payments are counted.

    CSV has payout_id, status (paid, failed, returned), reference and reason. Reference is optional; failed and
    returned payouts need a reason. Returned means paid, and sent back later. The file counts as a whole: one bad row
    refuses it. Three more columns are optional. By value_date (YYYY-MM-DD), a payment counts on the day on which the
    bank made it, and not on that of the file. An amount that differs from the payout's is refused, unless a fee, which
    banks on the way kept, makes up the difference.

    Failed and returned payouts can leave again: credit pay export --retry.

    \b
    Example: credit pay confirm camt.053.xml
             credit pay confirm results.csv
    """
    from credit.payments.results import confirm_payments

    with workspace.open() as ledger:
        report = confirm_payments(ledger, file, batch_number=batch)
    back = f", {report.returned} returned" if report.returned else ""
    text = f"{report.paid} paid, {report.failed} failed{back}, {report.known} known before"
    text += f", {report.foreign} of other payments" if report.foreign else ""
    if report.failed or report.returned:
        text += "\nnext: correct the details, then credit pay export PERIOD --retry --out FILE"
    warn(*(f"does not match: {item}" for item in report.unmatched))
    say(report, text, exit_code=EXIT_PARTIAL if report.unmatched else 0)


@pay.command()
@click.argument("period", type=PERIOD)
@click.argument("provider")
@click.argument("currency", type=CURRENCY)
@reason_option
@click.option(
    "--to",
    "goes_to",
    type=click.Choice(["provider", "house", "escrow"]),
    default="provider",
    show_default=True,
    help="Where the money goes: to the provider's balance, which a later close pays; to the house; or into escrow.",
)
@ledger_options
def void(workspace: Workspace, period: str, provider: str, currency: str, reason: str, goes_to: VoidTo) -> None:
    """Void the payout of PROVIDER for PERIOD (YYYY-MM) in CURRENCY: it must never be paid.

    Possible while no bank was told to pay it, or after the bank refused or returned it. Tax and fee that the close
    took from it go the same way. Repeating the command changes nothing.

    \b
    Example: credit pay void 2026-10 anna-books EUR --reason "paid by cheque on 2026-11-03" --to house
    """
    from credit.approval.actions import VoidPayout

    done = act(workspace, VoidPayout(period, provider, currency, reason, goes_to))
    say_posted(done, f"the void of the payout of {provider} for {period} in {currency}")


@pay.command(name="list")
@ledger_options
def list_all(workspace: Workspace) -> None:
    """List the batches that left, with the outcome of their payouts.

    \b
    Example: credit pay list
    """
    from credit.accounting.amounts import money_text
    from credit.ledger.payouts import batch_items, batches

    lines, facts = [], []
    with workspace.open() as ledger, ledger.read() as conn:
        for item in batches(conn):
            items = batch_items(conn, item)
            outcomes: Counter[str] = Counter(one.outcome or "waiting" for one in items)
            total = money_text(item.amount_minor, item.currency)
            states = [
                state for state in ("paid", "failed", "returned", "waiting") if state != "returned" or outcomes[state]
            ]
            counts = ", ".join(f"{outcomes[state]} {state}" for state in states)
            lines.append(f"batch {item.id}  {item.period}  {item.format}  {total}: {counts}")
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
    say({"batches": facts}, *(lines or ["no payments have left"]))


def _payer(
    name: str | None, iban: str | None, bic: str, town: str | None, country: str | None, execute_on: str | None
) -> Payer | None:
    from credit.payments.channels.channel import Payer

    if not any((name, iban, town, country)):
        return None
    return Payer(name or "", iban or "", bic, town or "", country or "", execute_on or "")
