"""Work of a unit: a pure function of the model, the projections and the unit's examples. Its results are files.

A job loads the model once for a worker and then does one unit after the other. Nothing passes from a unit to the next:
workers of any number, in any order, on any machine with the index's folder, leave the same files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from credit.engines import Engine
from credit.errors import MismatchError, ValuationError
from credit.valuation.batches import gradient_batches, not_finite
from credit.valuation.curvature import Curvature, Weighting, make_curvature, make_statistic, weighted
from credit.valuation.gradients import Gradients, RowSums
from credit.valuation.hooks import GradientTap
from credit.valuation.layers import LayerShape, experts_of, known_layers
from credit.valuation.manifest import PROJECTIONS_FILE, IndexManifest, versioned
from credit.valuation.moments import second_moments
from credit.valuation.projection import gradient_widths, projections_from_tensors
from credit.valuation.rows import Destinations, RowShares, ShardRows, Unit
from credit.valuation.shards import (
    StoredTensors,
    count_rows,
    encode_rows,
    keep_rows,
    read_rows,
    save_tensors,
)
from credit.valuation.task import AnyExample, Task, device_of
from credit.valuation.unit_files import UnitFolder, UnitRecord

SUMS_FILE = "curvature.safetensors"
FACTORS_FILE = "factors.safetensors"


@dataclass(frozen=True, slots=True)
class UnitTask:
    """A unit, as a worker gets it.

    Attributes:
        number: its number among the units of the pass.
        examples: N examples.
        shards: its shards, with positions in `examples`.
        destinations: the rows of the examples; none in a pass without rows.
        excluded: ids of examples to leave out: their gradients are not finite in another unit.
    """

    number: int
    examples: Sequence[AnyExample]
    shards: tuple[ShardRows, ...] = ()
    destinations: Destinations | None = None
    excluded: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"unit {self.number} of the build"

    @property
    def tokens(self) -> int:
        """Positions of its examples, each time that a shard reads it."""
        if not self.shards:
            return sum(example.size for example in self.examples)
        return sum(self.examples[position].size for shard in self.shards for position in shard.members.tolist())


class UnitTasks(Sequence[UnitTask]):
    """Tasks of units, each made when a worker takes it."""

    def __init__(self, units: Sequence[Unit], make: Callable[[Unit], UnitTask]) -> None:
        self._units, self._make = units, make

    def __len__(self) -> int:
        return len(self._units)

    @overload
    def __getitem__(self, at: int) -> UnitTask: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[UnitTask]: ...
    def __getitem__(self, at: int | slice) -> UnitTask | Sequence[UnitTask]:
        if isinstance(at, slice):
            return UnitTasks(self._units[at], self._make)
        return self._make(self._units[at])


@dataclass(frozen=True, slots=True)
class UnitRun:
    """How units are run. It decides no number of the index.

    Attributes:
        load: returns the model: loads it from its folder, or has it already.
        model_sha256: the model's identity.
        results: the folder of the finished units.
        tokens_per_batch: padded tokens in a batch, at most; None for 4096, on a GPU 16384.
        exclude: leave out examples with non-finite gradients; otherwise the first is an error.
        advance: called after each batch with its tokens.
    """

    load: Callable[[], Task]
    model_sha256: str
    results: UnitFolder
    tokens_per_batch: int | None = None
    exclude: bool = False
    advance: Callable[[int], None] | None = None

    def loaded(self) -> Task:
        """Return the model of a worker.

        Raises:
            MismatchError: it is another one.
        """
        task = self.load()
        if task.model_sha256 != self.model_sha256:
            raise MismatchError(f"{task.location} has changed since the build began, or is another model here")
        return task


@dataclass(frozen=True, slots=True)
class MomentJob:
    """Pass over a sample, to fit projections: each unit leaves its sums of second moments."""

    run: UnitRun
    layers: tuple[LayerShape, ...]

    def open(self) -> Callable[[UnitTask], UnitRecord]:
        """Load the model, and return the work of a unit."""
        run = self.run
        task = run.loaded()
        layers = known_layers(task.module, self.layers)

        def work(unit: UnitTask) -> UnitRecord:
            sums = second_moments(
                task,
                layers,
                unit.examples,
                tokens_per_batch=run.tokens_per_batch,
                exclude=run.exclude,
                progress=run.advance,
            )
            return run.results.keep(range(unit.number, unit.number + 1), sums.tensors(), shards={})

        return work


@dataclass(frozen=True, slots=True)
class GradientJob:
    """Pass over gradients: each unit leaves the sums of its curvature, its rows, or both.

    Attributes:
        run: how units are run.
        index: folder of the index.
        before: manifest of the index before the change; for a build, of an empty one.
        moved: (R,): the new row of each old one; -1 for none.
        version: number of changes of the index, with this one.
        sums: sum the curvature.
        weighed_examples: examples behind the curvature that weighs each example; 0 if none does.
    """

    run: UnitRun
    index: Path
    before: IndexManifest
    moved: NDArray[np.int64]
    version: int
    sums: bool
    weighed_examples: int = 0

    def open(self) -> Callable[[UnitTask], UnitRecord]:
        """Load the model and read the projections, and return the work of a unit."""
        task = self.run.loaded()
        settings = self.before.settings
        choice = known_layers(task.module, self.before.layers)
        layers = choice.watched
        # Read back even if just made: all workers must have them to the last bit.
        projections = projections_from_tensors(tuple(layers), load_file(self.index / PROJECTIONS_FILE))
        tap = GradientTap(task.module, layers, projections, flat=task.flat_inputs)
        weighting = Weighting(settings.weighting, self._curvature(device_of(task)))
        widths = gradient_widths(choice.shapes, projections)
        return _GradientWork(self, task, tap, weighting, widths).do

    def _curvature(self, device: torch.device) -> Curvature:
        """Return the curvature that weighs examples; the identity if none does."""
        if not self.weighed_examples:
            return Curvature()
        settings = self.before.settings
        if settings.curvature == "fisher":
            return Curvature(load_file(self.index / FACTORS_FILE, device=str(device)))
        sums = StoredTensors(self.index / SUMS_FILE, device)
        experts = experts_of(self.before.layers)
        return make_curvature(settings.curvature, sums, self.weighed_examples, settings.damping, experts)


@dataclass(slots=True)
class _UnitState:
    """State of a unit while its shards are filled, from the beginning."""

    excluded: set[str]
    used: set[str] = field(default_factory=set)
    shards: dict[str, str] = field(default_factory=dict)
    sizes: float = 0.0


@dataclass(frozen=True, slots=True)
class _GradientWork:
    """Work of a worker of a `GradientJob`: its model, with a tap on it."""

    job: GradientJob
    task: Task
    tap: GradientTap
    weighting: Weighting
    widths: Mapping[str, int]

    def do(self, unit: UnitTask) -> UnitRecord:
        """Fill a unit's shards and sum its curvature."""
        state = _UnitState(set(unit.excluded))
        while True:
            statistic = make_statistic(self.job.before.settings.curvature if self.job.sums else "none")
            with self.tap:
                for shard in unit.shards:
                    self._fill(unit, shard, state, statistic.add)
            if not state.used & state.excluded:
                break
            # Rounding made it infinite in the batches of a later shard alone: the earlier ones must leave it out too.
            state = _UnitState(state.excluded)
        own = [example.id for example in unit.examples if example.id in state.excluded]
        return self.job.run.results.keep(
            range(unit.number, unit.number + 1),
            statistic.sums(),
            shards=state.shards,
            excluded=own,
            sizes=state.sizes,
        )

    def _fill(self, unit: UnitTask, shard: ShardRows, state: _UnitState, add: Callable[[Gradients], None]) -> None:
        """Sum old rows and examples into a shard's rows and write them; sum what counts once into the curvature."""
        rows = RowSums(shard.high - shard.low)
        occupied = self._copy_rows(shard, rows)
        device = device_of(self.task)
        new = frozenset(shard.new.tolist())
        for positions, gradients in self._gradients(unit, shard, state):
            sizes = self.weighting.sizes(gradients)
            if unit.destinations is not None and shard.high > shard.low:
                shares = unit.destinations.of(positions, shard.low, shard.high).on(device, len(positions))
                rows.add(weighted(gradients, sizes), shares)
            # A shared example has rows in several shards, but counts once in the curvature and in the sizes.
            once = [place for place, position in enumerate(positions) if position in new]
            state.sizes += 0.0 if sizes is None else float(sizes[once].sum())
            if self.job.sums and once:
                add(gradients.rows(once))
        if unit.destinations is not None and shard.high > shard.low:
            members = shard.members.tolist()
            included = [position for position in members if unit.examples[position].id not in state.excluded]
            joined = unit.destinations.of(included, shard.low, shard.high).row.tolist()
            self._store(shard, rows, sorted(occupied.union(joined)), state)

    def _store(self, shard: ShardRows, rows: RowSums, kept: Sequence[int], state: _UnitState) -> None:
        """Write a shard's rows, except those of excluded examples alone. They count once the unit has a record."""
        job = self.job
        stored = keep_rows(rows.layers, kept, shard.high - shard.low, self.widths)
        name = versioned(shard.file, job.version)
        state.shards[name] = save_tensors(job.index / name, encode_rows(stored, job.before.settings.rows_dtype))

    def _copy_rows(self, shard: ShardRows, rows: RowSums) -> set[int]:
        """Add old rows to those of a shard; return their places in the shard."""
        occupied: set[int] = set()
        job, device, stop = self.job, device_of(self.task), 0
        for old in job.before.shards:
            path = job.index / old
            start, stop = stop, stop + count_rows(path, job.before.layers[0].name)
            target = job.moved[start:stop]
            inside = np.flatnonzero((target >= shard.low) & (target < shard.high))
            if len(inside):
                own = target[inside] - shard.low
                occupied.update(own.tolist())
                shares = RowShares(inside, own, np.ones(len(inside))).on(device, stop - start)
                for name, values in read_rows(path, list(self.widths), device):
                    rows.add_layer(name, values, shares)
        return occupied

    def _gradients(self, unit: UnitTask, shard: ShardRows, state: _UnitState) -> Iterator[tuple[list[int], Gradients]]:
        """Yield the gradients of a shard's examples with their positions in the unit; note the non-finite ones."""
        run = self.job.run
        positions = [place for place in shard.members.tolist() if unit.examples[place].id not in state.excluded]
        examples = [unit.examples[place] for place in positions]
        bad: list[int] = []
        for chosen, gradients in gradient_batches(self.task, self.tap, examples, run.tokens_per_batch, excluded=bad):
            self._check([examples[place] for place in bad])
            yield [positions[place] for place in chosen], gradients
            state.used.update(examples[place].id for place in chosen)
            if run.advance:
                run.advance(sum(examples[place].size for place in chosen))
        self._check([examples[place] for place in bad])
        state.excluded.update(examples[place].id for place in bad)

    def _check(self, bad: Sequence[AnyExample]) -> None:
        """Refuse examples with non-finite gradients, unless they are to be left out."""
        if bad and not self.job.run.exclude:
            raise ValuationError(f"{not_finite(bad[0], self.task)}, or exclude it with --non-finite exclude")


def run_units(
    job: MomentJob | GradientJob, tasks: Sequence[UnitTask], engine: Engine
) -> Iterator[tuple[int, UnitRecord]]:
    """Run units by an engine; yield the position of each task with its record, in any order."""
    yield from engine.run(job, tasks)
