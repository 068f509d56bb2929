"""Changes an index after it was built: adds new data, or takes a provider out exactly.

Rows and curvature are sums over examples, so that a change is an addition or a subtraction: an update costs the
gradients of the new examples, a withdrawal those of the withdrawn ones. New files are written beside the old ones and
count from the moment the manifest is replaced; a run that is killed leaves the index as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file
from torch import Tensor

from credit.errors import InputError, LockHeldError, MismatchError
from credit.records import Group, TrainingRecord
from credit.valuation.assemble import complete_index, versioned
from credit.valuation.batching import plan_batches
from credit.valuation.build import DEFAULT_TOKENS_PER_BATCH, example_gradients, plan_shards
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
from credit.valuation.fitting import Progress
from credit.valuation.index import AttributionIndex
from credit.valuation.manifest import PROJECTIONS_FILE, Manifest, Revision, read_manifest, verify_files
from credit.valuation.model import LanguageModel
from credit.valuation.rows import RowLayout, lay_out_rows
from credit.valuation.store import encode_rows, read_rows, save_tensors
from credit.valuation.tokens import Encoder, Example


@dataclass(frozen=True, slots=True)
class _Member:
    """An example of the revised index: listed with its old row, or new with its tokens."""

    id: str
    group: Group
    tokens: int
    digest: str
    old_row: int | None
    example: Example | None


def update_index(
    folder: Path,
    model: LanguageModel,
    records: Iterable[TrainingRecord],
    *,
    tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
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
        progress: called after every batch.

    Raises:
        MismatchError: another model, or a record that the index holds with another content.
        LockHeldError: another run is changing the index.
    """
    with _revising(folder) as index:
        index.check_model(model)
        data = encode_training(records, Encoder(model.tokenizer, index.manifest.max_length))
        members = list(_listed(index))
        known = {member.id: member for member in members}
        added: list[tuple[Group, Example]] = []
        for example, group in zip(data.examples, data.groups, strict=True):
            before = known.get(example.id)
            if before is None:
                added.append((group, example))
            elif (before.digest, before.group) != (example.short_digest(), group):
                raise MismatchError(
                    f"{example.id} of {group} is in {folder} with another content; withdraw its provider first, "
                    "or give the record another id"
                )
        if not added:
            return index.manifest
        members += [_Member(e.id, g, e.predicted, e.short_digest(), None, e) for g, e in added]
        change = hash_of([e for _, e in added], [g for g, _ in added])
        providers = tuple(sorted({group.provider for group, _ in added}))
        revision = Revision("update", providers, len(added), changed_hash(index.manifest.data_sha256, change))
        return _Revision(index, model, members, [e for _, e in added], revision, tokens_per_batch, progress).write()


