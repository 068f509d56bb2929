"""`credit close`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from credit.cli.options import json_option, say, workspace_options

if TYPE_CHECKING:
    from credit.pipeline.workspace import Workspace


@click.command()
@click.argument("period")
@click.option("--leave-pending", is_flag=True, help="Credit outputs that are not valued yet in a later period.")
@click.option("--dry-run", is_flag=True, help="Show every line, write nothing.")
@workspace_options
@json_option
def close(workspace: Workspace, period: str, leave_pending: bool, dry_run: bool, as_json: bool) -> None:
    """Allocate the pools of PERIOD (YYYY-MM) by credits, decide payouts, write statements, and freeze it.

    \b
    Example: credit close 2026-10 --dry-run
    """
    from dataclasses import asdict

    from credit.accounting.money import format_amount
    from credit.pipeline.closing import CloseSettings, close_period

    with workspace.open() as ledger:
        report = close_period(ledger, period, CloseSettings(leave_pending=leave_pending, dry_run=dry_run))
    lines = [
        f"{fall.provider}: opening {format_amount(fall.opening_minor, fall.currency)}, "
        f"earned {format_amount(fall.earned_minor, fall.currency)}, "
        f"payable {format_amount(fall.payable_minor, fall.currency)} {fall.currency}"
        + (f" ({fall.reason})" if fall.reason else "")
        for fall in report.waterfalls
    ]
    for pool, _ in report.shares:
        lines.append(f"pool {pool.reference}: {format_amount(pool.net_minor, pool.currency)} {pool.currency} divided")
    if report.left_pending:
        lines.append(f"{report.left_pending} outputs are left for a later period")
    lines.append(
        f"period {period} would be closed (dry run, nothing written)"
        if report.dry_run
        else f"period {period} is closed, {report.statements} statements written"
    )
    say(as_json, asdict(report), "\n".join(lines))
