"""`credit models`: names of models in logs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from credit.cli.options import CommandGroup, ledger_options
from credit.cli.printing import aligned, say

if TYPE_CHECKING:
    from credit.pipeline.workspace import Workspace


@click.group(cls=CommandGroup)
def models() -> None:
    """Names in logs that stand for a model with an index.

    \b
    Example: credit models alias openai/my-llm my-llm
    """


@models.command()
@click.argument("name")
@click.argument("model")
@ledger_options
def alias(workspace: Workspace, name: str, model: str) -> None:
    """Let NAME in logs stand for MODEL, the name of an index.

    NAME may be a pattern with *. A name goes before a pattern, a longer pattern before a shorter one, and of the same
    one the newest counts. Outputs that are logged stay as they are.

    \b
    Example: credit models alias openai/my-llm my-llm
             credit models alias "my-llm-2026-*" my-llm
    """
    from credit.ledger.aliases import add_alias

    with workspace.open() as ledger, ledger.write() as conn:
        is_new = add_alias(conn, name, model, now=datetime.now(UTC))
    said = "stands for" if is_new else "stands already for"
    say({"alias": name, "model": model, "changed": is_new}, f"{name} in logs {said} {model}")


@models.command(name="list")
@ledger_options
def list_all(workspace: Workspace) -> None:
    """List the models with an index, and the names in logs that stand for them.

    \b
    Example: credit models list
    """
    from credit.ledger.aliases import aliases
    from credit.ledger.indexes import models as indexed

    with workspace.open() as ledger, ledger.read() as conn:
        known, others = list(indexed(conn)), aliases(conn)
    rows = [(name, ", ".join(item.pattern for item in others if item.model == name)) for name in known]
    say({"models": known, "aliases": others}, *(aligned(rows) if rows else ["no model has an index"]))
