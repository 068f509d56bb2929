"""The writer of attribution indexes: it plans the units of a change, has them run, and merges what they leave.

Every index is written as a change of the index before. A build changes an empty index, which all examples join. New
files lie beside the old ones. They count once the manifest is written: last, in one rename.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import torch

from credit.engines.slices import SLICE_LOCKS, Slice
from credit.errors import ValuationError
from credit.records import MANIFEST
from credit.storage import is_left_over, make_folder, nobody_has, one_after_the_other, only_one, sha256_file
from credit.valuation import shards
from credit.valuation.batches import tokens_in_batch
from credit.valuation.change import Change, plan_change
from credit.valuation.completion import complete_index
from credit.valuation.curvature import Curvature, make_curvature, statistic_bytes
from credit.valuation.examples import excluded_examples, listing
from credit.valuation.layers import experts_of, known_layers
from credit.valuation.manifest import PROJECTIONS_FILE, IndexManifest, MemberIndex, is_index_file, versioned
from credit.valuation.moments import choose_sample
from credit.valuation.passes import CURVATURE, MOMENTS, ROWS, Passes, RunOptions
from credit.valuation.probe import WorkLeft, probe, storing_seconds, timed
from credit.valuation.projection import projected_widths, resolve_ranks
from credit.valuation.requirements import Needs, build_needs, fit_batches
from credit.valuation.rows import RowLayout, ShardRows, Unit
from credit.valuation.shards import StoredTensors, encode_rows, read_rows, save_tensors
from credit.valuation.task import Task, device_of
from credit.valuation.unit_files import UnitRecord, delete_work, is_done
from credit.valuation.units import FACTORS_FILE, SUMS_FILE


class IndexWriter:
    """Writer of one change of one model's index. Nobody else may change the folder meanwhile.

    It has units run, each a pure function with its own files: see `units`. Up to three passes go over the data: over a
    sample, to fit the projections; over all examples, to sum the curvature, if RelatIF weighs each by it; and over all
    examples, to fill the rows and, without RelatIF, to sum the curvature.

    The finished units of an interrupted build stay. An interrupted change of a finished index starts again.

    Args:
        task: the model.
        folder: folder of the index.
        before: manifest of the index before the change; for a build, of an empty index.
        change: the change.
        options: see `RunOptions`.

    Attributes:
        plan: the new rows, and the place of everything in them.

    Raises:
        MismatchError: the folder holds an unfinished index of other inputs.
        ValuationError: the change cannot be made exactly.
    """

    def __init__(self, task: Task, folder: Path, before: IndexManifest, change: Change, options: RunOptions) -> None:
        self.task, self.folder, self.before, self.change = task, folder, before, change
        settings = self.settings = before.settings
        self._device = device_of(task)
        self._examples = change.examples
        self._layers = known_layers(task.module, before.layers)
        self._widths = projected_widths(resolve_ranks(self._layers.shapes, settings.rank, settings.ranks))
        sums = statistic_bytes(settings.curvature, self._widths.values())
        self.plan = plan_change(change, before, folder, sum(self._widths.values()), sums)
        self._surveys = settings.weighs_by_curvature
        self._passes = Passes(task, folder, before, change, self.plan, options, self._layers)
        self._curvature: Curvature | None = None

    @property
    def options(self) -> RunOptions:
        """The options, where memory is short with smaller batches."""
        return self._passes.options

    def final_layout(self) -> RowLayout:
        """Return the rows after the change, without excluded examples.

        Raises:
            ValuationError: all examples are excluded.
        """
        if len(self._passes.excluded) == len(self.change.members):
            raise ValuationError(f"no training example has a finite gradient in {self.task.location}; try --dtype fp32")
        return self.change.lay_out(self.settings.rows_per_group, self._passes.excluded)

    # Requirements

    @property
    def needs(self) -> Needs:
        """Disk and memory for the change beyond the model, from shapes alone."""
        members, rows = len(self.change.members), len(self.plan.layout.counts)
        needs = build_needs(members, rows, self._layers.shapes, self.settings, shards.SHARD_BYTES, len(self.plan.units))
        workers = self._passes.engine.planned(len(self.plan.units)) or 1
        needs = replace(needs, disk_bytes=needs.disk_bytes + self._examples.disk_bytes, workers=workers)
        return needs if self.change.is_build else replace(needs, fitting_bytes=0)

    def probed_needs(self) -> Needs:
        """Return `needs` with the memory of a batch and the time on this machine, by a short probe.

        Where memory is short, the writer uses smaller batches from then on.
        """
        work = self._work_left()
        needs = replace(self.needs, seconds=self._copying_seconds(work.stored))
        if not work.passes:
            return needs
        options = self.options
        found = probe(
            self.task,
            self._layers,
            self._examples,
            self.settings,
            tokens_per_batch=tokens_in_batch(options.tokens_per_batch, self._device),
            fitted=self._passes.is_fitted,
        )
        needs = replace(needs, seconds=(needs.seconds or 0.0) + found.seconds(work), batch_bytes=found.batch_bytes)
        budget, needs = fit_batches(needs, self._examples.window_sizes, options.tokens_per_batch, self._device)
        self._passes.options = replace(options, tokens_per_batch=budget)
        return needs

    def _work_left(self) -> WorkLeft:
        unread, empty = (
            [unit for unit in self.plan.units if not is_done(unit.number, records)]
            for records in (self._passes.results(CURVATURE).records(), self._passes.results(ROWS).records())
        )
        fits = self.settings.fits_projections and not self._passes.is_fitted
        sample = choose_sample(self._examples, self.settings.sample) if fits else []
        rows = sum(shard.high - shard.low for unit in empty for shard in unit.shards)
        return WorkLeft(
            fitting=sum(example.size for example in sample),
            passes=sum(self._passes.tokens(unit.new) for unit in unread if self._surveys)
            + sum(map(self._passes.unit_tokens, empty)),
            summed=sum(len(unit.new) for unit in (unread if self._surveys else empty)),
            weighed=sum(len(unit.members) for unit in empty) if self._surveys else 0,
            stored=sum(self._old_sizes()) or self.needs.disk_bytes * rows // len(self.plan.layout.counts),
        )

    def _old_sizes(self) -> list[int]:
        return [(self.folder / shard).stat().st_size for shard in self.before.shards]

    def _copying_seconds(self, stored: int) -> float:
        """Return the seconds to read all old rows, timed on one shard of them, and to store `stored` bytes."""
        storing, sizes = storing_seconds(self.folder, stored, self._device), self._old_sizes()
        if not sizes:
            return storing
        path = self.folder / self.before.shards[0]

        def copy() -> None:
            rows = {name: values.cpu() for name, values in read_rows(path, list(self._widths), self._device)}
            encode_rows(rows, self.settings.rows_dtype)

        return timed(copy, self._device) * sum(sizes) / sizes[0] + storing

    # Passes

    def run(self) -> None:
        """Run all units, except the finished ones of an interrupted build."""
        self._open()
        if not self._passes.is_fitted:
            self._passes.fit()
        units = self.plan.units
        if self._surveys:
            self._survey()
            self._filled = self._passes.run(ROWS, units, sums=False)
        else:
            self._filled = self._passes.run(ROWS, units, sums=True)
            self._save_sums(self._filled)

    def run_slice(self, part: Slice) -> int:
        """Run the units of a slice, and return their number. Others may run other slices in the same folder.

        With weights by curvature, the units of all slices must be read once before any row is filled. Until then, a
        slice only reads its own, and is to be run again.

        Raises:
            LockHeldError: another process runs this slice.
        """
        make_folder(self._passes.work)
        with only_one(self._passes.work / part.lock, self._at_work(f"slice {part}")):
            with self._alone():
                if not self._passes.is_fitted:
                    self._passes.fit()
            own = [unit for unit in self.plan.units if unit.number in part]
            if self._surveys:
                units = [_counting_once(unit) for unit in own]
                with self._alone():
                    left = [] if self._passes.unread() is None else self._passes.undone(CURVATURE, units)
                self._passes.run_left(CURVATURE, left, units, sums=True)
                with self._alone():
                    if self._passes.unread():
                        return len(own)
                    self._survey()
            self._passes.run_left(ROWS, self._passes.undone(ROWS, own), own, sums=not self._surveys)
            return len(own)

    def _alone(self) -> AbstractContextManager[None]:
        """Context in which no other slice makes what all of them share."""
        return one_after_the_other(self._passes.work / "fitting.lock")

    def _survey(self) -> None:
        """Sum the curvature in a pass of its own, as far as it is not there, for the weights of the next one."""
        units = [_counting_once(unit) for unit in self.plan.units]
        self._save_sums(self._passes.run(CURVATURE, units, sums=True))
        self._weigh_by_curvature()

    def problems(self) -> list[str]:
        """Return the units that do not count, with the reason in words."""
        if not self._passes.is_fitted:
            return [f"unit {unit.number} is missing" for unit in self.plan.units]
        if self._surveys and (unread := self._passes.unread()):
            curvature = self._passes.results(CURVATURE)
            return [f"unit {number} {why}" for number in unread if (why := curvature.problem(number))]
        results = self._passes.results(ROWS)
        merged = [record for record in results.records() if record.stop - record.first > 1]
        numbers = [unit.number for unit in self.plan.units if not is_done(unit.number, merged)]
        return [f"unit {number} {why}" for number in numbers if (why := results.problem(number))]

    def _at_work(self, what: str) -> str:
        return f"{what} is at work in {self.folder}; wait for it to end"

    def _open(self) -> None:
        """Make the folder for the units, and delete what an interrupted run has left without a record.

        Raises:
            LockHeldError: a slice is at work.
        """
        make_folder(self._passes.work)
        nobody_has(self._passes.work.glob(SLICE_LOCKS), self._at_work("a slice"))
        counts = {PROJECTIONS_FILE}
        for phase in (MOMENTS, CURVATURE, ROWS):
            records = self._passes.results(phase).records()
            self._passes.results(phase).delete_leftovers(records)
            counts.update(name for record in records for name in record.shards)
        for path in self.folder.iterdir() if self.change.is_build else ():
            # Only files of ours: somebody may keep notes in the folder.
            if is_left_over(path.name) or (is_index_file(path.name) and path.name not in counts):
                path.unlink()

    def _save_sums(self, record: UnitRecord) -> None:
        """Write the curvature's sums after the change: those before, plus or minus those of changing examples."""
        change = self._passes.results(CURVATURE if self._surveys else ROWS).sums(record)
        if self.before.statistic:
            # A layer after the other: three times all sums would be more than the rest of the change.
            before = StoredTensors(self.folder / self.before.statistic, torch.device("cpu"))
            changed, sign = frozenset(change), self.change.sign
            sums = {name: before[name] + sign * change[name] if name in changed else before[name] for name in before}
        else:
            sums = dict(change)
        self._sums_file = versioned(SUMS_FILE, self._passes.version)
        self._sums_digest = save_tensors(self.folder / self._sums_file, sums)

    def _weigh_by_curvature(self) -> None:
        """Make the curvature from the sums of the first pass, for the weights of the second."""
        self.final_layout()  # refuses an index of no example
        self._passes.weighed = len(self.change.members) - len(self._passes.excluded)
        sums = StoredTensors(self.folder / self._sums_file, self._device)
        settings, experts = self.settings, experts_of(self.before.layers)
        self._curvature = make_curvature(settings.curvature, sums, self._passes.weighed, settings.damping, experts)
        if settings.curvature == "fisher":  # the others are quick to make again from the sums
            save_tensors(self.folder / FACTORS_FILE, self._curvature.factors)

    # The end

    def finish(self, checkpoints: Sequence[MemberIndex] = (), *, manifest_file: str = MANIFEST) -> IndexManifest:
        """Write the remaining files, and the manifest last.

        Args:
            checkpoints: the indexes of further checkpoints, already written.
            manifest_file: name of the manifest.
        """
        before, change, filled = self.before, self.change, self._filled
        layout = self.final_layout()
        draft = replace(
            before,
            data_sha256=change.data_sha256,
            groups=layout.groups,
            shards=tuple(sorted(filled.shards)),
            statistic=self._sums_file,
            sizes=before.sizes + change.sign * filled.sizes,
            excluded=excluded_examples(change.members, self._passes.excluded),
            checkpoints=tuple(checkpoints),
            history=before.history + (() if change.revision is None else (change.revision,)),
        )
        others = [f"{member.folder}/{member.manifest}" for member in checkpoints]
        manifest = complete_index(
            self.folder,
            draft,
            counts=layout.counts,
            listed=listing(change.members, layout),
            written={**filled.shards, self._sums_file: self._sums_digest}
            | {name: sha256_file(self.folder / name) for name in (PROJECTIONS_FILE, *others)},
            device=self._device,
            curvature=self._curvature,
            manifest_file=manifest_file,
        )
        delete_work(self.folder)
        for path in self.folder.iterdir():
            if is_left_over(path.name):  # of a worker that died
                path.unlink()
        return manifest


def _counting_once(unit: Unit) -> Unit:
    """Return a unit without rows, with the examples that no earlier unit has."""
    new = unit.new
    return Unit(unit.number, (ShardRows(0, 0, 0, new, new),))
