"""`credit init`, `credit status`, `credit verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from credit.cli.options import json_option, say, workspace_options
from credit.errors import EXIT_INTEGRITY
from credit.text import counted

if TYPE_CHECKING:
    from credit.pipeline.status import PeriodOverview
    from credit.pipeline.workspace import Workspace


@click.command()
@workspace_options
@json_option
def init(workspace: Workspace, as_json: bool) -> None:
    """Create the ledger, or upgrade it to this version; run again, it changes nothing.

    \b
    Example: credit init
             credit init --database postgresql://accounts@db/credit
    """
    from credit.ledger.database import redact, upgrade

    revision = upgrade(workspace.database)
    workspace.data_dir.mkdir(parents=True, exist_ok=True)
    facts = {"database": redact(workspace.database), "revision": revision, "data_dir": workspace.data_dir}
    say(as_json, facts, f"ledger {facts['database']} is ready (revision {revision}); files in {workspace.data_dir}/")


@click.command()
@workspace_options
@json_option
def status(workspace: Workspace, as_json: bool) -> None:
    """Show what the ledger holds and what is to be done.

    \b
    Example: credit status
    """
    from dataclasses import asdict
    from datetime import UTC, datetime

    from credit.pipeline.status import overview

    with workspace.open() as ledger, ledger.read() as conn:
        found = overview(conn, now=datetime.now(UTC))
    now = found.status
    lines = [
        f"providers     {now.providers}",
        f"indexes       {now.indexes} of {counted(now.models, 'model')}",
        f"outputs       {sum(now.outputs.values())}, {now.pending} not valued yet"
        + (f", {now.unvalued} unvalued" if now.unvalued else ""),
        *(f"  {month}     {count}" for month, count in now.outputs.items()),
        f"score books   {now.books}",
        f"transactions  {now.transactions}, chain head {now.chain_head[:16]}",
        *map(_period_line, found.periods),
        *(f"next: {step}" for step in found.next_steps),
    ]
    say(as_json, asdict(now) | {"next": found.next_steps}, "\n".join(lines))


def _period_line(item: PeriodOverview) -> str:
    from credit.accounting.amounts import format_amount

    money = [f"{format_amount(pool.net_minor, pool.currency)} {pool.currency}" for pool in item.pools]
    parts = [f"pools: {', '.join(money)}"] if money else []
    if item.payouts:
        parts.append(f"payouts: {', '.join(f'{count} {status}' for status, count in item.payouts.items())}")
    return "; ".join([f"period {item.period.id}  {item.period.status}", *parts])


@click.command()
@click.option(
    "--head", "heads", metavar="HASH", multiple=True, help="A head that you kept: it must be there still. Repeatable."
)
@workspace_options
@json_option
@click.pass_context
def verify(ctx: click.Context, workspace: Workspace, heads: tuple[str, ...], as_json: bool) -> None:
    """Recompute the hash chain, every balance and every checksum; name what is wrong.

    Exits with 4 if anything is. The heads that it prints, of the chain of transactions and of the seals of all other
    rows, are worth keeping elsewhere: with --head, a tail that was cut off is found even where no statement or payout
    tells of it.

    \b
    Example: credit verify
             credit verify --head 1f8e... --head 9c04...
    """
    from dataclasses import asdict

    from credit.ledger.verify import verify as check

    with workspace.open() as ledger:
        report = check(ledger, workspace.books, heads=heads)
    if report.problems:
        text = "\n".join(str(problem) for problem in report.problems)
    else:
        counts = [f"{count} {what.replace('_', ' ')}" for what, count in sorted(report.checked.items()) if count]
        text = f"everything is as it was written: {', '.join(counts)}\nchain head {report.chain_head}\n"
        text += f"seal head {report.seal_head}"
    say(as_json, asdict(report), text)
    if report.problems:
        ctx.exit(EXIT_INTEGRITY)
