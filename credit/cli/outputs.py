"""`credit outputs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from credit.cli.options import Group, json_option, say, workspace_options

if TYPE_CHECKING:
    from credit.ledger.set_aside import SetAside
    from credit.pipeline.workspace import Workspace


@click.group(cls=Group)
def outputs() -> None:
    """Outputs that wait to be valued, and what to do with one that cannot be.

    \b
    Example: credit outputs set-aside o117 --reason "empty completion"
    """


@outputs.command(name="set-aside")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--reason", required=True, help="Why, in words; it stays on record.")
@workspace_options
@json_option
def set_aside(workspace: Workspace, names: tuple[str, ...], reason: str, as_json: bool) -> None:
    """Set outputs aside that cannot be valued: they distribute nothing, and hold up no close.

    All of them, or none. The same command again changes nothing.

    \b
    Example: credit outputs set-aside o117 openai:chatcmpl-9 --reason "empty completion"
    """
    from datetime import UTC, datetime

    from credit.ledger.set_aside import set_aside as act

    with workspace.open() as ledger, ledger.write() as conn:
        done = [act(conn, name, reason, now=datetime.now(UTC)) for name in names]
    _report(as_json, done)


@outputs.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--reason", required=True, help="Why, in words; it stays on record.")
@workspace_options
@json_option
def restore(workspace: Workspace, names: tuple[str, ...], reason: str, as_json: bool) -> None:
    """Let outputs that were set aside wait to be valued again; what they give then counts in the open period.

    \b
    Example: credit outputs restore o117 --reason "the new index can value it"
    """
    from datetime import UTC, datetime

    from credit.ledger.set_aside import restore as act

    with workspace.open() as ledger, ledger.write() as conn:
        done = [act(conn, name, reason, now=datetime.now(UTC)) for name in names]
    _report(as_json, done)


@outputs.command(name="list")
@click.option("--history", is_flag=True, help="Also what was taken back.")
@click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, help="Waiting outputs to name.")
@workspace_options
@json_option
def list_all(workspace: Workspace, history: bool, limit: int, as_json: bool) -> None:
    """List the outputs that wait to be valued, and those that are set aside.

    \b
    Example: credit outputs list --history
    """
    from dataclasses import asdict

    from credit.ledger.outputs import pending_count, pending_names
    from credit.ledger.set_aside import history as everything
    from credit.ledger.set_aside import standing

    with workspace.open() as ledger, ledger.read() as conn:
        waiting, names = pending_count(conn, weighty=True), pending_names(conn, limit=limit)
        events = everything(conn) if history else standing(conn)
    more = ", ..." if waiting > len(names) else ""
    lines = [f"{waiting} wait to be valued" + (f": {', '.join(names)}{more}" if names else "")]
    lines += [_line(item) for item in events] or ["nothing is set aside"]
    say(as_json, {"waiting": waiting, "names": names, "set_aside": [asdict(item) for item in events]}, "\n".join(lines))


def _report(as_json: bool, done: list[SetAside]) -> None:
    from dataclasses import asdict

    say(as_json, {"outputs": [asdict(item) for item in done]}, "\n".join(map(_line, done)))


def _line(item: SetAside) -> str:
    from credit.accounting.amounts import amount_text
    from credit.records import CREDIT

    what = "set aside" if item.action == "set-aside" else "taken back"
    return (
        f"{item.output} ({amount_text(item.weight_micro, CREDIT)} credits, {item.period}): {what} on"
        f" {item.recorded_at:%Y-%m-%d}, transaction {item.txn_id}: {item.reason}"
    )
