"""`credit pool`, `credit remit` and `credit fx`: money that comes in, money that leaves, and exchange rates."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from credit.cli.approve import act
from credit.cli.options import CURRENCY, DAY, FILE, PERIOD, CommandGroup, ledger_options
from credit.cli.printing import ingested, say, say_posted, warn
from credit.errors import EXIT_PARTIAL

if TYPE_CHECKING:
    from credit.ledger.fx import RecordedRate
    from credit.ledger.pools import Pool
    from credit.ledger.remittances import Remitted
    from credit.pipeline.workspace import Workspace


@click.group(cls=CommandGroup)
def pool() -> None:
    """Pools: the money to distribute for a period.

    \b
    Example: credit pool add 2026-10 10000.00 USD
    """


@pool.command(name="add")
@click.argument("period", type=PERIOD)
@click.argument("amount")
@click.argument("currency", type=CURRENCY)
@click.option("--deductions", default="0", show_default=True, metavar="AMOUNT", help="Taken off before distribution.")
@click.option("--reference", default="main", show_default=True, help="Name that tells several pools of a period apart.")
@ledger_options
def add_money(workspace: Workspace, period: str, amount: str, currency: str, deductions: str, reference: str) -> None:
    """Add AMOUNT of CURRENCY to the money of PERIOD (YYYY-MM). Repeating the command adds nothing.

    \b
    Example: credit pool add 2026-10 10000.00 USD --deductions 1500 --reference licensing
    """
    from credit.accounting.amounts import money_text, parse_amount
    from credit.approval.actions import AddPool

    gross, less = parse_amount(amount, currency), parse_amount(deductions, currency)
    item = act(workspace, AddPool(period, currency, gross, less, reference))
    text = f"pool {reference} of {period}: {money_text(item.net_minor, currency)} to distribute"
    say(item, text + (f", transaction {item.txn_id}" if item.txn_id else ""))


@pool.command(name="list")
@click.argument("period", type=PERIOD, required=False)
@ledger_options
def list_pools(workspace: Workspace, period: str | None) -> None:
    """List the pools of PERIOD (YYYY-MM) or of all, with the transactions that `credit reverse` takes.

    \b
    Example: credit pool list 2026-10
    """
    from dataclasses import asdict

    from credit.ledger.periods import periods
    from credit.ledger.pools import pools, undone_pools

    lines, facts = [], []
    with workspace.open() as ledger, ledger.read() as conn:
        for name in [item.id for item in periods(conn)] if period is None else [period]:
            undone = undone_pools(conn, name)
            for item in pools(conn, name):
                lines.append(_pool_line(name, item, undone.get(item.id)))
                facts.append(asdict(item) | {"taken_back_by": undone.get(item.id)})
    say({"pools": facts}, *(lines or ["no pools were added"]))


def _pool_line(period: str, item: Pool, taken_back_by: int | None) -> str:
    from credit.accounting.amounts import format_amount, money_text

    less = format_amount(item.deductions_minor, item.currency)
    return (
        f"{period}  {item.reference}: {money_text(item.net_minor, item.currency)}"
        + (f" (after deductions of {less})" if item.deductions_minor else "")
        + (f", transaction {item.txn_id}" if item.txn_id else "")
        + (f", taken back by transaction {taken_back_by}" if taken_back_by else "")
    )


@click.command()
@click.argument("of", type=click.Choice(["withholding", "fees", "house"]))
@click.argument("amount")
@click.argument("currency", type=CURRENCY)
@click.option("--paid-on", type=DAY, required=True, help="Day of the payment.")
@click.option("--reference", required=True, help="Reference of the payment; repeating it changes nothing.")
@click.option("--through", type=PERIOD, help="withholding: the last period (YYYY-MM) whose tax it pays.")
@click.option("--provider", help="withholding: whose tax it pays, also a part of it.  [default: all that is due]")
@ledger_options
def remit(
    workspace: Workspace,
    of: Remitted,
    amount: str,
    currency: str,
    paid_on: datetime,
    reference: str,
    through: str | None,
    provider: str | None,
) -> None:
    """Record that AMOUNT left for whom it belongs to: withheld tax, fees, or the money of the house.

    Never more leaves than is there. Withheld tax leaves whole, so that it is known what is left of each provider's:
    AMOUNT must be what is due through a period, or now. --provider pays the tax of one, also a part of it.

    \b
    Example: credit remit withholding 1312.40 EUR --through 2026-10 --paid-on 2026-11-10 --reference tax-2026-10
             credit remit fees 25.00 EUR --paid-on 2026-11-10 --reference bank-fees
             credit remit house 4000.00 EUR --paid-on 2026-11-10 --reference transfer-12
    """
    from credit.accounting.amounts import parse_amount
    from credit.approval.actions import Remit

    minor = parse_amount(amount, currency)
    done = act(workspace, Remit(of, minor, currency, str(paid_on.date()), reference, through, provider))
    say_posted(done, f"the remittance {reference}", "recorded")


@click.group(cls=CommandGroup)
def fx() -> None:
    """Exchange rates, each given by a person, with day and source.

    A close needs them where terms pay one currency in another: credit providers terms --pay-in. It converts by the
    rate of the last day in the period that has one. A rate serves both ways: from its second currency into its first,
    it divides.

    \b
    Example: credit fx add 2026-01-30 EUR USD 1.0842 --source "ECB reference rate"
    """


@fx.command(name="add")
@click.argument("day", type=DAY, metavar="DAY")
@click.argument("base", type=CURRENCY)
@click.argument("quote", type=CURRENCY)
@click.argument("rate")
@click.option("--source", required=True, help="Source of the rate; printed on the statements.")
@click.option("--supersede", is_flag=True, help="Replace the rate given for this pair and day.")
@ledger_options
def add_rate(
    workspace: Workspace, day: datetime, base: str, quote: str, rate: str, source: str, supersede: bool
) -> None:
    """Record that on DAY one unit of BASE cost RATE units of QUOTE. Repeating the command changes nothing.

    \b
    Example: credit fx add 2026-01-30 EUR USD 1.0842 --source "ECB reference rate"
    """
    from credit.approval.actions import GiveRate

    item = act(workspace, GiveRate(base, quote, day.date().isoformat(), rate, source, supersede))
    say(_rate_facts(item), _rate_line(item))


@fx.command(name="import")
@click.argument("file", type=FILE)
@click.option("--supersede", is_flag=True, help="Replace the rates given for these pairs and days.")
@click.option("--strict", is_flag=True, help="Import nothing if any row is bad.")
@ledger_options
def import_file(workspace: Workspace, file: Path, supersede: bool, strict: bool) -> None:
    """Record the rates of a CSV file with the columns day, base, quote, rate and source.

    \b
    Example: credit fx import rates.csv
    """
    from credit.pipeline.ingest import import_rates

    report = import_rates(workspace, file, supersede=supersede, strict=strict)
    warn(*report.notices, *report.problems)
    line = ingested(report, "added", "known already")
    say(report, line, exit_code=EXIT_PARTIAL if report.quarantined_now else 0)


@fx.command(name="list")
@click.argument("period", type=PERIOD, required=False)
@ledger_options
def list_rates(workspace: Workspace, period: str | None) -> None:
    """List the rates of PERIOD (YYYY-MM) or all, replaced ones too.

    \b
    Example: credit fx list 2026-01
    """
    from credit.ledger.fx import recorded_rates
    from credit.ledger.values import first_day, last_day

    since, until = (first_day(period), last_day(period)) if period else (None, None)
    with workspace.open() as ledger, ledger.read() as conn:
        found = recorded_rates(conn, since=since, until=until)
    lines = map(_rate_line, found) if found else ["no rates are given"]
    say({"rates": [_rate_facts(item) for item in found]}, *lines)


def _rate_facts(item: RecordedRate) -> dict[str, object]:
    given = item.given
    return {
        "on": given.on.isoformat(),
        "base": given.base,
        "quote": given.quote,
        "rate": str(given.rate),
        "source": given.source,
        "version": item.version,
        "recorded_at": item.created_at.isoformat(),
    }


def _rate_line(item: RecordedRate) -> str:
    given = item.given
    return f"{given.on}  1 {given.base} = {given.rate} {given.quote}  v{item.version}  {given.source}"
