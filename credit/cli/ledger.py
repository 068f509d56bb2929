"""`credit init`, `status`, `verify`, `transactions` and `balance`: the ledger as a whole."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from credit.cli.options import DAY, PERIOD, json_option, ledger_options, waiting_option
from credit.cli.printing import aligned, say, terminal_width
from credit.errors import EXIT_INTEGRITY
from credit.text import counted

if TYPE_CHECKING:
    from credit.pipeline.status import PeriodOverview
    from credit.pipeline.workspace import Workspace
    from credit.proofs import Head


_HASH = re.compile(r"[0-9a-f]{64}")

_SHOWN = 5
"""Red flags, or missing reviews, that a person reads."""


@click.command()
@ledger_options
def init(workspace: Workspace) -> None:
    """Create the ledger, or upgrade it to this version. Repeating it changes nothing.

    \b
    Example: credit init
             credit init --database postgresql://accounts@db/credit
    """
    from credit.ledger.database import redact, upgrade
    from credit.storage import make_folder

    revision = upgrade(workspace.database)
    make_folder(workspace.data_dir)
    facts = {"database": redact(workspace.database), "revision": revision, "data_dir": workspace.data_dir}
    say(facts, f"ledger {facts['database']} is ready (revision {revision}); its files go to {workspace.data_dir}/")


@click.command()
@waiting_option
@ledger_options
def status(workspace: Workspace, waiting_days: int) -> None:
    """Show the contents of the ledger and the commands that come next.

    \b
    Example: credit status
    """
    from dataclasses import asdict

    from credit.pipeline.status import overview

    with workspace.open() as ledger, ledger.read() as conn:
        found = overview(conn, now=datetime.now(UTC), waiting_days=waiting_days)
    now = found.status
    say(
        asdict(now)
        | {"next": found.next_steps, "clock": found.clock}
        | {"red_flags": found.red_flags, "missing_reviews": found.missing_reviews},
        f"providers     {now.providers}",
        f"indexes       {now.indexes} of {counted(now.models, 'model')}",
        f"outputs       {sum(now.outputs.values())}, {now.pending} pending"
        + (f", {now.unvalued} unvalued" if now.unvalued else ""),
        *(f"  {month}     {count}" for month, count in now.outputs.items()),
        f"score books   {now.books}",
        f"transactions  {now.transactions}, chain head {now.chain_head[:16]}",
        *map(_period_line, found.periods),
        *([f"clock         {found.clock}"] if found.clock else []),
        *_some("held back", found.red_flags, "red flag"),
        *_some("unreviewed", found.missing_reviews, "review"),
        *(f"next: {step}" for step in found.next_steps),
    )


def _some(label: str, items: Sequence[object], noun: str) -> Iterator[str]:
    """Yield a line for each item, and one that counts the rest."""
    yield from (f"{label:<14}{item}" for item in items[:_SHOWN])
    if len(items) > _SHOWN:
        yield f"{label:<14}{counted(len(items) - _SHOWN, noun)} more; --json gives all"


def _period_line(item: PeriodOverview) -> str:
    from credit.accounting.amounts import money_text

    money = [money_text(pool.net_minor, pool.currency) for pool in item.pools]
    parts = [f"pools: {', '.join(money)}"] if money else []
    if item.payouts:
        parts.append(f"payouts: {', '.join(f'{count} {status}' for status, count in item.payouts.items())}")
    return "; ".join([f"period {item.period.id}  {item.period.status}", *parts])


@click.command()
@click.option(
    "--head", "heads", metavar="FILE|HASH", multiple=True,
    help="A head kept elsewhere: a file of credit head sign, or a whole hash that verify printed. May be repeated.",
)  # fmt: skip
@ledger_options
def verify(workspace: Workspace, heads: tuple[str, ...]) -> None:
    """Recompute the hash chain, every balance and every checksum, and name every fault.

    Exits with 4 if there is a fault. Somebody who can write the database can hash everything anew, and nothing in the
    ledger tells. A head kept elsewhere does: sign one now and then (`credit head sign`), and give it here.

    \b
    Example: credit verify
             credit verify --head heads.txt
    """
    from credit.ledger.verify import verify as check

    hashes = [item for item in heads if _HASH.fullmatch(item)]
    outside = [found for item in heads if item not in hashes for found in _signed_heads(item)]
    with workspace.open() as ledger:
        report = check(ledger, workspace.books, heads=hashes, outside=outside)
    if report.problems:
        say(report, *map(str, report.problems), exit_code=EXIT_INTEGRITY)
    counts = dict(report.checked)
    files = counts.pop("score_book files", 0)
    say(
        report,
        "everything is as it was written",
        f"checked     {counted(report.chain_seq, 'transaction')}, {counted(sum(counts.values()), 'row')},"
        f" {counted(files, 'score book file')}",
        f"chain head  {report.chain_head}",
        f"seal head   {report.seal_head}",
        *(f"unchecked   {item}" for item in report.unchecked),
        *([f"unknown     {report.unknown}"] if report.unknown else []),
    )


def _signed_heads(text: str) -> list[Head]:
    """Return the heads in a file; wrong usage where the text names none, such as a hash that was shortened."""
    from credit.cli.head import read_file

    path = Path(text)
    if not path.exists():
        raise click.UsageError(
            f"--head {text!r} is neither a file nor a whole hash of 64 digits; give all of it, without dots"
        )
    return read_file(path)


@click.command()
@click.option("--prefix", default="credit", show_default=True, help="First part of the roles' names.")
@json_option
def roles(prefix: str) -> None:
    """Print SQL that makes four roles on PostgreSQL: auditor, operator, payer, approver.

    An auditor reads, verifies and reports. An operator runs the ledger and proposes, and a payer exports payments;
    neither can approve. An approver approves what another role proposed. The owner of the tables runs the SQL, once and
    after every upgrade: pipe it to psql --single-transaction -v ON_ERROR_STOP=1 DATABASE. Only the owner upgrades the
    ledger, erases personal data and purges.

    \b
    Example: credit roles --prefix books
    """
    from credit.ledger.roles import roles_sql

    sql = roles_sql(prefix)
    say({"sql": sql}, sql.rstrip())


@click.command()
@click.option("--period", type=PERIOD, help="Only those that count in this month.")
@click.option("--provider", metavar="KEY", help="Only those that move something of this provider.")
@click.option("--kind", help="Only this kind, such as adjustment, advance, allocation, credits, payout or pool.")
@click.option("--actor", metavar="NAME", help='Only those of this actor; "not recorded" for those without.')
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Transactions to show.")
@ledger_options
def transactions(
    workspace: Workspace, period: str | None, provider: str | None, kind: str | None, actor: str | None, limit: int
) -> None:
    """List the last transactions, the newest at the end, with the numbers that `credit reverse` takes.

    `credit explain transaction` shows the entries of one.

    \b
    Example: credit transactions --period 2026-10 --provider anna-books
             credit transactions --kind adjustment --actor anna@finance --json
    """
    from credit.ledger.actor import shown as name
    from credit.ledger.transactions import transactions as find
    from credit.reporting.tables import Column, fitted

    with workspace.open() as ledger, ledger.read() as conn:
        # One more than asked for shows if there are others.
        found = find(conn, period=period, provider=provider, kind=kind, actor=actor, limit=limit + 1)
    shown = found[-limit:]
    columns = (
        Column("transaction", [str(item.id) for item in shown], is_number=True),
        Column("kind", [item.kind for item in shown]),
        Column("period", [item.period for item in shown]),
        Column("effective", [item.effective_on for item in shown]),
        Column("recorded", [item.recorded_at[:19] + "Z" for item in shown], spare=True),
        Column("entries", [str(item.entries) for item in shown], is_number=True),
        Column("actor", [name(item.actor) for item in shown]),
    )
    notes = []
    for item in shown:
        reverses = f"reverses {item.reverses}" if item.reverses else ""
        reversed_by = f"reversed by {item.reversed_by}" if item.reversed_by else ""
        notes.append("; ".join(filter(None, (item.memo, reverses, reversed_by))))
    text = fitted(columns, terminal_width(), notes).rstrip("\n") if shown else "there are no such transactions"
    more = len(found) > len(shown)
    say(
        {"transactions": shown, "more": more},
        text,
        *((f"\nOnly the last {limit}; more with --limit.",) if more else ()),
    )


@click.command()
@click.argument("whose", metavar="ACCOUNT|PROVIDER")
@click.option("--effective", type=DAY, metavar="DAY", help="Count entries that took effect by this day.")
@click.option(
    "--recorded", metavar="MOMENT", help="Count entries recorded by this moment (ISO 8601 with zone, or a UTC day)."
)
@ledger_options
def balance(workspace: Workspace, whose: str, effective: datetime | None, recorded: str | None) -> None:
    """Show the balance of an account, or of every account of a provider, as of a day and as known at a moment.

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
    facts = [{"account": key, "balance": amount, "commodity": commodity} for key, amount, commodity in rows]
    lines = aligned([(key, f"{amount} {commodity}") for key, amount, commodity in rows], right=1)
    say({"balances": facts}, *(lines or [f"nothing was ever posted for {whose}"]))


def _moment(text: str) -> datetime:
    """Read a moment with its zone, or a day in UTC to its end."""
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
