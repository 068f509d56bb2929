"""`credit adjust`, `reverse` and `restate`: corrections, each a new transaction beside the old ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from credit.cli.approve import act
from credit.cli.options import (
    CURRENCY,
    FILE,
    NUMBER,
    PERIOD,
    ledger_options,
    policy_options,
    printed_reason_option,
    reason_option,
)
from credit.cli.printing import say, say_posted

if TYPE_CHECKING:
    from credit.pipeline.restate import Restatement
    from credit.pipeline.workspace import Workspace


@click.command(context_settings={"ignore_unknown_options": True})  # so that -12.50 is an amount, not an option
@click.argument("provider")
@click.argument("amount")
@click.argument("currency", type=CURRENCY)
@click.option("--period", type=PERIOD, required=True, help="The open period (YYYY-MM) whose statement shows it.")
@printed_reason_option
@click.option("--cites", type=NUMBER, metavar="TXN", help="The transaction that it corrects.")
@click.option("--key", help="Tells apart two adjustments that are otherwise equal.")
@click.option("--from-escrow", is_flag=True, help="Take it from the escrow of closes with --house escrow.")
@ledger_options
def adjust(
    workspace: Workspace,
    provider: str,
    amount: str,
    currency: str,
    period: str,
    reason: str,
    cites: int | None,
    key: str | None,
    from_escrow: bool,
) -> None:
    """Correct the money owed to PROVIDER by AMOUNT (negative: in the house's favour). Repeating it changes nothing.

    The house pays an adjustment. With --from-escrow, the money comes from the escrow instead (credit balance
    money:escrow): for a provider with a claim to it, or for `house`, the owner, if nobody has one.

    \b
    Example: credit adjust anna-books -12.50 EUR --period 2026-11 --reason "counted twice in October" --cites 118
             credit adjust anna-books 40.00 EUR --period 2026-11 --reason "claim of 2026-10-12" --from-escrow
    """
    from credit.accounting.amounts import parse_amount
    from credit.approval.actions import Adjust

    minor = parse_amount(amount, currency, allow_negative=True)
    done = act(workspace, Adjust(provider, minor, currency, period, reason, cites, key, from_escrow))
    source = " out of escrow" if from_escrow else ""
    say_posted(done, f"the adjustment of {provider} by {amount} {currency}{source}")


@click.command()
@click.argument("txn", type=NUMBER)
@reason_option
@ledger_options
def reverse(workspace: Workspace, txn: int, reason: str) -> None:
    """Undo transaction TXN by its negation, in its own period or the first open one. Repeating it changes nothing.

    \b
    Example: credit reverse 118 --reason "the pool was entered twice"
    """
    from credit.approval.actions import Reverse
    from credit.ledger.corrections import transaction_in_words

    done = act(workspace, Reverse(txn, reason))
    with workspace.open() as ledger, ledger.read() as conn:
        what = transaction_in_words(conn, txn)
    say_posted(done, f"the reversal of transaction {txn} ({what})")


@click.command()
@click.argument("period", type=PERIOD)
@printed_reason_option
@policy_options
@click.option("--index", "index_dir", type=FILE, help="Value the outputs again, by this index and its model.")
@click.option(
    "--terms",
    "rates",
    nargs=3,
    multiple=True,
    metavar="PROVIDER CURRENCY RATE",
    help="A provider's share as it should have been, such as: anna-books EUR 70%. May be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Print the difference, write nothing.")
@ledger_options
def restate(
    workspace: Workspace,
    period: str,
    reason: str,
    policy: dict[str, Any],
    index_dir: Path | None,
    rates: tuple[tuple[str, str, str], ...],
    dry_run: bool,
) -> None:
    """Recompute the closed PERIOD (YYYY-MM) by another policy, index or rate, and post the difference in the open one.

    Options that you leave out stay as they were at the close: a second restatement names again what the first one
    corrected. The statements of the closed period stay the same to the byte. Repeating the command changes nothing.

    For a wrong rate, agree the right terms from now on (credit providers terms), and restate each closed period with
    --terms. The house bears the difference. Tax, fees, reserves and recoupment of the close stay as they were.

    \b
    Example: credit restate 2026-10 --measure support --reason "as agreed with the providers" --dry-run
             credit restate 2026-10 --terms anna-books EUR 70% --reason "60% was entered by mistake"
    """
    from credit.accounting.amounts import currency_digits, parse_percent
    from credit.pipeline.restate import by_index, by_policy
    from credit.pipeline.restate import restate as run

    method: dict[str, object] = {"policy": policy}
    for _, currency, _ in rates:
        currency_digits(currency)
    shares = {(provider, currency): parse_percent(rate) for provider, currency, rate in rates}
    with workspace.open() as ledger:
        if index_dir is None:
            rescore = by_policy(policy)
        else:
            rescore, method["index"] = by_index(ledger, index_dir, policy)
        report = run(workspace, ledger, period, rescore, method, reason=reason, rates=shares, dry_run=dry_run)
    say(report, *_lines(report))


def _lines(report: Restatement) -> Iterator[str]:
    from credit.accounting.amounts import format_amount

    for credited in report.credits:
        yield f"{credited.provider}: {credited.posted_micro} micro-credits, restated {credited.restated_micro}"
    for item in report.money:
        amounts = (item.allocated_minor, item.restated_before_minor, item.adjustment_minor)
        first, before, change = (format_amount(minor, item.currency) for minor in amounts)
        earlier = f" and {before} by earlier restatements" if item.restated_before_minor else ""
        yield f"{item.account}: {first} {item.currency}{earlier}, adjusted by {change}"
    if report.txn_id is not None:
        yield f"posted in {report.posted_in} as transaction {report.txn_id}"
    elif report.dry_run and any(item.adjustment_minor for item in report.money):
        yield f"would be posted in {report.posted_in} (dry run, nothing written)"
    else:
        yield "nothing to adjust"
