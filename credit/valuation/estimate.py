"""What a build will need, before it starts: disk, memory for its own state, and whether that is there."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from credit.errors import ValuationError
from credit.valuation.layers import LayerShape
from credit.valuation.manifest import IndexSettings
from credit.valuation.projection import LayerProjection, gradient_widths

_ROW_BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
_STATISTIC_BYTES = 4
_FACTORISING = 7
"""Float32 matrices that factorising one holds beside the result: its sum, the mean, two in float64 and a copy."""
_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True)
class Needs:
    """What a build needs beyond the model and its activations.

    Attributes:
        gradient: numbers in one example's projected gradient.
        disk_bytes: of the finished index; while it is written, one more copy of the curvature.
        memory_bytes: of the curvature and the shard that is being filled.
    """

    gradient: int
    disk_bytes: int
    memory_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.gradient:,} numbers per gradient, {_in_words(self.disk_bytes)} of disk, "
            f"{_in_words(self.memory_bytes)} of memory beside the model"
        )


def build_needs(
    rows: int,
    shapes: Sequence[LayerShape],
    projections: Mapping[str, LayerProjection],
    settings: IndexSettings,
    shard_bytes: int,
) -> Needs:
    """Add up what an index of `rows` rows needs."""
    widths = gradient_widths(shapes, projections).values()
    statistic = {
        "none": 0,
        "fisher": sum(width**2 for width in widths) * _STATISTIC_BYTES,
        "ekfac": sum(widths) * 2 * _STATISTIC_BYTES,
    }[settings.curvature]
    sides = sum(
        side.numel() * _STATISTIC_BYTES
        for projection in projections.values()
        for side in (projection.p_in, projection.p_out)
        if side is not None
    )
    stored = rows * sum(widths) * _ROW_BYTES[settings.rows_dtype]
    factor = statistic if settings.curvature == "fisher" else 0
    return Needs(
        gradient=sum(widths),
        disk_bytes=stored + sides + 2 * statistic + factor,
        # First the sums of all layers beside a shard; then their factors beside what factorising one layer takes.
        memory_bytes=sides
        + max(
            statistic + min(rows * sum(widths) * 4, shard_bytes),
            factor + (_FACTORISING * max(widths) ** 2 * _STATISTIC_BYTES if factor else 0),
        ),
    )


def check_needs(needs: Needs, folder: Path, device: torch.device) -> None:
    """Refuse a build that cannot fit, naming what would make it fit.

    Raises:
        ValuationError: there is not enough disk or memory.
    """
    free = shutil.disk_usage(folder).free
    if needs.disk_bytes > free:
        raise ValuationError(
            f"the index needs {_in_words(needs.disk_bytes)} of disk, but {folder} has {_in_words(free)} free; "
            "lower --rank or --rows-per-group, store rows in --rows-dtype int8, or choose another --out"
        )
    available = _available_memory(device)
    if available is not None and needs.memory_bytes > available:
        raise ValuationError(
            f"the build needs {_in_words(needs.memory_bytes)} of memory on {device} beside the model, but "
            f"{_in_words(available)} are available; lower --rank, or use --curvature ekfac, which needs little"
        )


def _available_memory(device: torch.device) -> int | None:
    """Bytes that can be had on a device, or None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if not _MEMINFO.is_file():
        return None
    for line in _MEMINFO.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _in_words(size: int) -> str:
    value = float(size)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
