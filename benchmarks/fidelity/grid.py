"""Choices of the engine under comparison in the laboratory, and their predictions."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.fidelity.cases import Case
from benchmarks.fidelity.embedding import embedding_influence
from benchmarks.fidelity.truth import Truth
from credit.fidelity.metrics import Floats
from credit.records import LoggedOutput, TrainingRecord
from credit.valuation import AttributionIndex, GroupRows, IndexSettings, LanguageModel, build_index, summarise

FLOORS = (0.0, 1.0)
"""Noise floors at which support is taken: 0 is the positive part of every example's influence."""


@dataclass(frozen=True, slots=True)
class Variant:
    """An index, or several whose rows' influences are averaged: over seeds of the recipe, or checkpoints of its run.

    `until` are fractions of the run after which its checkpoints are valued. `factors` cuts every row, a matrix, down to
    its so many largest singular values. `folds` makes 32 rows of an index that has one for each example: of neighbours,
    of examples dealt out in turn, or of a draw with that seed. `embedding` adds the input embedding's influence, at so
    much of the spread of the index's own. `cases` are those in which it is measured; full rank, a second seed and
    checkpoints are too much for a pretrained model here.
    """

    name: str
    settings: IndexSettings
    seeds: tuple[int, ...] = (0,)
    until: tuple[float, ...] = (1.0,)
    damping: float | None = None
    factors: int | None = None
    folds: Literal["neighbours", "dealt"] | int | None = None
    embedding: float = 0.0
    cases: tuple[str, ...] = ("packages", "prose")


@dataclass(frozen=True, slots=True)
class Features:
    """What a variant says of every provider on every output, each (Q, P), nats.

    `excess` and `support` by noise floor: influence and support beyond it.
    """

    influence: Floats
    excess: dict[float, Floats]
    support: dict[float, Floats]
    volume: Floats

    def plus(self, other: Features, spread: float) -> Features:
        """Add another's numbers, scaled so that its influence has `spread` times the standard deviation of this one."""
        scale = spread * self.influence.std() / other.influence.std()
        return Features(
            self.influence + scale * other.influence,
            {floor: values + scale * other.excess[floor] for floor, values in self.excess.items()},
            {floor: values + scale * other.support[floor] for floor, values in self.support.items()},
            self.volume + scale * other.volume,
        )


_HIDDEN = ("!lm_head",)
_EVERY = ("*",)
DEFAULT = IndexSettings()
EKFAC = IndexSettings(rank=100_000, projection="random", curvature="ekfac", damping=0.001, layers=_HIDDEN)
FISHER = IndexSettings(rank=64, projection="random", curvature="fisher", damping=0.1, layers=_HIDDEN)
_RANDOM = replace(DEFAULT, projection="random")
_EACH = replace(DEFAULT, rows_per_group=None)
_ALL = ("packages", "prose", "pretrained")

GRID = (
    Variant("head (the default)", DEFAULT, cases=(*_ALL, "quick")),
    Variant("head, damping 0.3", DEFAULT, damping=0.3, cases=_ALL),
    Variant("head, damping 30", DEFAULT, damping=30.0, cases=_ALL),
    Variant("head, r16", replace(DEFAULT, rank=16), cases=_ALL),
    Variant("head, r64", replace(DEFAULT, rank=64), cases=_ALL),
    Variant("head, 512 buckets", replace(DEFAULT, ranks=("*:out=512",)), cases=_ALL),
    Variant("head, random", _RANDOM, cases=_ALL),
    Variant("head, relatif", replace(DEFAULT, weighting="relatif"), cases=_ALL),
    Variant("head, int8 rows", replace(DEFAULT, rows_dtype="int8"), cases=_ALL),
    Variant("head, 8 rows", replace(DEFAULT, rows_per_group=8), cases=_ALL),
    Variant("head, a row each", _EACH, cases=_ALL),
    Variant("head, windows not cut", replace(DEFAULT, example_length=None), cases=_ALL),
    Variant("head, examples of 256 tokens", replace(DEFAULT, example_length=256), cases=("pretrained",)),
    Variant("head, examples of 128 tokens", replace(DEFAULT, example_length=128), cases=_ALL),
    Variant("head, examples of 64 tokens", replace(DEFAULT, example_length=64), cases=_ALL),
    Variant("head, examples of 32 tokens", replace(DEFAULT, example_length=32), cases=_ALL),
    Variant("head, examples of 16 tokens", replace(DEFAULT, example_length=16), cases=_ALL),
    Variant("head, 8 factors a row", DEFAULT, factors=8, cases=_ALL),
    Variant("head, 2 factors a row", DEFAULT, factors=2, cases=_ALL),
    Variant("head, folds of neighbours", _EACH, folds="neighbours", cases=_ALL),
    Variant("head, folds dealt out", _EACH, folds="dealt", cases=_ALL),
    *(Variant(f"head, folds drawn, {seed}", _EACH, folds=seed, cases=_ALL) for seed in (1, 2)),
    Variant("head, 2 seeds", DEFAULT, seeds=(0, 1)),
    Variant("head, 4 checkpoints of the run", DEFAULT, until=(0.1, 0.33, 0.67, 1.0)),
    Variant("head and input embedding", DEFAULT, embedding=0.25, cases=_ALL),
    Variant("all layers", replace(DEFAULT, layers=_EVERY), cases=_ALL),
    Variant("hidden layers", replace(DEFAULT, layers=_HIDDEN), cases=_ALL),
    Variant("hidden layers, random r16, dense Fisher", replace(FISHER, rank=16), cases=_ALL),
    Variant("hidden layers, random r64, dense Fisher", FISHER),
    Variant("hidden layers, EK-FAC full rank", EKFAC),
    Variant("all layers, EK-FAC full rank", replace(EKFAC, layers=_EVERY)),
)


