"""`credit report`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from credit.cli.options import FILE, PERIOD, CommandGroup, json_option, ledger_options, workspace_options
from credit.cli.printing import ask_for_json, is_json, progress_bar, say, terminal_width, warn
from credit.storage import write_whole
from credit.text import counted

if TYPE_CHECKING:
    from credit.pipeline.workspace import Workspace
    from credit.reporting.chart_of_accounts import AccountMap

R = TypeVar("R")

_FILE_WIDTH = 160
"""Characters in a line of a table that goes to a file."""
_PRINTED_ROWS = 40
"""Rows of a table that is printed: about a screen."""


since_option = click.option("--since", type=PERIOD, help="First month.  [default: the first in the ledger]")


def report_options(*formats: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Add `--format`, `--json` and `--out`, and pass the form of the report on as `form`."""

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @click.option(
            "--format",
            "form",
            type=click.Choice(formats),
            default="table",
            show_default=True,
            is_eager=True,
            callback=_note_format,
            help="Form of the report.",
        )
        @click.option("--out", type=FILE, help="Write to this file.  [default: print]")
        @json_option
        @functools.wraps(command)
        def with_form(form: str, *args: Any, **kwargs: Any) -> R:
            return command(*args, form="json" if is_json() else form, **kwargs)

        return with_form

    return decorate


def _note_format(ctx: click.Context, _param: click.Parameter, value: str) -> str:
    """Have errors printed as JSON too where the report would be JSON."""
    if value == "json":
        ask_for_json(ctx)
    return value


@click.group(cls=CommandGroup)
def report() -> None:
    """Attribution, payouts, causes and books of a period, and trends over months.

    \b
    Example: credit report attribution 2026-10 --by collection
    """


@report.command()
@click.argument("period", type=PERIOD)
@click.option(
    "--by",
    type=click.Choice(["provider", "collection", "output", "day"]),
    default="provider",
    show_default=True,
    help="One row for each of these.",
)
@report_options("table", "csv", "json", "html")
@workspace_options
def attribution(
    workspace: Workspace,
    period: str,
    by: Literal["provider", "collection", "output", "day"],
    form: Literal["table", "csv", "json", "html"],
    out: Path | None,
) -> None:
    """Show the earners of the credits of PERIOD (YYYY-MM).

    Influence, support and effect are in nats. CSV and JSON give credits in micro-credits: 1000000 is one credit.
    The rank is the first and last place that a share can have, nine times in ten. A printed table has the 40 rows
    with most credits, and a page by output the 200 outputs; --out, CSV and JSON have all.

    \b
    Example: credit report attribution 2026-10 --by output --format csv --out october.csv
             credit report attribution 2026-10 --by collection --format html --out october.html
    """
    from credit.reporting.frames import attribution as frame
    from credit.reporting.pages import attribution_page
    from credit.reporting.tables import render

    with workspace.open() as ledger, ledger.read() as conn:
        if form == "html":
            text = attribution_page(conn, workspace.books, period, by)
        else:
            text = render(frame(conn, workspace.books, period, by), form, width=table_width(out), most=table_rows(out))
    deliver(text, out)


@report.command()
@click.argument("period", type=PERIOD)
@report_options("table", "csv", "json")
@workspace_options
def payouts(workspace: Workspace, period: str, form: Literal["table", "csv", "json"], out: Path | None) -> None:
    """Show the payout of every provider for PERIOD (YYYY-MM), or the reason why nothing is paid.

    A printed table has 40 rows, first those with a reason; --out, CSV and JSON have all.

    \b
    Example: credit report payouts 2026-10 --format csv --out payouts.csv
    """
    from credit.reporting.frames import payouts as frame
    from credit.reporting.tables import render

    with workspace.open() as ledger, ledger.read() as conn:
        text = render(frame(conn, period), form, width=table_width(out), most=table_rows(out))
    deliver(text, out)


