"""Logged outputs and training data → a validation of an index, and its certificate."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from credit.errors import InvalidRequestError
from credit.fidelity.retrain import Laboratory, Recipe, Trainer, load_trainer
from credit.fidelity.validate import Certificate, Progress, validate, write_certificate
from credit.ingest.training import read_training
from credit.ledger.outputs import all_outputs
from credit.pipeline.workspace import Workspace
from credit.records import LoggedOutput
from credit.valuation import AttributionIndex, load_model


@dataclass(frozen=True, slots=True)
class ValidationRequest:
    """What to validate and how to retrain.

    `trainer` names the user's own recipe as `module:function`; without it, models are trained by the built-in recipe
    with the configuration of the index's model, or from the weights of `base`. `outputs` are drawn from the ledger.
    """

    index: Path
    data: Sequence[Path]
    work: Path
    trainer: str | None = None
    base: Path | None = None
    epochs: float = 3.0
    steps: int | None = None
    learning_rate: float = 3e-3
    outputs: int = 64
    halves: int = 8
    seeds: int = 1
    model: Path | None = None
    device: str = "auto"


def validate_index(workspace: Workspace, request: ValidationRequest, progress: Progress | None = None) -> Certificate:
    """Validate an index on logged outputs of its model, and write the certificate beside it.

    Retrainings are kept in `request.work`: a run that was stopped goes on, and more halves or seeds add to them.

    Raises:
        InputError: there are no outputs of this model in the ledger, or the data is not that of the index.
        InvalidRequestError: the recipe makes no sense.
    """
    index = AttributionIndex.open(request.index)
    path = request.model or Path(index.manifest.model_path)
    model = index.load_model(path, dtype="fp32", device=request.device)
    records = list(read_training(request.data))
    outputs = _outputs(workspace, index.manifest.name, request.outputs)
    trainer, recipe = _recipe(request, path)
    laboratory = Laboratory(request.work, records, outputs, trainer, recipe, index.manifest.max_length)
    certificate = validate(
        index,
        model,
        records,
        outputs,
        laboratory,
        recipe=recipe,
        halves=request.halves,
        seeds=request.seeds,
        progress=progress,
    )
    write_certificate(request.index, certificate)
    return certificate


def _outputs(workspace: Workspace, model: str, count: int) -> list[LoggedOutput]:
    """Draw outputs of a model from the ledger, by the hash of their names: the same for the same ledger."""
    with workspace.open() as ledger, ledger.read() as conn:
        found = [stored.output for stored, _ in all_outputs(conn) if stored.output.model == model]
    return sorted(found, key=lambda output: hashlib.sha256(output.name.encode()).digest())[:count]


def _recipe(request: ValidationRequest, model: Path) -> tuple[Trainer, str]:
    if request.trainer is not None:
        if request.base is not None:
            raise InvalidRequestError("--trainer and --finetune are two recipes; choose one")
        trainer = load_trainer(request.trainer)
        return trainer, hashlib.sha256(request.trainer.encode()).hexdigest()
    recipe = Recipe(
        start=request.base or model,
        scratch=request.base is None,
        epochs=request.epochs,
        steps=request.steps,
        learning_rate=request.learning_rate,
    )
    return recipe.train, recipe.fingerprint(load_model(recipe.start).model_sha256)
