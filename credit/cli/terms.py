"""`credit providers terms`, `contract` and `advance`, and `credit hold`: the conditions of being paid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

import click

from credit.cli.approve import act
from credit.cli.options import CURRENCY, DAY, FILE, CommandGroup, ledger_options, printed_reason_option
from credit.cli.printing import say, say_posted
from credit.records import PaymentFormat
from credit.text import counted

if TYPE_CHECKING:
    from credit.ledger.holds import HoldEvent
    from credit.ledger.terms import Agreement
    from credit.pipeline.workspace import Workspace

R = TypeVar("R")


@click.command()
@click.argument("key")
@click.option("--currency", type=CURRENCY, help="Currency of the money that the terms are about.")
@click.option("--from", "begin", type=DAY, help="First day on which they hold.  [default: today]")
@click.option("--to", "end", type=DAY, help="Last day.  [default: until something later is agreed]")
@click.option("--rate", metavar="PERCENT", help="The provider's share of an allocation, such as 70%.")
@click.option("--minimum-payout", metavar="AMOUNT", help="Smaller amounts are carried forward.")
@click.option("--reserve", metavar="PERCENT", help="Share of the earnings that is held back.")
@click.option("--release-after", type=click.IntRange(0, 1200), metavar="MONTHS", help="Age at which it is released.")
@click.option("--recoupment", metavar="PERCENT", help="Share of the earnings that may go towards advances.")
@click.option("--withholding", metavar="PERCENT", help="Share of a payout that is withheld as tax.")
@click.option("--fee", metavar="AMOUNT", help="Fee taken from every payout.")
@click.option("--pay-in", type=CURRENCY, help="Convert the balance to this currency, and pay it there.")
@click.option(
    "--channel",
    type=click.Choice([*get_args(PaymentFormat), "any"]),
    help="Pay through this channel: the close carries forward what it cannot carry. any: ends that.",
)
@click.option("--agreement", metavar="TEXT", help="Reference of the contract.")
@click.option("--supersede", is_flag=True, help="Replace the terms that were agreed for these days.")
@ledger_options
def terms(
    workspace: Workspace,
    key: str,
    currency: str | None,
    begin: datetime | None,
    end: datetime | None,
    rate: str | None,
    minimum_payout: str | None,
    reserve: str | None,
    release_after: int | None,
    recoupment: str | None,
    withholding: str | None,
    fee: str | None,
    pay_in: str | None,
    channel: PaymentFormat | Literal["any"] | None,
    agreement: str | None,
    supersede: bool,
) -> None:
    """Show the terms of provider KEY, or agree new ones.

    A close settles a period on the terms of its last day. Terms are never edited: a new version holds from its first
    day on, and keeps everything that it does not name. With --pay-in, the close converts the balance by the rate given
    for the period (credit fx add); --pay-in of the currency itself ends that. With --channel, the close pays what that
    channel can carry: PayPal carries whole HUF alone, and a rest below one is carried forward.

    \b
    Example: credit providers terms anna-books
             credit providers terms anna-books --currency EUR --rate 70% --reserve 10% --release-after 3
             credit providers terms anna-books --currency USD --pay-in EUR
    """
    from credit.accounting.amounts import parse_amount, parse_percent
    from credit.approval.actions import AmendTerms
    from credit.ledger.terms import history

    shares = {"rate_ppm": rate, "reserve_ppm": reserve, "recoupment_ppm": recoupment, "withholding_ppm": withholding}
    amounts = {"minimum_payout_minor": minimum_payout, "fee_minor": fee}
    changes: dict[str, int | str | None] = {
        name: parse_percent(text) for name, text in shares.items() if text is not None
    }
    if release_after is not None:
        changes["reserve_release_periods"] = release_after
    if pay_in is not None:
        changes["pay_in"] = "" if pay_in == currency else pay_in
    if channel is not None:
        changes["channel"] = None if channel == "any" else channel
    if agreement is not None:
        changes["agreement_reference"] = agreement
    changing = bool(changes) or any(amounts.values()) or begin is not None or end is not None or supersede
    now = datetime.now(UTC)
    if changing:
        if currency is None:
            raise click.UsageError("terms are about money in one currency: --currency")
        changes |= {name: parse_amount(text, currency) for name, text in amounts.items() if text is not None}
        first, last = (begin or now).date(), end.date() if end else None
        act(workspace, AmendTerms(key, currency, changes, str(first), str(last) if last else None, supersede))
    with workspace.open() as ledger, ledger.read() as conn:
        found = history(conn, key, currency)
    nothing = f"nothing is agreed with {key}: it gets its whole share, unconditionally"
    say({"provider": key, "terms": found}, *(map(_agreement_line, found) if found else [nothing]))


def _agreement_line(item: Agreement) -> str:
    from credit.accounting.amounts import format_amount, format_percent
    from credit.accounting.payability import CARRIAGE

    agreed = item.terms
    parts = [f"rate {format_percent(agreed.rate_ppm)}"]
    parts.append(f"minimum payout {format_amount(agreed.minimum_payout_minor, item.currency)}")
    if agreed.reserve_ppm:
        parts.append(
            f"reserve {format_percent(agreed.reserve_ppm)} for {counted(agreed.reserve_release_periods, 'month')}"
        )
    parts.append(f"recoupment up to {format_percent(agreed.recoupment_ppm)}")
    if agreed.withholding_ppm:
        parts.append(f"withholding {format_percent(agreed.withholding_ppm)}")
    if agreed.fee_minor:
        parts.append(f"fee {format_amount(agreed.fee_minor, item.currency)}")
    if agreed.pay_in:
        parts.append(f"paid in {agreed.pay_in}")
    if agreed.channel:
        parts.append(f"paid through {CARRIAGE[agreed.channel].title}")
    if agreed.agreement_reference:
        parts.append(f"agreement {agreed.agreement_reference}")
    begin = "the beginning" if item.valid_from == date.min else item.valid_from
    end = f"to {item.valid_to}" if item.valid_to else "on"
    return f"{item.currency} v{item.version} from {begin} {end}: {', '.join(parts)}{_by(item.actor)}"


def _by(actor: str | None) -> str:
    return f" (by {actor})" if actor else ""


@click.command()
@click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE...")
@click.option("--supersede", is_flag=True, help="Replace the terms that were agreed for these days.")
@ledger_options
def contract(workspace: Workspace, files: tuple[Path, ...], supersede: bool) -> None:
    """Agree the terms in contracts: a TOML file for each provider, with a table [[terms]] for each currency and time.

    Each version is whole: what it does not name has its default. All files are read before anything is agreed, and
    what is agreed is shown in words. Repeating the command changes nothing. docs/commands.md shows a contract.

    \b
    Example: credit providers contract contracts/anna-books.toml
    """
    from credit.approval.actions import AmendTerms
    from credit.pipeline.contracts import read_contract

    versions = [item for path in files for item in read_contract(path)]
    agreed = []
    for item in versions:
        end = str(item.valid_to) if item.valid_to else None
        action = AmendTerms(item.provider, item.currency, item.changes, str(item.valid_from), end, supersede)
        agreed.append(replace(act(workspace, action), actor=None))  # the same words for new and known terms
    say({"terms": agreed}, *(f"{item.provider}: {_agreement_line(item)}" for item in agreed))


@click.command()
@click.argument("key")
@click.argument("amount")
@click.argument("currency", type=CURRENCY)
@click.option("--paid-on", type=DAY, required=True, help="Day of the payment.")
@click.option("--reference", required=True, help="Reference of the payment; repeating it changes nothing.")
@ledger_options
def advance(workspace: Workspace, key: str, amount: str, currency: str, paid_on: datetime, reference: str) -> None:
    """Record an advance of AMOUNT paid to provider KEY.

    Later earnings in the same currency are set off against it, never more than was earned.

    \b
    Example: credit providers advance anna-books 500.00 EUR --paid-on 2026-01-15 --reference transfer-881
    """
    from credit.accounting.amounts import parse_amount
    from credit.approval.actions import PayAdvance

    minor = parse_amount(amount, currency)
    done = act(workspace, PayAdvance(key, minor, currency, str(paid_on.date()), reference))
    say_posted(done, f"the advance {reference}", "recorded")


@click.group(cls=CommandGroup)
def hold() -> None:
    """Hold back money of a provider, or the earnings of one of its collections, with the reason; or release it.

    \b
    Example: credit hold place anna-books --reason "rights disputed by the estate"
    """


def _scope_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add what a hold is about: PROVIDER, `--currency`, `--collection`, and its `--reason`."""
    command = printed_reason_option(command)
    command = click.option("--collection", metavar="NAME", help="Only the earnings of this collection.")(command)
    command = click.option("--currency", type=CURRENCY, help="Only this currency.  [default: all]")(command)
    return click.argument("provider")(command)


