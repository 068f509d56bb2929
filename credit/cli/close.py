"""`credit close`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import click

from credit.cli.options import PERIOD, json_option, say, terminal_width, workspace_options
from credit.text import counted

if TYPE_CHECKING:
    from credit.accounting.waterfall import Waterfall
    from credit.ledger.pools import Pool
    from credit.pipeline.close import CloseReport
    from credit.pipeline.close_pools import Earning, HousePolicy
    from credit.pipeline.workspace import Workspace


@click.command()
@click.argument("period", type=PERIOD)
@click.option(
    "--house",
    type=click.Choice(["return", "redistribute", "escrow"]),
    default="return",
    show_default=True,
    help="What nobody's data earned: stays with the owner, is divided among providers, or is held in escrow.",
)
@click.option(
    "--grace-days", type=click.IntRange(0, 366), default=0, show_default=True, help="Refuse within so many days."
)
@click.option("--leave-pending", is_flag=True, help="Credit outputs that are not valued yet in a later period.")
@click.option(
    "--min-fidelity",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="What the certificate must show: its LDS as a fraction of the noise ceiling.",
)
@click.option("--unvalidated", metavar="REASON", default="", help="Pay without such a certificate; statements say why.")
@click.option("--dry-run", is_flag=True, help="Show every line, write nothing.")
@workspace_options
@json_option
def close(
    workspace: Workspace,
    period: str,
    house: HousePolicy,
    grace_days: int,
    leave_pending: bool,
    min_fidelity: float,
    unvalidated: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Allocate the pools of PERIOD (YYYY-MM) by credits, decide payouts, write statements, and freeze it.

    Periods close one after the other. Outputs that come in later are credited in the next open period.

    Every index and policy that the credits came from needs a certificate by retraining (credit validate) that reaches
    the minimum and beats token share and BM25. --unvalidated closes without one; its reason stands on every statement.

    \b
    Example: credit close 2026-10 --dry-run
             credit close 2026-10 --grace-days 5 --house escrow
             credit close 2026-10 --unvalidated "trial run, agreed with all providers"
    """
    from dataclasses import asdict

    from credit.pipeline.close import ClosePolicy, CloseSettings, close_period

    policy = ClosePolicy(
        house=house,
        grace_days=grace_days,
        leave_pending=leave_pending,
        min_fidelity=min_fidelity,
        unvalidated=unvalidated,
    )
    with workspace.open() as ledger:
        report = close_period(ledger, period, CloseSettings(policy, dry_run, workspace.books))
    say(as_json, asdict(report), "\n".join(_lines(report, terminal_width())))


def _lines(report: CloseReport, width: int) -> Iterator[str]:
    if report.policy.unvalidated:
        yield f"not validated: {report.policy.unvalidated}"
    for check in report.validation.checks if not report.policy.unvalidated else ():
        yield (
            f"index {check.index[:16]}: certificate {check.certificate[:16]}, {check.measure}, LDS {check.agreement}"
            f" of at most {check.ceiling} (token share {check.token_share}, BM25 {check.bm25})"
        )
    for pool, earnings in report.earnings:
        yield from _pool_lines(pool, earnings, width)
    if report.waterfalls:
        yield ""
        yield _waterfall_table(report.waterfalls, width)
    for currency, falls in groupby(sorted(report.waterfalls, key=lambda fall: fall.currency), lambda f: f.currency):
        yield _total(currency, list(falls))
    if report.unvalued:
        yield f"unvalued, and out of this close: {', '.join(report.unvalued)}"
    if report.left_pending:
        yield f"{counted(report.left_pending, 'output')} left for a later period"
    if report.dry_run:
        yield f"period {report.period} would be closed (dry run, nothing written)"
    else:
        yield f"period {report.period} is closed, {counted(report.statements, 'statement')} written"


def _pool_lines(pool: Pool, earnings: Sequence[Earning], width: int) -> Iterator[str]:
    """Yield how a pool is divided: its table, and what of it is whose."""
    from credit.accounting.amounts import format_amount, format_percent
    from credit.reporting.tables import Column, credits_text, fitted

    def amount(minor: int) -> str:
        return format_amount(minor, pool.currency)

    yield ""
    yield f"pool {pool.reference}: {amount(pool.net_minor)} {pool.currency}"
    columns = (
        Column("provider", [item.share.provider for item in earnings]),
        Column("credits", [credits_text(item.share.credit_micro) for item in earnings], is_number=True),
        Column("allocated", [amount(item.share.amount_minor) for item in earnings], is_number=True),
        Column("rate", [format_percent(item.rate_ppm) if item.rate_ppm else "house" for item in earnings], True),
        Column("earned", [amount(item.earned_minor) for item in earnings], is_number=True),
    )
    yield fitted(columns, width).rstrip("\n")
    earned = sum(item.earned_minor for item in earnings)
    credited = sum(item.share.credit_micro for item in earnings)
    yield (
        f"for {credits_text(credited)} credits: {amount(earned)} {pool.currency} to providers,"
        f" {amount(pool.net_minor - earned)} to the house"
    )


def _waterfall_table(falls: Sequence[Waterfall], width: int) -> str:
    """Return every provider's balances; columns that are usually zero only where one is not."""
    from credit.accounting.amounts import format_amount
    from credit.accounting.statement_lines import STATEMENT_LINES
    from credit.reporting.tables import Column, fitted

    columns = [Column("provider", [fall.provider for fall in falls]), Column("currency", [f.currency for f in falls])]
    for line in STATEMENT_LINES:
        if line.always or any(fall.amount(line) for fall in falls):
            cells = [format_amount(line.sign * fall.amount(line), fall.currency) for fall in falls]
            columns.append(Column(line.heading, cells, is_number=True))
    notes = [
        "; ".join(filter(None, (*_on_hold(fall), fall.conversion.arithmetic if fall.conversion else "", fall.reason)))
        for fall in falls
    ]
    return fitted(columns, width, notes).rstrip("\n")


def _on_hold(fall: Waterfall) -> Iterator[str]:
    """Yield what is said of each collection that is on hold."""
    from credit.accounting.amounts import format_amount

    for item in fall.collections:
        if item.reason:
            held = f"{format_amount(item.balance_minor, fall.currency)} {fall.currency}"
            yield f"{held} of {item.collection} is on hold: {item.reason}"


def _total(currency: str, falls: Sequence[Waterfall]) -> str:
    from credit.accounting.amounts import format_amount

    paid = [fall.payable_minor for fall in falls if fall.payable_minor]
    carried = format_amount(sum(fall.carried_forward_minor for fall in falls), currency)
    payable = f"{format_amount(sum(paid), currency)} {currency} payable to {counted(len(paid), 'provider')}"
    return f"{payable}, {carried} carried forward"
