"""Low-rank projections of a layer's inputs and output gradients, and their ranks (LoGra, arXiv:2405.13954, sec. 3.2).

Legend: I and O widths of a layer's inputs and outputs, R and S their ranks, W the width of either side.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

import torch
from torch import Tensor

from credit.errors import ValuationError
from credit.valuation.layers import LayerShape

PROJECTIONS = ("random", "pca")

_RANK_RULE = re.compile(r"(?:(?P<pattern>[^:]+):)?(?:(?P<both>\d+)|(?P<sides>(?:in|out)=\d+(?:,(?:in|out)=\d+)?))")


@dataclass(frozen=True, slots=True)
class LayerRank:
    """Rank R of a layer's inputs and S of its output gradients (of a head: the buckets of its vocabulary)."""

    inputs: int
    outputs: int


VOCABULARY_BUCKETS = 8192
"""Default rank of a head's output side. Rare tokens tell most about an output's sources, and fewer buckets mix them
with other tokens (reports/fidelity)."""

Ranks = int | Mapping[str, LayerRank]
"""One rank for both sides of all layers, or the ranks of each layer by name."""


def rank_of(ranks: Ranks, layer: str) -> LayerRank:
    """Return the ranks of a layer."""
    return LayerRank(ranks, ranks) if isinstance(ranks, int) else ranks[layer]


def resolve_ranks(shapes: Sequence[LayerShape], rank: int, rules: Sequence[str]) -> dict[str, LayerRank]:
    """Return the rank of each side of each layer, at most its width. The last rule for a side wins.

    A rule is `[PATTERN:]RANK`. PATTERN matches names of layers as a shell does. RANK is `64`, `in=64,out=32` or one
    side of it: `*.mlp.*:128`, `in=32`, `*.down_proj:in=16,out=64`.

    Args:
        shapes: the watched layers.
        rank: of both sides of every layer, but the output side of a head starts from `VOCABULARY_BUCKETS`.
        rules: in their order.

    Raises:
        ValuationError: a rule cannot be read, matches no watched layer, or a rank is not positive.
    """
    ranks = {shape.name: {"in": rank, "out": VOCABULARY_BUCKETS if shape.is_head else rank} for shape in shapes}
    for rule in rules:
        pattern, given = _parse_rule(rule)
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
    """Return S·R of every layer, the numbers in its projected gradient, at resolved ranks."""
    return {name: rank.outputs * rank.inputs for name, rank in ranks.items()}


def _parse_rule(rule: str) -> tuple[str, dict[str, int]]:
    """Return the pattern of a rule, and the rank of each side that it names."""
    match = _RANK_RULE.fullmatch(rule)
    if match is None:
        raise ValuationError(f"the rank {rule!r} cannot be read; write it as 64, in=64,out=32 or '*.mlp.*:128'")
    if match["both"]:
        given = {"in": int(match["both"]), "out": int(match["both"])}
    else:
        given = {side: int(value) for side, value in (part.split("=") for part in match["sides"].split(","))}
    return match["pattern"] or "*", given


@dataclass(frozen=True, slots=True)
class Hashing:
    """Count sketch: each entry of a side goes into one bucket, times a weight of ±1 (Charikar et al. 2002).

    It keeps inner products in expectation, and an entry alone in its bucket as it is. A dense projection of a
    vocabulary would mix each token with all others.

    Attributes:
        buckets: bucket of each entry, (W,) int64.
        weights: weight of each entry, (W,).
        width: number of buckets S.
    """

    buckets: Tensor
    weights: Tensor
    width: int

    def to(self, device: torch.device, dtype: torch.dtype) -> Hashing:
        """Return the hashing on another device, with weights in another dtype."""
        return Hashing(self.buckets.to(device), self.weights.to(device, dtype), self.width)

    def sum(self, values: Tensor, dim: int) -> Tensor:
        """Sum the entries of a dimension W into their buckets: (..., W, ...) -> (..., S, ...)."""
        shape = [1] * values.dim()
        shape[dim] = len(self.weights)
        weighted = values * self.weights.to(values.dtype).view(shape)
        out = list(values.shape)
        out[dim] = self.width
        return values.new_zeros(out).index_add_(dim, self.buckets, weighted)


Side = Tensor | Hashing | None
"""Projection of one side of a layer: (R, W) dense, hashed, or None for the identity."""


@dataclass(frozen=True, slots=True)
class LayerProjection:
    """Projections of both sides of a layer: `p_in` (R, I), and `p_out` (S, O) or hashed. None is the identity."""

    p_in: Tensor | None
    p_out: Side

    def to(self, device: torch.device, dtype: torch.dtype) -> LayerProjection:
        """Return the projections on another device and in another dtype."""
        return LayerProjection(
            None if self.p_in is None else self.p_in.to(device, dtype),
            None if self.p_out is None else self.p_out.to(device, dtype),
        )


