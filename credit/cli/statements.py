"""`credit export`, `issuer` and `verify-statement`: statements as they reach providers."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from credit.cli.options import FILE, PERIOD, CommandGroup, json_option, ledger_options, user_key_option
from credit.cli.printing import progress_bar, say, warn
from credit.cli.signing_key import signing_options
from credit.text import counted

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from credit.ledger.statements import IssuerVersion
    from credit.pipeline.workspace import Workspace


_SHOWN = 20
"""Folders that `export` names."""


@click.command()
@click.argument("period", type=PERIOD)
@click.option("--out", type=FILE, required=True, help="Folder that gets one folder per provider.")
@click.option("--unsigned", is_flag=True, help="Sign nothing, although the ledger has a signing key.")
@click.option(
    "--name-outputs",
    is_flag=True,
    envvar="CREDIT_NAME_OUTPUTS",
    show_envvar=True,
    help="List outputs by the ids and moments of your log.  [default: pseudonyms and days]",
)
@user_key_option
@signing_options
@ledger_options
def export(
    workspace: Workspace,
    period: str,
    out: Path,
    unsigned: bool,
    name_outputs: bool,
    user_key: Path | None,
    key: Ed25519PrivateKey | None,
) -> None:
    """Write one folder per provider for PERIOD (YYYY-MM): its statement and its own numbers only.

    With a signing key, each folder is signed as a whole, and proves two things: its statement is in the ledger, and
    nobody rewrote the ledger since the provider's statement before.

    Providers see each output by a pseudonym and its day; credit outputs find tells the output that a provider asks for.

    \b
    Example: credit export 2026-10 --out statements/2026-10 --signing-key credit-signing.pem
    """
    from credit.pipeline.workspace import ledger_key
    from credit.reporting.export import export_period

    if unsigned and key is not None:
        raise click.UsageError("--unsigned and --signing-key exclude each other")
    with workspace.open() as ledger, progress_bar("exporting", "folders") as advance:
        with ledger.read() as conn:
            pseudonyms = None if name_outputs else ledger_key(workspace, conn, user_key)
        folders = export_period(
            ledger,
            workspace.books,
            period,
            out,
            key=key,
            unsigned=unsigned,
            pseudonyms=pseudonyms,
            progress=advance,
        )
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
@click.argument("folder", type=FILE)
@click.option(
    "--key", "keys", required=True, multiple=True, metavar="PUBLIC_KEY",
    help="The issuer's public key: its line, or a file of it. May be repeated.",
)  # fmt: skip
@click.option("--before", type=FILE, metavar="FOLDER", help="The folder, or the head, of an earlier month.")
@json_option
def verify_statement(folder: Path, keys: tuple[str, ...], before: Path | None) -> None:
    """Check a provider's signed FOLDER: every file, the statement's place in the ledger, and the ledger's growth.

    Needs no ledger and no network; check.py in the folder does the same. The command prints the amount to be paid.

    \b
    Example: credit verify-statement ada --key 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo= --before last-month/ada
    """
    from credit.proofs import told
    from credit.reporting.signatures import read_public_key, verify_folder

    found = verify_folder(folder, [read_public_key(key) for key in keys], before=before)
    head = {"origin": found.head.origin, "size": found.head.size, "time": found.head.time}
    names = (
        "provider",
        "period",
        "version",
        "issued",
        "sha256",
        "payable",
        "key",
        "files",
        "leaf",
        "extends",
        "compared",
    )
    say({name: getattr(found, name) for name in names} | {"head": head}, *told(found))