class Valuer:
    """Values a case's outputs by variants."""

    def __init__(self, truth: Truth, work: Path) -> None:
        self.truth, self.work = truth, work
        self._models: dict[tuple[int, float], LanguageModel] = {}
        self._embedding: Features | None = None

    def features(self, variant: Variant) -> Features:
        """Return the predictions of a variant for the case's outputs."""
        case = self.truth.case
        parts = [
            row_influence(case, self._model(seed, until), case.records, variant, self.work)
            for seed in variant.seeds
            for until in variant.until
        ]
        _, rows, owners = parts[0]  # rows are laid out by the data alone: the same for every seed and checkpoint
        values = torch.stack([values for values, _, _ in parts]).mean(0)
        if variant.folds is not None:
            values, rows = fold(values, rows, variant.folds)
        found = reduce_rows(values, rows, owners, self.truth.providers)
        return found if not variant.embedding else found.plus(self._embedded(), variant.embedding)

    def _model(self, seed: int, until: float) -> LanguageModel:
        if (seed, until) not in self._models:
            self._models[seed, until] = self.truth.model(seed, until)
        return self._models[seed, until]

    def _embedded(self) -> Features:
        """Return the influence through the input embedding, the same for all variants."""
        if self._embedding is None:
            case = self.truth.case
            values, rows, owners = embedding_influence(self._model(0, 1.0), case.records, case.outputs)
            self._embedding = reduce_rows(values, rows, owners, self.truth.providers)
        return self._embedding


def fold(
    values: Tensor, rows: GroupRows, how: Literal["neighbours", "dealt"] | int, count: int = 32
) -> tuple[Tensor, GroupRows]:
    """Make at most `count` rows a group of influences (Q, R) that are of one example each: influence is linear."""
    generator = torch.Generator().manual_seed(how if isinstance(how, int) else 0)
    columns, groups, counts = [], [], []
    for group in range(rows.groups):
        own = torch.nonzero(rows.group == group)[:, 0]
        if isinstance(how, int):
            own = own[torch.randperm(len(own), generator=generator)]
        parts = min(count, len(own))
        chosen = torch.tensor_split(own, parts) if how == "neighbours" else [own[i::parts] for i in range(parts)]
        columns += [values[:, part].sum(1) for part in chosen]
        counts += [len(part) for part in chosen]
        groups += [group] * parts
    return torch.stack(columns, 1), GroupRows(torch.tensor(groups), torch.tensor(counts), rows.groups)


def row_influence(
    case: Case, model: LanguageModel, records: Sequence[TrainingRecord], variant: Variant, work: Path
) -> tuple[Tensor, GroupRows, list[str]]:
    """Influence of every row (Q, R) on the case's outputs, the rows' layout, and the provider of each group."""
    folder = work / "index"
    shutil.rmtree(folder, ignore_errors=True)
    build_index(model, records, folder, variant.settings, name="lab")
    index = AttributionIndex.open(folder, damping=variant.damping)
    if variant.factors is None:
        values = index.row_influence(model, case.outputs)
    else:
        values = _factored_influence(index, model, case.outputs, variant.factors)
    return values.double(), index.rows, [g.provider for g in index.groups]


def _factored_influence(
    index: AttributionIndex, model: LanguageModel, outputs: Sequence[LoggedOutput], factors: int
) -> Tensor:
    """Return the influence (Q, R) of rows cut to `factors` pairs of vectors."""
    queries = index.preconditioned(model, outputs)
    parts = []
    for shard in index.shards(model.device):
        products = []
        for name, rows in shard:
            inner = index.projections[name].p_in
            matrices = rows.unflatten(1, (-1, rows.shape[1] if inner is None else len(inner)))
            u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
            kept = (u[..., :factors] * s[:, None, :factors]) @ vh[:, :factors]
            products.append(queries[name] @ kept.flatten(1).mT)
        parts.append(torch.stack(products).sum(0))
    return torch.cat(parts, dim=1) * index.manifest.scale


def reduce_rows(values: Tensor, rows: GroupRows, owners: Sequence[str], providers: Sequence[str]) -> Features:
    """Reduce rows' influences (Q, R) to every provider's numbers (Q, P)."""
    columns = [providers.index(owner) for owner in owners]

    def by_provider(groups: Tensor) -> Floats:
        total: Floats = np.zeros((len(groups), len(providers)))
        for column, provider in enumerate(columns):
            total[:, provider] += groups[:, column].numpy()
        return total

    valued = {floor: summarise(values, rows, floor) for floor in FLOORS}
    first = valued[FLOORS[0]]
    return Features(
        by_provider(first.influence),
        {floor: by_provider(valuation.excess) for floor, valuation in valued.items()},
        {floor: by_provider(valuation.support) for floor, valuation in valued.items()},
        by_provider(first.volume),
    )
