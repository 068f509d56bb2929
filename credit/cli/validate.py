"""`credit validate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from credit.cli.options import FILE, progress_bar, workspace_options

if TYPE_CHECKING:
    from credit.fidelity.metrics import Estimate
    from credit.fidelity.validate import Certificate
    from credit.pipeline.workspace import Workspace


@click.command()
@click.argument("index", type=FILE)
@click.argument("data", type=FILE, nargs=-1, required=True)
@click.option("--trainer", metavar="MODULE:FUNCTION", help="Your own recipe: function(records, seed, folder).")
@click.option("--finetune", "base", type=FILE, metavar="MODEL", help="Start from these weights. [default: anew]")
@click.option("--epochs", default=3.0, show_default=True, help="Passes over the data of each retraining.")
@click.option("--steps", type=click.IntRange(min=1), help="Optimiser steps, whatever the size of the data.")
@click.option("--learning-rate", default=3e-3, show_default=True)
@click.option("--outputs", type=click.IntRange(min=1), default=64, show_default=True, help="Logged outputs compared.")
@click.option("--halves", type=click.IntRange(min=4), default=8, show_default=True, help="Random halves of providers.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Retrainings per provider.")
@click.option("--work", type=FILE, help="Where retrainings are kept. [default: validation/ in the data folder]")
@click.option("--model", type=FILE, help="Where the model is now, if it was moved.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--json", "as_json", is_flag=True, help="Print the certificate instead of text.")
@workspace_options
def validate(
    workspace: Workspace,
    index: Path,
    data: tuple[Path, ...],
    trainer: str | None,
    base: Path | None,
    epochs: float,
    steps: int | None,
    learning_rate: float,
    outputs: int,
    halves: int,
    seeds: int,
    work: Path | None,
    model: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Check that attribution predicts what really happens without a provider's data, by retraining.

    Trains a model without each provider and on random halves of them, measures the log-likelihood of logged outputs,
    and compares: with INDEX, and with simpler measures that it has to beat. The certificate, with the calibration of
    effect to nats, is written into INDEX; compute pays by it if it predicts better than plain effect. Retrainings are
    made once and kept.

    \b
    Example: credit validate my-index train.jsonl --epochs 4 --outputs 100
    """
    from credit.pipeline.validating import ValidationRequest, validate_index

    request = ValidationRequest(
        index=index,
        data=data,
        work=work or workspace.data_dir / "validation",
        trainer=trainer,
        base=base,
        epochs=epochs,
        steps=steps,
        learning_rate=learning_rate,
        outputs=outputs,
        halves=halves,
        seeds=seeds,
        model=model,
        device=device,
    )
    with progress_bar("retraining", "models") as update:
        certificate = validate_index(workspace, request, update)
    click.echo(certificate.to_json() if as_json else _in_words(certificate))


def _in_words(certificate: Certificate) -> str:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    table.add_column("measure")
    for column in ("LDS", "given size", "LOO Pearson", "LOO Spearman", "top-1", "share error"):
        table.add_column(column, justify="right")
    for score in certificate.methods:
        cells = (score.lds, score.lds_given_size, score.pearson, score.spearman, score.top_one, score.share_error)
        table.add_row(score.method, *(_interval(cell) for cell in cells))
    console = Console(width=130)
    with console.capture() as capture:
        console.print(table)
    fit = certificate.calibration
    return (
        f"{certificate.retrainings} retrainings, {len(certificate.providers)} providers, "
        f"{certificate.outputs} outputs\n"
        f"{capture.get()}"
        f"LDS: rank correlation over random halves of the providers; no prediction can exceed the noise ceiling, "
        f"{_interval(certificate.ceiling)}.\n"
        "LOO: against the nats that outputs lost without each provider. 90 % intervals over outputs.\n"
        f"calibration: effect = {fit.alpha:.3g} influence + {fit.beta:.3g} support + {fit.gamma:.3g} volume; "
        f"measured over predicted nats on providers it was not fitted on: {fit.ratio:.2f}\n"
        + (
            "compute pays by it from now on"
            if certificate.calibration_helps
            else "it predicts worse than influence + support, so that compute does not use it"
        )
    )


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} ({estimate.low:.2f}, {estimate.high:.2f})"
