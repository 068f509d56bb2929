"""The writer of attribution indexes: it plans the units of a change, has them run, and merges what they leave.

Every index is written as a change of the index before. A build changes an empty index, which all examples join. New
files lie beside the old ones. They count once the manifest is written: last, in one rename.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from credit.engines import Engine, InProcess, Slice
from credit.errors import InvalidRequestError, ValuationError
from credit.records import MANIFEST
from credit.storage import (
    canonical_json,
    is_left_over,
    make_folder,
    one_after_the_other,
    only_one,
    sha256_file,
)
from credit.valuation import shards, unit_files
from credit.valuation.batches import Progress, tokens_in_batch
from credit.valuation.change import SUM_BYTES, Change, plan_change
from credit.valuation.completion import complete_index
from credit.valuation.curvature import Curvature, make_curvature, statistic_bytes
from credit.valuation.examples import (
    excluded_examples,
    listing,
)
from credit.valuation.layers import experts_of, known_layers
from credit.valuation.manifest import PROJECTIONS_FILE, IndexManifest, MemberIndex, is_index_file, versioned
from credit.valuation.moments import MomentSums, choose_sample, fit_projections, no_moments, sample_units
from credit.valuation.probe import WorkLeft, probe, storing_seconds, timed
from credit.valuation.projection import projected_widths, projections_to_tensors, resolve_ranks
from credit.valuation.requirements import Needs, build_needs, fit_batches, moment_bytes
from credit.valuation.rows import RowLayout, ShardRows, Unit
from credit.valuation.shards import StoredTensors, encode_rows, read_rows, save_tensors
from credit.valuation.task import Task, device_of
from credit.valuation.unit_files import UnitFolder, UnitRecord, delete_work, is_done, work_folder
from credit.valuation.units import (
    FACTORS_FILE,
    SUMS_FILE,
    GradientJob,
    MomentJob,
    UnitRun,
    UnitTask,
    UnitTasks,
    run_units,
)

FITTING_EXAMPLES = 512
"""Least examples in a unit of the sample to fit projections to."""

_SLICE_LOCK = "slice-{}-of-{}.lock"

_MOMENTS, _CURVATURE, _ROWS = "moments", "curvature", "gradients"
"""Names of the passes."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of a build or a change. They decide no number of the index.

    Attributes:
        tokens_per_batch: padded tokens in a batch, at most; None for 4096, on a GPU 16384.
        exclude: exclude examples with non-finite gradients and name them in the manifest; otherwise the first is an
            error.
        progress: called after every batch.
        announce: called once before the work begins, with its time, memory and disk. Without it, no probe is made.
        engine: runs the units; None for this process.
        load: loads the model in another process of the engine.
    """

    tokens_per_batch: int | None = None
    exclude: bool = False
    progress: Progress | None = None
    announce: Callable[[Needs], None] | None = None
    engine: Engine | None = None
    load: Callable[[], Task] | None = None


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
        excluded: ids of the examples left out so far.

    Raises:
        MismatchError: the folder holds an unfinished index of other inputs.
        ValuationError: the change cannot be made exactly.
    """

    def __init__(self, task: Task, folder: Path, before: IndexManifest, change: Change, options: RunOptions) -> None:
        self.task, self.folder, self.before, self.change, self.options = task, folder, before, change, options
        settings = self.settings = before.settings
        self._device = device_of(task)
        self._examples = change.examples
        self._sizes = self._examples.sizes
        self._version = len(before.history) + (0 if change.is_build else 1)
        self._layers = known_layers(task.module, before.layers)
        self._widths = projected_widths(resolve_ranks(self._layers.shapes, settings.rank, settings.ranks))
        sums = statistic_bytes(settings.curvature, self._widths.values())
        self.plan = plan_change(change, before, folder, sum(self._widths.values()), sums)
        self._surveys = settings.weighs_by_curvature
        self._build = self._identity()
        self._work = work_folder(folder, self._build)
        self.excluded = frozenset(change.excluded_before)
        self._curvature: Curvature | None = None
        self._weighed = 0

    def _identity(self) -> str:
        """Return the identity of all units: that of the inputs, and of the cuts between the units."""
        cuts = [[[shard.low, shard.high] for shard in unit.shards] for unit in self.plan.units]
        return hashlib.sha256(canonical_json([self.before.inputs.sha256, cuts]).encode()).hexdigest()

    def final_layout(self) -> RowLayout:
        """Return the rows after the change, without excluded examples.

        Raises:
            ValuationError: all examples are excluded.
        """
        if len(self.excluded) == len(self.change.members):
            raise ValuationError(f"no training example has a finite gradient in {self.task.location}; try --dtype fp32")
        return self.change.lay_out(self.settings.rows_per_group, self.excluded)

    # Requirements

    @property
    def needs(self) -> Needs:
        """Disk and memory for the change beyond the model, from shapes alone."""
        members, rows = len(self.change.members), len(self.plan.layout.counts)
        needs = build_needs(members, rows, self._layers.shapes, self.settings, shards.SHARD_BYTES, len(self.plan.units))
        needs = replace(needs, disk_bytes=needs.disk_bytes + self._examples.disk_bytes)
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
            fitted=self._is_fitted,
        )
        needs = replace(needs, seconds=(needs.seconds or 0.0) + found.seconds(work), batch_bytes=found.batch_bytes)
        budget, needs = fit_batches(needs, self._examples.window_sizes, options.tokens_per_batch, self._device)
        self.options = replace(options, tokens_per_batch=budget)
        return needs

    def _work_left(self) -> WorkLeft:
        unread, empty = (
            [unit for unit in self.plan.units if not is_done(unit.number, records)]
            for records in (self._results(_CURVATURE).records(), self._results(_ROWS).records())
        )
        fits = self.settings.fits_projections and not self._is_fitted
        sample = choose_sample(self._examples, self.settings.sample) if fits else []
        rows = sum(shard.high - shard.low for unit in empty for shard in unit.shards)
        return WorkLeft(
            fitting=sum(example.size for example in sample),
            passes=sum(self._tokens(unit.new) for unit in unread if self._surveys) + sum(map(self._unit_tokens, empty)),
            summed=sum(len(unit.new) for unit in (unread if self._surveys else empty)),
            weighed=sum(len(unit.members) for unit in empty) if self._surveys else 0,
            stored=sum(self._old_sizes()) or self.needs.disk_bytes * rows // len(self.plan.layout.counts),
        )

    @property
    def _is_fitted(self) -> bool:
        return (self.folder / PROJECTIONS_FILE).is_file()

    def _tokens(self, positions: NDArray[np.int64]) -> int:
        return int(self._sizes[positions].sum())

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
        if not self._is_fitted:
            self._fit()
        units = self.plan.units
        if self._surveys:
            self._survey()
            self._filled = self._pass(_ROWS, units, sums=False)
        else:
            self._filled = self._pass(_ROWS, units, sums=True)
            self._save_sums(self._filled)

    def run_slice(self, part: Slice) -> int:
        """Run the units of a slice, and return their number. Others may run other slices in the same folder.

        With weights by curvature, the units of all slices must be read once before any row is filled. Until then, a
        slice only reads its own, and is to be run again.

        Raises:
            LockHeldError: another process runs this slice.
        """
        make_folder(self._work)
        with only_one(self._work / _SLICE_LOCK.format(part.number, part.count), self._at_work(f"slice {part}")):
            with self._alone():
                if not self._is_fitted:
                    self._fit()
            own = [unit for unit in self.plan.units if unit.number in part]
            if self._surveys:
                units = [_counting_once(unit) for unit in own]
                with self._alone():
                    left = [] if self._unread() is None else self._undone(_CURVATURE, units)
                self._run_left(_CURVATURE, left, units, sums=True)
                with self._alone():
                    if self._unread():
                        return len(own)
                    self._survey()
            self._run_left(_ROWS, self._undone(_ROWS, own), own, sums=not self._surveys)
            return len(own)

    def _alone(self) -> AbstractContextManager[None]:
        """Context in which no other slice makes what all of them share."""
        return one_after_the_other(self._work / "fitting.lock")

    def _undone(self, phase: str, units: Sequence[Unit]) -> list[Unit]:
        results = self._results(phase)
        return [unit for unit in units if results.problem(unit.number)]

    def _run_left(self, phase: str, left: Sequence[Unit], units: Sequence[Unit], *, sums: bool) -> None:
        for _ in self._gradient_units(phase, left, units, sums=sums):
            pass

    def _unread(self) -> list[int] | None:
        """Return the units that the first of two passes lacks; None once its sums are merged."""
        records = self._results(_CURVATURE).records()
        if len(self.plan.units) > 1 and [(one.first, one.stop) for one in records] == [(0, len(self.plan.units))]:
            return None
        return [unit.number for unit in self.plan.units if not is_done(unit.number, records)]

    def _survey(self) -> None:
        """Sum the curvature in a pass of its own, as far as it is not there, for the weights of the next one."""
        units = [_counting_once(unit) for unit in self.plan.units]
        self._save_sums(self._pass(_CURVATURE, units, sums=True))
        self._weigh_by_curvature()

    def problems(self) -> list[str]:
        """Return the units that do not count, with the reason in words."""
        if not self._is_fitted:
            return [f"unit {unit.number} is missing" for unit in self.plan.units]
        if self._surveys and (unread := self._unread()):
            curvature = self._results(_CURVATURE)
            return [f"unit {number} {why}" for number in unread if (why := curvature.problem(number))]
        results = self._results(_ROWS)
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
        make_folder(self._work)
        for lock in self._work.glob(_SLICE_LOCK.format("*", "*")):
            with only_one(lock, self._at_work("a slice")):
                pass
        counts = {PROJECTIONS_FILE}
        for phase in (_MOMENTS, _CURVATURE, _ROWS):
            records = self._results(phase).records()
            self._results(phase).delete_leftovers(records)
            counts.update(name for record in records for name in record.shards)
        for path in self.folder.iterdir() if self.change.is_build else ():
            # Only files of ours: somebody may keep notes in the folder.
            if is_left_over(path.name) or (is_index_file(path.name) and path.name not in counts):
                path.unlink()

    def _results(self, phase: str) -> UnitFolder:
        build = self._build
        if phase != _MOMENTS and self._is_fitted:
            # Other machines may round projections otherwise, and rows fit together only if they have the same.
            build = f"{build} {sha256_file(self.folder / PROJECTIONS_FILE)}"
        # Whole paths: workers may have another working directory.
        return UnitFolder(self._work.resolve(), phase, self.folder.resolve(), build)

    def _fit(self) -> None:
        """Make the projections, from the second moments of a sample if the settings fit them."""
        path, settings = self.folder / PROJECTIONS_FILE, self.settings
        if not settings.fits_projections:
            save_tensors(path, projections_to_tensors(fit_projections(self._layers, settings)))
            return
        sample = choose_sample(self._examples, settings.sample)
        cut = sample_units(sample, max(FITTING_EXAMPLES, moment_bytes(self._layers.shapes) // SUM_BYTES))
        tasks = [UnitTask(number, examples) for number, examples in enumerate(cut)]
        results = self._results(_MOMENTS)
        records = results.records()
        left = [task for task in tasks if not is_done(task.number, records)]
        total = sum(task.tokens for task in tasks)
        clock = _Clock(self.options.progress, _MOMENTS, total, total - sum(task.tokens for task in left))
        job = MomentJob(self._unit_run(results, clock), self._layers.shapes)
        for _, record in self._run_units(job, left, clock, [task.tokens for task in left]):
            records = results.merge(sorted([*records, record], key=lambda own: own.first), unit_files.WAITING_BYTES)
        (record,) = results.merge(records)
        sums = MomentSums.restored(results.sums(record, self._device))
        if not sums.b:
            raise ValuationError(no_moments(self.task))
        save_tensors(path, projections_to_tensors(fit_projections(self._layers, settings, sums.means())))
        results.forget(record)

    def _pass(self, phase: str, units: Sequence[Unit], *, sums: bool) -> UnitRecord:
        """Run the units of a pass over the gradients that are left; return the record of all of them, merged."""
        results = self._results(phase)
        records = results.records()
        # A unit can leave out a shared example that another has used. Their sums are merged once all units agree.
        agree = not self.options.exclude or all(len(unit.members) == len(unit.new) for unit in units)
        left = [unit for unit in units if not is_done(unit.number, records)]
        while True:
            for _, record in self._gradient_units(phase, left, units, sums=sums):
                records = sorted([*records, record], key=lambda own: own.first)
                if agree:
                    records = results.merge(records, unit_files.WAITING_BYTES)
            self.excluded |= {name for record in records for name in record.excluded}
            left = [] if agree else self._at_odds(units, results, records)
            if not left:
                (record,) = results.merge(records)
                return record

    def _gradient_units(
        self, phase: str, left: Sequence[Unit], units: Sequence[Unit], *, sums: bool
    ) -> Iterator[tuple[int, UnitRecord]]:
        """Run units over the gradients, those `left` of `units`; yield the position of each with its record."""
        if not left:
            return
        sizes = list(map(self._unit_tokens, left))
        total = sum(map(self._unit_tokens, units))
        clock = _Clock(self.options.progress, phase, total, total - sum(sizes))
        job = GradientJob(
            self._unit_run(self._results(phase), clock),
            self.folder.resolve(),
            self.before,
            self.plan.moved,
            self._version,
            sums=sums,
            weighed_examples=self._weighed if phase == _ROWS else 0,
        )
        yield from self._run_units(job, UnitTasks(left, self._unit_task), clock, sizes)

    def _run_units(
        self, job: MomentJob | GradientJob, tasks: Sequence[UnitTask], clock: _Clock, sizes: Sequence[int]
    ) -> Iterator[tuple[int, UnitRecord]]:
        """Run units of some tokens each by the engine."""
        for position, record in run_units(job, tasks, self._engine):
            if not self._is_here:
                clock.advance(sizes[position])
            yield position, record

    def _at_odds(self, units: Sequence[Unit], results: UnitFolder, records: list[UnitRecord]) -> list[Unit]:
        """Return the units that have used an excluded example; take their records out of `records`."""
        left: list[Unit] = []
        for record in list(records):
            own = units[record.first : record.stop]
            ids = {self._examples.id_of(position) for unit in own for position in unit.members.tolist()}
            if ids & self.excluded != set(record.excluded):
                left += own
                records.remove(record)
                results.forget(record)
        return left

    def _unit_run(self, results: UnitFolder, clock: _Clock) -> UnitRun:
        """Return how workers run units. Other processes load the model themselves, and tell of finished units alone."""
        options = self.options
        here = UnitRun(
            lambda: self.task,
            self.task.model_sha256,
            results,
            options.tokens_per_batch,
            options.exclude,
            clock.advance,
        )
        if self._is_here:
            return here
        if options.load is None:
            raise InvalidRequestError("workers in other processes load the model themselves: give `load` to the build")
        return replace(here, load=options.load, advance=None)

    @property
    def _engine(self) -> Engine:
        return self.options.engine or InProcess()

    @property
    def _is_here(self) -> bool:
        return isinstance(self._engine, InProcess)

    def _unit_tokens(self, unit: Unit) -> int:
        return sum(self._tokens(shard.members) for shard in unit.shards)

    def _unit_task(self, unit: Unit) -> UnitTask:
        """Return a unit as a worker gets it: its examples with their rows, and those to leave out."""
        members = unit.members
        order = np.argsort(members)
        shards_of_it = tuple(
            replace(
                shard,
                members=order[np.searchsorted(members, shard.members, sorter=order)],
                new=order[np.searchsorted(members, shard.new, sorter=order)],
            )
            for shard in unit.shards
        )
        examples = self._examples.take(members.tolist())
        excluded = self.excluded & {example.id for example in examples} if self.excluded else frozenset()
        return UnitTask(unit.number, examples, shards_of_it, self.plan.destinations.only(members), excluded)

    def _save_sums(self, record: UnitRecord) -> None:
        """Write the curvature's sums after the change: those before, plus or minus those of changing examples."""
        change = self._results(_CURVATURE if self._surveys else _ROWS).sums(record)
        if self.before.statistic:
            # A layer after the other: three times all sums would be more than the rest of the change.
            before = StoredTensors(self.folder / self.before.statistic, torch.device("cpu"))
            changed, sign = frozenset(change), self.change.sign
            sums = {name: before[name] + sign * change[name] if name in changed else before[name] for name in before}
        else:
            sums = dict(change)
        self._sums_file = versioned(SUMS_FILE, self._version)
        self._sums_digest = save_tensors(self.folder / self._sums_file, sums)

    def _weigh_by_curvature(self) -> None:
        """Make the curvature from the sums of the first pass, for the weights of the second."""
        self.final_layout()  # refuses an index of no example
        self._weighed = len(self.change.members) - len(self.excluded)
        sums = StoredTensors(self.folder / self._sums_file, self._device)
        settings, experts = self.settings, experts_of(self.before.layers)
        self._curvature = make_curvature(settings.curvature, sums, self._weighed, settings.damping, experts)
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
            excluded=excluded_examples(change.members, self.excluded),
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


class _Clock:
    """Tokens done in a pass, reported after every batch."""

    def __init__(self, report: Progress | None, phase: str, total: int, done: int) -> None:
        self._report, self._phase, self._total, self._done = report, phase, total, done

    def advance(self, tokens: int) -> None:
        """Count the tokens of a batch. A unit that starts again counts them once more, and never beyond the total."""
        self._done = min(self._done + tokens, self._total)
        if self._report:
            self._report(self._phase, self._done, self._total)


def _counting_once(unit: Unit) -> Unit:
    """Return a unit without rows, with the examples that no earlier unit has."""
    new = unit.new
    return Unit(unit.number, (ShardRows(0, 0, 0, new, new),))
