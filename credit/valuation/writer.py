"""The writer of attribution indexes: it sums training examples' gradients into rows, shard by shard.

Every index is written as a change of the index before. A build changes an empty index, which all examples join. New
files lie beside the old ones. They count once the manifest is written: last, in one rename.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from credit.errors import ValuationError
from credit.records import MANIFEST
from credit.storage import sha256_file, write_whole
from credit.valuation import resume_state, shards
from credit.valuation.batches import Progress, gradient_batches, not_finite, tokens_in_batch
from credit.valuation.change import Change, plan_change
from credit.valuation.curvature import Curvature, Weighting, make_curvature, make_statistic, weighted
from credit.valuation.examples import (
    EXAMPLES_FILE,
    IndexedExample,
    excluded_examples,
    listing,
    write_listing,
)
from credit.valuation.gradients import Gradients, RowSums
from credit.valuation.hooks import GradientTap
from credit.valuation.layers import experts_of, known_layers
from credit.valuation.manifest import PROJECTIONS_FILE, IndexManifest, MemberIndex, versioned
from credit.valuation.moments import choose_sample, make_projections
from credit.valuation.probe import WorkLeft, probe, storing_seconds, timed
from credit.valuation.projection import (
    LayerProjection,
    projected_widths,
    projections_from_tensors,
    projections_to_tensors,
    resolve_ranks,
)
from credit.valuation.requirements import Needs, build_needs, fit_batches
from credit.valuation.resume_state import ResumeState
from credit.valuation.rows import RowCounts, RowLayout, RowShares, Unit
from credit.valuation.shards import (
    StoredTensors,
    count_rows,
    encode_rows,
    keep_rows,
    read_rows,
    save_tensors,
)
from credit.valuation.task import AnyExample, Task, device_of


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of a build or a change. They decide no number of the index.

    Attributes:
        tokens_per_batch: padded tokens in a batch, at most; None for 4096, on a GPU 16384.
        exclude: exclude examples with non-finite gradients and name them in the manifest; otherwise the first is an
            error.
        progress: called after every batch.
        announce: called once before the work begins, with its time, memory and disk. Without it, no probe is made.
    """

    tokens_per_batch: int | None = None
    exclude: bool = False
    progress: Progress | None = None
    announce: Callable[[Needs], None] | None = None


