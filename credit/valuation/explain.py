"""Explanation of an output by single training examples, from their rows or by recomputing their gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from credit.errors import InputError
from credit.records import PPM, Group
from credit.valuation.batches import gradient_batches
from credit.valuation.curvature import divided
from credit.valuation.examples import EXAMPLES_FILE, Member, match_members, read_listing
from credit.valuation.index import AttributionIndex
from credit.valuation.rows import GroupLayout
from credit.valuation.task import AnyExample, Tagged, Task, device_of


@dataclass(frozen=True, slots=True)
class ExampleInfluence:
    """Influence of a training example on an output, in nats; for a shared example, one group's share of it."""

    id: str
    group: Group
    influence: float
    ppm: int = PPM


def explain_output(
    index: AttributionIndex,
    model: Task,
    output: Any,
    *,
    groups: Iterable[Group] | None = None,
    records: Iterable[Tagged] | None = None,
    top: int = 10,
    echo: int = 0,
    tokens_per_batch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[ExampleInfluence]:
    """Rank training examples by their influence on an output, the strongest support first.

    A group with a row for each example needs no data. The examples of a folded group are recomputed from `records`,
    after a check against the index.

    Args:
        index: an open index.
        model: the index's model.
        output: any output of the model, logged or not.
        groups: the groups of interest; None for all.
        records: the training data, at least that of folded groups; other records are passed over.
        top: number of examples returned.
        echo: as in `AttributionIndex.value`.
        tokens_per_batch: padded tokens in a batch, at most; None for 4096, on a GPU 16384.
        progress: called with examples done and examples in all.

    Raises:
        InputError: a group is not in the index, or a folded one has no data.
        MismatchError: the data of a folded group is not the indexed data.
    """
    index.check_model(model)
    asked = set(index.groups if groups is None else groups)
    if unknown := sorted(asked - set(index.groups)):
        raise InputError(f"{unknown[0]} is not in {index.folder}; its groups are listed in its manifest.json")
    layouts = [layout for layout in index.manifest.groups if layout.group in asked]
    folded = {layout.group for layout in layouts if layout.stop - layout.start < layout.examples}
    if folded and records is None:
        raise InputError(
            f"{min(folded)} is folded in {index.folder}: give its training data, or build an index with "
            "--rows-per-group all"
        )
    values = index.row_influence(model, [output], echo=echo, tokens_per_batch=tokens_per_batch)[0].tolist()
    found, listed = _listed_examples(index, layouts, folded, values)
    if folded and records is not None:
        length = index.manifest.settings.example_length
        chosen = match_members(index.folder, index.manifest.encoder(model), records, listed, length)
        found += _recomputed(index, model, output, echo, chosen, folded, tokens_per_batch, progress)
    return sorted(found, key=lambda item: (-item.influence, item.id, item.group))[:top]


def _listed_examples(
    index: AttributionIndex, layouts: Sequence[GroupLayout], folded: set[Group], values: Sequence[float]
) -> tuple[list[ExampleInfluence], dict[Group, dict[str, tuple[str, int]]]]:
    """Read the examples of some groups from the listing of an index.

    Args:
        index: the index.
        layouts: the groups.
        folded: those of them with several examples in a row.
        values: influence of each row, in nats.

    Returns:
        The influence of examples with a row of their own, and for each folded group the digests and shares of its
        examples by id, as `match_members` takes them.
    """
    owner = {row: layout.group for layout in layouts for row in range(layout.start, layout.stop)}
    found: list[ExampleInfluence] = []
    listed: dict[Group, dict[str, tuple[str, int]]] = {group: {} for group in folded}
    for item in read_listing(index.path(EXAMPLES_FILE)):
        group = owner.get(item.row)
        if group in folded:
            listed[group][item.id] = item.digest, item.ppm
        elif group is not None:
            found.append(ExampleInfluence(item.id, group, values[item.row], item.ppm))
    for excluded in index.manifest.excluded:
        for share in excluded.shares:
            if share.group in folded:
                listed[share.group][excluded.id] = excluded.digest, share.ppm
    return found, listed


def _recomputed(
    index: AttributionIndex,
    model: Task,
    output: Any,
    echo: int,
    chosen: Sequence[Member],
    groups: set[Group],
    tokens_per_batch: int | None,
    progress: Callable[[int, int], None] | None,
) -> list[ExampleInfluence]:
    """Return the influence of the shares of `groups` in examples, from recomputed gradients."""
    excluded = {example.id for example in index.manifest.excluded}
    included = [member for member in chosen if member.id not in excluded]
    examples = [member.example for member in included if member.example is not None]
    scores = torch.zeros(len(included), dtype=torch.float64)
    for weight, part, own in index.parts(model):
        scores += weight * _score(part, own, output, echo, examples, tokens_per_batch, progress)
    return [
        ExampleInfluence(member.id, share.group, score * share.ppm / PPM, share.ppm)
        for member, score in zip(included, scores.tolist(), strict=True)
        for share in member.shares
        if share.group in groups
    ]


def _score(
    index: AttributionIndex,
    model: Task,
    output: Any,
    echo: int,
    examples: Sequence[AnyExample],
    tokens_per_batch: int | None,
    progress: Callable[[int, int], None] | None,
) -> Tensor:
    """Return the influence of each example on the output, from its recomputed gradient: (N,) float64."""
    query = index.preconditioned(model, [output], echo=echo, tokens_per_batch=tokens_per_batch)
    scores = torch.zeros(len(examples), dtype=torch.float64)
    done = 0
    weighting = index.weighting(device_of(model))
    with index.tap(model) as tap:
        for positions, gradients in gradient_batches(model, tap, examples, tokens_per_batch):
            parts: Tensor = sum(gradients[name] @ query[name][0] for name in query)  # type: ignore[assignment]
            sizes = weighting.sizes(gradients)
            scores[positions] = divided(parts[:, None], sizes)[:, 0].double().cpu() * index.manifest.scale
            done += len(positions)
            if progress:
                progress(done, len(examples))
    return scores
