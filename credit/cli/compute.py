"""`credit compute`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from credit.cli.options import FILE, json_option, progress_bar, say, warn, workspace_options
from credit.errors import EXIT_PARTIAL
from credit.text import counted

if TYPE_CHECKING:
    from credit.pipeline.workspace import Workspace


@click.command()
@click.option(
    "--index",
    "index_dirs",
    type=FILE,
    multiple=True,
    help="The index to value by, or its new place. [default: the newest of each model]",
)
@click.option(
    "--model",
    "models",
    type=FILE,
    multiple=True,
    help="Where the model, or a checkpoint of it, is now, if it was moved. [default: where it was indexed]",
)
@click.option("--measure", type=click.Choice(["effect", "support", "influence"]), default="effect", show_default=True)
@click.option("--alpha", type=float, help="Weight of influence in effect. [default: the certificate's, or 1]")
@click.option("--beta", type=float, help="Weight of support in effect. [default: the certificate's, or 1]")
@click.option("--gamma", type=float, help="Weight of volume in effect. [default: the certificate's, or 0]")
@click.option(
    "--basis",
    type=click.Choice(["output", "period"]),
    default="output",
    show_default=True,
    help="Each output distributes its own weight, or measures are added up over the period.",
)
@click.option(
    "--negative",
    type=click.Choice(["zero", "net"]),
    default="zero",
    show_default=True,
    help="Negative measures count for nothing, or are set off within the period.",
)
@click.option("--noise-floor", default=1.0, show_default=True, help="Effect counts pulls beyond this many spreads.")
@click.option("--damping", type=click.FloatRange(min=0, min_open=True), help="Of the curvature. [default: the index's]")
@click.option("--chunk", type=click.IntRange(min=1), default=256, show_default=True, help="Outputs posted in one step.")
@click.option("--dtype", type=click.Choice(["auto", "fp32", "bf16", "fp64"]), default="auto", show_default=True)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@workspace_options
@json_option
@click.pass_context
def compute(
    ctx: click.Context,
    workspace: Workspace,
    index_dirs: tuple[Path, ...],
    models: tuple[Path, ...],
    measure: Literal["effect", "support", "influence"],
    alpha: float | None,
    beta: float | None,
    gamma: float | None,
    basis: Literal["output", "period"],
    negative: Literal["zero", "net"],
    noise_floor: float,
    damping: float | None,
    chunk: int,
    dtype: str,
    device: str,
    as_json: bool,
) -> None:
    """Value the outputs that are not valued yet, and post what they credit.

    Each chunk is one atomic step: killed at any moment, the next run goes on, and nothing is counted twice. With
    --basis period or --negative net, credits are what each output gives by itself until the close of their period moves
    them to where its sums put them.

    \b
    Example: credit compute
    """
    from dataclasses import asdict

    from credit.accounting.amounts import amount_text
    from credit.accounting.credits import Policy
    from credit.pipeline.compute import ComputeSettings
    from credit.pipeline.compute import compute as run
    from credit.records import CREDIT

    weights = {"alpha": alpha, "beta": beta, "gamma": gamma}
    chosen = {name: weight for name, weight in weights.items() if weight is not None}
    settings = ComputeSettings(
        policy=Policy(
            measure=measure, noise_floor=noise_floor, damping=damping, basis=basis, negative=negative, **chosen
        ),
        calibrated=not chosen,
        index_dirs=index_dirs,
        model_paths=models,
        dtype=dtype,
        device=device,
        chunk=chunk,
    )
    with progress_bar("valuing", "outputs") as update:
        report = run(workspace, settings, update)
    warn([f"not valued: {reason}" for reason in report.refused])
    text = (
        f"{counted(report.valued, 'output')} valued, {amount_text(report.credit_micro, CREDIT)} credits posted,"
        f" {counted(report.books, 'score book')}"
        if report.valued
        else "nothing to do"
    )
    if report.refused:
        text += f"; {len(report.refused)} cannot be valued, and hold up a close: credit outputs unvalue --help"
    say(as_json, asdict(report), text)
    if report.refused:
        ctx.exit(EXIT_PARTIAL)
