"""`credit issuer`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from credit.cli.options import Group, json_option, say, workspace_options

if TYPE_CHECKING:
    from credit.ledger.statements import IssuerVersion
    from credit.pipeline.workspace import Workspace


@click.group(cls=Group)
def issuer() -> None:
    """Who issues statements: they name it from the next close on; those that are there stay as they are.

    \b
    Example: credit issuer set "Example Labs Ltd" --address "1 Long Lane, London EC1A 9HF, United Kingdom"
    """


@issuer.command(name="set")
@click.argument("name")
@click.option("--address", required=True, help="On one line, or on several.")
@click.option("--legal", default="", metavar="TEXT", help="Register, tax number, liability, whom to ask.")
@workspace_options
@json_option
def set_(workspace: Workspace, name: str, address: str, legal: str, as_json: bool) -> None:
    """Let statements from the next close on name NAME as their issuer. The same command again changes nothing.

    \b
    Example: credit issuer set "Example Labs Ltd" --address "1 Long Lane, London EC1A 9HF" --legal "No. 01234567"
    """
    from dataclasses import asdict
    from datetime import UTC, datetime

    from credit.ledger.statements import Issuer, set_issuer

    with workspace.open() as ledger, ledger.write() as conn:
        done = set_issuer(conn, Issuer(name, address, legal), now=datetime.now(UTC))
    say(as_json, asdict(done), _text(done))


@issuer.command()
@click.option("--history", is_flag=True, help="Also who issued before.")
@workspace_options
@json_option
def show(workspace: Workspace, history: bool, as_json: bool) -> None:
    """Show who issues statements.

    \b
    Example: credit issuer show --history
    """
    from dataclasses import asdict

    from credit.ledger.statements import issuers

    with workspace.open() as ledger, ledger.read() as conn:
        found = issuers(conn)
    shown = found if history else found[-1:]
    text = "\n\n".join(map(_text, shown)) or "statements name no issuer yet: credit issuer set --help"
    say(as_json, {"issuers": [asdict(item) for item in shown]}, text)


def _text(item: IssuerVersion) -> str:
    lines = (
        item.issuer.name,
        item.issuer.address,
        item.issuer.legal,
        f"on statements since {item.created_at:%Y-%m-%d}",
    )
    return "\n".join(filter(None, lines))
