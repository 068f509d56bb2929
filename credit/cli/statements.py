"""`credit export`, `issuer`, `signing-key` and `verify-statement`: statements as they reach providers."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from credit.cli.options import FILE, PERIOD, CommandGroup, json_option, ledger_options
from credit.cli.printing import progress_bar, say, warn
from credit.text import counted

if TYPE_CHECKING:
    from credit.ledger.statements import IssuerVersion
    from credit.pipeline.workspace import Workspace


_SHOWN = 20
"""Folders that `export` names."""


@click.command()
@click.argument("period", type=PERIOD)
@click.option("--out", type=FILE, required=True, help="Folder that gets one folder per provider.")
@click.option(
    "--signing-key",
    type=FILE,
    envvar="CREDIT_SIGNING_KEY",
    show_envvar=True,
    help="Key that signs the statements (credit signing-key).  [default: unsigned]",
)
@ledger_options
def export(workspace: Workspace, period: str, out: Path, signing_key: Path | None) -> None:
    """Write one folder per provider for PERIOD (YYYY-MM): its statement and its own numbers only.

    \b
    Example: credit export 2026-10 --out statements/2026-10
    """
    from credit.reporting.export import export_period
    from credit.reporting.signatures import load_key

    key = None if signing_key is None else load_key(signing_key)
    with workspace.open() as ledger, progress_bar("exporting", "folders") as advance:
        folders = export_period(ledger, workspace.books, period, out, key=key, progress=advance)
    if key is None:
        warn("statements are not signed; make a key to sign them: credit signing-key --help")
    facts = {"folders": list(map(str, folders)), "signed": key is not None}
    lines = [str(folder) for folder in folders[:_SHOWN]]
    if len(folders) > _SHOWN:
        lines.append(f"... {counted(len(folders), 'folder')} in {out}")
    say(facts, *(lines or [f"{period} has no statements: no provider earned or is owed"]))


@click.group(cls=CommandGroup)
def issuer() -> None:
    """The issuer named on statements, from the next close on. Earlier statements stay as they are.

    \b
    Example: credit issuer set "Example Labs Ltd" --address "1 Long Lane, London EC1A 9HF, United Kingdom"
    """


@issuer.command(name="set")
@click.argument("name")
@click.option("--address", required=True, help="On one line, or on several.")
@click.option("--legal", default="", metavar="TEXT", help="Register, tax number, liability, contact.")
@ledger_options
def set_(workspace: Workspace, name: str, address: str, legal: str) -> None:
    """Name NAME as issuer on statements from the next close on. Repeating the command changes nothing.

    \b
    Example: credit issuer set "Example Labs Ltd" --address "1 Long Lane, London EC1A 9HF" --legal "No. 01234567"
    """
    from credit.ledger.statements import Issuer, set_issuer

    with workspace.open() as ledger, ledger.write() as conn:
        done = set_issuer(conn, Issuer(name, address, legal), now=datetime.now(UTC))
    say(done, _issuer_text(done))


@issuer.command()
@click.option("--history", is_flag=True, help="Include earlier issuers.")
@ledger_options
def show(workspace: Workspace, history: bool) -> None:
    """Show the issuer named on statements.

    \b
    Example: credit issuer show --history
    """
    from credit.ledger.statements import issuers

    with workspace.open() as ledger, ledger.read() as conn:
        found = issuers(conn)
    shown = found if history else found[-1:]
    text = "\n\n".join(map(_issuer_text, shown)) or "statements name no issuer yet: credit issuer set --help"
    say({"issuers": shown}, text)


def _issuer_text(item: IssuerVersion) -> str:
    since = f"on statements since {item.created_at:%Y-%m-%d}"
    return "\n".join(filter(None, (item.issuer.name, item.issuer.address, item.issuer.legal, since)))


@click.command()
@click.argument("file", type=FILE)
@click.option("--show", is_flag=True, help="Make nothing; print the public key of the existing FILE.")
@json_option
def signing_key(file: Path, show: bool) -> None:
    """Make the key that signs statements, in a new FILE, and print its public key.

    Keep FILE to yourself and back it up. Give the public key to everybody who receives statements, by another way than
    with them.

    \b
    Example: credit signing-key credit-signing.pem
             credit export 2026-10 --out statements --signing-key credit-signing.pem
    """
    from credit.reporting.signatures import create_key, load_key, public_text

    public = public_text(load_key(file) if show else create_key(file))
    say({"public_key": public}, public)


@click.command()
@click.argument("file", type=FILE)
@click.option("--key", required=True, metavar="PUBLIC_KEY", help="The signer's public key: its line, or a file of it.")
@click.option("--signature", type=FILE, help="The signature.  [default: statement.sig beside FILE]")
@json_option
def verify_statement(file: Path, key: str, signature: Path | None) -> None:
    """Check that the owner of a key signed the statement FILE. Needs no ledger and no network.

    The command prints the amount to be paid from FILE itself: the page beside it is not signed.

    \b
    Example: credit verify-statement statement.json --key 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
    """
    from credit.reporting.signatures import read_public_key
    from credit.reporting.signatures import verify_statement as check

    found = check(file, read_public_key(key), signature=signature)
    say(
        found,
        f"{file} is the signed statement of {found.provider} for {found.period} (SHA-256 {found.sha256})",
        *(f"to be paid: {amount} {currency}" for currency, amount in found.payable.items()),
    )
