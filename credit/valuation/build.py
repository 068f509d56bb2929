"""Builds an attribution index: every example's projected gradient, summed into rows, and the curvature."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file
from torch import Tensor

from credit.errors import InputError, LockHeldError, MismatchError, ValuationError
from credit.records import TrainingRecord
from credit.valuation.assemble import complete_index
from credit.valuation.batching import make_batch, plan_batches
from credit.valuation.curvature import CURVATURES, make_statistic
from credit.valuation.data import IndexedExample, TrainingData, encode_training
from credit.valuation.estimate import Needs, build_needs, check_needs
from credit.valuation.fitting import PROJECTIONS, Progress, make_projections
from credit.valuation.gradients import GradientTap
from credit.valuation.layers import LayerChoice, LayerShape, choose_layers
from credit.valuation.manifest import (
    MANIFEST,
    PROJECTIONS_FILE,
    IndexSettings,
    Manifest,
    build_fingerprint,
    read_manifest,
    write_whole,
)
from credit.valuation.model import LanguageModel, sha256_file
from credit.valuation.projection import (
    LayerProjection,
    projected_shape,
    projections_from_tensors,
    projections_to_tensors,
)
from credit.valuation.rows import RowLayout, lay_out_rows
from credit.valuation.store import ROW_DTYPES, encode_rows, save_tensors
from credit.valuation.tokens import Encoder, Example

_STATE = "build.json"
_SHARD_BYTES = 256 * 2**20
_CHECKPOINT_SECONDS = 120.0
DEFAULT_TOKENS_PER_BATCH = 4096


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a build did: the manifest, and whether it found the index finished already."""

    manifest: Manifest
    existed: bool


