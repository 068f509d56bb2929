"""`credit pool`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from credit.cli.options import workspace_options

if TYPE_CHECKING:
    from credit.pipeline.workspace import Workspace


@click.group()
def pool() -> None:
    """Money to distribute.

    \b
    Example: credit pool add 2026-10 10000.00 USD
    """


@pool.command()
@click.argument("period")
@click.argument("amount")
@click.argument("currency")
@click.option("--deductions", default="0", show_default=True, metavar="AMOUNT", help="Taken off before distribution.")
@click.option("--reference", default="main", show_default=True, help="Tells several pools of a period apart.")
@workspace_options
def add(workspace: Workspace, period: str, amount: str, currency: str, deductions: str, reference: str) -> None:
    """Add AMOUNT of CURRENCY to what is distributed for PERIOD (YYYY-MM). The same command again adds nothing.

    \b
    Example: credit pool add 2026-10 10000.00 USD --deductions 1500 --reference licensing
    """
    from datetime import UTC, datetime

    from credit.accounting.money import format_amount, parse_amount
    from credit.errors import InvalidRequestError
    from credit.ledger.pools import add_pool
    from credit.records import is_period

    if not is_period(period):
        raise InvalidRequestError(f"{period!r} is not a period; a period is a month, written YYYY-MM")
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
    click.echo(f"pool {reference} of {period}: {format_amount(item.net_minor, currency)} {currency} to distribute")