class IndexWriter:
    """Writer of one change of one model's index. Nobody else may change the folder meanwhile.

    It goes through units of consecutive rows. A unit's examples are summed into its rows and into the curvature, and
    its rows become a shard. Weights of RelatIF need the whole curvature first: then a first pass sums the curvature,
    and a second one fills the rows.

    A build saves its resume state now and then. An interrupted change of a finished index starts again.

    Args:
        task: the model.
        folder: folder of the index.
        before: manifest of the index before the change; for a build, of an empty index.
        change: the change.
        options: see `RunOptions`.

    Attributes:
        plan: the new rows, and the place of everything in them.
        state: progress so far. A build saves it as its resume state.

    Raises:
        MismatchError: the folder holds an unfinished index of other inputs.
        ValuationError: the change cannot be made exactly.
    """

    def __init__(self, task: Task, folder: Path, before: IndexManifest, change: Change, options: RunOptions) -> None:
        self.task, self.folder, self.before, self.change, self.options = task, folder, before, change, options
        settings = self.settings = before.settings
        self._device = device_of(task)
        self._examples = change.examples
        self._version = len(before.history) + (0 if change.is_build else 1)
        self.state = self._first_state()
        self._layers = known_layers(task.module, before.layers)
        self._widths = projected_widths(resolve_ranks(self._layers.shapes, settings.rank, settings.ranks))
        self.plan = plan_change(change, before, folder, sum(self._widths.values()))
        self._projections: dict[str, LayerProjection] = {}
        self._statistic = make_statistic(settings.curvature)
        self._surveys = settings.weighs_by_curvature
        self._curvature: Curvature | None = None
        self._weighting = Weighting(settings.weighting)

    def _first_state(self) -> ResumeState:
        if self.change.is_build:
            return ResumeState.open(self.folder, self.before.inputs.sha256)
        projections = self.before.files[PROJECTIONS_FILE]
        return ResumeState(self.before.inputs.sha256, projections, excluded=self.change.excluded_before)

    def final_layout(self) -> RowLayout:
        """Return the rows after the change, without excluded examples.

        Raises:
            ValuationError: all examples are excluded.
        """
        if len(self.state.excluded) == len(self.change.members):
            raise ValuationError(f"no training example has a finite gradient in {self.task.location}; try --dtype fp32")
        return self.change.lay_out(self.settings.rows_per_group, frozenset(self.state.excluded))

    # Requirements

    @property
    def needs(self) -> Needs:
        """Disk and memory for the change beyond the model, from shapes alone."""
        members, rows = len(self.change.members), len(self.plan.layout.counts)
        needs = build_needs(members, rows, self._layers.shapes, self.settings, shards.SHARD_BYTES)
        if not self.before.statistic:
            return needs
        # Three sums: before the change, of the changing examples, after the change.
        sums = 3 * (self.folder / self.before.statistic).stat().st_size
        return replace(needs, fitting_bytes=0, curvature_bytes=max(needs.curvature_bytes, sums))

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
            fitted=self.state.projections is not None,
        )
        needs = replace(needs, seconds=(needs.seconds or 0.0) + found.seconds(work), batch_bytes=found.batch_bytes)
        budget, needs = fit_batches(needs, self._examples, options.tokens_per_batch, self._device)
        self.options = replace(options, tokens_per_batch=budget)
        return needs

    def _work_left(self) -> WorkLeft:
        unread = [unit for unit in self.plan.units if unit.number >= self.state.surveyed] if self._surveys else []
        empty = [unit for unit in self.plan.units if unit.shard not in self.state.shards]
        fits = self.settings.fits_projections and self.state.projections is None
        sample = choose_sample(self._examples, self.settings.sample) if fits else []
        rows = sum(unit.high - unit.low for unit in empty)
        return WorkLeft(
            fitting=sum(example.size for example in sample),
            passes=sum(self._tokens(unit.new) for unit in unread) + sum(self._tokens(unit.members) for unit in empty),
            summed=sum(len(unit.new) for unit in (unread if self._surveys else empty)),
            weighed=sum(len(unit.members) for unit in empty) if self._surveys else 0,
            stored=sum(self._old_sizes()) or self.needs.disk_bytes * rows // len(self.plan.layout.counts),
        )

    def _tokens(self, positions: Sequence[int]) -> int:
        return sum(self._examples[position].size for position in positions)

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
        """Go through all units, except those that the resume state covers."""
        self._open()
        layers = self._layers.watched
        with GradientTap(self.task.module, layers, self._projections, flat=self.task.flat_inputs) as tap:
            if self._surveys:
                once = [replace(unit, members=unit.new) for unit in self.plan.units]
                self._pass(once, lambda unit: unit.number < self.state.surveyed, partial(self._survey, tap))
                self._weigh_by_curvature()
            self._pass(self.plan.units, lambda unit: unit.shard in self.state.shards, partial(self._fill, tap))

    def _open(self) -> None:
        """Delete leftovers of an interrupted run, restore its sums, and make or read the projections."""
        if self.change.is_build:
            self.state.delete_leftovers(self.folder)
            self.state.write(self.folder)  # marks the folder as that of an unfinished index
        if self.state.sums is not None:
            self._statistic.restore(load_file(self.folder / self.state.sums, device=str(self._device)))
        path = self.folder / PROJECTIONS_FILE
        if self.state.projections is None:
            options = self.options
            projections = make_projections(
                self.task,
                self._layers,
                self._examples,
                self.settings,
                tokens_per_batch=options.tokens_per_batch,
                exclude=options.exclude,
                progress=options.progress,
            )
            digest = save_tensors(path, projections_to_tensors(projections))
            self.state = replace(self.state, projections=digest)
            self.state.write(self.folder)
        # Read back even if just made: rows before and after an interruption must agree to the last bit.
        self._projections = projections_from_tensors(tuple(self._layers.watched), load_file(path))

    def _pass(
        self, units: Sequence[Unit], is_done: Callable[[Unit], bool], work: Callable[[Unit, int, int], ResumeState]
    ) -> None:
        """Do the work of every unit unless it is done. Save the state now and then, and at the end.

        `work` gets the unit, the tokens done before it, and the tokens of all units.
        """
        done, total = 0, sum(self._tokens(unit.members) for unit in units)
        last = time.monotonic()
        for unit in units:
            if not is_done(unit):
                self.state = work(unit, done, total)
                self._statistic.flush()  # at every unit, saved or not: then saving changes no bit of the sums
                # A change that is interrupted starts again: only a build saves as it goes.
                due = self.change.is_build and time.monotonic() - last > resume_state.SAVE_SECONDS
                if due or unit is units[-1]:
                    self._save(unit.number)
                    last = time.monotonic()
            done += self._tokens(unit.members)

    def _survey(self, tap: GradientTap, unit: Unit, done: int, total: int) -> ResumeState:
        """Add a unit's examples to the curvature alone."""
        excluded: list[str] = []
        for _, gradients in self._gradients(tap, unit, excluded, "curvature", done, total):
            self._statistic.add(gradients)
        return replace(self.state, surveyed=unit.number + 1, excluded=[*self.state.excluded, *excluded])

    def _weigh_by_curvature(self) -> None:
        """Make the curvature from the sums of the first pass, for the weights of the second."""
        assert self.state.sums is not None  # noqa: S101  # the pass ended with its state saved
        self.final_layout()  # refuses an index of no example
        sums = StoredTensors(self.folder / self.state.sums, self._device)
        examples = len(self.change.members) - len(self.state.excluded)
        self._statistic = make_statistic("none")  # frees its memory for the factors; the sums are on disk
        experts = experts_of(self.before.layers)
        self._curvature = make_curvature(self.settings.curvature, sums, examples, self.settings.damping, experts)
        self._weighting = Weighting(self.settings.weighting, self._curvature)

    def _fill(self, tap: GradientTap, unit: Unit, done: int, total: int) -> ResumeState:
        """Sum old rows and examples into a unit's rows and write them. Sum the curvature, unless a pass did before."""
        rows = RowSums(unit.high - unit.low)
        occupied = self._copy_rows(unit, rows)
        total_size = 0.0
        excluded: list[str] = []
        new = frozenset(unit.new)
        for positions, gradients in self._gradients(tap, unit, excluded, "gradients", done, total):
            sizes = self._weighting.sizes(gradients)
            shares = self.plan.destinations.of(positions, unit.low, unit.high).on(self._device, len(positions))
            rows.add(weighted(gradients, sizes), shares)
            # A shared example has rows in several units, but counts once in the curvature and in the sizes.
            once = [place for place, position in enumerate(positions) if position in new]
            total_size += 0.0 if sizes is None else float(sizes[once].sum())
            if not self._surveys and once:
                self._statistic.add(gradients.rows(once))
        state = replace(self.state, sizes=self.state.sizes + total_size, excluded=[*self.state.excluded, *excluded])
        return self._store(unit, rows.layers, occupied, state)

    def _copy_rows(self, unit: Unit, rows: RowSums) -> set[int]:
        """Add old rows to those of a unit; return their places in the unit."""
        occupied: set[int] = set()
        stop = 0
        for shard in self.before.shards:
            path = self.folder / shard
            start, stop = stop, stop + count_rows(path, self.before.layers[0].name)
            target = self.plan.moved[start:stop]
            inside = np.flatnonzero((target >= unit.low) & (target < unit.high))
            if len(inside):
                own = target[inside] - unit.low
                occupied.update(own.tolist())
                shares = RowShares(inside, own, np.ones(len(inside))).on(self._device, stop - start)
                for name, values in read_rows(path, list(self._widths), self._device):
                    rows.add_layer(name, values, shares)
        return occupied

    def _store(self, unit: Unit, sums: Mapping[str, Tensor], occupied: set[int], state: ResumeState) -> ResumeState:
        """Write a unit's rows, except rows of excluded examples alone. They count once the state is saved.

        Args:
            unit: the unit.
            sums: for each layer the rows (high - low, S·R).
            occupied: places in the unit with something of the old index.
            state: the state with the unit's examples, but without its shard.
        """
        if unit.low == unit.high:
            return state
        joined = self.plan.destinations.of(self._included(unit, state), unit.low, unit.high).row.tolist()
        rows = keep_rows(sums, sorted(occupied.union(joined)), unit.high - unit.low, self._widths)
        name = versioned(unit.shard, self._version)
        digest = save_tensors(self.folder / name, encode_rows(rows, self.settings.rows_dtype))
        return replace(state, shards={**state.shards, name: digest})

    def _gradients(
        self, tap: GradientTap, unit: Unit, excluded: list[str], phase: str, done: int, total: int
    ) -> Iterator[tuple[list[int], Gradients]]:
        """Yield the gradients of a unit's examples with their positions; `excluded` takes ids of non-finite ones."""
        positions = self._included(unit, self.state)
        examples = [self._examples[position] for position in positions]
        bad: list[int] = []
        for chosen, gradients in gradient_batches(
            self.task, tap, examples, self.options.tokens_per_batch, excluded=bad
        ):
            self._check([examples[place] for place in bad])
            yield [positions[place] for place in chosen], gradients
            done += sum(examples[place].size for place in chosen)
            if self.options.progress:
                self.options.progress(phase, done, total)
        self._check([examples[place] for place in bad])
        excluded.extend(examples[place].id for place in sorted(bad))

    def _check(self, bad: Sequence[AnyExample]) -> None:
        """Refuse examples with non-finite gradients, unless the options exclude them."""
        if bad and not self.options.exclude:
            raise ValuationError(f"{not_finite(bad[0], self.task)}, or exclude it with --non-finite exclude")

    def _included(self, unit: Unit, state: ResumeState) -> list[int]:
        """Return the positions of a unit's examples, without excluded ones."""
        excluded = frozenset(state.excluded)
        return [position for position in unit.members if self._examples[position].id not in excluded]

    def _save(self, number: int) -> None:
        """Save the curvature's sums, then the state, after unit `number`."""
        before = self.state.sums
        if not (self._surveys and self.state.shards):  # a second pass adds nothing to the sums
            name = "curvature.safetensors" if self._version else f"curvature-{number:05d}.safetensors"
            name = versioned(name, self._version)
            save_tensors(self.folder / name, self._sums())
            self.state = replace(self.state, sums=name)
        if self.change.is_build:
            self.state.write(self.folder)
        if before is not None and before != self.state.sums:
            (self.folder / before).unlink()

    def _sums(self) -> dict[str, Tensor]:
        """Return the curvature's sums after the change: those before, plus or minus those of changing examples."""
        change = self._statistic.sums()
        if not self.before.statistic:
            return change
        before = load_file(self.folder / self.before.statistic, device=str(self._device))
        sign = self.change.sign
        return {layer: total + sign * change[layer] if change else total for layer, total in before.items()}

    # The end

    def finish(self, checkpoints: Sequence[MemberIndex] = (), *, manifest_file: str = MANIFEST) -> IndexManifest:
        """Write the remaining files, and the manifest last.

        Args:
            checkpoints: the indexes of further checkpoints, already written.
            manifest_file: name of the manifest.
        """
        state, before, change = self.state, self.before, self.change
        assert state.sums is not None  # noqa: S101  # run() ended with its state saved
        assert state.projections is not None  # noqa: S101  # written before the first pass
        layout = self.final_layout()
        draft = replace(
            before,
            data_sha256=change.data_sha256,
            groups=layout.groups,
            shards=tuple(sorted(state.shards)),
            statistic=state.sums,
            sizes=before.sizes + change.sign * state.sizes,
            excluded=excluded_examples(change.members, frozenset(state.excluded)),
            checkpoints=tuple(checkpoints),
            history=before.history + (() if change.revision is None else (change.revision,)),
        )
        self._statistic = make_statistic("none")  # frees its memory for the factors; the sums are on disk
        others = [f"{member.folder}/{member.manifest}" for member in checkpoints]
        manifest = complete_index(
            self.folder,
            draft,
            counts=layout.counts,
            listed=listing(change.members, layout),
            written={**state.shards, PROJECTIONS_FILE: state.projections}
            | {name: sha256_file(self.folder / name) for name in (state.sums, *others)},
            device=self._device,
            curvature=self._curvature,
            manifest_file=manifest_file,
        )
        if self.change.is_build:
            state.delete(self.folder)
        return manifest