def withdraw_provider(
    folder: Path,
    model: LanguageModel,
    provider: str,
    records: Iterable[TrainingRecord],
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
    """
    with _revising(folder) as index:
        index.check_model(model)
        groups = {group for group in index.groups if group.provider == provider}
        if not groups:
            raise InputError(f"{provider} has no data in {folder}")
        if len(groups) == len(index.groups):
            raise InputError(f"{folder} holds nothing but the data of {provider}; delete it instead")
        members = list(_listed(index))
        leaving: dict[Group, dict[str, str]] = {group: {} for group in groups}
        for member in members:
            if member.group in groups:
                leaving[member.group][member.id] = member.digest
        encoder = Encoder(model.tokenizer, index.manifest.max_length)
        found = match_members(folder, encoder, records, leaving)
        change = -hash_of([e for _, e in found], [g for g, _ in found])
        revision = Revision("withdraw", (provider,), len(found), changed_hash(index.manifest.data_sha256, change))
        staying = [member for member in members if member.group not in groups]
        return _Revision(index, model, staying, [e for _, e in found], revision, tokens_per_batch, progress).write()


@contextmanager
def _revising(folder: Path) -> Iterator[AttributionIndex]:
    """Open an index that nobody else is changing, and clear away what its manifest does not name."""
    verify_files(folder, read_manifest(folder))  # says what is wrong before the lock makes a file
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


class _Revision:
    """One change: `members` are all examples of the index after it, `examples` those that join or leave it."""

    def __init__(
        self,
        index: AttributionIndex,
        model: LanguageModel,
        members: Sequence[_Member],
        examples: Sequence[Example],
        revision: Revision,
        tokens_per_batch: int,
        progress: Progress | None,
    ) -> None:
        self.index, self.model, self.members, self.examples = index, model, members, examples
        self.revision, self.tokens_per_batch, self.progress = revision, tokens_per_batch, progress
        self.version = len(index.manifest.history) + 1
        self.layout: RowLayout = lay_out_rows(
            [member.id for member in members],
            [member.group for member in members],
            [member.tokens for member in members],
            index.manifest.settings.rows_per_group,
        )

    def write(self) -> Manifest:
        """Write the revised index and return its manifest."""
        manifest, folder = self.index.manifest, self.index.folder
        joining, sums = self._gradients()
        statistic = versioned("curvature.safetensors", self.version)
        written = {
            statistic: save_tensors(folder / statistic, sums),
            PROJECTIONS_FILE: manifest.files[PROJECTIONS_FILE],
        }
        shards = dict(self._shards(joining))
        draft = replace(
            manifest,
            data_sha256=self.revision.data_sha256,
            groups=self.layout.groups,
            shards=tuple(sorted(shards)),
            statistic=statistic,
            history=(*manifest.history, self.revision),
        )
        listed = (
            IndexedExample(member.id, int(row), member.tokens, member.digest)
            for member, row in zip(self.members, self.layout.row_of, strict=True)
        )
        return complete_index(
            folder,
            draft,
            counts=self.layout.counts,
            listed=listed,
            written=written | shards,
            device=self.model.device,
        )

    def _gradients(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the rows that the joining examples add (all rows of the new index), and the new statistic."""
        new_row = {m.id: int(r) for m, r in zip(self.members, self.layout.row_of, strict=True) if m.example is not None}
        statistic = make_statistic(self.index.manifest.settings.curvature)
        rows: dict[str, Tensor] = {}
        done, total = 0, sum(len(example.tokens) for example in self.examples)
        with self.index.tap(self.model) as tap:
            for positions in plan_batches([len(e.tokens) for e in self.examples], self.tokens_per_batch):
                batch = [self.examples[position] for position in positions]
                gradients = example_gradients(self.model, tap, batch)
                statistic.add(gradients)
                if new_row:
                    target = torch.tensor([new_row[example.id] for example in batch], device=self.model.device)
                    for name, values in gradients.items():
                        if name not in rows:
                            rows[name] = values.new_zeros(len(self.layout.counts), values.shape[1])
                        rows[name].index_add_(0, target, values)
                done += sum(len(example.tokens) for example in batch)
                if self.progress:
                    self.progress("gradients", done, total)
        sign = 1 if new_row else -1
        before = load_file(self.index.folder / self.index.manifest.statistic, device=str(self.model.device))
        change = statistic.sums()
        return rows, {name: values + sign * change[name] for name, values in before.items()}

    def _shards(self, joining: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
        """Write the new shards: old rows where they belong now, plus what joins them."""
        manifest, folder = self.index.manifest, self.index.folder
        moved = np.full(manifest.groups[-1].stop, -1, dtype=np.int64)
        for member, row in zip(self.members, self.layout.row_of, strict=True):
            if member.old_row is not None:
                moved[member.old_row] = row
        names = [layer.name for layer in manifest.layers]
        plan = plan_shards(len(self.layout.counts), manifest.layers, self.index.projections)
        for number, (low, high) in enumerate(plan):
            sums = {name: values[low:high].clone() for name, values in joining.items()}
            start = 0
            for shard in manifest.shards:
                for name, values in read_rows(folder / shard, names, self.model.device):
                    target = moved[start : start + len(values)]
                    inside = np.flatnonzero((target >= low) & (target < high))
                    if name not in sums:
                        sums[name] = values.new_zeros(high - low, values.shape[1])
                    if len(inside):
                        sums[name].index_add_(0, torch.from_numpy(target[inside] - low), values[inside])
                    size = len(values)
                start += size
            shard = versioned(f"rows-{number:05d}.safetensors", self.version)
            yield shard, save_tensors(folder / shard, encode_rows(sums, manifest.settings.rows_dtype))
