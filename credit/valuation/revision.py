"""One change of an index, written beside what counts until its manifest is replaced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from credit.errors import MismatchError
from credit.files import sha256_file
from credit.records import Group
from credit.valuation.assemble import complete_index, versioned
from credit.valuation.curvature import make_statistic
from credit.valuation.data import IndexedExample
from credit.valuation.filling import plan_shards
from credit.valuation.fitting import Progress
from credit.valuation.gradients import GradientTap
from credit.valuation.index import AttributionIndex
from credit.valuation.manifest import MANIFEST, PROJECTIONS_FILE, ExcludedExample, Manifest, MemberIndex, Revision
from credit.valuation.passes import gradient_batches
from credit.valuation.projection import gradient_widths
from credit.valuation.rows import RowLayout, lay_out_rows
from credit.valuation.store import count_rows, encode_rows, keep_rows, read_rows, save_tensors
from credit.valuation.task import AnyExample, Task, device_of
from credit.valuation.weighting import weighted


@dataclass(frozen=True, slots=True)
class Member:
    """An example of the revised index: listed with its old row, new with its content, or left out with neither."""

    id: str
    group: Group
    tokens: int
    digest: str
    old_row: int | None
    example: AnyExample | None


class IndexRevision:
    """One change: `members` are all examples of the index after it, `examples` those that join or leave it."""

    def __init__(
        self,
        index: AttributionIndex,
        model: Task,
        members: Sequence[Member],
        examples: Sequence[AnyExample],
        revision: Revision,
        tokens_per_batch: int,
        exclude: bool,
        progress: Progress | None,
    ) -> None:
        self.index, self.model, self.members, self.examples = index, model, members, examples
        self.revision, self.tokens_per_batch, self.progress = revision, tokens_per_batch, progress
        self.exclude = exclude
        self.version = len(index.manifest.history) + 1
        self.excluded = {member.id for member in members if member.old_row is None and member.example is None}
        self.layout = self._lay_out()
        self.weighting = index.weighting(device_of(model))
        self.statistic = make_statistic(index.manifest.settings.curvature)
        self.sizes = 0.0
        self.done = 0

    def _lay_out(self) -> RowLayout:
        return lay_out_rows(
            [member.id for member in self.members],
            [member.group for member in self.members],
            [member.tokens for member in self.members],
            self.index.manifest.settings.rows_per_group,
            self.excluded,
        )

    def write(self, members: Sequence[tuple[MemberIndex, Manifest]] = (), *, manifest_file: str = MANIFEST) -> Manifest:
        """Write the revised index and return its manifest.

        Args:
            members: the indexes of further checkpoints, revised already.
            manifest_file: where the manifest is written.

        Raises:
            MismatchError: they have other rows, because an example is not finite in some of the models only.
        """
        manifest, folder = self.index.manifest, self.index.folder
        joins = self.revision.action == "update"
        with self.index.tap(self.model) as tap:
            if not joins:
                for _ in self._gradients(tap, self.examples):
                    pass  # they leave the sums; their rows leave with their group
            shards = dict(self._shards(tap))
        layout = self._lay_out()  # less what was found to be left out
        for member, revised in members:
            if revised.groups != layout.groups:
                raise MismatchError(
                    f"{folder / member.folder} would have other rows than {folder}: an example is finite in one of the "
                    "models only; leave it out of the data"
                )
        everything = list(zip(self.members, layout.row_of, strict=True))
        sign = 1 if joins else -1
        statistic = versioned("curvature.safetensors", self.version)
        before = load_file(folder / manifest.statistic, device=str(device_of(self.model)))
        change = self.statistic.sums()  # empty where all that leaves was left out
        sums = {name: total + sign * change[name] if change else total for name, total in before.items()}
        written = {
            statistic: save_tensors(folder / statistic, sums),
            PROJECTIONS_FILE: manifest.files[PROJECTIONS_FILE],
        }
        for member, _ in members:
            name = f"{member.folder}/{member.manifest}"
            written[name] = sha256_file(folder / name)
        draft = replace(
            manifest,
            data_sha256=self.revision.data_sha256,
            groups=layout.groups,
            shards=tuple(sorted(shards)),
            statistic=statistic,
            sizes=manifest.sizes + sign * self.sizes,
            excluded=tuple(
                ExcludedExample(member.id, member.group, member.digest)
                for member, _ in everything
                if member.id in self.excluded
            ),
            checkpoints=tuple(member for member, _ in members),
            history=(*manifest.history, self.revision),
        )
        listed = (
            IndexedExample(member.id, int(row), member.tokens, member.digest) for member, row in everything if row >= 0
        )
        return complete_index(
            folder,
            draft,
            counts=layout.counts,
            listed=listed,
            written=written | shards,
            device=device_of(self.model),
            manifest_file=manifest_file,
        )

    def _gradients(
        self, tap: GradientTap, examples: Sequence[AnyExample]
    ) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        """Yield weighted gradients of examples that join or leave, with their positions; the sums take them too."""
        total = sum(example.size for example in self.examples)
        bad: list[int] | None = [] if self.exclude else None
        for positions, gradients in gradient_batches(self.model, tap, examples, self.tokens_per_batch, excluded=bad):
            self.statistic.add(gradients)
            sizes = self.weighting.sizes(gradients)
            self.sizes += 0.0 if sizes is None else float(sizes.sum())
            yield positions, {name: weighted(rows, sizes) for name, rows in gradients.items()}
            self.done += sum(examples[position].size for position in positions)
            if self.progress:
                self.progress("gradients", self.done, total)
        self.excluded |= {examples[position].id for position in bad or ()}

    def _shards(self, tap: GradientTap) -> Iterator[tuple[str, str]]:
        """Write the new shards, one at a time in memory: old rows where they belong now, plus what joins them."""
        manifest, folder = self.index.manifest, self.index.folder
        widths = gradient_widths(manifest.layers, self.index.projections)
        moved = np.full(manifest.groups[-1].stop, -1, dtype=np.int64)
        joining: list[tuple[int, AnyExample]] = []
        for member, row in zip(self.members, self.layout.row_of, strict=True):
            if member.old_row is not None:
                moved[member.old_row] = row
            elif member.example is not None:
                joining.append((int(row), member.example))
        old = list(self._old_shards(manifest.layers[0].name))
        plan = plan_shards(len(self.layout.counts), sum(widths.values()))
        for number, (low, high) in enumerate(plan):
            sums: dict[str, Tensor] = {}
            occupied: set[int] = set()  # rows that hold something of the old index
            for path, start, stop in old:
                target = moved[start:stop]
                inside = np.flatnonzero((target >= low) & (target < high))
                if len(inside):
                    occupied.update((target[inside] - low).tolist())
                    for name, values in read_rows(path, list(widths), device_of(self.model)):
                        chosen = values[torch.from_numpy(inside).to(values.device)]
                        _add_rows(sums, name, chosen, target[inside] - low, high - low)
            here = [(row - low, example) for row, example in joining if low <= row < high]
            for positions, gradients in self._gradients(tap, [example for _, example in here]):
                rows = np.asarray([here[position][0] for position in positions])
                for name, values in gradients.items():
                    _add_rows(sums, name, values, rows, high - low)
            kept = sorted({row for row, example in here if example.id not in self.excluded} | occupied)
            shard = versioned(f"rows-{number:05d}.safetensors", self.version)
            rows_left = keep_rows(sums, kept, high - low, widths)
            yield shard, save_tensors(folder / shard, encode_rows(rows_left, manifest.settings.rows_dtype))

    def _old_shards(self, layer: str) -> Iterator[tuple[Path, int, int]]:
        """Yield each shard of the index as it was, with its first row and its last + 1."""
        start = 0
        for name in self.index.manifest.shards:
            path = self.index.folder / name
            stop = start + count_rows(path, layer)
            yield path, start, stop
            start = stop


def _add_rows(sums: dict[str, Tensor], name: str, values: Tensor, target: NDArray[np.int64], height: int) -> None:
    """Add values (n, D) to the rows `target` (n,) of a layer's sums (height, D)."""
    if name not in sums:
        sums[name] = values.new_zeros(height, values.shape[1])
    sums[name].index_add_(0, torch.from_numpy(target).to(values.device), values.to(sums[name].dtype))
