"""Attribution index, opened to value outputs.

Legend: Q outputs, K rows, N examples, S·R numbers in a layer's projected gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from credit.errors import MismatchError, ValuationError
from credit.records import MANIFEST, Group
from credit.valuation.batches import gradient_batches
from credit.valuation.curvature import Curvature, Weighting, make_curvature
from credit.valuation.gradients import RowSums
from credit.valuation.hooks import GradientTap
from credit.valuation.influence import GroupRows, Valuation, influence, summarise
from credit.valuation.language_model import LanguageModel, fingerprint_tokenizer_of, load_model, load_output_encoder
from credit.valuation.layers import experts_of, known_layers
from credit.valuation.manifest import (
    PROJECTIONS_FILE,
    IndexManifest,
    check_presence,
    read_manifest,
    verify_file,
    versioned,
)
from credit.valuation.projection import gradient_widths, projections_from_tensors
from credit.valuation.rows import RowShares
from credit.valuation.shards import StoredTensors, read_rows
from credit.valuation.task import Task, device_of
from credit.valuation.tokens import Encoder


class AttributionIndex:
    """The rows, projections and curvature of a model's training data.

    Opening reads the manifest and looks for every file. A file is compared with its checksum at its first use: no
    unverified file is ever used, and no file is read for its checksum alone. So an hourly run reads neither the sums
    behind a factorised curvature nor the listing of examples.

    An index may hold further checkpoints of its model, or models of other seeds. Give it those models once
    (`load_model` does, or `add_models`): its influence is the weighted mean over all of them.

    Attributes:
        rows: layout of the rows by group.
        further: weight and index of each further checkpoint.
    """

    def __init__(self, folder: Path, manifest: IndexManifest, damping: float | None = None) -> None:
        self.folder = folder
        self.manifest = manifest
        self.damping = manifest.settings.damping if damping is None else damping
        self._verified: set[str] = set()
        names = tuple(layer.name for layer in manifest.layers)
        self.projections = projections_from_tensors(names, load_file(self._file(PROJECTIONS_FILE)))
        counts = load_file(self.path("counts.safetensors"))
        owner = torch.zeros(len(counts["counts"]), dtype=torch.int64)
        for number, layout in enumerate(manifest.groups):
            owner[layout.start : layout.stop] = number
        self.rows = GroupRows(owner, counts["counts"], len(manifest.groups), counts["mass"], counts["squares"])
        self._curvature: Curvature | None = None
        self._models: dict[str, Task] = {}
        self.further: tuple[tuple[float, AttributionIndex], ...] = tuple(
            (member.weight, AttributionIndex.open(path.parent, damping=damping, manifest=path.name))
            for member in manifest.checkpoints
            for path in [self._file(f"{member.folder}/{member.manifest}")]
        )

    @classmethod
    def open(cls, folder: Path, *, damping: float | None = None, manifest: str = MANIFEST) -> AttributionIndex:
        """Open a finished index.

        Args:
            folder: the index.
            damping: another damping of the curvature than that of the build.
            manifest: name of the manifest; the index of a checkpoint has its own.

        Raises:
            InputError: `folder` is no finished index.
            IntegrityError: a file is missing, or one that is read at once was altered.
            ValuationError: another damping is asked for, but the rows are weighted with that of the build.
        """
        content = read_manifest(folder, manifest)
        settings = content.settings
        if damping not in {None, settings.damping} and settings.weighs_by_curvature:
            raise ValuationError(
                f"the rows of {folder} were weighted by relatif with damping {settings.damping}, which cannot be "
                f"changed afterwards; build another index with: credit index --weighting relatif --damping {damping}"
            )
        check_presence(folder, content)
        return cls(folder, content, damping)

    def path(self, name: str) -> Path:
        """Return the path of a file of the index, in its current version.

        Raises:
            IntegrityError: the file was altered.
        """
        return self._file(versioned(name, len(self.manifest.history)))

    def _file(self, name: str) -> Path:
        """Return the path of a file by its name in the manifest, compared with its checksum the first time."""
        if name not in self._verified:
            verify_file(self.folder, self.manifest, name)
            self._verified.add(name)
        return self.folder / name

    @property
    def groups(self) -> tuple[Group, ...]:
        """Groups, in the order of the columns of every valuation."""
        return tuple(layout.group for layout in self.manifest.groups)

    def load_model(self, *moved: Path, dtype: str = "auto", device: str = "auto") -> LanguageModel:
        """Load the language model that the index was built with, and those of its further checkpoints.

        Args:
            moved: new folders of moved models, in any order: each is known by its weights.
            dtype: see `language_model.load_model`.
            device: see `language_model.load_model`.

        Returns:
            The model. Those of the checkpoints stay with the index.

        Raises:
            ValuationError: a model is gone from its folder.
            MismatchError: a model is not one of this index.
        """
        manifests = [self.manifest, *self._manifests_of_checkpoints()]
        model, *others = _load_models(self.folder, manifests, moved, dtype=dtype, device=device)
        self.add_models(*others)
        self.check_model(model)
        return model

    def load_encoder(self, *moved: Path) -> Encoder:
        """Load the encoder of outputs, as the index's model has it, without the weights of the model.

        Args:
            moved: new folders of moved models, in any order.

        Raises:
            ValuationError: the model is gone from its folder.
            MismatchError: no folder has the tokenizer of the index.
        """
        places = [folder for folder in (*moved, Path(self.manifest.model_path)) if folder.is_dir()]
        if not places:
            raise _model_is_gone(self.folder, self.manifest)
        for place in places:
            if fingerprint_tokenizer_of(place) == self.manifest.tokenizer_sha256:
                return load_output_encoder(place, self.manifest.max_length)
        raise MismatchError(f"{places[0]} has another tokenizer than the one {self.folder} was built with")

    def load_checkpoints(self, *moved: Path, dtype: str = "auto", device: str = "auto") -> list[LanguageModel]:
        """Load the language models of the further checkpoints alone; see `load_model`."""
        return _load_models(self.folder, self._manifests_of_checkpoints(), moved, dtype=dtype, device=device)

    def _manifests_of_checkpoints(self) -> list[IndexManifest]:
        return [part.manifest for _, part in self.further]

    def add_models(self, *models: Task) -> None:
        """Give the index the models of its further checkpoints, in any order."""
        self._models |= {model.model_sha256: model for model in models}

    def parts(self, model: Task) -> list[tuple[float, AttributionIndex, Task]]:
        """Return the share (of 1) of each checkpoint's index, that index by itself, and its model.

        Raises:
            MismatchError: a model differs from the index's, or was not given.
        """
        self.check_model(model)
        found: list[tuple[float, AttributionIndex, Task]] = [(1.0, self, model)]
        for weight, part in self.further:
            found.append((weight, part, self._models[part.manifest.model_sha256]))
        total = sum(weight for weight, _, _ in found)
        return [(weight / total, part, own) for weight, part, own in found]

    def check_model(self, model: Task) -> None:
        """Refuse any other model or tokenizer than those of the index.

        Raises:
            MismatchError: model or tokenizer differ, or the model of a checkpoint was not given.
        """
        if model.model_sha256 != self.manifest.model_sha256:
            raise MismatchError(f"{model.location} is not the model that {self.folder} was built with")
        if model.tokenizer_sha256 != self.manifest.tokenizer_sha256:
            raise MismatchError(f"{model.location} has another tokenizer than the one {self.folder} was built with")
        for _, part in self.further:
            if part.manifest.model_sha256 not in self._models:
                raise MismatchError(
                    f"{part.folder} is of the model {part.manifest.model_path}, which was not given; "
                    "load both with index.load_model(), or give it with index.add_models()"
                )

    def value(
        self,
        model: Task,
        outputs: Sequence[Any],
        *,
        echo: int = 0,
        noise_floor: float = 1.0,
        tokens_per_batch: int | None = None,
        progress: Callable[[int], None] | None = None,
        non_finite: list[int] | None = None,
    ) -> Valuation:
        """Value logged outputs: every group's influence and support on each, in nats, as (outputs, groups).

        The cost grows with the outputs' tokens and the number of rows, not with the training data.

        Args:
            model: the model that the index was built with.
            outputs: logged generations of that model.
            echo: tokens of an output that repeat this many in a row of its prompt do not enter its loss; 0: all do.
            noise_floor: threshold of support, in units of the output's pooled spread.
            tokens_per_batch: padded tokens in a batch, at most; None for 4096, on a GPU 16384.
            progress: called with the number of examples done after every batch.
            non_finite: takes the positions of outputs with a non-finite gradient or influence; the valuation then has
                rows for the others alone. Without it, the first such output is an error.

        Raises:
            MismatchError: another model or tokenizer.
            InputError: an output has no token to predict.
            IntegrityError: a file of the index was altered.
            ValuationError: an output's gradient is not finite; the message names the output.
        """
        values = self.row_influence(
            model, outputs, echo=echo, tokens_per_batch=tokens_per_batch, progress=progress, non_finite=non_finite
        )
        return summarise(values, self.rows, noise_floor)

    def row_influence(
        self,
        model: Task,
        outputs: Sequence[Any],
        *,
        echo: int = 0,
        tokens_per_batch: int | None = None,
        progress: Callable[[int], None] | None = None,
        non_finite: list[int] | None = None,
    ) -> Tensor:
        """Return the influence of every row on every output, in nats: (Q, K), float32 or better.

        With checkpoints, the weighted mean over all of them. `non_finite` as in `value`.

        Raises:
            MismatchError: another model or tokenizer.
            ValuationError: an output's gradient is not finite.
        """
        bad: set[int] | None = None if non_finite is None else set()
        values = (
            part._own_influence(own, outputs, echo, tokens_per_batch, progress, bad).mul_(share)
            for share, part, own in self.parts(model)
        )
        total = reduce(torch.Tensor.add_, values)
        if non_finite is None or bad is None:
            return total
        # One of several models without a number leaves the output without a mean.
        bad.update((~total.isfinite().all(1)).nonzero().flatten().tolist())
        non_finite.extend(sorted(bad))
        return total[[position for position in range(len(outputs)) if position not in bad]] if bad else total

    def _own_influence(
        self,
        model: Task,
        outputs: Sequence[Any],
        echo: int,
        tokens_per_batch: int | None,
        progress: Callable[[int], None] | None,
        bad: set[int] | None,
    ) -> Tensor:
        """Return the influence of every row on every output by the index's own model alone: (Q, K)."""
        ready = self.preconditioned(
            model, outputs, echo=echo, tokens_per_batch=tokens_per_batch, progress=progress, bad=bad
        )
        scale = self.manifest.scale
        dtype = next(iter(ready.values())).dtype
        values, low = torch.empty(len(outputs), len(self.rows.count), dtype=dtype), 0
        # A shard at a time: all rows need not fit into memory.
        for shard in self.shards(device_of(model)):
            some = influence(ready, shard, scale)
            values[:, low : low + some.shape[1]] = some
            low += some.shape[1]
        return values

    def preconditioned(
        self,
        model: Task,
        outputs: Sequence[Any],
        *,
        echo: int = 0,
        tokens_per_batch: int | None = None,
        progress: Callable[[int], None] | None = None,
        bad: set[int] | None = None,
    ) -> dict[str, Tensor]:
        """Return (M + λI)⁻¹ times each output's gradient, in the index's own model: for each layer (Q, S·R)."""
        queries = self.output_gradients(
            model, outputs, echo=echo, tokens_per_batch=tokens_per_batch, progress=progress, bad=bad
        )
        curvature = self.curvature(device_of(model))
        return {name: curvature.precondition(name, rows) for name, rows in queries.items()}

    def tap(self, model: Task) -> GradientTap:
        """Return the context that yields the model's gradients in this index's layers and projections."""
        layers = known_layers(model.module, self.manifest.layers)
        return GradientTap(model.module, layers.watched, self.projections, flat=model.flat_inputs)

    def output_length(self, model: Task) -> int:
        """Return the most tokens of an output's window: the model's context.

        Training data may be cut finely to tell more apart, but the model wrote an output with its whole context.
        """
        return max(self.manifest.max_length, model.context_length)

    def output_gradients(
        self,
        model: Task,
        outputs: Sequence[Any],
        *,
        echo: int = 0,
        tokens_per_batch: int | None = None,
        progress: Callable[[int], None] | None = None,
        bad: set[int] | None = None,
    ) -> dict[str, Tensor]:
        """Return the projected gradient of each output's loss: for each layer (Q, S·R).

        `bad` takes the positions of outputs with a non-finite gradient, which is zero then. Without it, the first such
        output is an error.
        """
        encoder = model.encoder(self.output_length(model))
        examples, owners = [], []
        for number, output in enumerate(outputs):
            for example in encoder.output(output, echo):
                examples.append(example)
                owners.append(number)
        device = device_of(model)
        sums = RowSums(len(outputs))
        excluded: list[int] | None = None if bad is None else []
        done = 0
        with self.tap(model) as tap:
            for positions, gradients in gradient_batches(model, tap, examples, tokens_per_batch, excluded=excluded):
                row = np.asarray([owners[p] for p in positions])
                sums.add(gradients, RowShares.whole(row).on(device, len(row)))
                done += len(positions)
                if progress:
                    progress(done)
        if bad is not None:
            # One bad window spoils the output: its other windows tell only a part of its sources.
            bad.update(owners[position] for position in excluded or ())
            for rows in sums.layers.values():
                rows[sorted(bad)] = 0
        widths = gradient_widths(self.manifest.layers, self.projections)
        return {
            name: sums.layers[name] if name in sums.layers else torch.zeros(len(outputs), width, device=device)
            for name, width in widths.items()
        }

    def shards(self, device: torch.device) -> Iterator[Iterator[tuple[str, Tensor]]]:
        """Yield the row shards in order. Each yields its layers with their rows (K, S·R), one layer at a time.

        Raises:
            IntegrityError: a shard was altered.
        """
        names = [layer.name for layer in self.manifest.layers]
        for shard in self.manifest.shards:
            yield read_rows(self._file(shard), names, device)

    def weighting(self, device: torch.device) -> Weighting:
        """Return the weighting of this index's examples."""
        settings = self.manifest.settings
        if settings.weighs_by_curvature:
            return Weighting(settings.weighting, self.curvature(device))
        return Weighting(settings.weighting)

    def curvature(self, device: torch.device) -> Curvature:
        """Return the curvature, read or made once, on a device."""
        if self._curvature is None:
            settings = self.manifest.settings
            # Stored factors hold for the damping of the build alone.
            if settings.curvature == "fisher" and self.damping == settings.damping:
                factors = load_file(self.path("factors.safetensors"), device=str(device))
                self._curvature = Curvature(factors)
            else:
                sums = StoredTensors(self._file(self.manifest.statistic), device)
                self._curvature = make_curvature(
                    settings.curvature, sums, self.manifest.examples, self.damping, experts_of(self.manifest.layers)
                )
        return self._curvature


