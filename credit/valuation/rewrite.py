"""One change of an index, written beside what counts until its manifest is replaced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file

from credit.errors import MismatchError, ValuationError
from credit.records import PPM
from credit.storage import sha256_file
from credit.valuation.assemble import complete_index, versioned
from credit.valuation.batches import gradient_batches, tokens_in_batch
from credit.valuation.curvature import make_statistic
from credit.valuation.examples import Member, left_out, listing
from credit.valuation.filling import index_needs
from credit.valuation.gradients import GradientTap
from credit.valuation.index import AttributionIndex
from credit.valuation.layers import choose_layers
from credit.valuation.manifest import MANIFEST, PROJECTIONS_FILE, Manifest, MemberIndex, Revision
from credit.valuation.probe import Work, probe, storing_seconds, timed
from credit.valuation.projection import gradient_widths
from credit.valuation.requirements import Needs
from credit.valuation.rows import Parts, RowLayout, lay_out_rows
from credit.valuation.running import Running
from credit.valuation.shards import count_rows, encode_rows, keep_rows, plan_shards, read_rows, save_tensors
from credit.valuation.stacked import Gradients, RowSums
from credit.valuation.task import Task, device_of
from credit.valuation.weighting import weighted


@dataclass(frozen=True, slots=True)
class Change:
    """A change of an index: all its `members` after it, those `changing`, which join or leave it, and its record.

    Those that join are the last of the members.
    """

    members: Sequence[Member]
    changing: Sequence[Member]
    revision: Revision


class IndexRewrite:
    """One change, carried out on the index of one model."""

    def __init__(
        self,
        index: AttributionIndex,
        model: Task,
        change: Change,
        running: Running,
    ) -> None:
        self.index, self.model, self.members, self.changing = index, model, change.members, change.changing
        self.examples = [member.example for member in change.changing if member.example is not None]
        self.revision, self.joins = change.revision, change.revision.action == "update"
        self.sign = 1 if self.joins else -1
        self.running = running
        self.version = len(index.manifest.history) + 1
        self.excluded = {member.id for member in change.members if not member.old_rows and member.example is None}
        self.counted: set[int] = set()  # positions of those that change whose gradients the sums have
        self.layout = self._lay_out()
        self.widths = gradient_widths(index.manifest.layers, index.projections)
        self.weighting = index.weighting(device_of(model))
        self.statistic = make_statistic(index.manifest.settings.curvature)
        self.sizes = 0.0
        self.done = self.total = 0

    def _lay_out(self) -> RowLayout:
        return lay_out_rows(
            [member.id for member in self.members],
            [member.shares for member in self.members],
            [member.tokens for member in self.members],
            self.index.manifest.settings.rows_per_group,
            self.excluded,
        )

    def probed_needs(self) -> Needs:
        """What the change needs beyond the model, with its time on this machine, by a short probe.

        Raises:
            ValuationError: it cannot be made exactly.
        """
        manifest = self.index.manifest
        settings, shapes = manifest.settings, manifest.layers
        plan = list(plan_shards([group.stop for group in self.layout.groups], sum(self.widths.values())))
        tokens = self._work(self._changes(self._moved_rows()), plan)
        needs = index_needs(len(self.members), len(self.layout.counts), shapes, settings)
        # The sums as they were, what they change by, and the sums as they are then.
        sums = 3 * (self.index.folder / manifest.statistic).stat().st_size
        copying = self._copying_seconds()
        needs = replace(needs, fitting_bytes=0, curvature_bytes=max(needs.curvature_bytes, sums), seconds=copying)
        if not self.examples:
            return needs
        layers = choose_layers(self.model.module, settings.layers)
        device = device_of(self.model)
        budget = tokens_in_batch(self.running.tokens_per_batch, device)
        found = probe(self.model, layers, self.examples, settings, tokens_per_batch=budget, fitted=True)
        work = Work(fitting=0, passes=tokens, summed=len(self.examples), weighed=0)
        needs = replace(needs, seconds=copying + found.seconds(work), batch_bytes=found.batch_bytes)
        self.running, needs = self.running.within_memory(needs, self.examples, device)
        return needs

    def _copying_seconds(self) -> float:
        """Seconds to read the old rows, from one shard of them, and to store them as new ones."""
        manifest = self.index.manifest
        sizes = [(self.index.folder / shard).stat().st_size for shard in manifest.shards]
        path, device = self.index.folder / manifest.shards[0], device_of(self.model)

        def copy() -> None:
            rows = {name: values.cpu() for name, values in read_rows(path, list(self.widths), device)}
            encode_rows(rows, manifest.settings.rows_dtype)

        return timed(copy, device) * sum(sizes) / sizes[0] + storing_seconds(self.index.folder, sum(sizes), device)

    def write(self, members: Sequence[tuple[MemberIndex, Manifest]] = (), *, manifest_file: str = MANIFEST) -> Manifest:
        """Write the revised index and return its manifest.

        Args:
            members: the indexes of further checkpoints, revised already.
            manifest_file: where the manifest is written.

        Raises:
            MismatchError: they have other rows, because an example is not finite in some of the models only.
        """
        manifest, folder = self.index.manifest, self.index.folder
        with self.index.tap(self.model) as tap:
            shards = dict(self._shards(tap))
            rest = [position for position in range(len(self.examples)) if position not in self.counted]
            if not self.joins:
                for _ in self._gradients(tap, rest):
                    pass  # they leave the sums; their rows leave with their group
        layout = self._lay_out()  # less what was found to be left out
        for member, revised in members:
            if revised.groups != layout.groups:
                raise MismatchError(
                    f"{folder / member.folder} would have other rows than {folder}: an example is finite in one of the "
                    "models only; leave it out of the data"
                )
        statistic, digest = self._store_sums()
        names = [f"{member.folder}/{member.manifest}" for member, _ in members]
        draft = replace(
            manifest,
            data_sha256=self.revision.data_sha256,
            groups=layout.groups,
            shards=tuple(sorted(shards)),
            statistic=statistic,
            sizes=manifest.sizes + self.sign * self.sizes,
            excluded=left_out(self.members, self.excluded),
            checkpoints=tuple(member for member, _ in members),
            history=(*manifest.history, self.revision),
        )
        kept = {statistic: digest, PROJECTIONS_FILE: manifest.files[PROJECTIONS_FILE]}
        return complete_index(
            folder,
            draft,
            counts=layout.counts,
            listed=listing(self.members, layout),
            written=kept | shards | {name: sha256_file(folder / name) for name in names},
            device=device_of(self.model),
            manifest_file=manifest_file,
        )

    def _store_sums(self) -> tuple[str, str]:
        """Write what the curvature is made from after the change; return the file's name and its SHA-256."""
        folder, name = self.index.folder, versioned("curvature.safetensors", self.version)
        before = load_file(folder / self.index.manifest.statistic, device=str(device_of(self.model)))
        change = self.statistic.sums()  # empty where all that leaves was left out
        sums = {layer: total + self.sign * change[layer] if change else total for layer, total in before.items()}
        return name, save_tensors(folder / name, sums)

    def _gradients(self, tap: GradientTap, positions: Sequence[int]) -> Iterator[tuple[list[int], Gradients]]:
        """Yield weighted gradients of some of those that change, with their positions; the sums take each once."""
        examples = [self.examples[position] for position in positions]
        bad: list[int] | None = [] if self.running.exclude else None
        for chosen, gradients in gradient_batches(
            self.model, tap, examples, self.running.tokens_per_batch, excluded=bad
        ):
            here = [positions[row] for row in chosen]
            sizes = self.weighting.sizes(gradients)
            if once := [row for row, position in enumerate(here) if position not in self.counted]:
                self.statistic.add(gradients.rows(once))
                self.sizes += 0.0 if sizes is None else float(sizes[once].sum())
                self.counted.update(here)
            yield here, weighted(gradients, sizes)
            self.done += sum(self.examples[position].size for position in here)
            if self.running.progress:
                self.running.progress("gradients", self.done, self.total)
        self.excluded |= {examples[row].id for row in bad or ()}

    def _shards(self, tap: GradientTap) -> Iterator[tuple[str, str]]:
        """Write the new shards, one at a time in memory: old rows where they belong now, and what joins or leaves."""
        manifest, folder = self.index.manifest, self.index.folder
        widths, device = self.widths, device_of(self.model)
        moved = self._moved_rows()
        changes = self._changes(moved)
        old = list(self._old_shards(manifest.layers[0].name))
        plan = list(plan_shards([group.stop for group in self.layout.groups], sum(widths.values())))
        self.total = self._work(changes, plan)
        for number, (low, high) in enumerate(plan):
            sums = RowSums(high - low)
            occupied: set[int] = set()  # rows that hold something of the old index
            for path, start, stop in old:
                target = moved[start:stop]
                inside = np.flatnonzero((target >= low) & (target < high))
                if len(inside):
                    occupied.update((target[inside] - low).tolist())
                    own = Parts(inside, target[inside] - low, np.ones(len(inside))).on(device, stop - start)
                    for name, values in read_rows(path, list(widths), device):
                        sums.add_layer(name, values, own)
            slots: dict[int, list[int]] = {}
            for slot in np.flatnonzero((changes.row >= low) & (changes.row < high)).tolist():
                slots.setdefault(int(changes.of[slot]), []).append(slot)
            here = [position for position in slots if self.examples[position].id not in self.excluded]
            for batch, gradients in self._gradients(tap, here):
                of = [place for place, position in enumerate(batch) for _ in slots[position]]
                chosen = [slot for position in batch for slot in slots[position]]
                parts = Parts(np.asarray(of), changes.row[chosen] - low, changes.share[chosen]).on(device, len(batch))
                sums.add(gradients, parts)
            left = [position for position in here if self.examples[position].id not in self.excluded]
            joined = {int(changes.row[slot]) - low for position in left for slot in slots[position]}
            shard = versioned(f"rows-{number:05d}.safetensors", self.version)
            rows_left = keep_rows(sums.layers, sorted(joined | occupied), high - low, widths)
            yield shard, save_tensors(folder / shard, encode_rows(rows_left, manifest.settings.rows_dtype))

    def _moved_rows(self) -> NDArray[np.int64]:
        """Return where each row of the old index is now: -1 where all that it holds leaves.

        Raises:
            ValuationError: a group has so few examples left that they would have rows of their own.
        """
        moved = np.full(self.index.manifest.groups[-1].stop, -1, dtype=np.int64)
        for number, member in enumerate(self.members):
            for share, old, new in zip(member.shares, member.old_rows, self.layout.rows_of(number), strict=False):
                if moved[old] not in {-1, new}:
                    raise ValuationError(
                        f"{share.group} would have so few examples left that each has a row of its own, but "
                        f"{self.index.folder} holds their sums alone; build it again from the data that stays"
                    )
                moved[old] = new
        return moved

    def _changes(self, moved: NDArray[np.int64]) -> Parts:
        """Return the parts of those that change, by their positions: added to rows, or taken from rows that stay.

        Raises:
            ValuationError: something would be taken from a row that is not stored exactly.
        """
        first = len(self.members) - len(self.changing)
        found: list[tuple[int, int, float]] = []
        for position, member in enumerate(self.changing):
            rows = self.layout.rows_of(first + position) if self.joins else moved[list(member.old_rows)]
            for row, share in zip(rows.tolist(), member.shares, strict=True):
                if row >= 0:
                    found.append((position, row, share.ppm / PPM if self.joins else -share.ppm / PPM))
        settings = self.index.manifest.settings
        if found and not self.joins and settings.rows_dtype != "fp32":
            raise ValuationError(
                f"{self.changing[found[0][0]].id} is shared, and its part in the rows of others cannot be taken out "
                f"of {settings.rows_dtype} exactly; build the index again from the data that stays"
            )
        of, row, share_of = zip(*found, strict=True) if found else ((), (), ())
        return Parts(np.asarray(of, np.int64), np.asarray(row, np.int64), np.asarray(share_of, np.float64))

    def _work(self, changes: Parts, plan: Sequence[tuple[int, int]]) -> int:
        """Add up the tokens of all passes: those that change are passed through once for each shard with a part."""
        lows = np.asarray([low for low, _ in plan])
        passes = np.unique(np.stack([changes.of, np.searchsorted(lows, changes.row, side="right")]), axis=1)
        often = np.maximum(np.bincount(passes[0], minlength=len(self.examples)), 1)
        return int(often @ np.asarray([example.size for example in self.examples]))

    def _old_shards(self, layer: str) -> Iterator[tuple[Path, int, int]]:
        """Yield each shard of the index as it was, with its first row and its last + 1."""
        start = 0
        for name in self.index.manifest.shards:
            path = self.index.folder / name
            stop = start + count_rows(path, layer)
            yield path, start, stop
            start = stop
