"""`credit close`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import click

from credit.cli.approve import act
from credit.cli.options import PERIOD, ledger_options
from credit.cli.printing import say, terminal_width, wrapped
from credit.records import MAX_OUTPUT_SHARE, MIN_FIDELITY, PPM
from credit.text import counted

if TYPE_CHECKING:
    from credit.accounting.apportion import Earning
    from credit.accounting.waterfall import Waterfall
    from credit.ledger.pools import Pool
    from credit.pipeline.close import CloseReport
    from credit.pipeline.close_pools import HousePolicy
    from credit.pipeline.workspace import Workspace

T = TypeVar("T")

_SHOWN = 20
"""Rows of a table; a month can have thousands."""
_REASONS = 5
"""Reasons for not paying, each with the number of its balances."""


@click.command()
@click.argument("period", type=PERIOD)
@click.option(
    "--house",
    type=click.Choice(["return", "redistribute", "escrow"]),
    default="return",
    show_default=True,
    help="Money that no provider's data earned: return it to the owner, redistribute it, or keep it in escrow.",
)
@click.option(
    "--grace-days",
    type=click.IntRange(0, 366),
    default=0,
    show_default=True,
    help="Days after the period in which late outputs may come; no close before.",
)
@click.option("--leave-pending", is_flag=True, help="Credit pending outputs in a later period.")
@click.option(
    "--min-fidelity",
    type=click.FloatRange(0, 1),
    default=MIN_FIDELITY,
    show_default=True,
    help="Least LDS that the certificate must show, as a fraction of the noise ceiling.",
)
@click.option("--unvalidated", metavar="REASON", default="", help="Pay without such a certificate, for this reason.")
@click.option("--unreviewed", metavar="REASON", default="", help="Pay without the reviews, for this reason.")
@click.option(
    "--max-output-share",
    type=click.FloatRange(0, 1),
    default=MAX_OUTPUT_SHARE,
    show_default=True,
    help="Largest share of the credits that one output may decide, in a period of at least 20 outputs.",
)
@click.option(
    "--accept-concentration",
    metavar="'NAME: REASON'",
    default="",
    help="Close although an output decides more; stays on record with the close.",
)
@click.option("--dry-run", is_flag=True, help="Print every amount, write nothing.")
@ledger_options
def close(
    workspace: Workspace,
    period: str,
    house: HousePolicy,
    grace_days: int,
    leave_pending: bool,
    min_fidelity: float,
    unvalidated: str,
    unreviewed: str,
    max_output_share: float,
    accept_concentration: str,
    dry_run: bool,
) -> None:
    """Divide the pools of PERIOD (YYYY-MM) by credits, decide payouts, write statements, and freeze the period.

    Periods close one after the other. Outputs that come later are credited in the next open period.

    Every index and policy behind the credits needs a certificate by retraining (credit validate) that reaches the
    minimum and beats token share and BM25. --unvalidated closes without one, and every statement prints its reason.

    Every index also needs two reviews of its data as it is now: credit overlap and credit membership, each with
    --register INDEX. The close shows what they found. --unreviewed closes without them, and statements say why.

    The output and the day that decide most of the credits are shown. If an output decides more than --max-output-share,
    the close is refused until somebody accepts it by name.

    A table shows 20 rows at most; --json gives all.

    \b
    Example: credit close 2026-10 --dry-run
             credit close 2026-10 --grace-days 5 --house escrow
             credit close 2026-10 --unvalidated "trial run, agreed with all" --unreviewed "trial run"
             credit close 2026-10 --accept-concentration "Eve Sommer: one contract pays most of this month"
    """
    from credit.approval.actions import Close
    from credit.pipeline.close import ClosePolicy, close_period

    policy = ClosePolicy(
        house=house,
        grace_days=grace_days,
        leave_pending=leave_pending,
        min_fidelity=min_fidelity,
        unvalidated=unvalidated,
        unreviewed=unreviewed,
        max_output_share=max_output_share,
        accepted_concentration=accept_concentration,
    )
    if dry_run:
        with workspace.open() as ledger:
            report = close_period(ledger, period, policy, books=workspace.books, dry_run=True)
    else:
        report = act(workspace, Close(period, policy))
    say(report, *_lines(report, terminal_width()))


def _lines(report: CloseReport, width: int) -> Iterator[str]:
    """Yield the report: totals and exceptions first, then the tables, the outcome last."""
    from credit.reporting.tables import total_text

    yield from _validation(report)
    yield from _concentration(report)
    for pool, earnings in report.earnings:
        yield from wrapped(_pool_total(pool, earnings), width)
    for currency in sorted({fall.currency for fall in report.waterfalls}):
        falls = [fall for fall in report.waterfalls if fall.currency == currency]
        carried = sum(fall.carried_forward_minor for fall in falls)
        yield from wrapped(total_text(currency, [fall.payable_minor for fall in falls], carried), width)
    for line in _exceptions(report):
        yield from wrapped(line, width)
    for pool, earnings in report.earnings:
        yield from _pool_table(pool, earnings, width)
    if report.waterfalls:
        yield from _balances(report.waterfalls, width)
    yield ""
    if report.dry_run:
        yield f"period {report.period} would be closed (dry run, nothing written)"
    else:
        yield f"period {report.period} is closed, {counted(report.statements, 'statement')} written"


def _validation(report: CloseReport) -> Iterator[str]:
    """Yield the certificates and reviews of the close, and the reasons for closing without."""
    waived = [f"not validated: {report.policy.unvalidated}"] if report.policy.unvalidated else []
    if report.policy.unreviewed:
        missing = {item.kind: None for item in report.validation.reviews if not item.review}
        waived.append(f"no review of {' and '.join(missing) or 'anything'}: {report.policy.unreviewed}")
    if waived:
        yield "; ".join(waived)
    for check in report.validation.checks if not report.policy.unvalidated else ():
        yield (
            f"index {check.index[:16]}: certificate {check.certificate[:16]}, {check.measure}, LDS {check.agreement}"
            f" of at most {check.ceiling} (token share {check.token_share}, BM25 {check.bm25})"
        )
    for item in report.validation.reviews:
        if item.review:
            yield f"index {item.index[:16]}: {item.kind} review {item.review[:16]}, {item.result}"


def _concentration(report: CloseReport) -> Iterator[str]:
    from credit.reporting.tables import credits_text, share_text

    if report.policy.accepted_concentration:
        yield f"concentration accepted: {report.policy.accepted_concentration}"
    found = report.concentration
    if found is not None:
        yield f"heaviest output: {found.output.name}, {share_text(found.output.share_ppm / PPM)} of the credits"
        yield f"heaviest day: {found.day.name}, {share_text(found.day.share_ppm / PPM)} of the credits"
        if found.user is not None:
            yield f"heaviest user: {found.user.name}, {share_text(found.user.share_ppm / PPM)} of the credits"
        else:
            yield "heaviest user: not known; the log names no users"
    if (left := report.uncounted) is not None:
        yield (
            f"not counted: {credits_text(left.total_micro)} credits of {counted(left.repeats, 'repeat')} and of"
            f" {counted(left.capped, 'output')} beyond the limit of a user's day"
        )


def _pool_total(pool: Pool, earnings: Sequence[Earning]) -> str:
    from credit.accounting.amounts import format_amount
    from credit.reporting.tables import credits_text

    earned = sum(item.earned_minor for item in earnings)
    credited = credits_text(sum(item.share.credit_micro for item in earnings))
    net, paid, kept = (
        format_amount(minor, pool.currency) for minor in (pool.net_minor, earned, pool.net_minor - earned)
    )
    return (
        f"pool {pool.reference}: {net} {pool.currency} for {credited} credits: {paid} {pool.currency} to providers,"
        f" {kept} to the house"
    )


def _exceptions(report: CloseReport) -> Iterator[str]:
    """Yield how many balances are not paid, or not whole, and why, and the outputs that this close leaves out."""
    from credit.accounting.amounts import money_text

    unpaid: dict[tuple[str, str, str], list[int]] = {}
    for fall in report.waterfalls:
        if fall.carried_forward_minor:
            # Without its own amount, the same reason groups many balances into one line.
            own = f" of {money_text(fall.carried_forward_minor, fall.currency)}"
            what = "not paid whole" if fall.payable_minor else "not paid"
            key = (what, fall.reason.replace(own, "", 1), fall.currency)
            unpaid.setdefault(key, []).append(fall.carried_forward_minor)
    ranked = sorted(unpaid.items(), key=lambda item: -len(item[1]))
    for (what, reason, currency), amounts in ranked[:_REASONS]:
        total = money_text(sum(amounts), currency)
        yield f"{what}: {counted(len(amounts), 'balance')}, {total}: {reason}"
    if len(ranked) > _REASONS:
        yield f"not paid for other reasons: {counted(sum(len(rest) for _, rest in ranked[_REASONS:]), 'balance')}"
    held = sum(bool(item.reason) for fall in report.waterfalls for item in fall.collections)
    if held:
        yield f"on hold: {counted(held, 'collection')}"
    if report.unvalued:
        more = ", ..." if len(report.unvalued) > _SHOWN else ""
        yield f"unvalued, and out of this close: {', '.join(report.unvalued[:_SHOWN])}{more}"
    if report.left_pending:
        yield f"{counted(report.left_pending, 'output')} left for a later period"


def _pool_table(pool: Pool, earnings: Sequence[Earning], width: int) -> Iterator[str]:
    """Yield the shares of a pool, the largest where there are many."""
    from credit.accounting.amounts import format_amount, format_percent
    from credit.reporting.tables import Column, credits_text, fitted

    def amount(minor: int) -> str:
        return format_amount(minor, pool.currency)

    shown = _largest(earnings, lambda item: (item.share.amount_minor,))
    columns = (
        Column("provider", [item.share.provider for item in shown]),
        Column("credits", [credits_text(item.share.credit_micro) for item in shown], is_number=True),
        Column("allocated", [amount(item.share.amount_minor) for item in shown], is_number=True),
        Column("rate", [format_percent(item.rate_ppm) if item.rate_ppm else "house" for item in shown], True),
        Column("earned", [amount(item.earned_minor) for item in shown], is_number=True),
    )
    yield f"\npool {pool.reference} ({pool.currency})"
    yield fitted(columns, width).rstrip("\n")
    yield from _left_out(len(earnings) - len(shown), "provider")


def _balances(falls: Sequence[Waterfall], width: int) -> Iterator[str]:
    """Yield the balances, those with a note and the largest where there are many; a zero column is left out."""
    from credit.accounting.amounts import format_amount
    from credit.accounting.statement_lines import STATEMENT_LINES
    from credit.reporting.tables import Column, fitted

    noted = [(fall, "; ".join(filter(None, _notes(fall)))) for fall in falls]
    largest = _largest(noted, lambda item: (bool(item[1]), item[0].payable_minor, abs(item[0].carried_forward_minor)))
    shown = [fall for fall, _ in largest]
    columns = [Column("provider", [fall.provider for fall in shown]), Column("currency", [f.currency for f in shown])]
    amounts = [fall.amounts for fall in shown]
    for line in STATEMENT_LINES:
        if line.always or any(lines[line.name] for lines in amounts):
            signed = [(line.sign * lines[line.name], fall.currency) for fall, lines in zip(shown, amounts, strict=True)]
            cells = [format_amount(*item) for item in signed]
            columns.append(Column(line.heading, cells, is_number=True))
    yield ""
    yield fitted(columns, width, [note for _, note in largest]).rstrip("\n")
    yield from _left_out(len(falls) - len(shown), "balance")


def _notes(fall: Waterfall) -> Iterator[str]:
    """Yield the remarks on a balance: collections on hold, a conversion, the reason why nothing is paid."""
    from credit.accounting.amounts import money_text

    for item in fall.collections:
        if item.reason:
            held = money_text(item.balance_minor, fall.currency)
            yield f"{held} of {item.collection} is on hold: {item.reason}"
    if fall.conversion:
        yield fall.conversion.arithmetic
    yield fall.reason


def _largest(items: Sequence[T], size: Callable[[T], tuple[int, ...]]) -> list[T]:
    """Return at most `_SHOWN` items, those of the greatest size, in their own order."""
    ranked = sorted(range(len(items)), key=lambda place: size(items[place]), reverse=True)
    return [items[place] for place in sorted(ranked[:_SHOWN])]


def _left_out(count: int, noun: str) -> Iterator[str]:
    if count > 0:
        yield f"... and {counted(count, noun)} more; --json gives all"