@report.command()
@since_option
@click.option("--until", type=PERIOD, help="Last month.  [default: the last in the ledger]")
@report_options("table", "csv", "json")
@workspace_options
def trends(
    workspace: Workspace,
    since: str | None,
    until: str | None,
    form: Literal["table", "csv", "json"],
    out: Path | None,
) -> None:
    """Show every provider's share of the credits month by month.

    CSV and JSON also give the 90 % interval of each share, and what was earned and payable. A printed table has the 40
    providers with most credits.

    \b
    Example: credit report trends --since 2026-01
             credit report trends --format csv --out trends.csv
    """
    from credit.reporting.frames import trends as frame
    from credit.reporting.tables import render, trend_table

    with workspace.open() as ledger, ledger.read() as conn:
        found = frame(conn, workspace.books, since, until)
    if form == "table":
        deliver(trend_table(found, width=table_width(out), most=table_rows(out)), out)
    else:
        deliver(render(found, form), out)


@report.command()
@click.argument("period", type=PERIOD)
@click.option("--out", type=FILE, required=True, help="The file, such as october.xlsx.")
@ledger_options
def workbook(workspace: Workspace, period: str, out: Path) -> None:
    """Write PERIOD (YYYY-MM) as a workbook (XLSX): summary, payouts, roll-forward, exceptions, attribution, journal.

    Needs pip install 'credit[xlsx]'.

    \b
    Example: credit report workbook 2026-10 --out october.xlsx
    """
    from credit.reporting.workbook import workbook as content

    with workspace.open() as ledger, ledger.read() as conn:
        made = content(conn, workspace.books, period)
    write_whole(out, made)
    say({"file": out}, f"{out}: the workbook of {period}")


@report.command()
@click.option("--out", type=FILE, required=True, help="The folder: a new one, or an earlier site.")
@ledger_options
def site(workspace: Workspace, out: Path) -> None:
    """Write all months, providers and statements as linked pages, with index.html to begin at.

    They need no server, load nothing from elsewhere, and are for you alone: they hold what every provider earns.

    \b
    Example: credit report site --out site
    """
    from credit.reporting.site import write_site

    with workspace.open() as ledger, ledger.read() as conn, progress_bar("writing", "pages") as advance:
        pages = write_site(conn, workspace.books, out, advance)
    say({"folder": out, "pages": len(pages)}, f"{out / 'index.html'}: {counted(len(pages), 'page')}")


accounts_option = click.option(
    "--accounts", type=FILE, help="CSV file (account, code) with the codes of your own chart of accounts."
)


@report.command()
@click.argument("period", type=PERIOD)
@since_option
@accounts_option
@report_options("table", "csv", "json", "beancount")
@workspace_options
def journal(
    workspace: Workspace,
    period: str,
    since: str | None,
    accounts: Path | None,
    form: Literal["table", "csv", "json", "beancount"],
    out: Path | None,
) -> None:
    """Show the journal of money through PERIOD (YYYY-MM), to be booked: expense, bank, liabilities, house, exchange.

    Each entry has its date, account, debit or credit, provider, reason, batch and transaction. --accounts gives the
    codes of another chart: a line serves an account and all within it, so Liabilities:Payable is all providers. An
    account without a code is refused. --format beancount has the names of this chart, and asserts every balance at
    the end of every month, to the cent.

    \b
    Example: credit report journal 2026-10 --since 2026-10 --accounts chart.csv --format csv --out october.csv
             credit report journal 2026-12 --format beancount --out books.beancount
    """
    from credit.reporting.books import beancount_text
    from credit.reporting.books import journal as frame
    from credit.reporting.tables import render

    if form == "beancount":
        if accounts is not None:
            raise click.UsageError("beancount has accounts with names: leave out --accounts, or use --format csv")
        with workspace.open() as ledger:
            deliver(beancount_text(ledger, period, since or ""), out)
        return
    with workspace.open() as ledger, ledger.read() as conn:
        found = frame(conn, period, since, _account_map(accounts))
    deliver(render(found, form, width=table_width(out), most=table_rows(out)), out)