def _load_models(
    folder: Path, manifests: Sequence[IndexManifest], moved: Sequence[Path], *, dtype: str, device: str
) -> list[LanguageModel]:
    """Load the language model of each manifest, in their order, from its folder or its new one.

    Args:
        folder: the index, for messages.
        manifests: of the index's own model, of its further checkpoints, or of all of them.
        moved: new folders of moved models, in any order: each is known by its weights.
        dtype: see `language_model.load_model`.
        device: see `language_model.load_model`.

    Raises:
        ValuationError: a model is gone from its folder.
        MismatchError: a model is not one of this index.
    """
    wanted = {manifest.model_sha256 for manifest in manifests}
    found: dict[str, LanguageModel] = {}
    for path in moved:
        model = load_model(path, dtype=dtype, device=device)
        if model.model_sha256 not in wanted:
            raise MismatchError(f"{model.location} is not the model that {folder} was built with")
        found[model.model_sha256] = model
    for manifest in manifests:
        if manifest.model_sha256 in found:
            continue
        place = Path(manifest.model_path)
        if not place.is_dir():
            raise _model_is_gone(folder, manifest)
        model = load_model(place, dtype=dtype, device=device)
        if model.model_sha256 != manifest.model_sha256:
            raise MismatchError(f"{model.location} is not the model that {folder} was built with; it has changed")
        found[manifest.model_sha256] = model
    return [found[manifest.model_sha256] for manifest in manifests]


def _model_is_gone(folder: Path, manifest: IndexManifest) -> ValuationError:
    return ValuationError(
        f"{manifest.model_path}, a model that {folder} was built with, is not there any more; say where it was moved "
        "with --model DIR, once for each model that moved"
    )
