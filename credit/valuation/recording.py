"""Builds an index from the backward passes that a user's own loop makes anyway, while a model is evaluated or trained.

    with GradientRecorder(task, records, Path("my-index"), IndexSettings(rank=64), name="my-llm") as recorder:
        for ids, batch in loader:
            with recorder.batch(ids):
                loss(model, batch).backward()
        recorder.write()

What the index then means. Where the weights stay as they are, it is the index that `build_index` makes. Where they are
trained meanwhile, each example's gradient is taken at the weights that it met, under whatever else the loop does
(dropout, for one), and valued against outputs at the weights in the end: influence in the spirit of TracIn (Pruthi et
al. 2020, arXiv:2002.08484), cheap, and further from the final model's the more the weights have moved. Nobody should be
paid by it before `credit validate` has compared it. The manifest says from which model it was recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from credit.errors import InputError, MismatchError, ValuationError
from credit.valuation.build import check_settings, inputs_of
from credit.valuation.build_state import STATE
from credit.valuation.data import encode_training
from credit.valuation.estimate import check_needs
from credit.valuation.filling import Build
from credit.valuation.folder import locked, prepare_folder
from credit.valuation.gradients import GradientTap
from credit.valuation.manifest import MANIFEST, IndexSettings, Manifest
from credit.valuation.passes import not_finite
from credit.valuation.readings import readings
from credit.valuation.running import Running
from credit.valuation.stacked import Gradients, RowSums
from credit.valuation.task import Tagged, Task, device_of
from credit.valuation.weighting import needs_curvature, weighted


class GradientRecorder:
    """Context in which the backward passes of a user's loop fill an index; see the module.

    Every training example must be passed through once, in any order and any batches. All rows are held in memory, and
    a loop that is stopped has to start again.

    Args:
        task: the model of the loop; `task.module` is what the loop runs.
        records: all training data, tagged with groups.
        out: folder of the index; must not hold one.
        settings: rank, projection, curvature and so on; fitted projections are fitted when the context is entered.
        name: what logs call the model.
        exclude_non_finite: leave examples out whose gradient is not finite; else the first one is an error.

    Raises:
        ValuationError: the settings need more than one pass, the index does not fit, or windows would be cut.
    """

    def __init__(
        self,
        task: Task,
        records: Iterable[Tagged],
        out: Path,
        settings: IndexSettings,
        *,
        name: str,
        exclude_non_finite: bool = False,
    ) -> None:
        check_settings(settings)
        if needs_curvature(settings.weighting, settings.curvature):
            raise ValuationError("relatif needs a second pass, which a loop does not make; choose unit or none")
        self._task, self._out, self._settings, self._name = task, out, settings, name
        self._exclude = exclude_non_finite
        encoder = task.encoder(settings.max_length or task.max_length)
        self._data = encode_training(records, encoder, settings.example_length)
        self._position = {example.id: i for i, example in enumerate(self._data.examples)}
        if parts := next((own for own in readings(self._data.examples) if own.window.id not in self._position), None):
            raise ValuationError(
                f"{parts.window.id} would be cut into {len(parts.places)} examples, and where a loop puts its padding "
                "is not known; give IndexSettings(example_length=None), or cut the text by max_length"
            )
        self._waiting = set(self._position)
        self._sizes = 0.0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        prepare_folder(self._out)
        with ExitStack() as stack:
            stack.enter_context(locked(self._out))
            if (self._out / MANIFEST).is_file() or (self._out / STATE).is_file():
                raise MismatchError(f"{self._out} holds an index, or a part of one; choose another folder")
            stack.callback(self._clear)
            inputs = inputs_of(self._task, self._data, self._settings)
            running = Running(exclude=self._exclude)
            self._build = Build(self._task, self._data, self._out, inputs, running, recorded=True)
            self._rows = RowSums(len(self._build.rows.counts))
            needs = self._build.needs
            held = 4 * needs.gradient * len(self._build.rows.counts)
            check_needs(replace(needs, filling_bytes=needs.filling_bytes + held), self._out, device_of(self._task))
            self._build.open_projections()
            self._tap = stack.enter_context(
                GradientTap(
                    self._task.module,
                    self._build.layers.watched,
                    self._build.projections,
                    flat=self._task.flat_inputs,
                    freeze=False,
                )
            )
            self._versions = self._weights()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _clear(self) -> None:
        """Leave an empty folder where nothing was written to the end."""
        if not (self._out / MANIFEST).is_file():
            for path in self._out.iterdir():
                if path.name != ".lock":
                    path.unlink()

    @contextmanager
    def batch(self, ids: Sequence[str], *, scale: float = 1.0) -> Iterator[None]:
        """Context in which the loop runs forward and backward on one batch.

        Args:
            ids: ids of its examples, in their order: the records' own, or `id#0`, `id#1`... where a record is longer
                than max_length.
            scale: what the sum over the examples of their losses, in nats, was divided by before `backward`: the number
                of predicted tokens of the batch for a mean over them, times the steps of gradient accumulation, and
                the inverse of what a gradient scaler multiplied by.

        Raises:
            InputError: an id is not in the data, or was passed through before.
            ValuationError: a gradient is not finite, or no backward pass was run.
        """
        for example in ids:
            if example not in self._waiting:
                known = "was passed through before" if example in self._position else "is not in the data"
                raise InputError(f"example {example!r} {known}; an index takes each example of its data once")
        with self._tap.watching(len(ids)):
            yield
        gradients = Gradients.of({name: scale * rows.flatten(1) for name, rows in self._tap.take().items()})
        self._waiting -= set(ids)
        with torch.no_grad():
            self._add([self._position[example] for example in ids], gradients)

    def _add(self, positions: list[int], gradients: Gradients) -> None:
        finite = gradients.finite().tolist()
        bad = [self._data.examples[p] for p, good in zip(positions, finite, strict=True) if not good]
        if bad:
            if not self._exclude:
                raise ValuationError(f"{not_finite(bad[0], self._task)}, or leave it out with exclude_non_finite")
            state = self._build.state
            self._build.state = replace(state, excluded=[*state.excluded, *(example.id for example in bad)])
            kept = [row for row, good in enumerate(finite) if good]
            positions = [positions[row] for row in kept]
            gradients = gradients.rows(kept)
        sizes = self._build.weighting.sizes(gradients)
        parts = self._build.rows.parts(positions, 0, len(self._build.rows.counts)).on(
            device_of(self._task), len(positions)
        )
        self._rows.add(weighted(gradients, sizes), parts)
        self._sizes += 0.0 if sizes is None else float(sizes.sum())
        if positions:
            self._build.statistic.add(gradients)

    def write(self, trained: Task | None = None) -> Manifest:
        """Write the index, inside the context, when all examples have been passed through.

        Args:
            trained: the model as it is now, saved and loaded again, if the loop has trained it: outputs are valued
                with it.

        Raises:
            ValuationError: examples are missing, or the weights have changed and no trained model was given.
            MismatchError: the trained model has another tokenizer.
        """
        if self._waiting:
            raise ValuationError(
                f"{len(self._waiting)} of {len(self._position)} examples were not passed through, such as "
                f"{min(self._waiting)}; an index takes all of its data"
            )
        if trained is None and self._weights() != self._versions:
            raise ValuationError(
                "the weights have changed meanwhile; save the model and give it: write(load_model(folder))"
            )
        if trained is not None and trained.tokenizer_sha256 != self._task.tokenizer_sha256:
            raise MismatchError(f"{trained.location} has another tokenizer than the model that was trained")
        build = self._build
        for unit in build.units():
            rows = {name: values[unit.low : unit.high] for name, values in self._rows.layers.items()}
            build.state = build.store(unit, rows, self._sizes if unit.number == 0 else 0.0)
            last = unit.number
        build.save(last)
        return build.finish(self._name, trained=trained)

    def _weights(self) -> list[int]:
        """Return a number for each parameter that grows whenever it is changed."""
        return [parameter._version for parameter in self._task.module.parameters()]
