"""Passes over the data of a change: an engine runs their units, and partial sums are merged in the order of units."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from credit.engines import Engine, InProcess
from credit.errors import InvalidRequestError, ValuationError
from credit.storage import canonical_json, sha256_file
from credit.valuation import unit_files
from credit.valuation.batches import Progress
from credit.valuation.change import SUM_BYTES, Change, ChangePlan
from credit.valuation.layers import LayerChoice
from credit.valuation.manifest import PROJECTIONS_FILE, IndexManifest
from credit.valuation.moments import MomentSums, choose_sample, fit_projections, no_moments, sample_units
from credit.valuation.projection import projections_to_tensors
from credit.valuation.requirements import Needs, moment_bytes
from credit.valuation.rows import Unit
from credit.valuation.shards import save_tensors
from credit.valuation.task import Task, device_of
from credit.valuation.unit_files import UnitFolder, UnitRecord, is_done, work_folder
from credit.valuation.units import GradientJob, MomentJob, UnitRun, UnitTask, UnitTasks, run_units

FITTING_EXAMPLES = 512
"""Least examples in a unit of the sample to fit projections to."""

MOMENTS, CURVATURE, ROWS = "moments", "curvature", "gradients"
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


class Passes:
    """Passes over the data of one change of one model's index.

    Args:
        task: the model.
        folder: folder of the index.
        before: manifest of the index before the change.
        change: the change.
        plan: its units.
        options: see `RunOptions`.
        layers: watched layers of the model.

    Attributes:
        options: may change between passes.
        version: version of the index after the change.
        work: folder of the units' results.
        excluded: ids of the examples left out so far.
        weighed: number of examples behind the curvature by which the last pass weighs.

    Raises:
        MismatchError: the folder holds an unfinished index of other inputs.
    """

    def __init__(
        self,
        task: Task,
        folder: Path,
        before: IndexManifest,
        change: Change,
        plan: ChangePlan,
        options: RunOptions,
        layers: LayerChoice,
    ) -> None:
        self.task, self.folder, self.before, self.plan, self.options = task, folder, before, plan, options
        self._layers, self._device = layers, device_of(task)
        self._examples = change.examples
        self._sizes = self._examples.sizes
        self.version = len(before.history) + (0 if change.is_build else 1)
        self._build = self._identity()
        self.work = work_folder(folder, self._build)
        self.excluded = frozenset(change.excluded_before)
        self.weighed = 0

    def _identity(self) -> str:
        """Return the identity of all units: that of the inputs, and of the cuts between the units."""
        cuts = [[[shard.low, shard.high] for shard in unit.shards] for unit in self.plan.units]
        return hashlib.sha256(canonical_json([self.before.inputs.sha256, cuts]).encode()).hexdigest()

    @property
    def is_fitted(self) -> bool:
        """True if the index has its projections."""
        return (self.folder / PROJECTIONS_FILE).is_file()

    @property
    def engine(self) -> Engine:
        """The engine of the units."""
        return self.options.engine or InProcess()

    @property
    def _is_here(self) -> bool:
        return isinstance(self.engine, InProcess)

    def results(self, phase: str) -> UnitFolder:
        """Return the results of a pass's finished units."""
        build = self._build
        if phase != MOMENTS and self.is_fitted:
            # Other machines may round projections otherwise, and rows fit together only if they have the same.
            build = f"{build} {sha256_file(self.folder / PROJECTIONS_FILE)}"
        # Whole paths: workers may have another working directory.
        return UnitFolder(self.work.resolve(), phase, self.folder.resolve(), build)

    def unread(self) -> list[int] | None:
        """Return the units that the first of two passes lacks; None once its sums are merged."""
        records = self.results(CURVATURE).records()
        if len(self.plan.units) > 1 and [(one.first, one.stop) for one in records] == [(0, len(self.plan.units))]:
            return None
        return [unit.number for unit in self.plan.units if not is_done(unit.number, records)]

    def undone(self, phase: str, units: Sequence[Unit]) -> list[Unit]:
        """Return those of some units without a whole result."""
        results = self.results(phase)
        return [unit for unit in units if results.problem(unit.number)]

    def fit(self) -> None:
        """Make the projections, from the second moments of a sample if the settings fit them."""
        path, settings = self.folder / PROJECTIONS_FILE, self.before.settings
        if not settings.fits_projections:
            save_tensors(path, projections_to_tensors(fit_projections(self._layers, settings)))
            return
        sample = choose_sample(self._examples, settings.sample)
        cut = sample_units(sample, max(FITTING_EXAMPLES, moment_bytes(self._layers.shapes) // SUM_BYTES))
        tasks = [UnitTask(number, examples) for number, examples in enumerate(cut)]
        results = self.results(MOMENTS)
        records = results.records()
        left = [task for task in tasks if not is_done(task.number, records)]
        total = sum(task.tokens for task in tasks)
        clock = _Clock(self.options.progress, MOMENTS, total, total - sum(task.tokens for task in left))
        job = MomentJob(self._unit_run(results, clock), self._layers.shapes)
        for _, record in self._run_units(job, left, clock, [task.tokens for task in left]):
            records = results.merge(sorted([*records, record], key=lambda own: own.first), unit_files.WAITING_BYTES)
        (record,) = results.merge(records)
        sums = MomentSums.restored(results.sums(record, self._device))
        if not sums.b:
            raise ValuationError(no_moments(self.task))
        save_tensors(path, projections_to_tensors(fit_projections(self._layers, settings, sums.means())))
        results.forget(record)

    def run(self, phase: str, units: Sequence[Unit], *, sums: bool) -> UnitRecord:
        """Run the units of a pass over the gradients that are left; return the record of all of them, merged."""
        results = self.results(phase)
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

    def run_left(self, phase: str, left: Sequence[Unit], units: Sequence[Unit], *, sums: bool) -> None:
        """Run the units of a slice that are `left` of its `units`, and merge nothing."""
        for _ in self._gradient_units(phase, left, units, sums=sums):
            pass

    def _gradient_units(
        self, phase: str, left: Sequence[Unit], units: Sequence[Unit], *, sums: bool
    ) -> Iterator[tuple[int, UnitRecord]]:
        """Run units over the gradients, those `left` of `units`; yield the position of each with its record."""
        if not left:
            return
        sizes = list(map(self.unit_tokens, left))
        total = sum(map(self.unit_tokens, units))
        clock = _Clock(self.options.progress, phase, total, total - sum(sizes))
        job = GradientJob(
            self._unit_run(self.results(phase), clock),
            self.folder.resolve(),
            self.before,
            self.plan.moved,
            self.version,
            sums=sums,
            weighed_examples=self.weighed if phase == ROWS else 0,
        )
        yield from self._run_units(job, UnitTasks(left, self._unit_task), clock, sizes)

    def _run_units(
        self, job: MomentJob | GradientJob, tasks: Sequence[UnitTask], clock: _Clock, sizes: Sequence[int]
    ) -> Iterator[tuple[int, UnitRecord]]:
        """Run units of some tokens each by the engine."""
        for position, record in run_units(job, tasks, self.engine):
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

    def unit_tokens(self, unit: Unit) -> int:
        """Return the tokens of a unit, in windows that it reads."""
        return sum(self.tokens(shard.members) for shard in unit.shards)

    def tokens(self, positions: NDArray[np.int64]) -> int:
        """Return the tokens of some examples' batches."""
        return int(self._sizes[positions].sum())


class _Clock:
    """Tokens done in a pass, reported after every batch."""

    def __init__(self, report: Progress | None, phase: str, total: int, done: int) -> None:
        self._report, self._phase, self._total, self._done = report, phase, total, done

    def advance(self, tokens: int) -> None:
        """Count the tokens of a batch. A unit that starts again counts them once more, and never beyond the total."""
        self._done = min(self._done + tokens, self._total)
        if self._report:
            self._report(self._phase, self._done, self._total)
