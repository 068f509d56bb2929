"""`credit providers details`, `import-details` and `erase`: what is needed to pay a provider, and its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from credit.cli.options import FILE, json_option, say, workspace_options
from credit.text import counted

if TYPE_CHECKING:
    from credit.pipeline.workspace import Workspace


@click.command()
@click.argument("key")
@click.option("--legal-name", help="Of the person or institution.")
@click.option("--account-holder", help="The name as its bank has it, where that differs.")
@click.option("--receiver", type=click.Choice(["person", "institution"]), help="Which of the two it is.")
@click.option("--email", help="Where a payment service writes to.")
@click.option("--street", help="Name of the street.")
@click.option("--building", help="Number of the building.")
@click.option("--postcode", help="Postal code.")
@click.option("--town", help="Town.")
@click.option("--country", help="Two letters, such as DE.")
@click.option("--iban", help="The account.")
@click.option("--bic", help="The bank, where the IBAN does not tell.")
@click.option("--paypal", help="Email of the PayPal account.")
@click.option("--tax-id", help="As the tax office knows it.")
@workspace_options
@json_option
def details(workspace: Workspace, key: str, as_json: bool, **values: str | None) -> None:
    """Record what is needed to pay provider KEY, or show (masked) what is known.

    Details lie in a table of their own and can be erased. An empty text leaves one out from now on:
    --bic "". What it said before stays with the payments that left by it, until credit providers erase.

    \b
    Example: credit providers details anna-books --legal-name "Anna Berg" --receiver person
               --iban DE02120300000000202051 --town Berlin --country DE
    """
    from datetime import UTC, datetime

    from credit.ledger.personal_data import Details, current_details
    from credit.ledger.providers import provider_id
    from credit.payments.details import masked, set_provider_details

    given = {name: value for name, value in values.items() if value is not None}
    with workspace.open() as ledger:
        if given:
            known = set_provider_details(ledger, key, given, now=datetime.now(UTC))
        else:
            with ledger.read() as conn:
                provider_id(conn, key)
                found = current_details(conn, key)
            known = found[1] if found else Details()
    shown = masked(known)
    lines = [f"{name.replace('_', ' ')}: {value}" for name, value in shown.items()]
    say(as_json, {"provider": key, "details": shown}, "\n".join(lines) or f"{key}: no details are known")


@click.command(name="import-details")
@click.argument("file", type=FILE)
@workspace_options
@json_option
def import_details(workspace: Workspace, file: Path, as_json: bool) -> None:
    """Record the details of many providers from a CSV file: column provider, and any of the options of `details`.

    All rows or none; delete the file afterwards.

    \b
    Example: credit providers import-details details.csv
    """
    from datetime import UTC, datetime

    from credit.payments.details import import_details as read

    with workspace.open() as ledger:
        count = read(ledger, file, now=datetime.now(UTC))
    say(as_json, {"file": file, "providers": count}, f"{file}: details of {counted(count, 'provider')} are recorded")


@click.command()
@click.argument("key")
@click.option("--reason", required=True, help="Stays on record; must not repeat what is erased.")
@workspace_options
@json_option
def erase(workspace: Workspace, key: str, reason: str, as_json: bool) -> None:
    """Erase all personal details of provider KEY, also from the database's files.

    Exits with 11 while another session keeps their bytes in the files; run it again when that has ended. What was
    earned and paid stays, and so does the display name, which stands in statements. On PostgreSQL the write-ahead log,
    replicas and backups keep the details until they are recycled; so do backups of a SQLite file, and payment files
    that were written.

    \b
    Example: credit providers erase anna-books --reason "request of 2026-11-20"
    """
    from datetime import UTC, datetime

    from credit.payments.details import erase_provider_details

    with workspace.open() as ledger:
        count = erase_provider_details(ledger, key, reason=reason, now=datetime.now(UTC))
    done = f"{counted(count, 'version')} of details erased" if count else "there are no details; the files are clean"
    say(as_json, {"provider": key, "erased": count}, f"{key}: {done}")
