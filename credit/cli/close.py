"""`credit close`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from credit.cli.options import json_option, say, workspace_options

if TYPE_CHECKING:
    from credit.accounting.waterfall import Waterfall
    from credit.pipeline.closing import CloseReport
    from credit.pipeline.settling import HousePolicy
    from credit.pipeline.workspace import Workspace


@click.command()
@click.argument("period")
@click.option(
    "--house",
    type=click.Choice(["return", "redistribute", "escrow"]),
    default="return",
    show_default=True,
    help="What nobody's data earned: stays with the owner, is divided among providers, or is held in escrow.",
)
@click.option(
    "--grace-days", type=click.IntRange(min=0), default=0, show_default=True, help="Refuse within so many days."
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

    from credit.pipeline.closing import ClosePolicy, CloseSettings, close_period

    policy = ClosePolicy(
        house=house,
        grace_days=grace_days,
        leave_pending=leave_pending,
        min_fidelity=min_fidelity,
        unvalidated=unvalidated,
    )
    with workspace.open() as ledger:
        report = close_period(ledger, period, CloseSettings(policy, dry_run, workspace.books))
    say(as_json, asdict(report), "\n".join(_lines(report)))


def _lines(report: CloseReport) -> Iterator[str]:
    from credit.accounting.money import format_amount

    if report.policy.unvalidated:
        yield f"not validated: {report.policy.unvalidated}"
    for check in report.validation.checks if not report.policy.unvalidated else ():
        yield (
            f"index {check.index[:16]}: certificate {check.certificate[:16]}, {check.measure}, LDS {check.agreement}"
            f" of at most {check.ceiling} (token share {check.token_share}, BM25 {check.bm25})"
        )
    for pool, earnings in report.earnings:
        yield f"pool {pool.reference}: {format_amount(pool.net_minor, pool.currency)} {pool.currency} divided"
        for item in earnings:
            share = item.share
            yield (
                f"  {share.provider}: {format_amount(share.amount_minor, pool.currency)} for"
                f" {share.credit_micro}/{share.total_credit_micro} of the credits"
                + (f", {format_amount(item.earned_minor, pool.currency)} at its rate" if item.rate_ppm else ", house")
            )
    for fall in report.waterfalls:
        yield (
            f"{fall.provider}, {fall.currency}: "
            + ", ".join(f"{name} {format_amount(minor, fall.currency)}" for name, minor in _amounts(fall))
            + (f" ({fall.reason})" if fall.reason else "")
        )
        if fall.conversion is not None:
            yield f"  {fall.conversion.arithmetic}"
    if report.set_aside:
        yield f"set aside, because they cannot be valued: {', '.join(report.set_aside)}"
    if report.left_pending:
        yield f"{report.left_pending} outputs are left for a later period"
    if report.dry_run:
        yield f"period {report.period} would be closed (dry run, nothing written)"
    else:
        yield f"period {report.period} is closed, {report.statements} statements written"


def _amounts(fall: Waterfall) -> Iterator[tuple[str, int]]:
    """Yield the lines of a waterfall in their order; those that are usually zero only when they are not."""
    always = {"opening", "earned", "payable"}
    lines = {
        "opening": fall.opening_minor,
        "earned": fall.earned_minor,
        "adjustments": fall.adjustments_minor,
        "reserve held": -fall.reserve_held_minor,
        "reserve released": fall.reserve_released_minor,
        "advances recouped": -fall.recouped_minor,
        "converted in": fall.converted_in_minor,
        "converted out": -fall.converted_out_minor,
        "withholding": -fall.withheld_minor,
        "fees": -fall.fees_minor,
        "payable": fall.payable_minor,
        "carried forward": fall.carried_minor,
    }
    yield from ((name, minor) for name, minor in lines.items() if minor or name in always)
