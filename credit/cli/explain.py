"""`credit explain`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from credit.cli.options import (
    FILE,
    NUMBER,
    PERIOD,
    CommandGroup,
    device_option,
    ledger_options,
    models_option,
    training_options,
)
from credit.cli.printing import progress_bar, say, terminal_width, wrapped

if TYPE_CHECKING:
    from credit.ingest.training_source import TrainingSource
    from credit.ledger.transactions import Transaction
    from credit.pipeline.explain_balances import CurrencySteps
    from credit.pipeline.explain_payout import PayoutExplanation
    from credit.pipeline.workspace import Workspace


@click.group(cls=CommandGroup)
def explain() -> None:
    """Trace a number to its sources.

    \b
    Example: credit explain payout anna-books 2026-10
    """


@explain.command()
@click.argument("provider")
@click.argument("period", type=PERIOD)
@click.option("--top", type=click.IntRange(min=0), default=10, show_default=True, help="Outputs to name.")
@ledger_options
def payout(workspace: Workspace, provider: str, period: str, top: int) -> None:
    """Explain the payout of PROVIDER for PERIOD (YYYY-MM), or why there is none: from the money to the outputs.

    The command computes every step again and compares it with the statement. ⌊x⌋ is x rounded down to a minor unit.

    \b
    Example: credit explain payout anna-books 2026-10
    """
    from credit.pipeline.explain_payout import explain_payout

    with workspace.open() as ledger, ledger.read() as conn:
        found = explain_payout(conn, workspace.books, provider, period, top=top)
    width = terminal_width()
    say(found, *(part for line in _payout_lines(found) for part in wrapped(line, width)))


@explain.command()
@click.argument("name")
@click.argument("data", type=FILE, nargs=-1)
@click.option("--provider", "providers", multiple=True, help="Only this provider's data. May be repeated.")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Examples to name.")
@models_option
@device_option
@training_options(provider="--data-provider")
@ledger_options
def output(
    workspace: Workspace,
    name: str,
    data: tuple[Path, ...],
    providers: tuple[str, ...],
    top: int,
    models: tuple[Path, ...],
    device: str,
    source: TrainingSource,
) -> None:
    """Name the training examples with the greatest influence on the output NAME.

    The index that valued the output ranks them, or else the newest index of its model. DATA is the training data: the
    command needs it where the index keeps folded rows, and to show texts.

    \b
    Example: credit explain output o1 train.jsonl --top 5
    """
    from credit.pipeline.explain_output import explain_logged_output
    from credit.records import PPM, shares_in_words
    from credit.reporting.tables import Column, fitted

    with progress_bar("explaining", "examples") as update:
        found = explain_logged_output(
            workspace,
            name,
            data,
            providers=providers,
            top=top,
            model_paths=models,
            device=device,
            source=source,
            progress=update,
        )
    lines = [f"{found.output.name}, {found.output.occurred_at:%Y-%m-%d}, {found.output.model}"]
    lines.append(f"completion: {' '.join(found.output.completion.split())[:200]}")
    if found.echo_tokens:
        lines.append(f"not paid for: {found.echo_tokens} of its {found.tokens} tokens repeat the prompt")
    lines.append("")
    shares = ["" if item.ppm == PPM else f" ({shares_in_words(item.ppm)} of it)" for item in found.examples]
    columns = (
        Column("influence (nats)", [f"{item.influence:.4g}" for item in found.examples], is_number=True),
        Column("of", [str(item.group) for item in found.examples]),
        Column("example", [f"{item.id}{share}" for item, share in zip(found.examples, shares, strict=True)]),
    )
    texts = [" ".join(found.texts.get(item.id, "").split()) for item in found.examples]
    lines.append(fitted(columns, terminal_width(), texts).rstrip("\n"))
    say(found, *lines)


@explain.command()
@click.argument("txn", type=NUMBER)
@ledger_options
def transaction(workspace: Workspace, txn: int) -> None:
    """Show transaction TXN: its entries, reason, details and hashes.

    \b
    Example: credit explain transaction 118
    """
    from credit.ledger.transactions import transaction as find

    with workspace.open() as ledger, ledger.read() as conn:
        found = find(conn, txn)
    say(found, *_transaction_lines(found, terminal_width()))


def _transaction_lines(found: Transaction, width: int) -> Iterator[str]:
    import json

    from credit.accounting.amounts import amount_text
    from credit.ledger.actor import shown
    from credit.reporting.tables import Column, fitted

    head = found.header
    yield f"transaction {head.id}: {head.kind}, counts in {head.period}"
    yield f"effective on {head.effective_on}, recorded at {head.recorded_at}"
    yield f"actor: {shown(head.actor)}"
    if head.memo:
        yield f"reason: {head.memo}"
    if head.reverses:
        yield f"reverses transaction {head.reverses}"
    if head.reversed_by:
        yield f"reversed by transaction {head.reversed_by}"
    columns = (
        Column("account", [line.account for line in found.entries]),
        Column("amount", [amount_text(line.amount, line.commodity) for line in found.entries], is_number=True),
        Column("of", [line.commodity for line in found.entries]),
    )
    yield ""
    yield fitted(columns, width).rstrip("\n")
    yield ""
    if found.details:
        yield f"details: {json.dumps(found.details, sort_keys=True, ensure_ascii=False)}"
    yield f"idempotency key: {found.idempotency_key}"
    yield f"hash {found.hash}, after {found.prev_hash}"


def _payout_lines(found: PayoutExplanation) -> Iterator[str]:
    from credit.records import MICRO

    yield f"{found.name} ({found.provider}), {found.period}: {found.verdict}"
    for balance in found.currencies:
        yield from _currency_lines(balance)
    yield ""
    yield f"credits: {_credits(found.credit_micro)} of {_credits(found.total_credit_micro)} in all"
    for credited in found.collections:
        late = "" if credited.month == found.period else f", from outputs of {credited.month} that came in late"
        yield f"  {credited.collection}: {_credits(credited.credit_micro)}{late}"
    for line in found.moved:
        alone, moved = line.alone_micro, line.moved_micro
        yield (
            f"  {line.collection}: its outputs gave {_credits(alone)} one by one; sums over the period and limits on"
            f" users give {_credits(alone + moved)}, so that a close moves {_credits(moved)}"
        )
    yield f"outputs: valued for {found.outputs_valued}, credited by {found.outputs_credited}"
    for item in found.outputs:
        noun = "credit" if item.weight_micro == MICRO else "credits"
        yield (
            f"  {item.output} ({item.day}, {item.collection}): {item.weight_micro / MICRO:g} {noun}"
            f" × {item.value:.6g} / {item.positive_sum:.6g} nats of {item.measure} = {_credits(item.credit_micro)}"
        )


def _currency_lines(item: CurrencySteps) -> Iterator[str]:
    from credit.accounting.amounts import format_amount

    yield ""
    yield f"{item.currency}:"
    for step in (*item.pools, *item.waterfall):
        yield f"  {step.label}: {format_amount(step.amount_minor, item.currency)} = {step.arithmetic}"
    for line in item.corrections:
        cited = f" of transaction {line.cites}" if line.cites else ""
        amount = format_amount(line.amount_minor, item.currency)
        of = f" of what is held of {line.collection}" if line.collection is not None else ""
        yield f"  correction {amount}{of}: {line.kind}{cited}, transaction {line.txn_id}: {line.reason}"


def _credits(micro: int) -> str:
    from credit.accounting.amounts import amount_text
    from credit.records import CREDIT

    return amount_text(micro, CREDIT)
