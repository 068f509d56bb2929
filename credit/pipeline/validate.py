"""Logged outputs and training data → the certificate of an index, beside the index and in the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Literal

from credit.accounting.credits import CounterfactualKind
from credit.engines import EngineChoice, Slice
from credit.errors import InputError, InvalidRequestError
from credit.fidelity.certificate import Certificate, CertificateKind, read_certificate
from credit.fidelity.recipes import FineTuning, Recipe, Trainer, load_trainer, trainer_fingerprint
from credit.fidelity.retraining import Laboratory, Progress
from credit.fidelity.validation import retrain_slice, validate, validate_quickly, write_certificate
from credit.ingest.training_source import AS_IT_IS, TrainingSource
from credit.ledger.indexes import register_certificate
from credit.ledger.outputs import output_names, outputs_by_id
from credit.ledger.unvalued import unvalued_outputs
from credit.pipeline.engine import engine_for
from credit.pipeline.index import read_indexed, register
from credit.pipeline.workspace import Workspace
from credit.records import LoggedOutput, TrainingRecord
from credit.valuation import AttributionIndex, IndexManifest, LanguageModel, load_model, read_manifest
from credit.valuation.placement import check_whole
from credit.valuation.task import ExampleEncoder

SCRATCH_LEARNING_RATE = 3e-3


@dataclass(frozen=True, slots=True)
class ValidationRequest:
    """Request to validate an index.

    Attributes:
        index: folder of the index.
        data: files of its training data.
        work: folder that keeps the retrainings.
        trainer: the user's own recipe as `module:function`. Without it, models are trained anew with the configuration
            of the index's model, or fine-tuned from `base`.
        base: weights to fine-tune, all of them or an adapter of rank `lora`.
        quick: retrain nothing.
        controls: providers whose data the model was never trained on.
        outputs: number of outputs to draw from the ledger.
        halves: number of random halves of the providers.
        seeds: retrainings per provider.
        counterfactual: of the user's own recipe; that of the others follows from `steps`.
        engine: retrains.
        source: how to read training data in another form.
    """

    index: Path
    data: Sequence[Path]
    work: Path
    trainer: str | None = None
    base: Path | None = None
    lora: int | None = None
    quick: bool = False
    controls: Sequence[str] = ()
    epochs: float = 3.0
    steps: int | None = None
    counterfactual: CounterfactualKind | None = None
    learning_rate: float | None = None
    outputs: int = 64
    halves: int = 8
    seeds: int = 1
    engine: EngineChoice = field(default_factory=EngineChoice)
    model: Path | None = None
    device: str = "auto"
    source: TrainingSource = AS_IT_IS

    def __post_init__(self) -> None:
        recipes = {"--trainer": self.trainer, "--finetune": self.base, "--quick": self.quick or None}
        chosen = [name for name, value in recipes.items() if value is not None]
        if len(chosen) > 1:
            raise InvalidRequestError(f"{chosen[0]} and {chosen[1]} are two ways to validate; choose one")
        if self.lora is not None and self.base is None:
            raise InvalidRequestError("--lora trains an adapter of a base model; name it with --finetune MODEL")
        if self.counterfactual is not None and self.trainer is None:
            raise InvalidRequestError(
                "--counterfactual says it of your own --trainer; else it is replaced with --steps, and removed without"
            )

    @property
    def counterfactual_made(self) -> CounterfactualKind | Literal[""]:
        """The counterfactual of the retrainings; empty: the user did not say it of their own recipe."""
        if self.trainer is not None:
            return self.counterfactual or ""
        return "replaced" if self.steps is not None else "removed"


def validate_index(workspace: Workspace, request: ValidationRequest, progress: Progress | None = None) -> Certificate:
    """Validate an index on logged outputs of its model, and write the certificate beside it and into the ledger.

    `request.work` keeps the retrainings: the next run resumes, and more halves or seeds add to them.

    Raises:
        InputError: the ledger has no outputs of this model, or the data differs from the index's.
        InvalidRequestError: the recipe makes no sense.
        LockHeldError: another validation is at work in the same folder.
    """
    if request.quick:
        check_whole(request.device)  # it steps away from each provider's data in place
    case = _open(workspace, request)
    index, model, records, outputs = case.index, case.model, case.records, case.outputs
    if request.quick:
        made = validate_quickly(index, model, records, outputs, controls=request.controls, progress=progress)
    else:
        made = _by_retraining(request, case, progress)
    write_certificate(request.index, made)
    _register(workspace, request.index, [made])
    return made


def validate_slice(
    workspace: Workspace, request: ValidationRequest, part: Slice, progress: Progress | None = None
) -> int:
    """Make a slice of the retrainings of `validate_index` in `request.work`, and return their number.

    Raises:
        InputError, InvalidRequestError: as `validate_index`.
        LockHeldError: another process is at work on this slice.
    """
    if request.quick:
        raise InvalidRequestError("--quick retrains nothing, so there is nothing to slice")
    case = _open(workspace, request)
    laboratory, _ = _laboratory(request, case)
    return retrain_slice(
        case.index,
        case.records,
        case.outputs,
        laboratory,
        part,
        halves=request.halves,
        seeds=request.seeds,
        controls=request.controls,
        engine=engine_for(request.engine, request.device, case.path),
        progress=progress,
    )


def register_certificates(workspace: Workspace, folder: Path) -> list[Certificate]:
    """Register the certificates of an index in a ledger, from the folder of the index.

    Raises:
        InputError: the index has no certificate.
        IntegrityError: one was changed after it was written.
    """
    fingerprint = read_manifest(folder).fingerprint
    kinds: tuple[CertificateKind, ...] = ("retraining", "quick")
    made = [item for item in (read_certificate(folder, fingerprint, kind) for kind in kinds) if item is not None]
    if not made:
        raise InputError(f"{folder} has no certificate; validate it: credit validate {folder} DATA")
    _register(workspace, folder, made)
    return made


def _register(workspace: Workspace, folder: Path, made: Sequence[Certificate]) -> None:
    with workspace.open() as ledger:
        register(ledger, folder)
        with ledger.write() as conn:
            for item in made:
                register_certificate(conn, item.index, item.kind, item.canonical, now=datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class _Case:
    """Index to validate, its model with its place, its data, and outputs of the model."""

    index: AttributionIndex
    path: Path
    model: LanguageModel
    records: list[TrainingRecord]
    outputs: list[LoggedOutput]


def _open(workspace: Workspace, request: ValidationRequest) -> _Case:
    index = AttributionIndex.open(request.index)
    path = request.model or Path(index.manifest.model_path)
    model = index.load_model(path, dtype="fp32", device=request.device)
    records = read_indexed(workspace, request.data, request.source, index.manifest.encoder(model))
    outputs = _outputs(workspace, index.manifest, model, request.outputs)
    return _Case(index, path, model, records, outputs)


def _laboratory(request: ValidationRequest, case: _Case) -> tuple[Laboratory, str]:
    """Return the laboratory for the retrainings, and the fingerprint of their recipe."""
    trainer, recipe = _recipe(request, case.path, case.index.manifest.max_length)
    length = case.index.output_length(case.model)
    return Laboratory(request.work.resolve(), case.records, case.outputs, trainer, recipe, length), recipe


def _by_retraining(request: ValidationRequest, case: _Case, progress: Progress | None) -> Certificate:
    laboratory, recipe = _laboratory(request, case)
    return validate(
        case.index,
        case.model,
        case.records,
        case.outputs,
        laboratory,
        recipe=recipe,
        counterfactual=request.counterfactual_made,
        halves=request.halves,
        seeds=request.seeds,
        controls=request.controls,
        engine=engine_for(request.engine, request.device, case.path),
        progress=progress,
    )


def _outputs(workspace: Workspace, manifest: IndexManifest, model: LanguageModel, count: int) -> list[LoggedOutput]:
    """Draw outputs of a model by the hash of their names: the same ledger always gives the same outputs.

    Unvalued outputs, and those without tokens, have no value to check: the draw skips them.
    """
    with workspace.open() as ledger, ledger.read() as conn:
        names, unvalued = output_names(conn, manifest.name), {item.output for item in unvalued_outputs(conn)}
        # By hash, not by random numbers: a second validation compares the same outputs.
        ranked = sorted(names, key=lambda number: hashlib.sha256(names[number].encode()).digest())
        drawn = (
            item.output for number in ranked if names[number] not in unvalued for item in outputs_by_id(conn, [number])
        )
        encoder = manifest.encoder(model)
        return list(islice((output for output in drawn if _has_tokens(encoder, output)), count))


def _has_tokens(encoder: ExampleEncoder, output: LoggedOutput) -> bool:
    try:
        return bool(encoder.output(output))
    except InputError:
        return False


def _recipe(request: ValidationRequest, model: Path, max_length: int) -> tuple[Trainer, str]:
    if request.trainer is not None:
        trainer = load_trainer(request.trainer)
        return trainer, trainer_fingerprint(request.trainer, trainer)
    if request.base is not None:
        tuning = FineTuning(
            base=request.base.resolve(),
            lora=request.lora,
            epochs=request.epochs,
            steps=request.steps,
            learning_rate=request.learning_rate,
            max_length=max_length,
            device=request.device,
        )
        return tuning.train, tuning.fingerprint(load_model(request.base).model_sha256)
    recipe = Recipe(
        start=model.resolve(),
        epochs=request.epochs,
        steps=request.steps,
        learning_rate=request.learning_rate or SCRATCH_LEARNING_RATE,
        max_length=max_length,
    )
    return recipe.train, recipe.fingerprint(load_model(model).model_sha256)
