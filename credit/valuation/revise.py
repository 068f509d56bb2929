"""Changes an index after it was built: adds new data, or takes a provider out exactly.

Rows and curvature are sums over examples, so that a change is an addition or a subtraction: an update costs the
gradients of the new examples, a withdrawal those of the withdrawn ones. New files are written beside the old ones and
count from the moment the manifest is replaced; a run that is killed leaves the index as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from credit.errors import InputError, LockHeldError, MismatchError, ValuationError
from credit.records import Group
from credit.valuation.assemble import complete_index, versioned
from credit.valuation.curvature import make_statistic
from credit.valuation.data import (
    EXAMPLES_FILE,
    IndexedExample,
    changed_hash,
    encode_training,
    hash_of,
    match_members,
    read_listing,
)
from credit.valuation.filling import plan_shards
from credit.valuation.fitting import Progress
from credit.valuation.gradients import GradientTap
from credit.valuation.index import AttributionIndex
from credit.valuation.manifest import PROJECTIONS_FILE, ExcludedExample, Manifest, Revision
from credit.valuation.passes import DEFAULT_TOKENS_PER_BATCH, gradient_batches
from credit.valuation.projection import gradient_widths
from credit.valuation.rows import RowLayout, lay_out_rows
from credit.valuation.store import count_rows, encode_rows, keep_rows, read_rows, save_tensors
from credit.valuation.task import AnyExample, Tagged, Task, device_of, short_digest
from credit.valuation.weighting import needs_curvature, weighted


@dataclass(frozen=True, slots=True)
class _Member:
    """An example of the revised index: listed with its old row, new with its content, or left out with neither."""

    id: str
    group: Group
    tokens: int
    digest: str
    old_row: int | None
    example: AnyExample | None


def update_index(
    folder: Path,
    model: Task,
    records: Iterable[Tagged],
    *,
    tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
    exclude_non_finite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Add training data to an index; records that it holds already are passed over.

    The result equals an index built of all the data, but for projections that were fitted to the first data: those
    stay.

    Args:
        folder: a finished index.
        model: the model that it was built with.
        records: new data, or all of it.
        tokens_per_batch: padded tokens in a batch, at most.
        exclude_non_finite: leave new examples out whose gradient is not finite; else the first one is an error.
        progress: called after every batch.

    Raises:
        MismatchError: another model, or a record that the index holds with another content.
        LockHeldError: another run is changing the index.
        ValuationError: the weights of all its examples would change.
    """
    with _revising(folder) as index:
        index.check_model(model)
        data = encode_training(records, model.encoder(index.manifest.max_length))
        members = list(_listed(index))
        known = {member.id: member for member in members}
        added: list[tuple[Group, AnyExample]] = []
        for example, group in zip(data.examples, data.groups, strict=True):
            before = known.get(example.id)
            if before is None:
                added.append((group, example))
            elif (before.digest, before.group) != (short_digest(example), group):
                raise MismatchError(
                    f"{example.id} of {group} is in {folder} with another content; withdraw its provider first, "
                    "or give the record another id"
                )
        if not added:
            return index.manifest
        members += [_Member(e.id, g, e.predicted, short_digest(e), None, e) for g, e in added]
        change = hash_of([e for _, e in added], [g for g, _ in added])
        providers = tuple(sorted({group.provider for group, _ in added}))
        revision = Revision("update", providers, len(added), changed_hash(index.manifest.data_sha256, change))
        joining = [example for _, example in added]
        return _Revision(
            index, model, members, joining, revision, tokens_per_batch, exclude_non_finite, progress
        ).write()


def withdraw_provider(
    folder: Path,
    model: Task,
    provider: str,
    records: Iterable[Tagged],
    *,
    tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
    progress: Progress | None = None,
) -> Manifest:
    """Take a provider out of an index: its rows and examples leave, and the curvature is corrected.

    The result equals an index built without its data, but for projections that were fitted to the first data.

    Args:
        folder: a finished index.
        model: the model that it was built with.
        provider: the provider's key.
        records: training data that holds at least all of the provider's; it is checked against the index.
        tokens_per_batch: padded tokens in a batch, at most.
        progress: called after every batch.

    Raises:
        InputError: the provider is not in the index, is all of it, or its data is not complete.
        MismatchError: another model, or other data than was indexed.
        LockHeldError: another run is changing the index.
        ValuationError: the weights of all its examples would change.
    """
    with _revising(folder) as index:
        index.check_model(model)
        members = list(_listed(index))
        groups = {member.group for member in members if member.group.provider == provider}
        if not groups:
            raise InputError(f"{provider} has no data in {folder}")
        if groups.issuperset(index.groups):
            raise InputError(f"{folder} holds nothing but the data of {provider}; delete it instead")
        leaving: dict[Group, dict[str, str]] = {group: {} for group in groups}
        for member in members:
            if member.group in groups:
                leaving[member.group][member.id] = member.digest
        encoder = model.encoder(index.manifest.max_length)
        found = match_members(folder, encoder, records, leaving)
        change = -hash_of([e for _, e in found], [g for g, _ in found])
        excluded = {example.id for example in index.manifest.excluded}
        leaving_rows = [example for _, example in found if example.id not in excluded]
        revision = Revision(
            "withdraw", (provider,), len(leaving_rows), changed_hash(index.manifest.data_sha256, change)
        )
        staying = [member for member in members if member.group not in groups]
        return _Revision(index, model, staying, leaving_rows, revision, tokens_per_batch, False, progress).write()


@contextmanager
def _revising(folder: Path) -> Iterator[AttributionIndex]:
    """Open an index that nobody else is changing, and clear away what its manifest does not name."""
    settings = AttributionIndex.open(folder).manifest.settings  # says what is wrong before the lock makes a file
    if needs_curvature(settings.weighting, settings.curvature):
        raise ValuationError(
            f"{folder} is weighted by relatif: a change of its data changes the curvature, and with it the weight of "
            "every example. Build it again from the data that stays, or from all data"
        )
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield AttributionIndex.open(folder)
            _clear(folder)
    except Timeout as error:
        raise LockHeldError(f"another run is changing {folder}; wait for it") from error


def _clear(folder: Path) -> None:
    kept = set(AttributionIndex.open(folder).manifest.files) | {"manifest.json", ".lock"}
    for path in folder.iterdir():
        if path.name not in kept:
            path.unlink()


def _listed(index: AttributionIndex) -> Iterator[_Member]:
    owner = {row: layout.group for layout in index.manifest.groups for row in range(layout.start, layout.stop)}
    for item in read_listing(index.path(EXAMPLES_FILE)):
        yield _Member(item.id, owner[item.row], item.tokens, item.digest, item.row, None)
    for left_out in index.manifest.excluded:
        yield _Member(left_out.id, left_out.group, 0, left_out.digest, None, None)


class _Revision:
    """One change: `members` are all examples of the index after it, `examples` those that join or leave it."""

    def __init__(
        self,
        index: AttributionIndex,
        model: Task,
        members: Sequence[_Member],
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

    def write(self) -> Manifest:
        """Write the revised index and return its manifest."""
        manifest, folder = self.index.manifest, self.index.folder
        joins = self.revision.action == "update"
        with self.index.tap(self.model) as tap:
            if not joins:
                for _ in self._gradients(tap, self.examples):
                    pass  # they leave the sums; their rows leave with their group
            shards = dict(self._shards(tap))
        layout = self._lay_out()  # less what was found to be left out
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
        plan = plan_shards(len(self.layout.counts), manifest.layers, self.index.projections)
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