@hold.command()
@_scope_options
@ledger_options
def place(workspace: Workspace, provider: str, currency: str | None, collection: str | None, reason: str) -> None:
    """Carry forward the balance of PROVIDER until the hold is released.

    With --collection, every close keeps the earnings of that collection apart and pays the rest as usual; they serve
    neither advances nor debts. The first close after the release counts them as earned. If they turn out to be
    somebody else's, release the hold and move them with credit adjust before that close.

    \b
    Example: credit hold place anna-books --currency EUR --reason "bank details in doubt"
             credit hold place anna-books --collection novels --reason "rights disputed by the estate"
    """
    from credit.ledger.holds import place_hold

    with workspace.open() as ledger, ledger.write() as conn:
        done = place_hold(conn, provider, currency, reason, collection=collection, now=datetime.now(UTC))
    say(done, _hold_line(done))


@hold.command()
@_scope_options
@ledger_options
def release(workspace: Workspace, provider: str, currency: str | None, collection: str | None, reason: str) -> None:
    """Release a hold: the next close pays the amounts that were carried forward.

    \b
    Example: credit hold release anna-books --currency EUR --reason "settled"
             credit hold release anna-books --collection novels --reason "the estate withdrew"
    """
    from credit.approval.actions import ReleaseHold

    done = act(workspace, ReleaseHold(provider, reason, currency, collection))
    say(done, _hold_line(done))


@hold.command(name="list")
@click.argument("provider", required=False)
@click.option("--history", is_flag=True, help="Include released holds.")
@ledger_options
def list_all(workspace: Workspace, provider: str | None, history: bool) -> None:
    """List the holds that stand, of PROVIDER or of all.

    \b
    Example: credit hold list --history
    """
    from credit.ledger.holds import hold_history, holds

    with workspace.open() as ledger, ledger.read() as conn:
        events = hold_history(conn, provider)
        standing = holds(conn).values()
    found = [item for item in events if history or item in standing]
    say({"holds": found}, *(map(_hold_line, found) if found else ["nothing is on hold"]))


def _hold_line(item: HoldEvent) -> str:
    done = "held since" if item.action == "hold" else "released on"
    what = f"collection {item.collection}" if item.collection else item.currency or "all currencies"
    return f"{item.provider} ({what}): {done} {item.created_at:%Y-%m-%d}: {item.reason}{_by(item.actor)}"
