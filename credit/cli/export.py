"""`credit export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from credit.cli.options import FILE, PERIOD, json_option, say, warn, workspace_options

if TYPE_CHECKING:
    from credit.pipeline.workspace import Workspace


@click.command()
@click.argument("period", type=PERIOD)
@click.option("--out", type=FILE, required=True, help="Folder that gets one folder per provider.")
@click.option(
    "--signing-key",
    type=FILE,
    envvar="CREDIT_SIGNING_KEY",
    show_envvar=True,
    help="Sign the statements with this key (credit signing-key). [default: unsigned]",
)
@workspace_options
@json_option
def export(workspace: Workspace, period: str, out: Path, signing_key: Path | None, as_json: bool) -> None:
    """Write one folder per provider for PERIOD (YYYY-MM): its statement and its numbers, and nobody else's.

    \b
    Example: credit export 2026-10 --out statements/2026-10
    """
    from credit.reporting.export import export_period
    from credit.reporting.signatures import load_key

    key = None if signing_key is None else load_key(signing_key)
    with workspace.open() as ledger:
        folders = export_period(ledger, workspace.books, period, out, key=key)
    if key is None:
        warn(["statements are not signed; a key to sign them: credit signing-key --help"])
    facts = {"folders": list(map(str, folders)), "signed": key is not None}
    say(as_json, facts, "\n".join(map(str, folders)) or f"{period} has no statements: no provider earned or is owed")
