"""`credit providers terms` and `credit providers advance`."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING

import click

from credit.cli.options import DAY, json_option, say, workspace_options
from credit.text import counted

if TYPE_CHECKING:
    from credit.ledger.terms import Agreement
    from credit.pipeline.workspace import Workspace


@click.command()
@click.argument("key")
@click.option("--currency", help="What the terms are about, such as EUR.")
@click.option("--from", "begin", type=DAY, help="First day on which they hold. [default: today]")
@click.option("--to", "end", type=DAY, help="Last day. [default: until something later is agreed]")
@click.option("--rate", metavar="PERCENT", help="Share of an allocation that is the provider's, such as 70%.")
@click.option("--minimum-payout", metavar="AMOUNT", help="Less is carried forward.")
@click.option("--reserve", metavar="PERCENT", help="Share of what is earned that is held back.")
@click.option("--release-after", type=click.IntRange(0, 1200), metavar="MONTHS", help="When the reserve is released.")
@click.option("--recoupment", metavar="PERCENT", help="Share of what is earned that may go towards advances.")
@click.option("--withholding", metavar="PERCENT", help="Share of a payout that is withheld as tax.")
@click.option("--fee", metavar="AMOUNT", help="Taken from every payout.")
@click.option("--pay-in", metavar="CURRENCY", help="Convert what is owed to this currency, and pay it there.")
@click.option("--agreement", metavar="TEXT", help="Reference of the contract.")
@click.option("--supersede", is_flag=True, help="Replace, for these days, what was agreed before.")
@workspace_options
@json_option
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
    agreement: str | None,
    supersede: bool,
    as_json: bool,
) -> None:
    """Show what is agreed with provider KEY, or agree something new.

    A period is settled on the terms that hold on its last day. Terms are never edited: a new version holds from its
    first day on, and what it does not name stays as it was. With --pay-in, what is owed in one currency is converted at
    the close, by the rate given for the period (credit fx add); --pay-in of the currency itself ends that.

    \b
    Example: credit providers terms anna-books
             credit providers terms anna-books --currency EUR --rate 70% --reserve 10% --release-after 3
             credit providers terms anna-books --currency USD --pay-in EUR
    """
    from dataclasses import asdict
    from datetime import UTC

    from credit.accounting.amounts import currency_digits, parse_amount, parse_percent
    from credit.ledger.terms import amend, history

    for code in (currency, pay_in):
        if code is not None:
            currency_digits(code)  # refuses what is no currency
    shares = {"rate_ppm": rate, "reserve_ppm": reserve, "recoupment_ppm": recoupment, "withholding_ppm": withholding}
    amounts = {"minimum_payout_minor": minimum_payout, "fee_minor": fee}
    changes: dict[str, int | str] = {name: parse_percent(text) for name, text in shares.items() if text is not None}
    if release_after is not None:
        changes["reserve_release_periods"] = release_after
    if pay_in is not None:
        changes["pay_in"] = "" if pay_in == currency else pay_in
    if agreement is not None:
        changes["agreement_reference"] = agreement
    changing = bool(changes) or any(amounts.values()) or begin is not None or end is not None or supersede
    now = datetime.now(UTC)
    with workspace.open() as ledger:
        if changing:
            if currency is None:
                raise click.UsageError("terms are about money in one currency: --currency")
            changes |= {name: parse_amount(text, currency) for name, text in amounts.items() if text is not None}
            first, last = (begin or now).date(), end.date() if end else None
            with ledger.write() as conn:
                amend(conn, key, currency, changes, first, last, supersede=supersede, now=now)
        with ledger.read() as conn:
            found = history(conn, key, currency)
    lines = [_line(item) for item in found] or [
        f"nothing is agreed with {key}: it gets its whole share, unconditionally"
    ]
    say(as_json, {"provider": key, "terms": [asdict(item) for item in found]}, "\n".join(lines))


def _line(item: Agreement) -> str:
    from credit.accounting.amounts import format_amount, format_percent

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
    if agreed.agreement_reference:
        parts.append(f"agreement {agreed.agreement_reference}")
    begin = "the beginning" if item.valid_from == date.min else item.valid_from
    end = f"to {item.valid_to}" if item.valid_to else "on"
    return f"{item.currency} v{item.version} from {begin} {end}: {', '.join(parts)}"


@click.command()
@click.argument("key")
@click.argument("amount")
@click.argument("currency")
@click.option("--paid-on", type=DAY, required=True, help="The day on which it was paid.")
@click.option("--reference", required=True, help="Of the payment; the same one again changes nothing.")
@workspace_options
@json_option
def advance(
    workspace: Workspace, key: str, amount: str, currency: str, paid_on: datetime, reference: str, as_json: bool
) -> None:
    """Record an advance of AMOUNT that was paid to provider KEY.

    What the provider earns later, in the same currency, is set off against it: at most what is earned.

    \b
    Example: credit providers advance anna-books 500.00 EUR --paid-on 2026-01-15 --reference transfer-881
    """
    from datetime import UTC

    from credit.accounting.amounts import parse_amount
    from credit.ledger.corrections import pay_advance

    minor = parse_amount(amount, currency)
    with workspace.open() as ledger, ledger.write() as conn:
        done = pay_advance(
            conn, key, minor, currency, paid_on=paid_on.date(), reference=reference, now=datetime.now(UTC)
        )
    facts = {"transaction": done.txn_id, "hash": done.hash, "replayed": done.replayed}
    was = "was recorded before, as" if done.replayed else "is recorded, as"
    say(as_json, facts, f"the advance {reference} {was} transaction {done.txn_id}")
