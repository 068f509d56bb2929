"""Builds of attribution indexes, and of the indexes of further checkpoints inside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from credit.engines import Engine, Slice
from credit.errors import IncompleteError, InputError, MismatchError, ValuationError
from credit.records import MANIFEST
from credit.storage import is_left_over, make_folder, nearest_folder, only_one, sha256_file, write_whole
from credit.valuation.batches import Progress
from credit.valuation.change import Change
from credit.valuation.curvature import CURVATURES, WEIGHTINGS
from credit.valuation.examples import TrainingData, Unusable, columns_of, encode_training
from credit.valuation.layers import choose_layers
from credit.valuation.manifest import (
    IndexInputs,
    IndexManifest,
    IndexSettings,
    MemberIndex,
    read_manifest,
)
from credit.valuation.passes import RunOptions
from credit.valuation.projection import PROJECTIONS
from credit.valuation.requirements import Needs, check_needs, room_on_disk
from credit.valuation.shards import ROW_DTYPES
from credit.valuation.task import Tagged, Task, device_of
from credit.valuation.unit_files import TOKENS_FOLDER, WORK_FOLDER, delete_work
from credit.valuation.writer import IndexWriter

_SHOWN = 20
"""Units named in an error, at most."""

LOCK_FILE = ".lock"
"""File in an index's folder, locked by the process that builds or changes the index."""


