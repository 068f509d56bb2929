"""`credit adjust`, `credit reverse`, `credit balance`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from credit.cli.options import DAY, NUMBER, PERIOD, json_option, say, workspace_options

if TYPE_CHECKING:
    from credit.ledger.journal import Posted
    from credit.pipeline.workspace import Workspace


@click.command(context_settings={"ignore_unknown_options": True})  # so that -12.50 is an amount, not an option
@click.argument("provider")
@click.argument("amount")
@click.argument("currency")
@click.option("--period", type=PERIOD, required=True, help="The open period (YYYY-MM) whose statement shows it.")
@click.option("--reason", required=True, help="Printed on the statement.")
@click.option("--cites", type=NUMBER, metavar="TXN", help="The transaction that it corrects.")
@click.option("--key", help="Tells apart two adjustments that say the same.")
@click.option(
    "--from-escrow", is_flag=True, help="Out of what closes with --house escrow hold, not of the house's own."
)
@workspace_options
@json_option
def adjust(
    workspace: Workspace,
    provider: str,
    amount: str,
    currency: str,
    period: str,
    reason: str,
    cites: int | None,
    key: str | None,
    from_escrow: bool,
    as_json: bool,
) -> None:
    """Correct what is owed to PROVIDER by AMOUNT (negative: in the house's favour). Again changes nothing.

    With --from-escrow, what nobody earned and was held is paid to who has a claim to it, or given to `house`, the
    owner, where nobody has: credit balance money:escrow.

    \b
    Example: credit adjust anna-books -12.50 EUR --period 2026-11 --reason "counted twice in October" --cites 118
             credit adjust anna-books 40.00 EUR --period 2026-11 --reason "claim of 2026-10-12" --from-escrow
    """
    from datetime import UTC

    from credit.accounting.amounts import parse_amount
    from credit.ledger.corrections import adjust as post_adjustment

    minor = parse_amount(amount, currency, allow_negative=True)
    with workspace.open() as ledger, ledger.write() as conn:
        done = post_adjustment(
            conn,
            provider,
            minor,
            currency,
            period=period,
            reason=reason,
            cites=cites,
            key=key,
            from_escrow=from_escrow,
            now=datetime.now(UTC),
        )
    source = " out of escrow" if from_escrow else ""
    _report(as_json, done, f"the adjustment of {provider} by {amount} {currency}{source}")


@click.command()
@click.argument("txn", type=NUMBER)
@click.option("--reason", required=True, help="Why, in words.")
@workspace_options
@json_option
def reverse(workspace: Workspace, txn: int, reason: str, as_json: bool) -> None:
    """Undo transaction TXN by its negation, in its own period or the first open one. Again changes nothing.

    \b
    Example: credit reverse 118 --reason "the pool was entered twice"
    """
    from datetime import UTC

    from credit.ledger.corrections import transaction_in_words, undo

    with workspace.open() as ledger, ledger.write() as conn:
        done = undo(conn, txn, reason=reason, now=datetime.now(UTC))
        what = transaction_in_words(conn, txn)
    _report(as_json, done, f"the reversal of transaction {txn} ({what})")


def _report(as_json: bool, done: Posted, what: str) -> None:
    facts = {"transaction": done.txn_id, "hash": done.hash, "replayed": done.replayed}
    was = "was posted before, as" if done.replayed else "is posted, as"
    say(as_json, facts, f"{what} {was} transaction {done.txn_id}")


@click.command()
@click.argument("whose", metavar="ACCOUNT|PROVIDER")
@click.option("--effective", type=DAY, metavar="DAY", help="Count what took effect by this day.")
@click.option(
    "--recorded", metavar="MOMENT", help="Count what was recorded by this moment (ISO 8601 with zone, or a UTC day)."
)
@workspace_options
@json_option
def balance(workspace: Workspace, whose: str, effective: datetime | None, recorded: str | None, as_json: bool) -> None:
    """Show what an account holds, or every account of a provider, as of a day and as of what was known.

    \b
    Example: credit balance anna-books
             credit balance money:payable:anna-books --effective 2026-09-30 --recorded 2026-10-05T12:00:00Z
    """
    from credit.accounting.amounts import amount_text
    from credit.ledger.balances import balances

    known_by = None if recorded is None else _moment(recorded)
    with workspace.open() as ledger, ledger.read() as conn:
        found = balances(conn, whose, effective=effective.date() if effective else None, recorded=known_by)

    rows = [(item.account, amount_text(item.amount, item.commodity), item.commodity) for item in found]
    width = max((len(row[0]) for row in rows), default=0)
    digits = max((len(row[1]) for row in rows), default=0)
    lines = [f"{key:<{width}}  {amount:>{digits}} {commodity}" for key, amount, commodity in rows]
    facts = [{"account": key, "balance": amount, "commodity": commodity} for key, amount, commodity in rows]
    say(as_json, {"balances": facts}, "\n".join(lines or [f"nothing was ever posted for {whose}"]))


def _moment(text: str) -> datetime:
    """Read a moment with its zone, or a day in UTC to its end."""
    from datetime import UTC, timedelta

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"--recorded {text!r} is not a moment such as 2026-10-05T12:00:00Z") from None
    if len(text) == len("2026-10-05"):
        return moment.replace(tzinfo=UTC) + timedelta(days=1, microseconds=-1)
    if moment.tzinfo is None:
        raise click.UsageError(f"--recorded {text!r} has no time zone; write {text}Z if it is UTC")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise click.UsageError(f"--recorded {text!r} is not in the years 1 to 9999 in UTC") from None
