"""Training data → an attribution index, registered in the ledger.

Also opens registered indexes for the commands that value or explain outputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from credit.engines import EngineChoice, Slice
from credit.errors import InputError, InvalidRequestError, LedgerError, MismatchError, ValuationError
from credit.ingest.quarantine import QuarantineFile, QuarantineSummary
from credit.ingest.training import TrainingCounts, TrainingReader
from credit.ingest.training_source import AS_IT_IS, TrainingSource
from credit.ledger.database import Ledger
from credit.ledger.indexes import RegisteredIndex, register_index
from credit.ledger.providers import providers
from credit.pipeline.engine import engine_for
from credit.pipeline.tokenised import Tokenised, TrainingInput, kept_or_tokenised, tokenise
from credit.pipeline.workspace import Workspace
from credit.records import Quarantined, TrainingRecord
from credit.valuation import (
    AttributionIndex,
    BuildPlan,
    BuildResult,
    Checkpoint,
    IndexManifest,
    IndexSettings,
    LanguageModel,
    build_index,
    load_model,
    plan_index,
    read_manifest,
)
from credit.valuation.build import build_slice, prepare_folder
from credit.valuation.examples import TrainingData, Unusable, usable_records
from credit.valuation.requirements import Needs
from credit.valuation.revise import plan_revision, update_index, withdraw_provider
from credit.valuation.task import ExampleEncoder, Task
from credit.valuation.unit_files import TOKENS_FOLDER

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class IndexRequest:
    """Request to build or change an index.

    Attributes:
        model: folder of the model.
        data: files of training data.
        out: folder of the index.
        name: name of the model in logs.
        settings: settings of a new index. A change keeps those of the index.
        dtype: number format of the model, or `auto`.
        device: `cpu`, `cuda`, ... or `auto`.
        source: how to read training data in another form.
        register: False leaves the ledger alone and accepts every provider.
        strict: refuse all data if one record is bad.
        exclude_non_finite: leave out examples whose gradient is not finite, instead of failing.
        checkpoints: folders and weights of further checkpoints; for a change, the new places of moved ones.
        update: add `data` to the existing index.
        withdraw: provider to take out of the existing index; its data must be in `data`.
        given: fields of `settings` that the caller chose. A change refuses them if the index has others.
        engine: does the gradients.
        part: the slice of `index_slice`.
        merge: only finish what slices have done.
        tokens: folder of tokenised data, for other indexes of the same data; None: they stay with the index until it
            is finished.
    """

    model: Path
    data: Sequence[Path]
    out: Path
    name: str
    settings: IndexSettings
    dtype: str = "auto"
    device: str = "auto"
    source: TrainingSource = AS_IT_IS
    register: bool = True
    strict: bool = False
    exclude_non_finite: bool = False
    checkpoints: Sequence[tuple[Path, float]] = ()
    update: bool = False
    withdraw: str | None = None
    given: Collection[str] = ()
    engine: EngineChoice = field(default_factory=EngineChoice)
    part: Slice | None = None
    merge: bool = False
    tokens: Path | None = None

    def __post_init__(self) -> None:
        if self.tokens is not None and self.changes:
            raise InvalidRequestError("--tokens keeps the tokens of a build; --update and --withdraw read their data")
        if self.part is not None and self.merge:
            raise InvalidRequestError("--slice and --merge are two runs: first every slice, then one that merges")
        if (self.part is not None or self.merge) and (self.changes or self.checkpoints):
            raise InvalidRequestError(
                "--slice and --merge build the index of one model; run --update, --withdraw and --checkpoint on it "
                "afterwards"
            )

    @property
    def changes(self) -> bool:
        """True for a change of an existing index."""
        return self.update or self.withdraw is not None

    @property
    def load(self) -> Callable[[], LanguageModel]:
        """Loader of the model, for this process and for workers."""
        return partial(load_model, self.model.resolve(), dtype=self.dtype, device=self.device)


@dataclass(frozen=True, slots=True)
class IndexReport:
    """Finished index. `existed`: the same index was there before. `problems`: reasons of quarantined records."""

    manifest: IndexManifest
    existed: bool
    quarantined: int
    quarantine_file: Path | None
    problems: tuple[str, ...]
    notices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SliceReport:
    """Finished slice of a build: its number of units, and the `problems` of records to quarantine."""

    part: Slice
    units: int
    problems: tuple[str, ...]
    notices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """Index as it would be built, the records for it, and the `problems` of those to quarantine."""

    build: BuildPlan
    counts: TrainingCounts
    problems: tuple[str, ...]
    notices: tuple[str, ...]


def index_training_data(
    workspace: Workspace,
    request: IndexRequest,
    progress: Progress | None = None,
    announce: Callable[[Needs], None] | None = None,
) -> IndexReport:
    """Build or change the index of a model's training data, and register it in the ledger.

    With a ledger, records of unknown providers are quarantined.

    Raises:
        LedgerError: there is no ledger to register the index in; raised before any work.
        InputError: there is nothing to index, or `strict` and a record is bad.
        ValuationError: the model cannot be used, or the folder belongs to something else.
    """
    # Before the model is loaded: a missing ledger or provider must not cost minutes.
    reading, problems, quarantine = _reading(workspace, request)
    with quarantine:
        model = load_model(request.model, dtype=request.dtype, device=request.device)
        _check_checkpoints(request, model)
        with _with_reasons(problems):
            if request.changes:
                reader = reading.reader()
                result = _change(request, model, reader, reader.leave_out, progress, announce)
                notices = reader.notices
            else:
                tokenised = _tokenised(request, reading, model)
                result, notices = _build(request, model, tokenised.data, progress, announce), tokenised.notices
    if request.register:
        with workspace.open() as ledger:
            register(ledger, request.out)
    return IndexReport(
        result.manifest,
        result.existed,
        quarantine.count,
        quarantine.path if quarantine.count else None,
        problems.lines(),
        notices,
    )


def index_slice(
    workspace: Workspace, request: IndexRequest, part: Slice, progress: Progress | None = None
) -> SliceReport:
    """Do a slice of the work of `index_training_data`. Nothing enters the ledger, and nothing the quarantine.

    Raises:
        LedgerError, InputError, ValuationError: as `index_training_data`.
        LockHeldError: another process is at work on this slice.
    """
    reading, problems, _ = _reading(workspace, request, quarantines=False)
    model = load_model(request.model, dtype=request.dtype, device=request.device)
    with _with_reasons(problems):
        tokenised = _tokenised(request, reading, model)
        units = build_slice(
            model,
            tokenised.data,
            request.out,
            request.settings,
            name=request.name,
            part=part,
            exclude_non_finite=request.exclude_non_finite,
            progress=progress,
            engine=engine_for(request.engine, request.device, request.model),
            load=request.load,
        )
    return SliceReport(part, units, problems.lines(), tokenised.notices)


def plan_training_data(workspace: Workspace, request: IndexRequest) -> IndexPlan:
    """Return the plan of `index_training_data`, with time, memory and disk; write nothing.

    Raises:
        LedgerError, InputError, ValuationError: as `index_training_data`, as far as known beforehand.
    """
    reading, problems, _ = _reading(workspace, request, quarantines=False)
    model = load_model(request.model, dtype=request.dtype, device=request.device)
    _check_checkpoints(request, model)
    engine = engine_for(request.engine, request.device, request.model)
    with _with_reasons(problems):
        if request.changes:
            reader = reading.reader()
            others = _checkpoints_of(request)
            plan = plan_revision(
                request.out,
                model,
                reader,
                withdraw=request.withdraw,
                checkpoints=others,
                unusable=reader.leave_out,
                engine=engine,
            )
            counts, notices = reader.counts, reader.notices
        else:
            if request.tokens is None:
                tokenised = tokenise(reading, model, request.out, request.settings)
            else:
                tokenised = kept_or_tokenised(reading, model, request.out, request.settings, request.tokens)
            counts, notices = tokenised.counts, tokenised.notices
            plan = plan_index(model, tokenised.data, request.out, request.settings, engine=engine)
            models = 1 + len(request.checkpoints)
            seconds, disk = models * (plan.needs.seconds or 0.0), models * plan.needs.disk_bytes
            plan = replace(plan, needs=replace(plan.needs, seconds=seconds, disk_bytes=disk))
    return IndexPlan(plan, counts, problems.lines(), notices)


def read_indexed(
    workspace: Workspace, data: Sequence[Path], source: TrainingSource, encoder: ExampleEncoder
) -> list[TrainingRecord]:
    """Return the good records of training data: those in an index of `index_training_data`, with its encoder."""
    reader = TrainingReader(data, source=source, known_providers=known_providers(workspace))
    return list(usable_records(reader, encoder))


def register(ledger: Ledger, folder: Path) -> RegisteredIndex:
    """Register an index in the ledger, under the name of its model in logs."""
    manifest = read_manifest(folder)
    with ledger.write() as conn:
        return register_index(
            conn,
            manifest.name,
            manifest.fingerprint,
            str(folder.resolve()),
            manifest.to_json(),
            now=datetime.now(UTC),
        )


def open_registered(registered: RegisteredIndex, damping: float | None = None) -> AttributionIndex:
    """Open a registered index at its last known place.

    Raises:
        LedgerError: it is gone, or another index is there.
    """
    folder = Path(registered.path)
    if not folder.is_dir():
        raise LedgerError(
            f"the index for {registered.model} was registered at {folder}, which is gone; "
            "name its new place: credit compute --index DIR"
        )
    index = AttributionIndex.open(folder, damping=damping)
    if index.manifest.fingerprint != registered.fingerprint:
        raise LedgerError(
            f"{folder} holds another index than the one registered for {registered.model} "
            f"({registered.fingerprint[:12]}...); name the folder of the right one: credit compute --index DIR"
        )
    return index


def check_providers(conn: Connection, index: AttributionIndex) -> None:
    """Refuse an index of providers unknown to the ledger.

    Raises:
        LedgerError: with their keys.
    """
    known = {provider.key for provider in providers(conn)}
    missing = sorted({group.provider for group in index.groups} - known)
    if missing:
        raise LedgerError(
            f"{index.folder} credits providers that the ledger does not know: {', '.join(missing)}; "
            "add them: credit providers add KEY NAME"
        )


def _reading(
    workspace: Workspace, request: IndexRequest, *, quarantines: bool = True
) -> tuple[TrainingInput, QuarantineSummary, QuarantineFile]:
    """Return the way to read the training data, with the summary and the file that collect bad records."""
    problems = QuarantineSummary()
    paths = hashlib.sha256("\n".join(str(path) for path in request.data).encode()).hexdigest()
    quarantine = QuarantineFile(workspace.quarantine, Path(f"{request.name}.training"), lambda: paths)

    def refuse(item: Quarantined) -> None:
        if request.strict:
            raise InputError(f"{item}; nothing was indexed (--strict)")
        if quarantines:
            quarantine.add(item)
        problems.add(item)

    known = known_providers(workspace) if request.register else None
    reading = TrainingInput(request.data, request.source, known, refuse)
    reading.reader()  # refuses unusable files
    return reading, problems, quarantine


def _tokenised(request: IndexRequest, reading: TrainingInput, model: LanguageModel) -> Tokenised:
    """Return the training data of a build, kept in a folder of their own, or in the index's until it is finished."""
    prepare_folder(request.out)
    place = request.tokens or request.out / TOKENS_FOLDER
    return kept_or_tokenised(reading, model, request.out, request.settings, place)


