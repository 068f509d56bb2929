"""Builds an attribution index: every example's projected gradient, summed into rows, and the curvature."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from credit.errors import InputError, LockHeldError, MismatchError, ValuationError
from credit.valuation.checkpoint import STATE
from credit.valuation.curvature import CURVATURES
from credit.valuation.data import encode_training
from credit.valuation.estimate import Needs, check_needs
from credit.valuation.filling import Build
from credit.valuation.fitting import PROJECTIONS, Progress
from credit.valuation.layers import choose_layers
from credit.valuation.manifest import MANIFEST, IndexSettings, Manifest, build_fingerprint, read_manifest
from credit.valuation.passes import DEFAULT_TOKENS_PER_BATCH
from credit.valuation.store import ROW_DTYPES
from credit.valuation.task import Tagged, Task, device_of
from credit.valuation.weighting import WEIGHTINGS


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a build did: the manifest, and whether it found the index finished already."""

    manifest: Manifest
    existed: bool


def build_index(
    model: Task,
    records: Iterable[Tagged],
    out: Path,
    settings: IndexSettings,
    *,
    name: str,
    tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
    exclude_non_finite: bool = False,
    progress: Progress | None = None,
    announce: Callable[[Needs], None] | None = None,
) -> BuildResult:
    """Build the attribution index of a model's training data in the folder `out`.

    A build that was killed continues from its last checkpoint; a finished index of the same inputs is left as it
    is. The batch size changes nothing beyond float rounding.

    Args:
        model: the trained model; its weights are not changed.
        records: training data, tagged with groups.
        out: folder of the index; created if absent.
        settings: everything else that decides the numbers.
        name: what logs call the model.
        tokens_per_batch: padded tokens in a batch, at most.
        exclude_non_finite: leave examples out whose gradient is not finite, and name them in the manifest; else the
            first one is an error. The index is then that of the other examples.
        progress: called after every batch.
        announce: called once, before the work begins, with the disk and memory that it needs.

    Raises:
        MismatchError: `out` holds an index, or part of one, of other inputs.
        ValuationError: it does not fit into memory or on the disk, or a gradient is not finite.
        LockHeldError: another build is at work in `out`.
    """
    check_settings(settings)
    max_length = settings.max_length or model.max_length
    data = encode_training(records, model.encoder(max_length))
    dtype = str(next(model.module.parameters()).dtype).removeprefix("torch.")
    identity = partial(
        build_fingerprint,
        model.model_sha256,
        model.tokenizer_sha256,
        data.sha256,
        data.sha256,
        dtype,
        settings,
        max_length,
    )
    _prepare_folder(out)
    try:
        with FileLock(out / ".lock", timeout=0):
            if (out / MANIFEST).is_file():
                return BuildResult(_same_index(out, identity, exclude_non_finite), existed=True)
            layers = choose_layers(model.module, lm_head=settings.lm_head, patterns=settings.layers)
            build = Build(
                model, data, out, settings, layers, identity(), tokens_per_batch, exclude_non_finite, progress
            )
            check_needs(build.needs, out, device_of(model))
            if announce:
                announce(build.needs)
            build.run()
            manifest = build.finish(name=name, dtype=dtype, max_length=max_length)
            return BuildResult(manifest, existed=False)
    except Timeout as error:
        raise LockHeldError(f"another build is at work in {out}; wait for it or choose another --out") from error


def check_settings(settings: IndexSettings) -> None:
    """Refuse settings that this version cannot honour.

    Raises:
        ValuationError: naming the setting and the values that can be chosen.
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
    if not 0 < settings.damping < float("inf"):
        raise ValuationError(f"damping {settings.damping} must be positive and finite")


def _prepare_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{out} is a file; --out must name a folder") from error
    content = {path.name for path in out.iterdir()}
    if content - {".lock"} and not content & {MANIFEST, STATE}:
        raise InputError(f"{out} is not empty and holds no index; choose another --out")


def _same_index(out: Path, identity: Callable[[Sequence[str]], str], exclude: bool) -> Manifest:
    """Return the manifest of a finished index, if it is what would be built: `identity` by what is left out."""
    manifest = read_manifest(out)
    left_out = [example.id for example in manifest.excluded]
    if manifest.fingerprint != identity(left_out):
        raise MismatchError(
            f"{out} holds an index of another model, other data or other settings; choose another --out"
        )
    if left_out and not exclude:
        raise ValuationError(
            f"{out} leaves out {len(left_out)} examples whose gradient is not finite, such as {left_out[0]}; "
            "take it so with --non-finite exclude"
        )
    return manifest
