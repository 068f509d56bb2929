"""Requirements of a build, a change or a valuation: time, memory and disk, checked before it starts."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from credit.errors import ValuationError
from credit.storage import nearest_folder, why_disk_is_full
from credit.valuation.batches import tokens_in_batch
from credit.valuation.curvature import BLOCK_ROWS, statistic_bytes
from credit.valuation.influence import SLICE_NUMBERS
from credit.valuation.layers import LayerShape
from credit.valuation.manifest import IndexSettings
from credit.valuation.projection import LayerRank, projected_widths, resolve_ranks
from credit.valuation.shards import SHARD_BYTES, scales_of
from credit.valuation.unit_files import WAITING_BYTES

MEMINFO = Path("/proc/meminfo")
"""Linux's report of the memory of a machine."""

_ROW_BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
_FLOAT_BYTES = 4
_SCALE_BYTES = 2
_COUNTED_BYTES = 24
"""Bytes of a row's counts: its examples, the sum of their shares, and the sum of squares."""
_LISTED_BYTES = 56
"""Bytes of an example in the listing, measured on ids of ordinary length."""
_FACTORISING = 7
"""Float32 matrices beside the result while one is factorised: its sum, the mean, two in float64 and a copy."""
_DIAGONALISING = 8
"""Float32 matrices to diagonalise a second moment: float64 copy, its symmetric part, vectors, workspace."""
_PROJECTING = 2
"""Float32 matrices to project a second moment: a float64 copy."""
_HASHING = 3
"""Float32 numbers of an entry's bucket and weight."""
_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_USED = 0.9
"""Largest part of the available memory for a batch: its need is an estimate."""
_SLICED = 6
"""Float64 copies of a slice of influences while they are reduced to groups."""
_OF_A_GROUP = 200
"""Bytes of an output and a group: the numbers of a valuation while they are made, its score, and that in Parquet."""
_REMEDIES = {
    "batch": "lower --max-length, use --dtype bf16, or watch layers nearer to the output with --layers: it is what one "
    "text needs",
    "fitting": "watch fewer layers with --layers, or use --projection random with --curvature fisher or none, which "
    "are not fitted",
    "filling": "lower --rank, or watch fewer layers with --layers",
    "curvature": "lower --rank, or use --curvature ekfac or none, which need little",
}


@dataclass(frozen=True, slots=True)
class Needs:
    """Requirements of a build or a change beyond the model.

    Attributes:
        gradient: numbers in one example's projected gradient.
        disk_bytes: disk for the finished index, and for one more copy of the curvature while it is written.
        fitting_bytes: memory to fit projections.
        filling_bytes: memory for a shard, and for the gradients of a block of examples.
        curvature_bytes: memory for the curvature's sums and, later, its factors.
        batch_bytes: memory that a batch keeps for the backward pass; 0 until a probe.
        seconds: time of all passes on this machine; None until a probe.
        workers: workers of this machine, each with such memory. They share the time.
    """

    gradient: int
    disk_bytes: int
    fitting_bytes: int = 0
    filling_bytes: int = 0
    curvature_bytes: int = 0
    batch_bytes: int = 0
    seconds: float | None = None
    workers: int = 1

    @property
    def memory_bytes(self) -> int:
        """Peak memory of a worker: while projections are fitted, or after that."""
        return self.batch_bytes + max(self.fitting_bytes, self.filling_bytes + self.curvature_bytes)

    def __str__(self) -> str:
        time = "" if self.seconds is None else f"{duration_in_words(self.seconds)} on this machine, "
        return (
            f"{time}{self.memory_in_words} of memory beside the model, {size_in_words(self.disk_bytes)} of "
            f"disk ({self.gradient:,} numbers per gradient)"
        )

    @property
    def memory_in_words(self) -> str:
        """Memory in all, and of each worker."""
        each = size_in_words(self.memory_bytes)
        return (
            each
            if self.workers == 1
            else f"{size_in_words(self.workers * self.memory_bytes)} ({self.workers} x {each})"
        )


