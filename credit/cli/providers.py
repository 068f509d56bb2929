"""`credit providers`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from credit.cli import personal
from credit.cli.options import FILE, Group, intake_line, json_option, say, warn, workspace_options
from credit.cli.terms import advance, terms
from credit.errors import EXIT_PARTIAL

if TYPE_CHECKING:
    from credit.pipeline.workspace import Workspace


@click.group(cls=Group)
def providers() -> None:
    """Who can be credited.

    \b
    Example: credit providers import providers.csv
    """


@providers.command()
@click.argument("key")
@click.argument("name")
@click.option("--house", is_flag=True, help="Own or public-domain data: what it earns goes to the house.")
@click.option("--currency", help="Currency of the minimum payout, such as EUR.")
@click.option("--minimum-payout", metavar="AMOUNT", help="Owed amounts below this are carried forward.")
@workspace_options
@json_option
def add(
    workspace: Workspace,
    key: str,
    name: str,
    house: bool,
    currency: str | None,
    minimum_payout: str | None,
    as_json: bool,
) -> None:
    """Add a provider, or rename it. KEY is what training data is tagged with.

    \b
    Example: credit providers add anna-books "Anna Berg" --currency EUR --minimum-payout 50
    """
    from datetime import UTC, datetime

    from credit.accounting.amounts import parse_amount
    from credit.ledger.providers import add_provider
    from credit.pipeline.ingest import agree_minimum
    from credit.records import Provider

    if (currency is None) != (minimum_payout is None):
        raise click.UsageError("--currency and --minimum-payout go together")
    minimum = None if currency is None or minimum_payout is None else parse_amount(minimum_payout, currency)
    kind: Literal["provider", "house"] = "house" if house else "provider"
    with workspace.open() as ledger, ledger.write() as conn:
        change = add_provider(conn, Provider(key, name, kind), now=datetime.now(UTC))
        if currency is not None and minimum is not None:
            agree_minimum(conn, key, currency, minimum)
    say(as_json, {"provider": key, "change": change}, f"{key}: {change}")


@providers.command(name="import")
@click.argument("file", type=FILE)
@click.option("--strict", is_flag=True, help="Import nothing if any row is bad.")
@workspace_options
@json_option
@click.pass_context
def import_file(ctx: click.Context, workspace: Workspace, file: Path, strict: bool, as_json: bool) -> None:
    """Add the providers of a CSV file: columns key, name; optional kind, currency, minimum_payout.

    \b
    Example: credit providers import providers.csv
    """
    from dataclasses import asdict

    from credit.pipeline.ingest import import_providers

    report = import_providers(workspace, file, strict=strict)
    warn([*report.notices, *report.problems])
    say(as_json, asdict(report), intake_line(report, "added or changed", "unchanged"))
    if report.quarantined_now:
        ctx.exit(EXIT_PARTIAL)


@providers.command(name="list")
@workspace_options
@json_option
def list_all(workspace: Workspace, as_json: bool) -> None:
    """List all providers.

    \b
    Example: credit providers list
    """
    from dataclasses import asdict

    from credit.ledger.providers import providers as read_providers

    with workspace.open() as ledger, ledger.read() as conn:
        found = read_providers(conn)
    width = max((len(provider.key) for provider in found), default=0)
    lines = [f"{provider.key:<{width}}  {provider.kind:<8}  {provider.name}" for provider in found]
    say(as_json, {"providers": [asdict(provider) for provider in found]}, "\n".join(lines))


for command in (terms, advance, personal.details, personal.import_details, personal.erase):
    providers.add_command(command)
