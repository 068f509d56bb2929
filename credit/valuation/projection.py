"""Low-rank projections of a layer's inputs and output gradients (LoGra, arXiv:2405.13954, section 3.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from credit.errors import ValuationError
from credit.valuation.layers import LayerShape


@dataclass(frozen=True, slots=True)
class LayerProjection:
    """Projections of both sides of a layer. `p_in` (R, I) and `p_out` (S, O); None is the identity."""

    p_in: Tensor | None
    p_out: Tensor | None

    def to(self, device: torch.device, dtype: torch.dtype) -> LayerProjection:
        """Return the same projections on another device and in another dtype."""
        return LayerProjection(
            None if self.p_in is None else self.p_in.to(device, dtype),
            None if self.p_out is None else self.p_out.to(device, dtype),
        )


def orthonormal_rows(rank: int, width: int, seed: int) -> Tensor:
    """Draw `rank` orthonormal rows of length `width`, uniformly, from a seed. -> (rank, width) float32.

    Drawn and orthonormalised in float64 on the CPU, so that a seed means the same rows on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(width, rank, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    # QR leaves the signs of the columns open; a positive diagonal of R makes the draw unique and uniform.
    rows: Tensor = (q * torch.sign(torch.diagonal(r))).mT.contiguous().float()
    return rows


def random_projections(shapes: tuple[LayerShape, ...], *, rank: int, seed: int) -> dict[str, LayerProjection]:
    """Random orthonormal projections to `rank` on each side of each layer; identity where a side is no wider.

    Each side has a seed of its own, derived from `seed` and the layer's name, so that adding a layer does not
    change the projections of the others.
    """
    if rank < 1:
        raise ValuationError(f"rank {rank} is not positive")
    return {
        shape.name: LayerProjection(
            _side(rank, shape.in_width, f"{seed}/{shape.name}/in"),
            _side(rank, shape.out_width, f"{seed}/{shape.name}/out"),
        )
        for shape in shapes
    }


def _side(rank: int, width: int, key: str) -> Tensor | None:
    if rank >= width:
        return None
    digest = hashlib.sha256(key.encode()).digest()
    return orthonormal_rows(rank, width, int.from_bytes(digest[:8], "big") >> 1)


def projected_shape(shape: LayerShape, projection: LayerProjection) -> tuple[int, int]:
    """Return (S, R): the shape of a layer's projected gradient."""
    out_rank = shape.out_width if projection.p_out is None else projection.p_out.shape[0]
    in_rank = shape.in_width if projection.p_in is None else projection.p_in.shape[0]
    return out_rank, in_rank


def projections_to_tensors(projections: Mapping[str, LayerProjection]) -> dict[str, Tensor]:
    """Flatten projections to named tensors for storage; identities are left out."""
    tensors = {}
    for name, projection in projections.items():
        if projection.p_in is not None:
            tensors[f"{name}|in"] = projection.p_in
        if projection.p_out is not None:
            tensors[f"{name}|out"] = projection.p_out
    return tensors


def projections_from_tensors(names: tuple[str, ...], tensors: Mapping[str, Tensor]) -> dict[str, LayerProjection]:
    """Inverse of `projections_to_tensors`."""
    return {name: LayerProjection(tensors.get(f"{name}|in"), tensors.get(f"{name}|out")) for name in names}