def build_needs(
    examples: int, rows: int, shapes: Sequence[LayerShape], settings: IndexSettings, shard_bytes: int, units: int = 1
) -> Needs:
    """Add up the requirements of an index of `examples` examples, `rows` rows and `units` units, from shapes alone."""
    ranks = resolve_ranks(shapes, settings.rank, settings.ranks)
    widths = projected_widths(ranks).values()
    gradient = sum(widths)
    statistic = statistic_bytes(settings.curvature, widths)
    # Of one unit, its own beside those of the index. Of several, some that wait and the merged ones, old and new.
    sums = 2 * statistic if units == 1 else 3 * statistic + min(units * statistic, WAITING_BYTES)
    factors = statistic if settings.curvature == "fisher" else 0
    sides = sum(_side_numbers(shape, ranks) for shape in shapes) * _FLOAT_BYTES
    scales = rows * sum(map(scales_of, widths)) * _SCALE_BYTES if settings.rows_dtype == "int8" else 0
    stored = rows * gradient * _ROW_BYTES[settings.rows_dtype] + scales
    block = min(examples, BLOCK_ROWS) * gradient * _FLOAT_BYTES if settings.curvature == "fisher" else 0
    # First the sums of all layers beside a shard; then their factors beside what factorising one layer takes.
    factorising = factors + (_FACTORISING * max(widths) ** 2 * _FLOAT_BYTES if factors else 0)
    return Needs(
        gradient=gradient,
        disk_bytes=stored + rows * _COUNTED_BYTES + sides + sums + factors + examples * _LISTED_BYTES,
        fitting_bytes=sides + _fitting_bytes(shapes, settings.projection) if settings.fits_projections else 0,
        filling_bytes=sides + block + min(rows * gradient * _FLOAT_BYTES, shard_bytes),
        curvature_bytes=max(statistic, factorising),
    )


def _side_numbers(shape: LayerShape, ranks: Mapping[str, LayerRank]) -> int:
    rank = ranks[shape.name]
    return rank.inputs * shape.in_width + (_HASHING if shape.is_head else rank.outputs) * shape.out_width


def moment_bytes(shapes: Sequence[LayerShape]) -> int:
    """Return the memory for the second moments of both sides of all layers."""
    heads = [shape for shape in shapes if shape.is_head]  # output sides with one number for each token, no matrix
    squares = sum(width**2 for shape in shapes for width in shape.dense_widths)
    return (squares + sum(head.out_width for head in heads)) * _FLOAT_BYTES


def _fitting_bytes(shapes: Sequence[LayerShape], projection: str) -> int:
    """Return the memory for the second moments of all layers, and to diagonalise or project the widest."""
    workspace = _PROJECTING if projection == "random" else _DIAGONALISING
    widest = max(width for shape in shapes for width in shape.dense_widths)
    return moment_bytes(shapes) + workspace * widest**2 * _FLOAT_BYTES


def check_needs(needs: Needs, folder: Path, device: torch.device) -> None:
    """Refuse work with too little memory or disk for it, with a remedy.

    Raises:
        ValuationError: there is not enough disk or memory.
    """
    # Files of an unfinished build in the folder are used again, or deleted.
    place = nearest_folder(folder)
    free = shutil.disk_usage(place).free + _bytes_in(folder)
    if needs.disk_bytes > free:
        raise ValuationError(
            f"the index needs {size_in_words(needs.disk_bytes)} of disk, but {folder} has {size_in_words(free)} free; "
            "lower --rank or --rows-per-group, store rows in --rows-dtype int8, or choose another --out"
        )
    available = _available_for_each(needs, device)
    if available is not None and needs.memory_bytes > available:
        phases = {"filling": needs.filling_bytes, "curvature": needs.curvature_bytes}
        if needs.fitting_bytes > sum(phases.values()):
            phases = {"fitting": needs.fitting_bytes}
        phases["batch"] = needs.batch_bytes
        largest = max(phases, key=lambda name: phases[name])
        fewer = f"take fewer than {needs.workers} --workers, or " if needs.workers > 1 else ""
        raise ValuationError(
            f"the build needs {needs.memory_in_words} of memory on {device} beside the model, but "
            f"{size_in_words(available * needs.workers)} are available; {fewer}{_REMEDIES[largest]}"
        )


def _available_for_each(needs: Needs, device: torch.device) -> int | None:
    """Return the free memory for each worker; on GPUs, each has one of its own."""
    available = available_memory(device)
    return available if available is None or device.type != "cpu" else available // needs.workers


def fit_batches(
    needs: Needs, sizes: NDArray[np.int64], tokens_per_batch: int | None, device: torch.device
) -> tuple[int | None, Needs]:
    """Make batches small enough for the available memory, but not smaller than the longest window.

    Args:
        needs: requirements with the largest batch that `tokens_per_batch` and the data allow.
        sizes: positions of each window of the data.
        tokens_per_batch: padded tokens in a batch, at most; None for 4096, on a GPU 16384.
        device: device of the work.

    Returns:
        Padded tokens in a batch, at most, and the requirements with such batches.
    """
    available = _available_for_each(needs, device)
    if available is None or needs.memory_bytes <= available or not needs.batch_bytes:
        return tokens_per_batch, needs
    longest = int(sizes.max())
    full = min(max(tokens_in_batch(tokens_per_batch, device), longest), int(sizes.sum()))
    room = max(0, available - (needs.memory_bytes - needs.batch_bytes))
    tokens = max(longest, int(_USED * full * room / needs.batch_bytes))
    return tokens, replace(needs, batch_bytes=round(needs.batch_bytes * tokens / full))