def build_index(
    model: LanguageModel,
    records: Iterable[TrainingRecord],
    out: Path,
    settings: IndexSettings,
    *,
    name: str,
    tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
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
        settings: rank, projection, curvature, damping, rows.
        name: what logs call the model.
        tokens_per_batch: padded tokens in a batch, at most.
        progress: called after every batch.
        announce: called once, before the work begins, with the disk and memory that it needs.

    Raises:
        MismatchError: `out` holds an index, or part of one, of other inputs.
        ValuationError: it does not fit into memory or on the disk, or a gradient is not finite.
        LockHeldError: another build is at work in `out`.
    """
    check_settings(settings)
    max_length = settings.max_length or model.max_length
    data = encode_training(records, Encoder(model.tokenizer, max_length))
    dtype = str(next(model.module.parameters()).dtype).removeprefix("torch.")
    fingerprint = build_fingerprint(
        model.model_sha256, model.tokenizer_sha256, data.sha256, data.sha256, dtype, settings, max_length
    )
    _prepare_folder(out)
    try:
        with FileLock(out / ".lock", timeout=0):
            if (out / MANIFEST).is_file():
                return BuildResult(_same_index(out, fingerprint), existed=True)
            layers = choose_layers(model.module, lm_head=settings.lm_head, patterns=settings.layers)
            build = _Build(model, data, out, settings, layers, fingerprint, tokens_per_batch, progress)
            check_needs(build.needs, out, model.device)
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
    if content - {".lock"} and not content & {MANIFEST, _STATE}:
        raise InputError(f"{out} is not empty and holds no index; choose another --out")


def _same_index(out: Path, fingerprint: str) -> Manifest:
    manifest = read_manifest(out)
    if manifest.fingerprint != fingerprint:
        raise MismatchError(
            f"{out} holds an index of another model, other data or other settings; choose another --out"
        )
    return manifest


@dataclass(slots=True)
class _State:
    """What a killed build finds again: shards written, and the curvature file that belongs to them."""

    fingerprint: str
    projections: str | None
    shards: dict[str, str]
    sums: str | None

    def write(self, out: Path) -> None:
        body = asdict(self)
        write_whole(out / _STATE, json.dumps(body).encode())


class _Build:
    """One build: units of consecutive rows, each written as a shard when all its examples have been seen."""

    def __init__(
        self,
        model: LanguageModel,
        data: TrainingData,
        out: Path,
        settings: IndexSettings,
        layers: LayerChoice,
        fingerprint: str,
        tokens_per_batch: int,
        progress: Progress | None,
    ) -> None:
        self.model, self.data, self.out, self.settings, self.layers = model, data, out, settings, layers
        self.tokens_per_batch, self.progress = tokens_per_batch, progress
        self.rows: RowLayout = lay_out_rows(
            [example.id for example in data.examples],
            data.groups,
            [example.predicted for example in data.examples],
            settings.rows_per_group,
        )
        self.state = self._load_state(fingerprint)
        self.projections = self._open_projections()
        self.statistic = make_statistic(settings.curvature)
        if self.state.sums is not None:
            self.statistic.restore(load_file(self.out / self.state.sums, device=str(model.device)))

    @property
    def needs(self) -> Needs:
        """What the build needs beyond the model."""
        return build_needs(len(self.rows.counts), self.layers.shapes, self.projections, self.settings, _SHARD_BYTES)

    def run(self) -> None:
        """Go through all units that no checkpoint covers."""
        total = sum(len(example.tokens) for example in self.data.examples)
        done = 0
        pending: dict[str, str] = {}
        last = time.monotonic()
        units = list(self._units())
        with GradientTap(self.model.module, self.layers.watched, self.projections) as tap:
            for number, (low, high, members) in enumerate(units):
                shard = f"rows-{number:05d}.safetensors"
                size = sum(len(self.data.examples[i].tokens) for i in members)
                if shard not in self.state.shards:
                    tensors = self._sum_rows(tap, low, high, members, done, total)
                    pending[shard] = save_tensors(self.out / shard, encode_rows(tensors, self.settings.rows_dtype))
                    if number == len(units) - 1 or time.monotonic() - last > _CHECKPOINT_SECONDS:
                        self._checkpoint(pending, number)
                        pending, last = {}, time.monotonic()
                done += size

    def finish(self, *, name: str, dtype: str, max_length: int) -> Manifest:
        """Write everything that is left, and the manifest last."""
        assert self.state.sums is not None  # noqa: S101  # run() ended with a checkpoint
        assert self.state.projections is not None  # noqa: S101  # written before run()
        draft = Manifest(
            name=name,
            model_path=str(self.model.path.resolve()),
            model_sha256=self.model.model_sha256,
            tokenizer_sha256=self.model.tokenizer_sha256,
            data_sha256=self.data.sha256,
            fitted_sha256=self.data.sha256,
            dtype=dtype,
            settings=self.settings,
            max_length=max_length,
            layers=self.layers.shapes,
            skipped=self.layers.skipped,
            groups=self.rows.groups,
            shards=tuple(sorted(self.state.shards)),
            statistic=self.state.sums,
            history=(),
            files={},
        )
        self.statistic = make_statistic("none")  # its sums are stored, and make room for what is made of them
        manifest = complete_index(
            self.out,
            draft,
            counts=self.rows.counts,
            listed=(
                IndexedExample(example.id, int(row), example.predicted, example.short_digest())
                for example, row in zip(self.data.examples, self.rows.row_of, strict=True)
            ),
            written=self.state.shards
            | {
                self.state.sums: sha256_file(self.out / self.state.sums),
                PROJECTIONS_FILE: self.state.projections,
            },
            device=self.model.device,
        )
        (self.out / _STATE).unlink()
        return manifest

    def _units(self) -> Iterator[tuple[int, int, list[int]]]:
        """Yield (first row, last row + 1, examples) of each unit: a shard's worth of consecutive rows."""
        order = np.argsort(self.rows.row_of, kind="stable")
        sorted_rows = self.rows.row_of[order]
        for low, high in plan_shards(len(self.rows.counts), self.layers.shapes, self.projections):
            first, last = np.searchsorted(sorted_rows, [low, high])
            yield low, high, order[first:last].tolist()

    def _sum_rows(
        self, tap: GradientTap, low: int, high: int, members: list[int], done: int, total: int
    ) -> dict[str, Tensor]:
        device = self.model.device
        sums: dict[str, Tensor] = {}
        for positions in plan_batches([len(self.data.examples[i].tokens) for i in members], self.tokens_per_batch):
            chosen = [members[p] for p in positions]
            gradients = example_gradients(self.model, tap, [self.data.examples[i] for i in chosen])
            target = torch.from_numpy(self.rows.row_of[chosen] - low).to(device)
            for layer, rows in gradients.items():
                if layer not in sums:
                    sums[layer] = rows.new_zeros(high - low, rows.shape[1])
                sums[layer].index_add_(0, target, rows)
            self.statistic.add(gradients)
            done += sum(len(self.data.examples[i].tokens) for i in chosen)
            if self.progress:
                self.progress("gradients", done, total)
        return sums

    def _checkpoint(self, pending: Mapping[str, str], number: int) -> None:
        """Make the shards written since the last checkpoint count, together with their curvature."""
        before = self.state.sums
        sums = f"curvature-{number:05d}.safetensors"
        save_tensors(self.out / sums, self.statistic.sums())
        self.state = replace(self.state, shards=self.state.shards | dict(pending), sums=sums)
        self.state.write(self.out)
        if before is not None and before != sums:
            (self.out / before).unlink()

    def _open_projections(self) -> dict[str, LayerProjection]:
        """Make the projections, or read those that a build which was stopped has made: rows of both must agree."""
        path = self.out / PROJECTIONS_FILE
        if self.state.projections is None:
            projections = make_projections(
                self.model,
                self.layers,
                self.data.examples,
                self.settings,
                tokens_per_batch=self.tokens_per_batch,
                progress=self.progress,
            )
            digest = save_tensors(path, projections_to_tensors(projections))
            self.state = replace(self.state, projections=digest)
            self.state.write(self.out)
        return projections_from_tensors(tuple(self.layers.watched), load_file(path))

    def _load_state(self, fingerprint: str) -> _State:
        path = self.out / _STATE
        if not path.is_file():
            state = _State(fingerprint, None, {}, None)
            state.write(self.out)
            return state
        state = _State(**json.loads(path.read_text()))
        if state.fingerprint != fingerprint:
            raise MismatchError(
                f"{self.out} holds an unfinished index of another model, other data or other settings; "
                "choose another --out or delete it"
            )
        return state


def plan_shards(
    rows: int, shapes: Sequence[LayerShape], projections: Mapping[str, LayerProjection]
) -> Iterator[tuple[int, int]]:
    """Yield (first row, last row + 1) of each shard."""
    width = sum(math.prod(projected_shape(shape, projections[shape.name])) for shape in shapes)
    step = max(1, _SHARD_BYTES // (4 * width))
    for low in range(0, rows, step):
        yield low, min(low + step, rows)


def example_gradients(model: LanguageModel, tap: GradientTap, examples: Sequence[Example]) -> dict[str, Tensor]:
    """Projected gradients of a batch of examples: for each layer (N, S·R), vec in row-major order.

    Raises:
        ValuationError: an example's gradient is not finite; the message names the example.
    """
    batch = make_batch(examples).to(model.device)
    gradients = {name: rows.flatten(1) for name, rows in tap.collect(lambda: model.loss(batch), batch.size).items()}
    finite = torch.stack([rows.sum(1) for rows in gradients.values()]).sum(0).isfinite()
    if not finite.all():
        bad = examples[int((~finite).nonzero()[0])]
        raise ValuationError(f"the gradient of {bad.id} is not finite in {model.path.name}; try --dtype fp32")
    return gradients