def complete_index(
    folder: Path,
    draft: IndexManifest,
    *,
    counts: RowCounts,
    listed: Iterable[IndexedExample],
    written: Mapping[str, str],
    device: torch.device,
    curvature: Curvature | None = None,
    manifest_file: str = MANIFEST,
) -> IndexManifest:
    """Factorise the curvature, write counts and listing, and last the manifest.

    Args:
        folder: the index.
        draft: the manifest without its files.
        counts: content of each of the R rows.
        listed: every example.
        written: SHA-256 of the files already written: shards, sums, projections.
        device: device that factorises the curvature.
        curvature: the curvature, if it is already factorised.
        manifest_file: name of the manifest.

    Raises:
        ValuationError: the curvature cannot be factorised. No new file counts then.
    """
    files = dict(written)
    version = len(draft.history)
    name = versioned("counts.safetensors", version)
    files[name] = save_tensors(folder / name, counts.tensors())
    if curvature is None:
        # A layer at a time: all sums may be as large as all factors.
        sums = StoredTensors(folder / draft.statistic, device)
        settings = draft.settings
        curvature = make_curvature(settings.curvature, sums, draft.examples, settings.damping, experts_of(draft.layers))
    if draft.settings.curvature == "fisher":  # the others are quick to make again from the sums
        name = versioned("factors.safetensors", version)
        files[name] = save_tensors(folder / name, curvature.factors)
    name = versioned(EXAMPLES_FILE, version)
    files[name] = write_listing(folder / name, listed)
    manifest = replace(draft, files=files)
    write_whole(folder / manifest_file, manifest.to_json().encode())
    return manifest
