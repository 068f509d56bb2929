"""`credit demo`."""

from __future__ import annotations

from pathlib import Path

import click

from credit.cli.options import FILE
from credit.cli.printing import progress_bar


@click.command()
@click.option("--out", type=FILE, default=Path("credit-demo"), show_default=True, help="Folder for its files.")
@click.option(
    "--kilobytes",
    type=click.IntRange(min=20),
    default=100,
    show_default=True,
    help="Text of each package to train on; less is quicker, and credits less sure.",
)
def demo(out: Path, kilobytes: int) -> None:
    """See everything on real data, offline: train a small model, credit its sources, pay them.

    The providers are Python packages installed here; their source files are the training data. The demo trains a small
    language model on them, lets it write, and runs every step as you would, printing each command.

    \b
    Example: credit demo --out /tmp/credit-demo
             credit demo --kilobytes 40
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from credit.accounting.amounts import amount_text
    from credit.demo.run import run_demo, share
    from credit.records import CREDIT

    result = run_demo(out, click.echo, progress_bar, kilobytes=kilobytes)
    table = Table(title="Who earned what, both months", box=SIMPLE_HEAD)
    for column in ("provider", "outputs led", "effect (nats)", "credits", "share", "payout"):
        table.add_column(column, justify="left" if column == "provider" else "right")
    for line in result.lines:
        table.add_row(
            line.provider,
            str(line.outputs),
            f"{line.effect:,.1f}",
            amount_text(line.credit_micro, CREDIT),
            f"{share(line, result.lines):.1%}",
            line.payout,
        )
    console = Console()
    console.print()
    console.print(table)
    click.echo(
        f"Of {result.checked} true continuations of files held back from training, "
        f"{result.hits} ({result.hits / result.checked:.0%}) credited most the provider that wrote them."
    )
    click.echo(f"Look around in {out}/: credit.db is the ledger, export-*/ holds one folder per provider.")