def without_copies(projections: Mapping[str, LayerProjection]) -> dict[str, LayerProjection]:
    """Return the projections with one tensor for all equal input sides on a device.

    Sides fitted to the same inputs are equal to the last bit: those of an attention's queries, keys and values.
    """
    known: dict[tuple[bytes, torch.Size, torch.device], Tensor] = {}

    def one(p_in: Tensor) -> Tensor:
        content = p_in.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
        return known.setdefault((hashlib.sha256(content).digest(), p_in.shape, p_in.device), p_in)

    return {name: p if p.p_in is None else LayerProjection(one(p.p_in), p.p_out) for name, p in projections.items()}


@dataclass(frozen=True, slots=True)
class LayerMoments:
    """Uncentred second moments of a layer over a sample, in float32 or better.

    Attributes:
        a: mean over tokens of x xᵀ, (I, I). Layers with the same inputs share one tensor.
        b: mean over tokens of δ δᵀ, (O, O); of a head the mean of δ² for each token of the vocabulary, (O,).
    """

    a: Tensor
    b: Tensor


@dataclass(frozen=True, slots=True)
class SideSpec:
    """One side of a layer: its width, the wanted rank, and its own seed."""

    width: int
    rank: int
    seed: int


def orthonormal_rows(rank: int, width: int, seed: int) -> Tensor:
    """Draw `rank` orthonormal rows of length `width`, uniformly, from a seed: (rank, width) float64.

    The draw is in float64 on the CPU, so a seed means the same rows on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(width, rank, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    # QR leaves the signs of the columns open; a positive diagonal of R makes the draw unique and uniform.
    rows: Tensor = (q * torch.sign(torch.diagonal(r))).mT.contiguous()
    return rows


def vocabulary_hashing(spec: SideSpec) -> Hashing | None:
    """Draw the buckets and signs of a head's output side from a seed. None, the identity, if each entry has its own."""
    if spec.rank >= spec.width:
        return None
    generator = torch.Generator().manual_seed(spec.seed)
    buckets = torch.randint(spec.rank, (spec.width,), generator=generator)
    signs = torch.randint(2, (spec.width,), generator=generator) * 2 - 1
    return Hashing(buckets, signs.float(), spec.rank)


def random_projections(shapes: tuple[LayerShape, ...], *, rank: Ranks, seed: int) -> dict[str, LayerProjection]:
    """Draw orthonormal projections to `rank` for each side of each layer. A side no wider keeps its full width.

    The output side of a head is hashed.
    """

    def side(spec: SideSpec) -> Tensor | None:
        return None if spec.rank >= spec.width else orthonormal_rows(spec.rank, spec.width, spec.seed).float()

    return {
        shape.name: LayerProjection(
            side(input_side), vocabulary_hashing(output_side) if shape.is_head else side(output_side)
        )
        for shape in shapes
        for input_side, output_side in [_sides(shape, rank, seed)]
    }


def pca_projections(
    shapes: tuple[LayerShape, ...], moments: Mapping[str, LayerMoments], *, rank: Ranks, seed: int
) -> dict[str, LayerProjection]:
    """Return projections to the top eigenvectors of each side's second moment. A side no wider keeps its full width.

    The output side of a head is hashed. The sides of an expert without a token in the sample are drawn from the seed.
    """

    def side(moment: Tensor, rank: int) -> Tensor | None:
        _check_rank(rank)
        if rank >= len(moment):
            return None
        vectors: Tensor = _eigenvectors(moment)[:, -rank:].flip(1).mT.contiguous()
        return vectors.to(moment.dtype)

    p_in = lru_cache(maxsize=1)(side)  # layers with the same inputs follow each other
    drawn = random_projections(tuple(s for s in shapes if s.is_expert and _idle(moments[s.name])), rank=rank, seed=seed)
    return drawn | {
        shape.name: LayerProjection(
            p_in(moments[shape.name].a, input_side.rank),
            vocabulary_hashing(output_side) if shape.is_head else side(moments[shape.name].b, output_side.rank),
        )
        for shape in shapes
        if shape.name not in drawn
        for input_side, output_side in [_sides(shape, rank, seed)]
    }


def _idle(moments: LayerMoments) -> bool:
    """Return True if no token of the sample reached a layer, or none of its loss came back."""
    return not (moments.a.any() and moments.b.any())


