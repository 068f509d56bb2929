"""Ranks of projections: one for all layers, or by layer and side."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from credit.errors import ValuationError
from credit.valuation.layers import LayerShape

_RULE = re.compile(r"(?:(?P<pattern>[^:]+):)?(?:(?P<both>\d+)|(?P<sides>(?:in|out)=\d+(?:,(?:in|out)=\d+)?))")


@dataclass(frozen=True, slots=True)
class LayerRank:
    """Rank of each side of a layer: its inputs and its output gradients (of a head: the buckets of its vocabulary)."""

    inputs: int
    outputs: int


VOCABULARY_BUCKETS = 8192
"""Rank of a head's output side where no rule says otherwise: what an output drew on shows in its rare tokens, and fewer
buckets mix them with others (reports/fidelity)."""

Ranks = int | Mapping[str, LayerRank]
"""One rank for both sides of all layers, or ranks by layer."""


def rank_of(ranks: Ranks, layer: str) -> LayerRank:
    """Return the ranks of a layer."""
    return LayerRank(ranks, ranks) if isinstance(ranks, int) else ranks[layer]


def resolve_ranks(shapes: Sequence[LayerShape], rank: int, rules: Sequence[str]) -> dict[str, LayerRank]:
    """Apply rules in their order, the last that speaks of a side of a layer wins; no rank exceeds the width.

    `rank` is for both sides of every layer but the output side of a head, which has `VOCABULARY_BUCKETS`.

    A rule is `[PATTERN:]RANK`, where PATTERN matches names of layers as a shell does and RANK is `64`, `in=64,out=32`
    or one side of it: `*.mlp.*:128`, `in=32`, `*.down_proj:in=16,out=64`.

    Raises:
        ValuationError: a rule cannot be read, matches no watched layer, or a rank is not positive.
    """
    ranks = {shape.name: {"in": rank, "out": VOCABULARY_BUCKETS if shape.is_head else rank} for shape in shapes}
    for rule in rules:
        pattern, given = _parse(rule)
        names = [name for name in ranks if fnmatchcase(name, pattern)]
        if not names:
            raise ValuationError(f"the rank {rule!r} is for no watched layer; layers are named like {shapes[0].name}")
        for name in names:
            ranks[name] |= given
    for name, sides in ranks.items():
        if min(sides.values()) < 1:
            raise ValuationError(f"rank {min(sides.values())} of {name} is not positive")
    return {
        shape.name: LayerRank(
            min(ranks[shape.name]["in"], shape.in_width), min(ranks[shape.name]["out"], shape.out_width)
        )
        for shape in shapes
    }


def projected_widths(ranks: Mapping[str, LayerRank]) -> dict[str, int]:
    """Return S·R of every layer: the numbers in its projected gradient, at ranks that no width exceeds."""
    return {name: rank.outputs * rank.inputs for name, rank in ranks.items()}


def _parse(rule: str) -> tuple[str, dict[str, int]]:
    """Return the pattern of a rule, and the rank of each side that it speaks of."""
    match = _RULE.fullmatch(rule)
    if match is None:
        raise ValuationError(f"the rank {rule!r} cannot be read; write it as 64, in=64,out=32 or '*.mlp.*:128'")
    if match["both"]:
        given = {"in": int(match["both"]), "out": int(match["both"])}
    else:
        given = {side: int(value) for side, value in (part.split("=") for part in match["sides"].split(","))}
    return match["pattern"] or "*", given
