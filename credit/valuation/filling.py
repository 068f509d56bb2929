"""Fills an index: all training examples' gradients, summed into rows shard by shard, and into the curvature."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from credit.errors import ValuationError
from credit.storage import is_left_over, sha256_file
from credit.valuation import resume_state, shards
from credit.valuation.assemble import complete_index
from credit.valuation.batches import gradient_batches, not_finite, tokens_in_batch
from credit.valuation.curvature import Curvature, make_curvature, make_statistic
from credit.valuation.examples import Member, TrainingData, left_out, listing
from credit.valuation.fitting import make_projections
from credit.valuation.gradients import GradientTap
from credit.valuation.layers import LayerShape, choose_layers
from credit.valuation.manifest import PROJECTIONS_FILE, IndexInputs, IndexSettings, Manifest
from credit.valuation.moments import choose_sample, needs_moments
from credit.valuation.probe import Work, probe, storing_seconds
from credit.valuation.projection import LayerProjection, projections_from_tensors, projections_to_tensors
from credit.valuation.ranks import projected_widths, resolve_ranks
from credit.valuation.requirements import Needs, build_needs
from credit.valuation.resume_state import STATE, BuildState
from credit.valuation.rows import RowLayout, Unit, lay_out_rows
from credit.valuation.running import Running
from credit.valuation.shards import StoredTensors, encode_rows, keep_rows, plan_shards, save_tensors
from credit.valuation.stacked import Gradients, RowSums
from credit.valuation.task import AnyExample, Task, device_of, short_digest
from credit.valuation.weighting import Weighting, needs_curvature, weighted

_OURS = re.compile(r"(projections|counts|factors|(rows|curvature)-\d+)\.safetensors|examples\.jsonl")


class Build:
    """One build of an index in a folder that nobody else is changing.

    It goes through units of consecutive rows, each written as a shard when all its examples have been seen. Where a
    weight follows from the curvature there are two passes: the first sums the curvature, the second fills the rows.
    """

    def __init__(
        self,
        task: Task,
        data: TrainingData,
        out: Path,
        inputs: IndexInputs,
        running: Running,
    ) -> None:
        self.task, self.data, self.out, self.inputs, self.running = task, data, out, inputs, running
        settings = self.settings = inputs.settings
        layers = self.layers = choose_layers(task.module, settings.layers)
        self.rows = self._lay_out()
        self.widths = projected_widths(resolve_ranks(layers.shapes, settings.rank, settings.ranks))
        self.state = BuildState.open(out, inputs.fingerprint())
        self.projections: dict[str, LayerProjection] = {}
        self.statistic = make_statistic(settings.curvature)
        if self.state.sums is not None:
            self.statistic.restore(load_file(self.out / self.state.sums, device=str(device_of(task))))
        self.surveys = needs_curvature(settings.weighting, settings.curvature)
        self.curvature: Curvature | None = None
        self.weighting = Weighting(settings.weighting)

    def _clear(self) -> None:
        """Make room: delete what a run that was stopped has written, and what counts for nothing."""
        counts = {*self.state.shards, self.state.sums, PROJECTIONS_FILE if self.state.projections else None}
        for path in self.out.iterdir():
            if is_left_over(path.name) or (_OURS.fullmatch(path.name) and path.name not in counts):
                path.unlink()

    @property
    def needs(self) -> Needs:
        """What the build needs beyond the model."""
        return index_needs(len(self.data.examples), len(self.rows.counts), self.layers.shapes, self.settings)

    def probed_needs(self) -> Needs:
        """What the build needs, with the memory of a batch and the time on this machine, by a short probe.

        Where memory is short, batches are smaller from then on.
        """
        fitted = self.state.projections is not None
        work = self._left_to_do()
        if not work.passes:
            return replace(self.needs, seconds=0.0)
        probed = probe(
            self.task,
            self.layers,
            self.data.examples,
            self.settings,
            tokens_per_batch=tokens_in_batch(self.running.tokens_per_batch, device_of(self.task)),
            fitted=fitted,
        )
        seconds = probed.seconds(work) + storing_seconds(self.out, work.stored, device_of(self.task))
        needs = replace(self.needs, seconds=seconds, batch_bytes=probed.batch_bytes)
        self.running, needs = self.running.within_memory(needs, self.data.examples, device_of(self.task))
        return needs

    def _left_to_do(self) -> Work:
        """Add up what is left of every pass."""
        units = list(self.units())
        unread = [unit for unit in units if unit.number >= self.state.surveyed] if self.surveys else []
        empty = [unit for unit in units if unit.shard not in self.state.shards]
        counted = unread if self.surveys else empty
        fits = needs_moments(self.settings) and self.state.projections is None
        sample = choose_sample(self.data.examples, self.settings.sample) if fits else []
        return Work(
            fitting=sum(example.size for example in sample),
            passes=sum(self._tokens(unit.new) for unit in unread) + sum(self._tokens(unit.members) for unit in empty),
            summed=sum(len(unit.new) for unit in counted),
            weighed=sum(len(unit.members) for unit in empty) if self.surveys else 0,
            stored=self.needs.disk_bytes * sum(unit.high - unit.low for unit in empty) // len(self.rows.counts),
        )

    def _tokens(self, members: Sequence[int]) -> int:
        return sum(self.data.examples[i].size for i in members)

    def run(self) -> None:
        """Go through all units that the saved state does not cover."""
        settings = self.settings
        self._clear()
        self.open_projections()
        with GradientTap(self.task.module, self.layers.watched, self.projections, flat=self.task.flat_inputs) as tap:
            units = list(self.units())
            if self.surveys:
                once = [replace(unit, members=unit.new) for unit in units]
                self._pass(once, lambda unit: unit.number < self.state.surveyed, lambda *at: self._survey(tap, *at))
                assert self.state.sums is not None  # noqa: S101  # the pass ended with its state saved
                sums, examples = StoredTensors(self.out / self.state.sums, device_of(self.task)), self._included()
                self.statistic = make_statistic("none")  # its sums are stored, and make room for the factors
                self.curvature = make_curvature(settings.curvature, sums, examples, settings.damping)
                self.weighting = Weighting(settings.weighting, self.curvature)
            self._pass(units, lambda unit: unit.shard in self.state.shards, lambda *at: self._fill(tap, *at))

    def _lay_out(self, excluded: Collection[str] = ()) -> RowLayout:
        examples = self.data.examples
        return lay_out_rows(
            [example.id for example in examples],
            self.data.shares,
            [example.predicted for example in examples],
            self.settings.rows_per_group,
            excluded,
        )

    def _included(self) -> int:
        """Return the number of examples that count.

        Raises:
            ValuationError: none does.
        """
        left = len(self.data.examples) - len(self.state.excluded)
        if not left:
            raise ValuationError(f"no training example has a finite gradient in {self.task.location}; try --dtype fp32")
        return left

    def finish(self, name: str) -> Manifest:
        """Write everything that is left, and the manifest last; `name` is what logs call the model."""
        assert self.state.sums is not None  # noqa: S101  # run() ended with its state saved
        assert self.state.projections is not None  # noqa: S101  # written before run()
        self._included()
        excluded = frozenset(self.state.excluded)
        rows = self._lay_out(excluded)
        draft = Manifest(
            name=name,
            model_path=self.task.location,
            model_sha256=self.task.model_sha256,
            tokenizer_sha256=self.task.tokenizer_sha256,
            data_sha256=self.inputs.data_sha256,
            fitted_sha256=self.inputs.fitted_sha256,
            dtype=self.inputs.dtype,
            settings=self.settings,
            max_length=self.inputs.max_length,
            layers=self.layers.shapes,
            skipped=self.layers.skipped,
            groups=rows.groups,
            shards=tuple(sorted(self.state.shards)),
            statistic=self.state.sums,
            sizes=self.state.sizes,
            excluded=left_out(self._members(), excluded),
            checkpoints=(),
            history=(),
            files={},
        )
        self.statistic = make_statistic("none")  # its sums are stored, and make room for what is made of them
        manifest = complete_index(
            self.out,
            draft,
            counts=rows.counts,
            listed=listing(self._members(), rows),
            written={
                **self.state.shards,
                self.state.sums: sha256_file(self.out / self.state.sums),
                PROJECTIONS_FILE: self.state.projections,
            },
            device=device_of(self.task),
            curvature=self.curvature,
        )
        (self.out / STATE).unlink()
        return manifest

    def _members(self) -> Iterator[Member]:
        for example, shares in zip(self.data.examples, self.data.shares, strict=True):
            yield Member(example.id, shares, example.predicted, short_digest(example))

    def units(self) -> Iterator[Unit]:
        """Yield the units of the index, in the order of their rows."""
        order = np.argsort(self.rows.row_of, kind="stable")
        sorted_rows, owners, lowest = self.rows.row_of[order], self.rows.example_of[order], self.rows.lowest
        plan = plan_shards([group.stop for group in self.rows.groups], sum(self.widths.values()))
        for number, (low, high) in enumerate(plan):
            first, last = np.searchsorted(sorted_rows, [low, high])
            members = list(dict.fromkeys(owners[first:last].tolist()))
            yield Unit(number, low, high, members, [i for i in members if lowest[i] >= low])

    def _pass(
        self, units: Sequence[Unit], is_done: Callable[[Unit], bool], work: Callable[[Unit, int, int], BuildState]
    ) -> None:
        """Do the work of every unit that is not done, and save the state now and then and at the end.

        Of the work, the last two arguments are the tokens done before it, and the tokens of all units.
        """
        done, total = 0, sum(self._tokens(unit.members) for unit in units)
        last = time.monotonic()
        for unit in units:
            if not is_done(unit):
                self.state = work(unit, done, total)
                self.statistic.flush()  # its blocks end here, saved or not: the same sums to the last bit
                if unit is units[-1] or time.monotonic() - last > resume_state.SAVE_SECONDS:
                    self.save(unit.number)
                    last = time.monotonic()
            done += self._tokens(unit.members)

    def _survey(self, tap: GradientTap, unit: Unit, done: int, total: int) -> BuildState:
        """Add a unit's examples to the curvature alone."""
        for _, gradients in self._gradients(tap, unit, "curvature", done, total):
            self.statistic.add(gradients)
        return replace(self.state, surveyed=unit.number + 1)

    def _fill(self, tap: GradientTap, unit: Unit, done: int, total: int) -> BuildState:
        """Sum a unit's examples into its rows, write them, and add the examples to the curvature if none has yet."""
        sums = RowSums(unit.high - unit.low)
        total_size = 0.0
        new = frozenset(unit.new)
        for members, gradients in self._gradients(tap, unit, "gradients", done, total):
            sizes = self.weighting.sizes(gradients)
            parts = self.rows.parts(members, unit.low, unit.high).on(device_of(self.task), len(members))
            sums.add(weighted(gradients, sizes), parts)
            # An example that groups share has rows in several units, but is one of the N, with one size.
            once = [row for row, member in enumerate(members) if member in new]
            total_size += 0.0 if sizes is None else float(sizes[once].sum())
            if not self.surveys and once:
                self.statistic.add(gradients.rows(once))
        return self.store(unit, sums.layers, total_size)

    def store(self, unit: Unit, sums: Mapping[str, Tensor], sizes: float) -> BuildState:
        """Write a unit's rows; they count once the state is saved.

        Args:
            unit: the unit.
            sums: for each layer its rows (high - low, S·R).
            sizes: sum of what its examples were divided by.
        """
        kept = np.unique(self.rows.parts(self._left(unit), unit.low, unit.high).row)
        rows = keep_rows(sums, kept.tolist(), unit.high - unit.low, self.widths)
        digest = save_tensors(self.out / unit.shard, encode_rows(rows, self.settings.rows_dtype))
        written = {**self.state.shards, unit.shard: digest}
        return replace(self.state, shards=written, sizes=self.state.sizes + sizes)

    def _gradients(
        self, tap: GradientTap, unit: Unit, phase: str, done: int, total: int
    ) -> Iterator[tuple[list[int], Gradients]]:
        """Yield the gradients of a unit's examples, with their positions in the data; those not finite are left out."""
        members = self._left(unit)
        examples = [self.data.examples[i] for i in members]
        bad: list[int] = []
        for positions, gradients in gradient_batches(
            self.task, tap, examples, self.running.tokens_per_batch, excluded=bad
        ):
            self._check([examples[p] for p in bad])
            yield [members[p] for p in positions], gradients
            done += sum(examples[p].size for p in positions)
            if self.running.progress:
                self.running.progress(phase, done, total)
        self._check([examples[p] for p in bad])
        found = (examples[p].id for p in sorted(bad))
        self.state = replace(self.state, excluded=[*self.state.excluded, *found])

    def _check(self, bad: Sequence[AnyExample]) -> None:
        """Refuse examples that are not finite, unless they are to be left out."""
        if bad and not self.running.exclude:
            raise ValuationError(f"{not_finite(bad[0], self.task)}, or leave it out with --non-finite exclude")

    def _left(self, unit: Unit) -> list[int]:
        """Return the examples of a unit that are not known to be left out."""
        excluded = frozenset(self.state.excluded)
        return [i for i in unit.members if self.data.examples[i].id not in excluded]

    def save(self, number: int) -> None:
        """Make what was done since the state was last saved count, together with its curvature."""
        before = self.state.sums
        if not (self.surveys and self.state.shards):  # the second of two passes adds nothing to the sums
            sums = f"curvature-{number:05d}.safetensors"
            save_tensors(self.out / sums, self.statistic.sums())
            self.state = replace(self.state, sums=sums)
        self.state.write(self.out)
        if before not in {None, self.state.sums}:
            (self.out / str(before)).unlink()

    def open_projections(self) -> None:
        """Make the projections, or read those that a build which was stopped has made: rows of both must agree."""
        path = self.out / PROJECTIONS_FILE
        self.state.write(self.out)  # from here on the folder is that of an unfinished index
        if self.state.projections is None:
            projections = make_projections(
                self.task,
                self.layers,
                self.data.examples,
                self.settings,
                self.running,
            )
            digest = save_tensors(path, projections_to_tensors(projections))
            self.state = replace(self.state, projections=digest)
            self.state.write(self.out)
        self.projections = projections_from_tensors(tuple(self.layers.watched), load_file(path))


def index_needs(examples: int, rows: int, shapes: Sequence[LayerShape], settings: IndexSettings) -> Needs:
    """Add up what an index of `examples` examples in `rows` rows needs, from shapes alone."""
    return build_needs(examples, rows, shapes, settings, shards.SHARD_BYTES)