@report.command(name="trial-balance")
@click.argument("period", type=PERIOD)
@since_option
@accounts_option
@report_options("table", "csv", "json")
@workspace_options
def trial_balance(
    workspace: Workspace,
    period: str,
    since: str | None,
    accounts: Path | None,
    form: Literal["table", "csv", "json"],
    out: Path | None,
) -> None:
    """Show every account's opening balance, debits, credits and closing balance through PERIOD (YYYY-MM).

    A debit is positive, a debt negative. In each currency, debits are as much as credits.

    \b
    Example: credit report trial-balance 2026-12 --since 2026-01
             credit report trial-balance 2026-12 --accounts chart.csv --format csv --out trial.csv
    """
    from credit.reporting.books import trial_balance as frame
    from credit.reporting.tables import render

    with workspace.open() as ledger, ledger.read() as conn:
        found = frame(conn, period, since, _account_map(accounts))
    deliver(render(found, form, width=table_width(out), most=table_rows(out)), out)


@report.command()
@click.argument("year", type=click.IntRange(1000, 9999))
@click.option("--details", is_flag=True, help="Add legal name, tax number and address: personal data.")
@report_options("table", "csv", "json")
@workspace_options
def year(
    workspace: Workspace, year: int, details: bool, form: Literal["table", "csv", "json"], out: Path | None
) -> None:
    """Show what each provider was paid in YEAR, by the day of payment: gross, paid, withheld, fees, advances.

    A payout of December that the bank makes in January is January's. What came back counts against the day on which
    it did. Gross in US dollars from ten dollars on is what Form 1099-MISC asks for in box 2. These are data for tax
    forms, and no tax advice.

    \b
    Example: credit report year 2026
             credit report year 2026 --details --format csv --out year-2026.csv
    """
    from credit.reporting.tables import render
    from credit.reporting.year import NOTICE, year_totals

    with workspace.open() as ledger, ledger.read() as conn:
        found = year_totals(conn, year, details=details)
    warn(NOTICE)
    deliver(render(found, form, width=table_width(out), most=table_rows(out)), out)


def _account_map(path: Path | None) -> AccountMap:
    from credit.reporting.chart_of_accounts import AccountMap, read_account_map

    return AccountMap({}) if path is None else read_account_map(path)


@report.command()
@click.argument("provider")
@click.argument("period", type=PERIOD)
@click.option("--to", "last", type=PERIOD, help="Last of several periods.  [default: PERIOD alone]")
@click.option("--top", type=click.IntRange(min=1), default=20, show_default=True, help="Users, prompts and days each.")
@click.option("--withhold-prompts", is_flag=True, help="Name prompts by keyed hashes of their texts.")
@report_options("table", "csv", "json")
@workspace_options
def causes(
    workspace: Workspace,
    provider: str,
    period: str,
    last: str | None,
    top: int,
    withhold_prompts: bool,
    form: Literal["table", "csv", "json"],
    out: Path | None,
) -> None:
    """Show the users, prompts and days behind PROVIDER's credits of PERIOD (YYYY-MM), each with its share.

    Users are pseudonyms. Look here if a share grows for no reason that you know: one user, or one prompt, should not
    decide it.

    \b
    Example: credit report causes alder-press 2026-10
             credit report causes alder-press 2026-10 --to 2026-12 --format csv --out causes.csv
    """
    from credit.ledger.values import following
    from credit.reporting.causes import causes as frame
    from credit.reporting.tables import render

    periods = [period]
    while last is not None and periods[-1] < last:
        periods.append(following(periods[-1]))
    with workspace.open() as ledger, ledger.read() as conn:
        found = frame(conn, workspace.books, provider, periods, top=top, prompts=not withhold_prompts)
        text = render(found, form, width=table_width(out))
    deliver(text, out)


def table_width(out: Path | None) -> int:
    """Return the characters in a line of a table that is printed or goes to a file."""
    return _FILE_WIDTH if out else terminal_width()


def table_rows(out: Path | None) -> int | None:
    """Return the largest number of rows of a table; None, for all, where it goes to a file."""
    return None if out else _PRINTED_ROWS


def deliver(text: str, out: Path | None) -> None:
    """Print the report, or write it byte by byte: line endings stay as they are."""
    if out is None:
        click.echo(text, nl=not text.endswith("\n"))
    else:
        if out.is_file() or not out.exists():
            write_whole(out, text.encode())
        else:  # a pipe or a terminal
            out.write_bytes(text.encode())
        click.echo(out, err=True)
