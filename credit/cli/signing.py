"""`credit signing-key` and `credit verify-statement`."""

from __future__ import annotations

from pathlib import Path

import click

from credit.cli.options import FILE, json_option, say


@click.command()
@click.argument("file", type=FILE)
@click.option("--show", is_flag=True, help="Make nothing; print the public key of the key that is there.")
@json_option
def signing_key(file: Path, show: bool, as_json: bool) -> None:
    """Make the key that statements are signed with, in a new FILE, and print its public key.

    Keep FILE to yourself and back it up. Give the public key to everybody who receives statements, by another way than
    with them.

    \b
    Example: credit signing-key credit-signing.pem
             credit export 2026-10 --out statements --signing-key credit-signing.pem
    """
    from credit.reporting.signatures import create_key, load_key, public_text

    public = public_text(load_key(file) if show else create_key(file))
    say(as_json, {"public_key": public}, public)


@click.command()
@click.argument("file", type=FILE)
@click.option("--key", required=True, metavar="PUBLIC_KEY", help="The signer's public key: its line, or a file of it.")
@click.option("--signature", type=FILE, help="The signature. [default: statement.sig beside FILE]")
@json_option
def verify_statement(file: Path, key: str, signature: Path | None, as_json: bool) -> None:
    """Check that the statement FILE is what the owner of a key signed. Needs no ledger and no network.

    What it says is to be paid is printed from FILE itself: the page beside it is not signed.

    \b
    Example: credit verify-statement statement.json --key 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
    """
    from dataclasses import asdict

    from credit.reporting.signatures import read_public_key
    from credit.reporting.signatures import verify_statement as check

    found = check(file, read_public_key(key), signature=signature)
    text = f"{file} is the signed statement of {found.provider} for {found.period} (SHA-256 {found.sha256})"
    text += "".join(f"\nto be paid: {amount} {currency}" for currency, amount in found.payable.items())
    say(as_json, asdict(found), text)
