"""`credit outputs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from credit.cli.options import Group, json_option, say, workspace_options

if TYPE_CHECKING:
    from credit.ledger.unvalued import UnvaluedEvent
    from credit.pipeline.workspace import Workspace


@click.group(cls=Group)
def outputs() -> None:
    """Pending outputs, and those that can never be valued.

    \b
    Example: credit outputs unvalue o117 --reason "empty completion"
    """


@outputs.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--reason", required=True, help="Why, in words; it stays on record.")
@workspace_options
@json_option
def unvalue(workspace: Workspace, names: tuple[str, ...], reason: str, as_json: bool) -> None:
    """Take out outputs that can never be valued, so that a period can close: they distribute nothing.

    All of them, or none. The same command again changes nothing.

    \b
    Example: credit outputs unvalue o117 openai:chatcmpl-9 --reason "empty completion"
    """
    from datetime import UTC, datetime

    from credit.ledger.unvalued import unvalue as act

    with workspace.open() as ledger, ledger.write() as conn:
        done = [act(conn, name, reason, now=datetime.now(UTC)) for name in names]
    _report(as_json, done)


@outputs.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--reason", required=True, help="Why, in words; it stays on record.")
@workspace_options
@json_option
def restore(workspace: Workspace, names: tuple[str, ...], reason: str, as_json: bool) -> None:
    """Make unvalued outputs pending again; the credits that they give then count in the open period.

    \b
    Example: credit outputs restore o117 --reason "the new index can value it"
    """
    from datetime import UTC, datetime

    from credit.ledger.unvalued import restore as act

    with workspace.open() as ledger, ledger.write() as conn:
        done = [act(conn, name, reason, now=datetime.now(UTC)) for name in names]
    _report(as_json, done)


@outputs.command(name="list")
@click.option("--history", is_flag=True, help="Also the outputs that were restored.")
@click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, help="Waiting outputs to name.")
@workspace_options
@json_option
def list_all(workspace: Workspace, history: bool, limit: int, as_json: bool) -> None:
    """List the pending outputs, and the unvalued ones.

    \b
    Example: credit outputs list --history
    """
    from dataclasses import asdict

    from credit.ledger.outputs import pending_count, pending_names
    from credit.ledger.unvalued import history as everything
    from credit.ledger.unvalued import unvalued_outputs

    with workspace.open() as ledger, ledger.read() as conn:
        waiting, names = pending_count(conn, weighty=True), pending_names(conn, limit=limit)
        events = everything(conn) if history else unvalued_outputs(conn)
    more = ", ..." if waiting > len(names) else ""
    lines = [f"{waiting} wait to be valued" + (f": {', '.join(names)}{more}" if names else "")]
    lines += [_line(item) for item in events] or ["no output is unvalued"]
    say(as_json, {"waiting": waiting, "names": names, "unvalued": [asdict(item) for item in events]}, "\n".join(lines))


def _report(as_json: bool, done: list[UnvaluedEvent]) -> None:
    from dataclasses import asdict

    say(as_json, {"outputs": [asdict(item) for item in done]}, "\n".join(map(_line, done)))


def _line(item: UnvaluedEvent) -> str:
    from credit.accounting.amounts import amount_text
    from credit.records import CREDIT

    since = "unvalued since" if item.action == "unvalued" else "restored on"
    return (
        f"{item.output} ({amount_text(item.weight_micro, CREDIT)} credits, {item.period}): {since}"
        f" {item.recorded_at:%Y-%m-%d}, transaction {item.txn_id}: {item.reason}"
    )