@dataclass(frozen=True, slots=True)
class ValuingNeeds:
    """Memory to value outputs together, beside the model, and the rows read for them.

    Attributes:
        fixed_bytes: memory for the curvature, a shard, and slices of influence, whatever the number of outputs.
        output_bytes: memory for each output: its gradients, its influences, and the numbers of every group.
        batch_bytes: memory that a batch keeps for the backward pass; 0 until a probe.
        read_bytes: rows read for each step, however many outputs it has.
    """

    fixed_bytes: int
    output_bytes: int
    batch_bytes: int
    read_bytes: int

    def memory_bytes(self, outputs: int) -> int:
        """Return the memory to value so many outputs together."""
        return self.fixed_bytes + self.batch_bytes + outputs * self.output_bytes

    def most_outputs(self, memory_bytes: int) -> int:
        """Return the most outputs that can be valued together with so much memory; 0 for none."""
        return max(0, (memory_bytes - self.fixed_bytes - self.batch_bytes) // self.output_bytes)


def valuing_needs(
    rows: int, groups: int, widths: Sequence[int], curvature: str, *, read_bytes: int, models: int = 1
) -> ValuingNeeds:
    """Add up the memory to value outputs by an index, from shapes alone.

    Args:
        rows: rows of the index.
        groups: its groups.
        widths: numbers in each layer's projected gradient.
        curvature: kind of its curvature.
        read_bytes: size of its rows on the disk.
        models: its checkpoints, its own model included.
    """
    row_bytes = sum(widths) * _FLOAT_BYTES
    in_shard = min(rows, max(1, SHARD_BYTES // row_bytes))
    # As stored, and one layer in float32; then the product of its rows, the sum over layers, and both added.
    shard = in_shard * (row_bytes + max(widths) * _FLOAT_BYTES)
    return ValuingNeeds(
        fixed_bytes=statistic_bytes(curvature, widths) + shard + _SLICED * 8 * SLICE_NUMBERS,
        # Gradients before and after the curvature; influences of one or two models, and which of them are finite.
        output_bytes=2 * row_bytes
        + 3 * in_shard * _FLOAT_BYTES
        + rows * (min(models, 2) * _FLOAT_BYTES + 1)
        + groups * _OF_A_GROUP,
        batch_bytes=0,
        read_bytes=models * read_bytes,
    )


@contextmanager
def room_on_disk(folder: Path, needed_bytes: int, what_stays: str) -> Iterator[None]:
    """Context to write an index: it reports a full disk with the bytes needed and free.

    Args:
        folder: the index.
        needed_bytes: disk for the whole index.
        what_stays: the state that the next run finds, in words.

    Raises:
        ValuationError: there is no room left.
    """
    try:
        yield
    except OSError as error:
        reason = why_disk_is_full(error)
        if reason is None:
            raise
        needed, there, free = map(size_in_words, (needed_bytes, _bytes_in(folder), shutil.disk_usage(folder).free))
        raise ValuationError(
            f"{error.filename or folder} cannot be written: {reason}. The index needs {needed} of disk in all, {there} "
            f"are in {folder}, {free} are free. Make room there and run this again: {what_stays}"
        ) from error


def _bytes_in(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def available_memory(device: torch.device) -> int | None:
    """Return the free memory of a device in bytes; None if the system does not say."""
    if device.type == "cuda":
        # Memory that torch holds in reserve is available too.
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + reserve
    if not MEMINFO.is_file():
        return None
    for line in MEMINFO.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def size_in_words(size: int) -> str:
    """Return a number of bytes in words, with three digits or so: `340.2 MB`."""
    value = float(size)
    for unit in _UNITS:
        if value < 1000 or unit == _UNITS[-1]:
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"


def duration_in_words(seconds: float) -> str:
    """Return a number of seconds in words, as precise as a probe is: `about 3 min 20 s`."""
    if seconds < 1:
        return "less than a second"
    if seconds < 60:
        return f"about {math.ceil(seconds)} s"
    if seconds < 3600:
        minutes, rest = divmod(int(10 * round(seconds / 10)), 60)
        return f"about {minutes} min {rest} s" if rest else f"about {minutes} min"
    if seconds < 48 * 3600:
        hours, minutes = divmod(int(10 * round(seconds / 600)), 60)
        return f"about {hours} h {minutes} min" if minutes else f"about {hours} h"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"about {days} days {hours} h" if hours else f"about {days} days"