def rotated_to_eigenbasis(
    projections: Mapping[str, LayerProjection], moments: Mapping[str, LayerMoments], experts: Collection[str] = ()
) -> dict[str, LayerProjection]:
    """Rotate projections so that the projected factors P A Pᵀ and P B Pᵀ become diagonal.

    Gradients then come out in the Kronecker eigenbasis, in which EK-FAC takes the curvature for diagonal (George et al.
    2018, arXiv:1806.03884). The rotation changes no inner product. Layers among `experts` without a token in the sample
    keep their projections.
    """

    def side(projection: Tensor | None, moment: Tensor) -> Tensor:
        rows = torch.eye(len(moment), dtype=torch.float64, device=moment.device)
        if projection is not None:
            rows = projection.double().to(moment.device)
        basis = _eigenvectors(rows @ moment.double() @ rows.mT)
        rotated: Tensor = basis.mT @ rows
        return rotated.to(moment.dtype)

    def p_out(projection: Side, moment: Tensor) -> Side:
        if moment.dim() == 1 or isinstance(projection, Hashing):  # a head: its tokens count as uncorrelated
            return projection
        return side(projection, moment)

    p_in = lru_cache(maxsize=1)(side)
    return {
        name: p
        if name in experts and _idle(moments[name])
        else LayerProjection(p_in(p.p_in, moments[name].a), p_out(p.p_out, moments[name].b))
        for name, p in projections.items()
    }


def _check_rank(rank: int) -> None:
    if rank < 1:
        raise ValuationError(f"rank {rank} is not positive")


def _sides(shape: LayerShape, ranks: Ranks, seed: int) -> tuple[SideSpec, SideSpec]:
    """Return both sides of a layer, each with its own seed: another layer then changes no projection of this one."""
    rank = rank_of(ranks, shape.name)
    _check_rank(min(rank.inputs, rank.outputs))

    def derived(side: str) -> int:
        digest = hashlib.sha256(f"{seed}/{shape.name}/{side}".encode()).digest()
        # 63 bits: a seed must fit a signed integer.
        return int.from_bytes(digest[:8], "big") >> 1

    return (
        SideSpec(shape.in_width, rank.inputs, derived("in")),
        SideSpec(shape.out_width, rank.outputs, derived("out")),
    )


def _eigenvectors(moment: Tensor) -> Tensor:
    """Return the eigenvectors (W, W) of a symmetric matrix, ascending, the largest entry of each positive."""
    vectors: Tensor = _eigh(moment)[1]
    # An eigenvector has either sign; this rule gives the same one on every machine.
    largest = vectors.abs().argmax(0, keepdim=True)
    return vectors * torch.sign(vectors.gather(0, largest))


def _eigh(moment: Tensor) -> tuple[Tensor, Tensor]:
    symmetric = moment.double()
    if not symmetric.isfinite().all() or not float(symmetric.diagonal().sum()) > 0:
        raise ValuationError("a layer's second moments are not finite, or zero; leave the layer out of the index")
    try:
        # Averaged: rounding leaves the two triangles a little apart, and eigh reads one alone.
        values, vectors = torch.linalg.eigh((symmetric + symmetric.mT) / 2)
    except RuntimeError as error:  # torch.linalg.LinAlgError is one
        raise ValuationError(f"the second moments of a layer cannot be diagonalised: {error}") from error
    return values, vectors


def projected_shape(shape: LayerShape, projection: LayerProjection) -> tuple[int, int]:
    """Return (S, R): the shape of a layer's projected gradient."""
    p_out = projection.p_out
    out_rank = shape.out_width if p_out is None else p_out.width if isinstance(p_out, Hashing) else p_out.shape[0]
    in_rank = shape.in_width if projection.p_in is None else projection.p_in.shape[0]
    return out_rank, in_rank


def gradient_widths(shapes: Sequence[LayerShape], projections: Mapping[str, LayerProjection]) -> dict[str, int]:
    """Return S·R of every layer: the numbers in its projected gradient."""
    return {shape.name: math.prod(projected_shape(shape, projections[shape.name])) for shape in shapes}


def projections_to_tensors(projections: Mapping[str, LayerProjection]) -> dict[str, Tensor]:
    """Return projections as named tensors to be stored. Identities have none."""
    tensors = {}
    for name, projection in projections.items():
        if projection.p_in is not None:
            tensors[f"{name}|in"] = projection.p_in.clone()  # safetensors refuses a tensor that several layers share
        if isinstance(projection.p_out, Hashing):
            tensors[f"{name}|out|buckets"] = projection.p_out.buckets
            tensors[f"{name}|out|weights"] = projection.p_out.weights
            tensors[f"{name}|out|width"] = torch.tensor([projection.p_out.width])
        elif projection.p_out is not None:
            tensors[f"{name}|out"] = projection.p_out
    return tensors


def projections_from_tensors(names: tuple[str, ...], tensors: Mapping[str, Tensor]) -> dict[str, LayerProjection]:
    """Return the projections of named tensors, as `projections_to_tensors` made them."""

    def p_out(name: str) -> Side:
        if f"{name}|out|width" not in tensors:
            return tensors.get(f"{name}|out")
        width = int(tensors[f"{name}|out|width"])
        return Hashing(tensors[f"{name}|out|buckets"], tensors[f"{name}|out|weights"], width)

    return {name: LayerProjection(tensors.get(f"{name}|in"), p_out(name)) for name in names}
