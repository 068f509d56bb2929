"""`credit signing-key`, and the options of signing commands: the key's file and its passphrase."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from credit.cli.options import FILE, CommandGroup, json_option, ledger_options
from credit.cli.printing import say

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from credit.ledger.signing_keys import KeyEvent
    from credit.pipeline.workspace import Workspace

R = TypeVar("R")

PASSPHRASE = "CREDIT_SIGNING_PASSPHRASE"  # noqa: S105 - the variable's name

passphrase_option = click.option(
    "--passphrase-file", type=FILE, help=f"File with the passphrase of the key.  [default: {PASSPHRASE}, or asked for]"
)


def signing_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add `--signing-key` and `--passphrase-file`, and pass the loaded key, or None, on as `key`."""

    @click.option(
        "--signing-key",
        type=FILE,
        envvar="CREDIT_SIGNING_KEY",
        show_envvar=True,
        help="File of the key that signs (credit signing-key).",
    )
    @passphrase_option
    @functools.wraps(command)
    def with_key(*args: Any, signing_key: Path | None, passphrase_file: Path | None, **kwargs: Any) -> R:
        key = None if signing_key is None else load(signing_key, passphrase_file)
        return command(*args, key=key, **kwargs)

    return with_key


def load(path: Path, passphrase_file: Path | None) -> Ed25519PrivateKey:
    """Read a private key, with its passphrase where it has one: from a file, the environment, or the terminal."""
    from credit.reporting.signatures import is_protected, load_key

    secret = _given_passphrase(passphrase_file)
    if not secret and is_protected(path) and sys.stdin.isatty():
        secret = click.prompt(f"passphrase of {path}", hide_input=True, err=True)
    return load_key(path, secret)


def _given_passphrase(file: Path | None) -> str:
    if file is None:
        return os.environ.get(PASSPHRASE, "")
    secret = file.read_text("utf-8").splitlines()
    if not secret or not secret[0]:
        raise click.UsageError(f"{file} holds no passphrase in its first line")
    return secret[0]


@click.group(cls=CommandGroup)
def signing_key() -> None:
    """Make, hand over and revoke the keys for exports and heads. The ledger keeps their history.

    \b
    Example: credit signing-key new credit-signing.pem
    """


@signing_key.command()
@click.argument("file", type=FILE)
@click.option("--existing", is_flag=True, help="Enter the key in FILE; make none.")
@click.option("--origin", metavar="NAME", help="The ledger's name in heads, such as example.com/credit; it stays.")
@click.option("--protect", is_flag=True, help="Ask for a passphrase for the new FILE.")
@passphrase_option
@ledger_options
def new(
    workspace: Workspace, file: Path, existing: bool, origin: str | None, protect: bool, passphrase_file: Path | None
) -> None:
    """Make the signing key in a new FILE, enter it, and print its public key.

    Keep FILE to yourself and back it up. Give the public key to everybody who receives statements, by another way than
    with them. FILE is encrypted if a passphrase is given: by CREDIT_SIGNING_PASSPHRASE, --passphrase-file or --protect.

    \b
    Example: credit signing-key new credit-signing.pem --protect
             credit export 2026-10 --out statements --signing-key credit-signing.pem
    """
    from credit.ledger.signing_keys import enter_key
    from credit.reporting.signatures import create_key

    with workspace.open() as ledger:
        key = load(file, passphrase_file) if existing else create_key(file, _new_passphrase(passphrase_file, protect))
        with ledger.write() as conn:
            event = enter_key(conn, key.public_key(), now=datetime.now(UTC), origin=origin)
    say(event, event.public_key)


def _new_passphrase(file: Path | None, protect: bool) -> str:
    secret = _given_passphrase(file)
    if protect and not secret:
        secret = click.prompt("passphrase", hide_input=True, confirmation_prompt=True, err=True)
    return secret


@signing_key.command()
@click.argument("old", type=FILE)
@click.argument("file", type=FILE)
@click.option("--protect", is_flag=True, help="Ask for a passphrase for the new FILE.")
@passphrase_option
@ledger_options
def rotate(workspace: Workspace, old: Path, file: Path, protect: bool, passphrase_file: Path | None) -> None:
    """Hand over from the key in OLD to a new one in FILE; exports then carry the old key's word for the new one.

    Whoever knows the old public key can check folders of both. A FILE already there is taken as it is, so the command
    can be repeated.

    \b
    Example: credit signing-key rotate credit-signing.pem credit-signing-2027.pem
    """
    from credit.ledger.signing_keys import rotate_key
    from credit.reporting.signatures import create_key

    before = load(old, passphrase_file)
    with workspace.open() as ledger:
        key = (
            load(file, passphrase_file)
            if file.exists()
            else create_key(file, _new_passphrase(passphrase_file, protect))
        )
        with ledger.write() as conn:
            event = rotate_key(conn, before, key.public_key(), now=datetime.now(UTC))
    say(event, event.public_key)


@signing_key.command()
@click.argument("public_key")
@click.option("--reason", required=True, help="Why, in words; it stays on record.")
@ledger_options
def revoke(workspace: Workspace, public_key: str, reason: str) -> None:
    """Revoke PUBLIC_KEY: it signs no more, and folders of later keys say so.

    Tell everybody who has it, by another way than with a folder: a folder that was signed earlier cannot know. Then
    make a new key.

    \b
    Example: credit signing-key revoke 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo= --reason "the laptop was stolen"
    """
    from credit.ledger.signing_keys import revoke_key

    with workspace.open() as ledger, ledger.write() as conn:
        event = revoke_key(conn, public_key, reason=reason, now=datetime.now(UTC))
    say(event, f"{event.public_key} is revoked; make another key: credit signing-key new FILE")


@signing_key.command(name="list")
@ledger_options
def list_keys(workspace: Workspace) -> None:
    """List the signing keys of the ledger, with each act on them and its day.

    \b
    Example: credit signing-key list
    """
    from credit.ledger.signing_keys import active_key, key_history

    with workspace.open() as ledger, ledger.read() as conn:
        history, active = key_history(conn), active_key(conn)
    lines = [f"{item.public_key}  {_act(item, active)}" for item in history]
    say({"keys": history, "active": active}, *(lines or ["no key signs yet: credit signing-key new FILE"]))


def _act(item: KeyEvent, active: KeyEvent | None) -> str:
    act = {"new": "entered", "rotated": "named by the key before", "revoked": "revoked"}[item.action]
    done = f"{act} {item.created_at:%Y-%m-%d}" + (f": {item.reason}" if item.reason else "")
    return f"{done}, signs now" if item == active else done


@signing_key.command()
@click.argument("file", type=FILE)
@passphrase_option
@json_option
def show(file: Path, passphrase_file: Path | None) -> None:
    """Print the public key of the key in FILE. Needs no ledger.

    \b
    Example: credit signing-key show credit-signing.pem
    """
    from credit.proofs import key_text

    public = key_text(load(file, passphrase_file).public_key())
    say({"public_key": public}, public)