@dataclass(frozen=True, slots=True)
class BuildResult:
    """Result of a build: the manifest, and `existed` if the index was finished already."""

    manifest: IndexManifest
    existed: bool


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """Result of a dry run: the index after a build or a change, and its requirements.

    Attributes:
        examples: examples of the index. Non-finite ones, which the work would exclude, are among them.
        tokens: predicted tokens of these examples.
        groups: groups of the index.
        rows: rows of the index.
        needs: time, memory and disk for the work.
        existed: True if there is nothing to do.
        changing: number of examples that join or leave; None for a build.
    """

    examples: int
    tokens: int
    groups: int
    rows: int
    needs: Needs
    existed: bool
    changing: int | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A further checkpoint of a model, or the model of another seed.

    Attributes:
        load: loads the checkpoint; called late, so one checkpoint at a time is in memory.
        weight: weight of its influence; the index's own model weighs 1.
    """

    load: Callable[[], Task]
    weight: float = 1.0


def build_index(
    model: Task,
    records: Iterable[Tagged] | TrainingData,
    out: Path,
    settings: IndexSettings,
    *,
    name: str,
    checkpoints: Sequence[Checkpoint] = (),
    tokens_per_batch: int | None = None,
    exclude_non_finite: bool = False,
    unusable: Unusable | None = None,
    progress: Progress | None = None,
    announce: Callable[[Needs], None] | None = None,
    engine: Engine | None = None,
    load: Callable[[], Task] | None = None,
    merge: bool = False,
) -> BuildResult:
    """Build the attribution index of a model's training data in the folder `out`.

    An interrupted build resumes. A finished index of the same inputs stays as it is. The batch size changes nothing
    beyond float rounding.

    Args:
        model: the trained model; its weights stay as they are.
        records: training data, tagged with groups; or the same encoded by `encode_data`.
        out: folder of the index; created if absent.
        settings: everything else that decides the numbers.
        name: name of the model in logs.
        checkpoints: further checkpoints or seeds of the model; influence is the weighted mean over all of them.
        tokens_per_batch: padded tokens in a batch, at most; None for 4096, on a GPU 16384.
        exclude_non_finite: exclude examples with non-finite gradients and name them in the manifest; otherwise the
            first is an error.
        unusable: takes the errors of records without examples; see `examples.encode_training`.
        progress: called after every batch.
        announce: called once before the work begins, with its time, memory and disk. Without it, no probe is made.
        engine: its workers do the gradients; None for this process. They leave the same bytes.
        load: loads the model in a worker of another process; must be known to `pickle`. Checkpoints have their own.
        merge: only finish what slices have done (`build_slice`).

    Raises:
        MismatchError: `out` holds an index of other inputs, finished or not.
        ValuationError: the index does not fit into memory or on the disk, or a gradient is not finite.
        LockHeldError: another build is at work in `out`.
        IncompleteError: `merge`, and units are missing or spoiled; the message names them.
    """
    check_settings(settings)
    for checkpoint in checkpoints:
        _check_weight(checkpoint)
    data = encode_data(model, records, out, settings, unusable)
    options = RunOptions(tokens_per_batch, exclude_non_finite, progress, announce, engine, load)
    result = _build_one(model, data, out, settings, name, options, merge=merge)
    manifest = result.manifest
    known = len(manifest.checkpoints)
    for checkpoint in checkpoints:
        manifest = _add(out, manifest, checkpoint, data, options)
    if len(manifest.checkpoints) != len(checkpoints):
        raise MismatchError(
            f"{out} holds {len(manifest.checkpoints)} further checkpoints, not {len(checkpoints)}; name all of them, "
            "each once, or choose another --out"
        )
    return BuildResult(manifest, existed=result.existed and known == len(checkpoints))


def build_slice(
    model: Task,
    records: Iterable[Tagged] | TrainingData,
    out: Path,
    settings: IndexSettings,
    *,
    name: str,
    part: Slice,
    tokens_per_batch: int | None = None,
    exclude_non_finite: bool = False,
    unusable: Unusable | None = None,
    progress: Progress | None = None,
    engine: Engine | None = None,
    load: Callable[[], Task] | None = None,
) -> int:
    """Do a slice of the units of `build_index`, in a folder for all slices; return the number of its units.

    Slices run in any order, at once or one after the other, on any machines, and again after an interruption. When
    all are done, `build_index(..., merge=True)` makes the index of them.

    Args:
        model: see `build_index`, as for all others but the slice.
        records: all training data, not only that of the slice.
        out: a folder on a disk in common.
        settings: see `build_index`.
        name: see `build_index`.
        part: the slice.
        tokens_per_batch: see `build_index`.
        exclude_non_finite: see `build_index`.
        unusable: see `build_index`.
        progress: called with the tokens of this slice.
        engine: see `build_index`.
        load: see `build_index`.

    Raises:
        MismatchError: `out` holds an index of other inputs, finished or not.
        ValuationError: the weighting needs all data twice, or a gradient is not finite.
        LockHeldError: another process is at work on this slice.
    """
    check_settings(settings)
    data = encode_data(model, records, out, settings, unusable)
    empty = _empty_index(model, data, settings, name)
    prepare_folder(out)
    if (out / MANIFEST).is_file():
        _same_index(out, empty.inputs, exclude=exclude_non_finite)
        return 0
    options = RunOptions(tokens_per_batch, exclude_non_finite, progress, engine=engine, load=load)
    writer = IndexWriter(model, out, empty, _build_of(data), options)
    check_needs(writer.needs, out, device_of(model))
    with room_on_disk(out, writer.needs.disk_bytes, "the slice resumes"):
        return writer.run_slice(part)


def plan_index(
    model: Task,
    records: Iterable[Tagged] | TrainingData,
    out: Path,
    settings: IndexSettings,
    *,
    tokens_per_batch: int | None = None,
    unusable: Unusable | None = None,
    engine: Engine | None = None,
) -> BuildPlan:
    """Return the requirements of `build_index`, by a short probe of the model, and write nothing.

    Raises:
        MismatchError, ValuationError: see `build_index`, as far as it is known before the work.
    """
    check_settings(settings)
    data = encode_data(model, records, out, settings, unusable)
    empty = _empty_index(model, data, settings, "")
    _check_folder(out)
    writer = IndexWriter(model, out, empty, _build_of(data), RunOptions(tokens_per_batch, exclude=True, engine=engine))
    existed = (out / MANIFEST).is_file()
    if existed:
        _same_index(out, empty.inputs, exclude=True)
        needs = replace(writer.needs, seconds=0.0)
    else:
        check_needs(writer.needs, out, device_of(model))
        needs = writer.probed_needs()
        check_needs(needs, out, device_of(model))
    tokens = int(columns_of(data.members).tokens.sum())
    layout = writer.plan.layout
    return BuildPlan(len(data.members), tokens, len(layout.groups), len(layout.counts), needs, existed)


def add_checkpoint(
    folder: Path,
    checkpoint: Checkpoint,
    records: Iterable[Tagged],
    *,
    tokens_per_batch: int | None = None,
    exclude_non_finite: bool = False,
    unusable: Unusable | None = None,
    progress: Progress | None = None,
    announce: Callable[[Needs], None] | None = None,
) -> IndexManifest:
    """Add a checkpoint of the model, or the model of another seed, to a finished index.

    A checkpoint that the index has already stays as it is. An interrupted build of one resumes.

    Args:
        folder: a finished index.
        checkpoint: the model and its weight.
        records: the training data of the index.
        tokens_per_batch: see `build_index`.
        exclude_non_finite: see `build_index`.
        unusable: see `build_index`.
        progress: called after every batch.
        announce: see `build_index`.

    Raises:
        MismatchError: the data or the tokenizer differs, or the index has the checkpoint with another weight.
        ValuationError, LockHeldError: see `build_index`.
    """
    _check_weight(checkpoint)
    manifest = read_manifest(folder)
    model = checkpoint.load()
    length = manifest.settings.example_length
    data = encode_training(records, manifest.encoder(model), length, unusable, folder=folder)
    loaded = Checkpoint(lambda: model, checkpoint.weight)
    options = RunOptions(tokens_per_batch, exclude_non_finite, progress, announce)
    return _add(folder, manifest, loaded, data, options)


def encode_data(
    model: Task,
    records: Iterable[Tagged] | TrainingData,
    out: Path,
    settings: IndexSettings,
    unusable: Unusable | None = None,
) -> TrainingData:
    """Encode the training data of a build; see `examples.encode_training`."""
    if isinstance(records, TrainingData):
        return records
    encoder = model.encoder(settings.max_length or model.max_length, settings.template_date)
    return encode_training(records, encoder, settings.example_length, unusable, folder=nearest_folder(out))


def _check_weight(checkpoint: Checkpoint) -> None:
    if not 0 < checkpoint.weight < float("inf"):
        raise ValuationError(f"the weight {checkpoint.weight} of a checkpoint must be positive and finite")


def _add(
    folder: Path, manifest: IndexManifest, checkpoint: Checkpoint, data: TrainingData, options: RunOptions
) -> IndexManifest:
    """Build the index of a checkpoint inside that of its model. It counts once the manifest names it."""
    model = checkpoint.load()
    if model.tokenizer_sha256 != manifest.tokenizer_sha256:
        raise MismatchError(f"{model.location} has another tokenizer than the one {folder} was built with")
    if model.model_sha256 == manifest.model_sha256:
        raise MismatchError(f"{model.location} is the model that {folder} was built with, not a further checkpoint")
    for member in manifest.checkpoints:
        if read_manifest(folder / member.folder, member.manifest).model_sha256 == model.model_sha256:
            if member.weight != checkpoint.weight:
                raise MismatchError(f"{model.location} is in {folder} with weight {member.weight}; keep it, or rebuild")
            return manifest
    settings = replace(manifest.settings, max_length=manifest.max_length)
    inside = f"checkpoint-{len(manifest.checkpoints) + 1}"
    own = replace(options, load=checkpoint.load)
    built = _build_one(model, data, folder / inside, settings, manifest.name, own).manifest
    if (built.data_sha256, built.groups) != (manifest.data_sha256, manifest.groups):
        raise MismatchError(
            f"{folder / inside} has other data or other rows than {folder}: give the data that the index was built "
            "from, all of it finite in both models"
        )
    member = MemberIndex(inside, MANIFEST, built.fingerprint, checkpoint.weight)
    whole = replace(
        manifest,
        checkpoints=(*manifest.checkpoints, member),
        files={**manifest.files, f"{inside}/{MANIFEST}": sha256_file(folder / inside / MANIFEST)},
    )
    with _locked(folder):
        write_whole(folder / MANIFEST, whole.to_json().encode())
    return whole


def _build_one(
    model: Task,
    data: TrainingData,
    out: Path,
    settings: IndexSettings,
    name: str,
    options: RunOptions,
    *,
    merge: bool = False,
) -> BuildResult:
    """Build the index of one model."""
    empty = _empty_index(model, data, settings, name)
    prepare_folder(out)
    with _locked(out):
        if (out / MANIFEST).is_file():
            delete_work(out)  # left by a run that was killed right after its last rename
            return BuildResult(_same_index(out, empty.inputs, exclude=options.exclude), existed=True)
        writer = IndexWriter(model, out, empty, _build_of(data), options)
        if merge and (problems := writer.problems()):
            raise _incomplete(out, problems)
        check_needs(writer.needs, out, device_of(model))
        if options.announce and not merge:
            probed = writer.probed_needs()
            check_needs(probed, out, device_of(model))
            options.announce(probed)
        with room_on_disk(out, writer.needs.disk_bytes, "the build resumes"):
            writer.run()
            manifest = writer.finish()
        return BuildResult(manifest, existed=False)


def _incomplete(out: Path, problems: Sequence[str]) -> IncompleteError:
    listed = "; ".join(problems[:_SHOWN]) + (f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else "")
    return IncompleteError(
        f"{out}: {listed}. Of N slices, unit U is in slice (U mod N) + 1: run those again with --slice, then --merge"
    )


def _build_of(data: TrainingData) -> Change:
    """Return a build as a change: all examples join an empty index."""
    return Change(data.members, data.members, data.sha256)


def _empty_index(model: Task, data: TrainingData, settings: IndexSettings, name: str) -> IndexManifest:
    """Return the manifest of an index of a model, before any example has joined it."""
    layers = choose_layers(model.module, settings.layers)
    return IndexManifest(
        name=name,
        model_path=model.location,
        model_sha256=model.model_sha256,
        tokenizer_sha256=model.tokenizer_sha256,
        data_sha256=data.sha256,
        fitted_sha256=data.sha256,
        dtype=str(next(model.module.parameters()).dtype).removeprefix("torch."),
        settings=settings,
        max_length=settings.max_length or model.max_length,
        layers=layers.shapes,
        skipped=layers.skipped,
        groups=(),
        shards=(),
        statistic="",
        sizes=0.0,
        excluded=(),
        checkpoints=(),
        history=(),
        files={},
    )


def check_settings(settings: IndexSettings) -> None:
    """Refuse unknown or impossible settings.

    Raises:
        ValuationError: with the setting and its possible values.
    """
    for setting, value, choices in (
        ("projection", settings.projection, PROJECTIONS),
        ("curvature", settings.curvature, CURVATURES),
        ("rows dtype", settings.rows_dtype, ROW_DTYPES),
        ("weighting", settings.weighting, WEIGHTINGS),
    ):
        if value not in choices:
            raise ValuationError(f"{setting} {value!r} is unknown; choose one of {', '.join(choices)}")
    if settings.sample < 1:
        raise ValuationError(f"a sample of {settings.sample} examples has no second moments; it must be at least 1")
    if settings.example_length is not None and settings.example_length < 1:
        raise ValuationError(f"examples of {settings.example_length} tokens predict nothing; give 1 or more, or none")
    if not 0 < settings.damping < float("inf"):
        raise ValuationError(f"damping {settings.damping} must be positive and finite")


def _same_index(out: Path, inputs: IndexInputs, *, exclude: bool) -> IndexManifest:
    """Return the manifest of a finished index, if it has these inputs; further checkpoints do not matter.

    Raises:
        MismatchError: it has other inputs.
        ValuationError: it excludes examples, and `exclude` is False.
    """
    manifest = read_manifest(out)
    excluded = [example.id for example in manifest.excluded]
    if manifest.inputs.sha256 != inputs.sha256:
        raise MismatchError(f"{out} holds an index of {manifest.inputs.differences(inputs)}; choose another --out")
    if excluded and not exclude:
        raise ValuationError(
            f"{out} excludes {len(excluded)} examples with non-finite gradients, such as {excluded[0]}; accept this "
            "with --non-finite exclude"
        )
    return manifest


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Context that locks a folder: only one process builds in it.

    Raises:
        LockHeldError: another process has the lock.
    """
    with only_one(out / LOCK_FILE, f"another build is at work in {out}; wait for it or choose another --out"):
        yield


def prepare_folder(out: Path) -> None:
    """Create the folder of an index.

    Raises:
        InputError: it is a file, or has other content.
    """
    try:
        make_folder(out)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{out} is a file; --out must name a folder") from error
    _check_folder(out)


def _check_folder(out: Path) -> None:
    """Refuse a folder for an index if it is a file, or has other content.

    Raises:
        InputError: with the reason.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out} is a file; --out must name a folder")
    content = {path.name for path in out.iterdir() if not is_left_over(path.name)}
    if content - {LOCK_FILE} and not content & {MANIFEST, WORK_FOLDER, TOKENS_FOLDER}:
        raise InputError(f"{out} is not empty and holds no index; choose another --out")
