"""`credit validate`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from credit.cli.options import FILE, field_mapping, field_option, json_option, progress_bar, say, workspace_options
from credit.text import counted

if TYPE_CHECKING:
    from credit.fidelity.certificate import Certificate
    from credit.fidelity.metrics import Estimate
    from credit.pipeline.workspace import Workspace


@click.command()
@click.argument("index", type=FILE)
@click.argument("data", type=FILE, nargs=-1)
@click.option("--trainer", metavar="MODULE:FUNCTION", help="Your own recipe, as above.")
@click.option("--finetune", "base", type=FILE, metavar="MODEL", help="Start from these weights. [default: anew]")
@click.option("--lora", type=click.IntRange(min=1), metavar="RANK", help="Fine-tune a LoRA adapter of this rank.")
@click.option("--quick", is_flag=True, help="Retrain nothing: minutes, but no proof; see above.")
@click.option("--register", "only_register", is_flag=True, help="Just put INDEX's certificates into this ledger.")
@click.option("--control", "controls", multiple=True, metavar="PROVIDER", help="The model never saw its data.")
@click.option("--epochs", default=3.0, show_default=True, help="Passes over the data of each retraining.")
@click.option("--steps", type=click.IntRange(min=1), help="Optimiser steps, whatever the size of the data.")
@click.option("--learning-rate", type=float, help="[default: 3e-3 anew, 5e-5 from weights, 2e-4 with LoRA]")
@click.option("--outputs", type=click.IntRange(min=1), default=64, show_default=True, help="Logged outputs compared.")
@click.option("--halves", type=click.IntRange(min=4), default=8, show_default=True, help="Random halves of providers.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Retrainings per provider.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Retrainings at a time.")
@click.option("--work", type=FILE, help="Where retrainings are kept. [default: validation/ in the data folder]")
@click.option("--model", type=FILE, help="Where the model is now, if it was moved.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@field_option
@json_option
@workspace_options
def validate(
    workspace: Workspace,
    index: Path,
    data: tuple[Path, ...],
    trainer: str | None,
    base: Path | None,
    lora: int | None,
    quick: bool,
    only_register: bool,
    controls: tuple[str, ...],
    epochs: float,
    steps: int | None,
    learning_rate: float | None,
    outputs: int,
    halves: int,
    seeds: int,
    workers: int,
    work: Path | None,
    model: Path | None,
    device: str,
    fields: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check that attribution predicts what really happens without a provider's data, by retraining.

    Trains a model without each provider and on random halves of them, measures the log-likelihood of logged outputs,
    and compares: with INDEX, and with simpler measures that it has to beat. DATA is what INDEX was built from. The
    certificate, with the calibration of effect to nats, is written into INDEX and into the ledger, where close asks
    for it; compute pays by the calibration if it predicts better than plain effect. Retrainings are made once and
    kept: a run that was stopped goes on.

    Models are trained anew with the configuration of INDEX's model, or with --finetune by the Hugging Face Trainer.
    Your own recipe is a function in a module that can be imported, such as

    \b
        def train(records: Sequence[TrainingRecord], seed: int, folder: Path) -> None:
            texts = [record.completion for record in records]  # also .prompt, .messages
            ...                                                # your training, with this seed
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)

    --quick takes one small optimiser step away from each provider's data instead. That shows whether INDEX describes
    this model's own gradients; it cannot show what training without the data would have given, and close does not
    accept it.

    \b
    Example: credit validate my-index train.jsonl --epochs 4 --workers 4
             credit validate my-index train.jsonl --finetune base-model --lora 16 --steps 500
             PYTHONPATH=. credit validate my-index train.jsonl --trainer my_recipe:train
    """
    from credit.pipeline.validate import ValidationRequest, register_certificates, validate_index

    if only_register:
        made = register_certificates(workspace, index)
        facts = {"certificates": [{"kind": item.kind, "sha256": item.sha256, "index": item.index} for item in made]}
        say(as_json, facts, "\n".join(f"{item.kind} certificate {item.sha256} of index {item.index}" for item in made))
        return
    if not data:
        raise click.UsageError("name the training data that the index was built from: credit validate INDEX DATA...")
    request = ValidationRequest(
        index=index,
        data=data,
        work=work or workspace.data_dir / "validation",
        trainer=trainer,
        base=base,
        lora=lora,
        quick=quick,
        controls=controls,
        epochs=epochs,
        steps=steps,
        learning_rate=learning_rate,
        outputs=outputs,
        halves=halves,
        seeds=seeds,
        workers=workers,
        model=model,
        device=device,
        fields=field_mapping(fields),
    )
    with progress_bar("validating", "steps" if quick else "models") as update:
        certificate = validate_index(workspace, request, update)
    click.echo(certificate.to_json() if as_json else "\n".join(_lines(certificate)))