@contextmanager
def _with_reasons(problems: QuarantineSummary) -> Iterator[None]:
    """Add the problems of the records to an error about data without a good one."""
    try:
        yield
    except InputError as error:
        raise InputError("\n".join((str(error), *problems.lines()))) from error


def _check_checkpoints(request: IndexRequest, model: LanguageModel) -> None:
    """Check the further checkpoints before the model's own index is built, which may take hours.

    Raises:
        ValuationError: a checkpoint is no folder.
        MismatchError: a checkpoint is the model itself.
    """
    for path, _ in request.checkpoints:
        if not path.is_dir():
            raise ValuationError(f"{path} is not a folder; --checkpoint takes a model saved with save_pretrained()")
        if path.resolve() == request.model.resolve():
            raise MismatchError(f"{path} is the model itself; --checkpoint takes others")


def _build(
    request: IndexRequest,
    model: LanguageModel,
    data: TrainingData,
    progress: Progress | None,
    announce: Callable[[Needs], None] | None,
) -> BuildResult:
    load = partial(load_model, dtype=request.dtype, device=request.device)
    return build_index(
        model,
        data,
        request.out,
        request.settings,
        name=request.name,
        checkpoints=[Checkpoint(partial(load, path.resolve()), weight) for path, weight in request.checkpoints],
        exclude_non_finite=request.exclude_non_finite,
        progress=progress,
        announce=announce,
        engine=engine_for(request.engine, request.device, request.model),
        load=request.load,
        merge=request.merge,
    )


