"""`credit validate`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from credit.cli.options import FILE, device_option, engine_options, ledger_options, training_options
from credit.cli.printing import is_json, progress_bar, say, terminal_width, wrapped
from credit.text import counted

if TYPE_CHECKING:
    from credit.engines import EngineChoice, Slice
    from credit.fidelity.certificate import Certificate
    from credit.fidelity.metrics import Estimate
    from credit.ingest.training_source import TrainingSource
    from credit.pipeline.validate import ValidationRequest
    from credit.pipeline.workspace import Workspace


_CHOICE = {"replaced": ", with --counterfactual replaced --measure effect"}


@click.command()
@click.argument("index", type=FILE)
@click.argument("data", type=FILE, nargs=-1)
@click.option("--trainer", metavar="MODULE:FUNCTION", help="Your own training recipe, as above.")
@click.option("--finetune", "base", type=FILE, metavar="MODEL", help="Fine-tune these weights.  [default: train anew]")
@click.option("--lora", type=click.IntRange(min=1), metavar="RANK", help="Fine-tune a LoRA adapter of this rank.")
@click.option("--quick", is_flag=True, help="Retrain nothing: takes minutes and proves less, see above.")
@click.option("--register", "only_register", is_flag=True, help="Only enter INDEX's certificates in this ledger.")
@click.option(
    "--control",
    "controls",
    multiple=True,
    metavar="PROVIDER",
    help="A provider whose data the model never saw. May be repeated.",
)
@click.option("--epochs", default=3.0, show_default=True, help="Passes over the data of each retraining.")
@click.option("--steps", type=click.IntRange(min=1), help="Optimiser steps, for any size of the data.")
@click.option(
    "--counterfactual", type=click.Choice(["removed", "replaced"]), help="What your own --trainer does, see above."
)
@click.option(
    "--learning-rate", type=float, help="Learning rate.  [default: 3e-3 anew, 5e-5 from weights, 2e-4 with LoRA]"
)
@click.option("--outputs", type=click.IntRange(min=1), default=64, show_default=True, help="Logged outputs to compare.")
@click.option("--halves", type=click.IntRange(min=4), default=8, show_default=True, help="Random halves of providers.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Retrainings per provider.")
@engine_options("Retrainings at a time.")
@click.option("--slice", "part", metavar="I/N", help="Make a slice of the retrainings only, in a job array.")
@click.option("--work", type=FILE, help="Folder of the retrainings.  [default: validation/ in the data folder]")
@click.option("--model", type=FILE, help="New place of the model, if moved.")
@device_option
@training_options()
@ledger_options
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
    counterfactual: Literal["removed", "replaced"] | None,
    learning_rate: float | None,
    outputs: int,
    halves: int,
    seeds: int,
    engine: EngineChoice,
    part: str | None,
    work: Path | None,
    model: Path | None,
    device: str,
    source: TrainingSource,
) -> None:
    """Check by retraining that attribution predicts the effect of leaving out a provider's data.

    Trains a model without each provider and on random halves of them, measures the log-likelihood of logged outputs,
    and compares it with the predictions of INDEX and of simpler measures, which INDEX must beat. DATA is the data of
    INDEX. The certificate, with the calibration of effect to nats, goes into INDEX and into the ledger: close requires
    it, and compute uses the calibration if it predicts better than plain effect. Retrainings are kept: after an
    interruption, the next run resumes. In a job array, each job makes a --slice of them in one --work.

    Models are trained anew with the configuration of INDEX's model, or with --finetune by the Hugging Face Trainer.
    Your own recipe is a function in a module that Python can import, such as

    \b
        def train(records: Sequence[TrainingRecord], seed: int, folder: Path) -> None:
            texts = [record.completion for record in records]  # also .prompt, .messages
            ...                                                # your training, with this seed
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)

    With --epochs, less data means fewer steps: the certificate is for credits by --counterfactual removed, the default
    of compute. With --steps, the others' data takes the place of what is left out: it is for --counterfactual replaced.
    Say it of your own recipe.

    --quick takes one small optimiser step away from each provider's data instead. It shows that INDEX describes this
    model's own gradients. It cannot show the result of training without the data, so close does not accept it.

    \b
    Example: credit validate my-index train.jsonl --epochs 4 --workers 4
             credit validate my-index train.jsonl --engine ray --address auto
             credit validate my-index train.jsonl --finetune base-model --lora 16 --steps 500
             PYTHONPATH=. credit validate my-index train.jsonl --trainer my_recipe:train
    """
    from credit.engines import Slice
    from credit.pipeline.validate import ValidationRequest, validate_index

    if only_register:
        _register(workspace, index)
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
        counterfactual=counterfactual,
        learning_rate=learning_rate,
        outputs=outputs,
        halves=halves,
        seeds=seeds,
        engine=engine,
        model=model,
        device=device,
        source=source,
    )
    if part is not None:
        _slice(workspace, replace(request, engine=engine), Slice.read(part))
        return
    with progress_bar("validating", "steps" if quick else "models") as bar:
        certificate = validate_index(workspace, replace(request, engine=engine.watched(bar.workers)), bar)
    click.echo(certificate.to_json() if is_json() else "\n".join(_lines(certificate)))


def _slice(workspace: Workspace, request: ValidationRequest, part: Slice) -> None:
    """Make a slice of the retrainings, and print it."""
    from credit.pipeline.validate import validate_slice

    with progress_bar(f"slice {part}", "models") as bar:
        made = validate_slice(workspace, replace(request, engine=request.engine.watched(bar.workers)), part, bar)
    done = f"slice {part} is done, {counted(made, 'retraining')}"
    facts = {"slice": str(part), "retrainings": made}
    say(facts, f"{done}; once all slices are, give the same command without --slice")


def _register(workspace: Workspace, index: Path) -> None:
    """Enter the certificates of an index in the ledger, and print them."""
    from credit.pipeline.validate import register_certificates

    made = register_certificates(workspace, index)
    facts = {"certificates": [{"kind": item.kind, "sha256": item.sha256, "index": item.index} for item in made]}
    say(facts, *(f"{item.kind} certificate {item.sha256} of index {item.index}" for item in made))


def _lines(certificate: Certificate) -> Iterator[str]:
    quick = certificate.kind == "quick"
    made = "no retraining" if quick else counted(certificate.retrainings, "retraining")
    yield f"{made}, {counted(len(certificate.providers), 'provider')}, {counted(certificate.outputs, 'output')}"
    yield _table(certificate)
    for line in _quick_words() if quick else _retraining_words(certificate):
        yield from wrapped(line, terminal_width())
    for control in certificate.controls:
        yield f"control: {control.provider}, unseen by the model, would get {control.share:.2%} of all credits"


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
    # Wider than the terminal, perhaps: a wrapped table of numbers cannot be read.
    console = Console(width=130)
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip("\n")


def _retraining_words(certificate: Certificate) -> Iterator[str]:
    from credit.fidelity.certificate import CALIBRATED, COUNTERFACTUALS, PLAIN

    if certificate.counterfactual:
        yield f"{certificate.counterfactual}: {COUNTERFACTUALS[certificate.counterfactual]}"

    yield (
        "LDS keeps random halves of the providers: it is the rank correlation of their summed attribution with the"
        " log-likelihoods of the retrained models. No measure can exceed the noise ceiling,"
        f" {_interval(certificate.ceiling)}. Given size: the part of LDS that the number of tokens does not explain."
    )
    yield (
        "The other columns leave out one provider at a time. LOO Pearson and Spearman compare with the nats that each"
        " output lost; top-1 is the fraction of outputs with the right leading provider; share error is the distance"
        " of the period's shares from the truth (0 to 1). They vary more between retrainings than LDS does."
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
            f"beyond the chance of the drawn outputs, a share of 10 % by {paid} is off by {30 * error:.1f} points (one"
            " standard deviation); intervals of shares include this from now on"
        )
    fit = certificate.calibration
    if fit is not None:
        yield (
            f"calibration: effect = {fit.alpha:.3g} influence + {fit.beta:.3g} support + {fit.gamma:.3g} volume;"
            f" measured over predicted nats on providers it was not fitted on: {fit.ratio:.2f}"
        )
        yield (
            f"compute pays by it from now on{_CHOICE.get(certificate.counterfactual, '')}"
            if certificate.calibration_helps
            else "it predicts worse than influence + support, so compute does not use it"
        )


def _quick_words() -> Iterator[str]:
    yield (
        "Quick: every column compares with the loss of each output after one small step away from a provider's data."
        " Good numbers show that the index describes this model's own gradients (projection, folding, damping). They"
        " cannot show the result of training without the data: no model was trained. 90 % intervals are over outputs."
    )
    yield "credit close does not accept it; validate by retraining before anybody is paid."


def _interval(estimate: Estimate | None) -> str:
    return "none" if estimate is None else f"{estimate.value:.2f} ({estimate.low:.2f}, {estimate.high:.2f})"