def _lines(certificate: Certificate) -> Iterator[str]:
    quick = certificate.kind == "quick"
    made = "no retraining" if quick else counted(certificate.retrainings, "retraining")
    yield f"{made}, {counted(len(certificate.providers), 'provider')}, {counted(certificate.outputs, 'output')}"
    yield _table(certificate)
    if quick:
        yield from _quick_words()
    else:
        yield from _retraining_words(certificate)
    for control in certificate.controls:
        yield f"control: {control.provider}, which the model never saw, would get {control.share:.2%} of all credits"


def _table(certificate: Certificate) -> str:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    quick = certificate.kind == "quick"
    names = ("Pearson", "Spearman", "top-1", "share error")
    table = Table(box=SIMPLE_HEAD)
    table.add_column("measure")
    for column in names if quick else ("LDS", "given size", *(f"LOO {name}" for name in names[:2]), *names[2:]):
        table.add_column(column, justify="right")
    for score in certificate.methods:
        cells = (score.pearson, score.spearman, score.top_one, score.share_error)
        halves = () if quick else (score.lds, score.lds_given_size)
        table.add_row(score.method, *(_interval(cell) for cell in (*halves, *cells)))
    console = Console(width=130)
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip("\n")


def _retraining_words(certificate: Certificate) -> Iterator[str]:
    from credit.fidelity.certificate import CALIBRATED, PLAIN

    ceiling = certificate.ceiling
    yield (
        "LDS is about random halves of the providers: does the sum of what is left in rank the retrained models'"
        f" log-likelihoods? No prediction can exceed the noise ceiling, {_interval(ceiling)}. Given size: what of it"
        " the number of tokens does not tell."
    )
    yield (
        "The other columns are about leaving out one provider at a time: LOO Pearson and Spearman compare with the"
        " nats that each output lost, top-1 says how often the leading provider is the right one, share error how far"
        " the period's shares are off (0 to 1). One retraining more or less moves these more than LDS."
        " 90 % intervals are over outputs."
    )
    for score in certificate.methods:
        if score.policy and score.leads:
            leads = " and ".join(f"{name} by {_interval(lead)}" for name, lead in score.leads.items())
            yield f"{score.method} exceeds the LDS of {leads}; close demands both intervals above zero"
    paid = CALIBRATED if certificate.calibration_helps else PLAIN
    error = next((score.attribution_error for score in certificate.methods if score.method == paid), None)
    if error is not None:
        yield (
            f"beyond what the choice of outputs explains, a share of 10 % by {paid} is off by {30 * error:.1f} points"
            " (one standard deviation); intervals of shares count it in from now on"
        )
    fit = certificate.calibration
    if fit is not None:
        yield (
            f"calibration: effect = {fit.alpha:.3g} influence + {fit.beta:.3g} support + {fit.gamma:.3g} volume;"
            f" measured over predicted nats on providers it was not fitted on: {fit.ratio:.2f}"
        )
        yield (
            "compute pays by it from now on"
            if certificate.calibration_helps
            else "it predicts worse than influence + support, so that compute does not use it"
        )


def _quick_words() -> Iterator[str]:
    yield (
        "Quick: every column compares with what each output lost when the model took one small step away from a"
        " provider's data. It shows whether the index describes this model's own gradients (projection, folding,"
        " damping). It does not show what training without the data would have given: no model was trained."
        " 90 % intervals are over outputs."
    )
    yield "credit close does not accept it; validate by retraining before anybody is paid."


def _interval(estimate: Estimate | None) -> str:
    return "none" if estimate is None else f"{estimate.value:.2f} ({estimate.low:.2f}, {estimate.high:.2f})"