def _change(
    request: IndexRequest,
    model: LanguageModel,
    records: Iterable[TrainingRecord],
    unusable: Unusable,
    progress: Progress | None,
    announce: Callable[[Needs], None] | None,
) -> BuildResult:
    others, before = _checkpoints_of(request), read_manifest(request.out)
    engine = engine_for(request.engine, request.device, request.model)

    def loader(own: Task) -> Callable[[], Task]:
        return partial(load_model, Path(own.location), dtype=request.dtype, device=request.device)

    if request.withdraw is not None:
        manifest = withdraw_provider(
            request.out,
            model,
            request.withdraw,
            records,
            checkpoints=others,
            progress=progress,
            announce=announce,
            engine=engine,
            loader=loader,
        )
    else:
        manifest = update_index(
            request.out,
            model,
            records,
            checkpoints=others,
            exclude_non_finite=request.exclude_non_finite,
            unusable=unusable,
            progress=progress,
            announce=announce,
            engine=engine,
            loader=loader,
        )
    return BuildResult(manifest, existed=manifest == before)


def _checkpoints_of(request: IndexRequest) -> list[LanguageModel]:
    """Load the further checkpoints of the index to change."""
    index = AttributionIndex.open(request.out)
    _check_kept(request, index.manifest)
    moved = [path for path, _ in request.checkpoints]
    return index.load_checkpoints(*moved, dtype=request.dtype, device=request.device)


def _check_kept(request: IndexRequest, manifest: IndexManifest) -> None:
    """Refuse a change that asks for other settings than the index has.

    Raises:
        InvalidRequestError: with the first such setting.
    """
    kept = asdict(manifest.settings) | {"max_length": manifest.max_length}
    for name, asked in asdict(request.settings).items():
        if name in request.given and asked != kept[name]:
            raise InvalidRequestError(
                f"{request.out} was built with {name.replace('_', ' ')} {kept[name]}, not {asked}; a change keeps it, "
                "build another index for another"
            )


def known_providers(workspace: Workspace) -> Collection[str]:
    """Return the keys of the providers in the ledger."""
    with workspace.open() as ledger, ledger.read() as conn:
        return [provider.key for provider in providers(conn)]
