"""`credit restate`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from credit.cli.options import FILE, PERIOD, json_option, say, workspace_options

if TYPE_CHECKING:
    from credit.pipeline.restate import Restatement
    from credit.pipeline.workspace import Workspace


@click.command()
@click.argument("period", type=PERIOD)
@click.option("--reason", required=True, help="Printed on the statements of the open period.")
@click.option("--measure", type=click.Choice(["effect", "support", "influence"]), help="Pay for another measure.")
@click.option("--alpha", type=float, help="Weight of influence in effect.")
@click.option("--beta", type=float, help="Weight of support in effect.")
@click.option("--gamma", type=float, help="Weight of volume in effect.")
@click.option("--basis", type=click.Choice(["output", "period"]), help="Pay each output alone, or the period's sums.")
@click.option("--negative", type=click.Choice(["zero", "net"]), help="Set negative measures off within the period.")
@click.option("--noise-floor", type=float, help="Effect counts pulls beyond this many spreads.")
@click.option("--index", "index_dir", type=FILE, help="Value the outputs again, by this index and its model.")
@click.option("--dry-run", is_flag=True, help="Show the difference, write nothing.")
@workspace_options
@json_option
def restate(
    workspace: Workspace,
    period: str,
    reason: str,
    measure: str | None,
    alpha: float | None,
    beta: float | None,
    gamma: float | None,
    basis: str | None,
    negative: str | None,
    noise_floor: float | None,
    index_dir: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Recompute the closed PERIOD (YYYY-MM) by another policy or index, and adjust what was paid in the open one.

    What is not named stays as it was. The closed period's statements stay as they are, to the byte. The same command
    again changes nothing.

    \b
    Example: credit restate 2026-10 --measure support --reason "as agreed with the providers" --dry-run
    """
    from dataclasses import asdict

    from credit.pipeline.restate import by_policy
    from credit.pipeline.restate import restate as run

    named = {"measure": measure, "alpha": alpha, "beta": beta, "gamma": gamma, "noise_floor": noise_floor}
    named |= {"basis": basis, "negative": negative}
    changes = {name: value for name, value in named.items() if value is not None}
    method: dict[str, object] = {"policy": changes}
    with workspace.open() as ledger:
        if index_dir is None:
            rescore = by_policy(changes)
        else:
            from credit.pipeline.restate import by_index

            rescore, fingerprint = by_index(ledger, index_dir, changes)
            method["index"] = fingerprint
        report = run(workspace, ledger, period, rescore, method, reason=reason, dry_run=dry_run)
    say(as_json, asdict(report), "\n".join(_lines(report)))


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
