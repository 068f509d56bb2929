"""`credit transactions`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from credit.cli.options import PERIOD, json_option, say, terminal_width, workspace_options

if TYPE_CHECKING:
    from credit.pipeline.workspace import Workspace


@click.command()
@click.option("--period", type=PERIOD, help="Only what counts in this month.")
@click.option("--provider", metavar="KEY", help="Only what moves something of this provider.")
@click.option("--kind", help="Only this kind, such as adjustment, advance, allocation, credits, payout or pool.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="The last so many.")
@workspace_options
@json_option
def transactions(
    workspace: Workspace, period: str | None, provider: str | None, kind: str | None, limit: int, as_json: bool
) -> None:
    """List the transactions of the ledger, the last one at the end, with the numbers that `credit reverse` takes.

    `credit explain transaction` shows the entries of one.

    \b
    Example: credit transactions --period 2026-10 --provider anna-books
             credit transactions --kind adjustment --json
    """
    from dataclasses import asdict

    from credit.ledger.transactions import transactions as find
    from credit.reporting.tables import Column, fitted

    with workspace.open() as ledger, ledger.read() as conn:
        # One more than asked for tells whether there are others.
        found = find(conn, period=period, provider=provider, kind=kind, limit=limit + 1)
    shown = found[-limit:]
    columns = (
        Column("transaction", [str(item.id) for item in shown], is_number=True),
        Column("kind", [item.kind for item in shown]),
        Column("period", [item.period for item in shown]),
        Column("effective", [item.effective_on for item in shown]),
        Column("recorded", [item.recorded_at[:19] + "Z" for item in shown], spare=True),
        Column("entries", [str(item.entries) for item in shown], is_number=True),
    )
    notes = [
        "; ".join(
            filter(
                None,
                (
                    item.memo,
                    f"reverses {item.reverses}" if item.reverses else "",
                    f"reversed by {item.reversed_by}" if item.reversed_by else "",
                ),
            )
        )
        for item in shown
    ]
    text = fitted(columns, terminal_width(), notes).rstrip("\n") if shown else "there are no such transactions"
    if len(found) > len(shown):
        text += f"\n\nOnly the last {limit}; more with --limit."
    facts = {"transactions": [asdict(item) for item in shown], "more": len(found) > len(shown)}
    say(as_json, facts, text)
