"""Low-rank projections of a layer's inputs and output gradients (LoGra, arXiv:2405.13954, section 3.2)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from credit.errors import ValuationError
from credit.valuation.layers import LayerShape
from credit.valuation.ranks import Ranks, rank_of


@dataclass(frozen=True, slots=True)
class Hashing:
    """A sparse projection: every entry of a side goes into one bucket, by a weight (a count sketch where it is ±1).

    Inner products are kept in expectation, and entries that fall into a bucket alone are kept as they are
    (Charikar et al. 2002). A dense projection of a vocabulary would mix each token with all others.

    Attributes:
        buckets: (W,) int64, of each entry.
        weights: (W,), of each entry.
        width: number of buckets S.
    """

    buckets: Tensor
    weights: Tensor
    width: int

    def to(self, device: torch.device, dtype: torch.dtype) -> Hashing:
        """Return the same on another device, with weights in another dtype."""
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
    """Projections of both sides of a layer: `p_in` (R, I), and `p_out` (S, O) or hashed; None is the identity."""

    p_in: Tensor | None
    p_out: Side

    def to(self, device: torch.device, dtype: torch.dtype) -> LayerProjection:
        """Return the same projections on another device and in another dtype."""
        return LayerProjection(
            None if self.p_in is None else self.p_in.to(device, dtype),
            None if self.p_out is None else self.p_out.to(device, dtype),
        )


def without_copies(projections: Mapping[str, LayerProjection]) -> dict[str, LayerProjection]:
    """Return the same projections, with one tensor for all input sides on one device that are equal to the last bit.

    Those fitted to the same inputs are: of an attention's queries, keys and values, for one.
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
        a: (I, I), mean over tokens of x xᵀ. Layers that see the same inputs have one tensor for it.
        b: (O, O), mean over tokens of δ δᵀ; of a head (O,), mean of δ² of each token of the vocabulary.
    """

    a: Tensor
    b: Tensor


@dataclass(frozen=True, slots=True)
class SideSpec:
    """One side of a layer: its width, the rank wanted, and the seed that is its own."""

    width: int
    rank: int
    seed: int


def orthonormal_rows(rank: int, width: int, seed: int) -> Tensor:
    """Draw `rank` orthonormal rows of length `width`, uniformly, from a seed. -> (rank, width) float64.

    Drawn and orthonormalised in float64 on the CPU, so that a seed means the same rows on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(width, rank, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    # QR leaves the signs of the columns open; a positive diagonal of R makes the draw unique and uniform.
    rows: Tensor = (q * torch.sign(torch.diagonal(r))).mT.contiguous()
    return rows


def vocabulary_hashing(spec: SideSpec) -> Hashing | None:
    """Hash a head's output side into buckets with random signs, from a seed; identity where each has its own."""
    if spec.rank >= spec.width:
        return None
    generator = torch.Generator().manual_seed(spec.seed)
    buckets = torch.randint(spec.rank, (spec.width,), generator=generator)
    signs = torch.randint(2, (spec.width,), generator=generator) * 2 - 1
    return Hashing(buckets, signs.float(), spec.rank)


def random_projections(shapes: tuple[LayerShape, ...], *, rank: Ranks, seed: int) -> dict[str, LayerProjection]:
    """Random orthonormal projections to `rank` on each side of each layer; identity where a side is no wider.

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
    """Projections to the top eigenvectors of each side's second moment; identity where a side is no wider.

    The output side of a head is hashed.
    """

    def side(moment: Tensor, rank: int) -> Tensor | None:
        _check_rank(rank)
        if rank >= len(moment):
            return None
        vectors: Tensor = _eigenvectors(moment)[:, -rank:].flip(1).mT.contiguous()
        return vectors.to(moment.dtype)

    p_in = lru_cache(maxsize=1)(side)  # layers that see the same inputs follow each other
    return {
        shape.name: LayerProjection(
            p_in(moments[shape.name].a, input_side.rank),
            vocabulary_hashing(output_side) if shape.is_head else side(moments[shape.name].b, output_side.rank),
        )
        for shape in shapes
        for input_side, output_side in [_sides(shape, rank, seed)]
    }


def rotated_to_eigenbasis(
    projections: Mapping[str, LayerProjection], moments: Mapping[str, LayerMoments]
) -> dict[str, LayerProjection]:
    """Rotate projections so that the projected factors P A Pᵀ and P B Pᵀ become diagonal (EK-FAC's basis).

    Gradients projected so come out in the Kronecker eigenbasis, where EK-FAC's curvature is diagonal
    (arXiv:1806.03884). The rotation changes no inner product.
    """

    def side(projection: Tensor | None, moment: Tensor) -> Tensor:
        rows = torch.eye(len(moment), dtype=torch.float64, device=moment.device)
        if projection is not None:
            rows = projection.double().to(moment.device)
        basis = _eigenvectors(rows @ moment.double() @ rows.mT)
        rotated: Tensor = basis.mT @ rows
        return rotated.to(moment.dtype)

    def p_out(projection: Side, moment: Tensor) -> Side:
        if moment.dim() == 1 or isinstance(projection, Hashing):  # a head, whose tokens are taken for uncorrelated
            return projection
        return side(projection, moment)

    p_in = lru_cache(maxsize=1)(side)
    return {
        name: LayerProjection(p_in(p.p_in, moments[name].a), p_out(p.p_out, moments[name].b))
        for name, p in projections.items()
    }


def _check_rank(rank: int) -> None:
    if rank < 1:
        raise ValuationError(f"rank {rank} is not positive")


def _sides(shape: LayerShape, ranks: Ranks, seed: int) -> tuple[SideSpec, SideSpec]:
    """Each side has a seed of its own, so that adding a layer does not change the projections of the others."""
    rank = rank_of(ranks, shape.name)
    _check_rank(min(rank.inputs, rank.outputs))

    def derived(side: str) -> int:
        digest = hashlib.sha256(f"{seed}/{shape.name}/{side}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1

    return (
        SideSpec(shape.in_width, rank.inputs, derived("in")),
        SideSpec(shape.out_width, rank.outputs, derived("out")),
    )


def _eigenvectors(moment: Tensor) -> Tensor:
    """Eigenvectors of a symmetric matrix, ascending, each with its largest entry positive: (D, D) float64."""
    vectors: Tensor = _eigh(moment)[1]
    largest = vectors.abs().argmax(0, keepdim=True)
    return vectors * torch.sign(vectors.gather(0, largest))


def _eigh(moment: Tensor) -> tuple[Tensor, Tensor]:
    symmetric = moment.double()
    if not symmetric.isfinite().all() or not float(symmetric.diagonal().sum()) > 0:
        raise ValuationError("a layer's second moments are not finite, or zero; leave the layer out of the index")
    try:
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
    """Flatten projections to named tensors for storage; identities are left out."""
    tensors = {}
    for name, projection in projections.items():
        if projection.p_in is not None:
            tensors[f"{name}|in"] = projection.p_in.clone()  # of several layers one, which a file cannot hold
        if isinstance(projection.p_out, Hashing):
            tensors[f"{name}|out|buckets"] = projection.p_out.buckets
            tensors[f"{name}|out|weights"] = projection.p_out.weights
            tensors[f"{name}|out|width"] = torch.tensor([projection.p_out.width])
        elif projection.p_out is not None:
            tensors[f"{name}|out"] = projection.p_out
    return tensors


def projections_from_tensors(names: tuple[str, ...], tensors: Mapping[str, Tensor]) -> dict[str, LayerProjection]:
    """Inverse of `projections_to_tensors`."""

    def p_out(name: str) -> Side:
        if f"{name}|out|width" not in tensors:
            return tensors.get(f"{name}|out")
        width = int(tensors[f"{name}|out|width"])
        return Hashing(tensors[f"{name}|out|buckets"], tensors[f"{name}|out|weights"], width)

    return {name: LayerProjection(tensors.get(f"{name}|in"), p_out(name)) for name in names}
