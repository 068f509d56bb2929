"""`credit hold`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from credit.cli.options import Group, json_option, say, workspace_options

if TYPE_CHECKING:
    from credit.ledger.holds import HoldEvent
    from credit.pipeline.workspace import Workspace


@click.group(cls=Group)
def hold() -> None:
    """Hold back what a provider would be paid, or what one of its collections earns, or release it, with the reason.

    \b
    Example: credit hold place anna-books --reason "rights disputed by the estate"
    """


@hold.command()
@click.argument("provider")
@click.option("--currency", help="Hold only this currency. [default: all]")
@click.option("--collection", metavar="NAME", help="Hold only what this collection earns from now on.")
@click.option("--reason", required=True, help="Printed on the statement.")
@workspace_options
@json_option
def place(
    workspace: Workspace, provider: str, currency: str | None, collection: str | None, reason: str, as_json: bool
) -> None:
    """Carry forward what PROVIDER is owed, until the hold is released.

    With --collection, every close puts what that collection earned aside, the rest is paid as usual; no advance is
    recouped from it and no debt set off against it. The first close after its release counts it as earned. If it turns
    out to be somebody else's, release it and move it with credit adjust before that close.

    \b
    Example: credit hold place anna-books --currency EUR --reason "bank details in doubt"
             credit hold place anna-books --collection novels --reason "rights disputed by the estate"
    """
    from dataclasses import asdict
    from datetime import UTC, datetime

    from credit.accounting.amounts import currency_digits
    from credit.ledger.holds import place_hold

    if currency is not None:
        currency_digits(currency)  # refuses what is no currency: money in it would never be held

    with workspace.open() as ledger, ledger.write() as conn:
        done = place_hold(conn, provider, currency, reason, collection=collection, now=datetime.now(UTC))
    say(as_json, asdict(done), _line(done))


@hold.command()
@click.argument("provider")
@click.option("--currency", help="The currency that was held. [default: all]")
@click.option("--collection", metavar="NAME", help="The collection that was held.")
@click.option("--reason", required=True, help="Why it is released.")
@workspace_options
@json_option
def release(
    workspace: Workspace, provider: str, currency: str | None, collection: str | None, reason: str, as_json: bool
) -> None:
    """Pay PROVIDER again; what was carried forward is paid with the next close.

    \b
    Example: credit hold release anna-books --currency EUR --reason "settled"
             credit hold release anna-books --collection novels --reason "the estate withdrew"
    """
    from dataclasses import asdict
    from datetime import UTC, datetime

    from credit.ledger.holds import release_hold

    with workspace.open() as ledger, ledger.write() as conn:
        done = release_hold(conn, provider, currency, reason, collection=collection, now=datetime.now(UTC))
    say(as_json, asdict(done), _line(done))


@hold.command(name="list")
@click.argument("provider", required=False)
@click.option("--history", is_flag=True, help="Also what was released.")
@workspace_options
@json_option
def list_all(workspace: Workspace, provider: str | None, history: bool, as_json: bool) -> None:
    """List the holds that stand, of PROVIDER or of all.

    \b
    Example: credit hold list --history
    """
    from dataclasses import asdict

    from credit.ledger.holds import hold_history, holds

    with workspace.open() as ledger, ledger.read() as conn:
        events = hold_history(conn, provider)
        standing = holds(conn).values()
    found = [item for item in events if history or item in standing]
    text = "\n".join(map(_line, found)) or "nothing is on hold"
    say(as_json, {"holds": [asdict(item) for item in found]}, text)


def _line(item: HoldEvent) -> str:
    done = "held since" if item.action == "hold" else "released on"
    what = f"collection {item.collection}" if item.collection else item.currency or "all currencies"
    return f"{item.provider} ({what}): {done} {item.created_at:%Y-%m-%d}: {item.reason}"
