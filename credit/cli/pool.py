"""`credit pool`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from credit.cli.options import PERIOD, Group, json_option, say, workspace_options

if TYPE_CHECKING:
    from credit.pipeline.workspace import Workspace


@click.group(cls=Group)
def pool() -> None:
    """Money to distribute.

    \b
    Example: credit pool add 2026-10 10000.00 USD
    """


@pool.command()
@click.argument("period", type=PERIOD)
@click.argument("amount")
@click.argument("currency")
@click.option("--deductions", default="0", show_default=True, metavar="AMOUNT", help="Taken off before distribution.")
@click.option("--reference", default="main", show_default=True, help="Tells several pools of a period apart.")
@workspace_options
@json_option
def add(
    workspace: Workspace, period: str, amount: str, currency: str, deductions: str, reference: str, as_json: bool
) -> None:
    """Add AMOUNT of CURRENCY to what is distributed for PERIOD (YYYY-MM). The same command again adds nothing.

    \b
    Example: credit pool add 2026-10 10000.00 USD --deductions 1500 --reference licensing
    """
    from dataclasses import asdict
    from datetime import UTC, datetime

    from credit.accounting.amounts import format_amount, parse_amount
    from credit.ledger.pools import add_pool

    gross, less = parse_amount(amount, currency), parse_amount(deductions, currency)
    with workspace.open() as ledger, ledger.write() as conn:
        item = add_pool(
            conn,
            period,
            currency,
            gross_minor=gross,
            deductions_minor=less,
            reference=reference,
            now=datetime.now(UTC),
        )
    text = f"pool {reference} of {period}: {format_amount(item.net_minor, currency)} {currency} to distribute"
    say(as_json, asdict(item), text + (f", transaction {item.txn_id}" if item.txn_id else ""))


@pool.command(name="list")
@click.argument("period", type=PERIOD, required=False)
@workspace_options
@json_option
def list_all(workspace: Workspace, period: str | None, as_json: bool) -> None:
    """List the pools of PERIOD (YYYY-MM) or of all, with the transactions to name in `credit reverse`.

    \b
    Example: credit pool list 2026-10
    """
    from dataclasses import asdict

    from credit.accounting.amounts import format_amount
    from credit.ledger.periods import periods
    from credit.ledger.pools import pools, undone_pools

    lines, facts = [], []
    with workspace.open() as ledger, ledger.read() as conn:
        for name in [item.id for item in periods(conn)] if period is None else [period]:
            undone = undone_pools(conn, name)
            for item in pools(conn, name):
                net, taken = format_amount(item.net_minor, item.currency), undone.get(item.id)
                less = format_amount(item.deductions_minor, item.currency)
                lines.append(
                    f"{name}  {item.reference}: {net} {item.currency}"
                    + (f" (after deductions of {less})" if item.deductions_minor else "")
                    + (f", transaction {item.txn_id}" if item.txn_id else "")
                    + (f", taken back by transaction {taken}" if taken else "")
                )
                facts.append(asdict(item) | {"taken_back_by": taken})
    say(as_json, {"pools": facts}, "\n".join(lines) or "no pools were added")
