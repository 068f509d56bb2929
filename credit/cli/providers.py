"""`credit providers`: providers, their terms, and the details needed to pay them."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from credit.cli.approve import act
from credit.cli.options import CURRENCY, FILE, CommandGroup, ledger_options, reason_option
from credit.cli.printing import aligned, ingested, say, warn
from credit.cli.terms import advance, contract, terms
from credit.errors import EXIT_PARTIAL
from credit.text import counted

if TYPE_CHECKING:
    from credit.pipeline.workspace import Workspace

_LONGEST_LINE = 4096
"""Characters of a line with a detail. No detail is longer, and another file is not read whole."""


@click.group(cls=CommandGroup)
def providers() -> None:
    """Providers, their terms, and the details needed to pay them.

    \b
    Example: credit providers import providers.csv
    """


@providers.command()
@click.argument("key")
@click.argument("name")
@click.option("--house", is_flag=True, help="Own or public-domain data: its earnings go to the house.")
@click.option("--currency", type=CURRENCY, help="Currency of the minimum payout, such as EUR.")
@click.option("--minimum-payout", metavar="AMOUNT", help="Smaller amounts are carried forward.")
@ledger_options
def add(
    workspace: Workspace, key: str, name: str, house: bool, currency: str | None, minimum_payout: str | None
) -> None:
    """Add a provider, or rename it. Training data names providers by KEY.

    \b
    Example: credit providers add anna-books "Anna Berg" --currency EUR --minimum-payout 50
    """
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
    say({"provider": key, "change": change}, f"{key}: {change}")


@providers.command(name="import")
@click.argument("file", type=FILE)
@click.option("--strict", is_flag=True, help="Import nothing if any row is bad.")
@ledger_options
def import_file(workspace: Workspace, file: Path, strict: bool) -> None:
    """Add the providers of a CSV file: columns key, name; optional kind, currency, minimum_payout.

    \b
    Example: credit providers import providers.csv
    """
    from credit.pipeline.ingest import import_providers

    report = import_providers(workspace, file, strict=strict)
    warn(*report.notices, *report.problems)
    line = ingested(report, "added or changed", "unchanged")
    say(report, line, exit_code=EXIT_PARTIAL if report.quarantined_now else 0)


@providers.command(name="list")
@ledger_options
def list_all(workspace: Workspace) -> None:
    """List all providers.

    \b
    Example: credit providers list
    """
    from credit.ledger.providers import providers as read_providers

    with workspace.open() as ledger, ledger.read() as conn:
        found = read_providers(conn)
    say({"providers": found}, *aligned([(provider.key, provider.kind, provider.name) for provider in found]))


@providers.command()
@click.argument("key")
@click.option("--legal-name", help="Name of the person or institution.")
@click.option("--account-holder", help="The name at the bank, where that differs.")
@click.option("--receiver", type=click.Choice(["person", "institution"]), help="Kind of receiver.")
@click.option("--email", help="Address for mail of a payment service.")
@click.option("--street", help="Name of the street.")
@click.option("--building", help="Number of the building.")
@click.option("--postcode", help="Postal code.")
@click.option("--town", help="Town.")
@click.option("--country", help="Two letters, such as DE.")
@click.option("--iban", help="The account.")
@click.option("--bic", help="The bank, where the IBAN does not tell.")
@click.option("--paypal", help="Email of the PayPal account.")
@click.option("--tax-id", help="Number at the tax office.")
@ledger_options
def details(workspace: Workspace, key: str, **values: str | None) -> None:
    """Record the details needed to pay provider KEY, or show the known ones, masked.

    An empty text removes a detail from now on: --bic "". Payments that left keep the old one, until credit providers
    erase.

    Others on the machine can read a command line. `-` reads a detail from standard input, or asks for it unseen at a
    terminal. @FILE reads it from the first line of a file.

    \b
    Example: credit providers details anna-books --legal-name "Anna Berg" --receiver person
               --iban - --town Berlin --country DE
    """
    from credit.approval.actions import SetDetails
    from credit.ledger.payee_accounts import acceptances
    from credit.ledger.personal_data import Details, current_details
    from credit.ledger.providers import provider_id
    from credit.payments.details import masked

    given = {name: _detail(name, value) for name, value in values.items() if value is not None}
    if given:
        known = act(workspace, SetDetails(key, given))
    else:
        with workspace.open() as ledger, ledger.read() as conn:
            provider_id(conn, key)
            found = current_details(conn, key)
        known = found[1] if found else Details()
    with workspace.open() as ledger, ledger.read() as conn:
        accepted = acceptances(conn, key)
    shown = masked(known)
    lines = [f"{name.replace('_', ' ')}: {value}" for name, value in shown.items()]
    lines = lines or [f"{key}: no details are known"]
    lines += [f"accepted on {item.recorded_at:%Y-%m-%d}: {item.sign} ({item.accepted})" for item in accepted]
    say({"provider": key, "details": shown, "accepted": accepted}, *lines)


def _detail(name: str, typed: str) -> str:
    """Return a detail: as typed, or the line that `-` or `@FILE` stands for."""
    if typed == "-":
        if sys.stdin.isatty():
            return str(click.prompt(name.replace("_", " "), hide_input=True, err=True))
        line = sys.stdin.readline(_LONGEST_LINE)
    elif typed.startswith("@"):
        with Path(typed[1:]).open(encoding="utf-8", errors="surrogateescape") as file:
            line = file.readline(_LONGEST_LINE)
    else:
        return typed
    if not line.strip():
        raise click.UsageError(f"{name.replace('_', ' ')}: the first line of {typed.lstrip('@')} is empty")
    return line.strip()


@providers.command(name="import-details")
@click.argument("file", type=FILE)
@ledger_options
def import_details(workspace: Workspace, file: Path) -> None:
    """Record the details of many providers from a CSV file: column provider, and any of the options of `details`.

    The file counts as a whole: one bad row refuses it. Delete it afterwards.

    \b
    Example: credit providers import-details details.csv
    """
    from credit.payments.details import import_details as read

    with workspace.open() as ledger:
        count = read(ledger, file, now=datetime.now(UTC))
    say({"file": file, "providers": count}, f"{file}: details of {counted(count, 'provider')} are recorded")


@providers.command()
@click.argument("key")
@reason_option
@click.option("--leave-unpaid", is_flag=True, help="Erase although a payout has not left; its money waits.")
@ledger_options
def erase(workspace: Workspace, key: str, reason: str, leave_unpaid: bool) -> None:
    """Erase all personal details of provider KEY, from the database's files too.

    Refused while a payout has not left, which it cannot without details; --leave-unpaid lets its money wait for new
    ones.

    The reason must repeat nothing of them. Earnings and payouts stay, and so does the display name on statements.
    Outside this ledger, details stay in payment files, in backups, and on PostgreSQL in the write-ahead log and
    replicas until the server recycles them.

    Exits with 11 while another session still keeps the details in the files; run it again later.

    \b
    Example: credit providers erase anna-books --reason "request of 2026-11-20"
    """
    from credit.payments.details import erase_provider_details

    with workspace.open() as ledger:
        count = erase_provider_details(ledger, key, reason=reason, leave_unpaid=leave_unpaid, now=datetime.now(UTC))
    done = f"{counted(count, 'version')} of details erased" if count else "there are no details; the files are clean"
    say({"provider": key, "erased": count}, f"{key}: {done}")


providers.add_command(terms)
providers.add_command(contract)
providers.add_command(advance)
