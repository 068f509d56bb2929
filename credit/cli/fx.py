"""`credit fx`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from credit.cli.options import DAY, FILE, PERIOD, Group, intake_line, json_option, say, warn, workspace_options
from credit.errors import EXIT_PARTIAL

if TYPE_CHECKING:
    from credit.ledger.fx import RecordedRate
    from credit.pipeline.workspace import Workspace


@click.group(cls=Group)
def fx() -> None:
    """Rates of exchange: only as they are given, with day and source.

    They are needed where a provider's terms say that one currency is paid in another: credit providers terms --pay-in.
    A period converts by the rate of its last day for which there is one. A rate serves both ways: from its second
    currency into its first, it divides.

    \b
    Example: credit fx add 2026-01-30 EUR USD 1.0842 --source "ECB reference rate"
    """


@fx.command()
@click.argument("day", type=DAY, metavar="DAY")
@click.argument("base")
@click.argument("quote")
@click.argument("rate")
@click.option("--source", required=True, help="Who says so; printed on the statements.")
@click.option("--supersede", is_flag=True, help="Replace the rate that was given for this pair and day.")
@workspace_options
@json_option
def add(
    workspace: Workspace, day: datetime, base: str, quote: str, rate: str, source: str, supersede: bool, as_json: bool
) -> None:
    """Say that on DAY one unit of BASE cost RATE units of QUOTE. The same again changes nothing.

    \b
    Example: credit fx add 2026-01-30 EUR USD 1.0842 --source "ECB reference rate"
    """
    from datetime import UTC

    from credit.accounting.amounts import currency_digits
    from credit.accounting.fx import parse_rate
    from credit.ledger.fx import give_rate
    from credit.records import GivenRate

    for code in (base, quote):
        currency_digits(code)  # refuses what is no currency
    given = GivenRate(base, quote, day.date(), parse_rate(rate), source)
    with workspace.open() as ledger, ledger.write() as conn:
        item = give_rate(conn, given, supersede=supersede, now=datetime.now(UTC))
    say(as_json, _facts(item), _line(item))


@fx.command(name="import")
@click.argument("file", type=FILE)
@click.option("--supersede", is_flag=True, help="Replace rates that were given for these pairs and days.")
@click.option("--strict", is_flag=True, help="Import nothing if any row is bad.")
@workspace_options
@json_option
@click.pass_context
def import_file(
    ctx: click.Context, workspace: Workspace, file: Path, supersede: bool, strict: bool, as_json: bool
) -> None:
    """Add the rates of a CSV file with the columns day, base, quote, rate and source.

    \b
    Example: credit fx import rates.csv
    """
    from dataclasses import asdict

    from credit.pipeline.ingest import import_rates

    report = import_rates(workspace, file, supersede=supersede, strict=strict)
    warn([*report.notices, *report.problems])
    say(as_json, asdict(report), intake_line(report, "added", "known already"))
    if report.quarantined_now:
        ctx.exit(EXIT_PARTIAL)


@fx.command(name="list")
@click.argument("period", type=PERIOD, required=False)
@workspace_options
@json_option
def list_all(workspace: Workspace, period: str | None, as_json: bool) -> None:
    """List the rates that were given, of a PERIOD (YYYY-MM) or all, with those that were replaced.

    \b
    Example: credit fx list 2026-01
    """
    from credit.ledger.fx import recorded_rates
    from credit.ledger.periods import first_day, last_day

    bounds = (first_day(period), last_day(period)) if period else (None, None)
    with workspace.open() as ledger, ledger.read() as conn:
        found = recorded_rates(conn, since=bounds[0], until=bounds[1])
    text = "\n".join(map(_line, found)) or "no rates are given"
    say(as_json, {"rates": [_facts(item) for item in found]}, text)


def _facts(item: RecordedRate) -> dict[str, object]:
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


def _line(item: RecordedRate) -> str:
    given = item.given
    return f"{given.on}  1 {given.base} = {given.rate} {given.quote}  v{item.version}  {given.source}"
