"""Shards: files of rows, in fp32, bf16 or int8, and other tensors on disk, written whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from credit.storage import sha256_file, written_whole

ROW_DTYPES = ("fp32", "bf16", "int8")

SHARD_BYTES = 256 * 2**20
"""Most bytes of a shard's rows, in float32."""

SCALE_BLOCK = 64
"""Entries of an int8 row with one scale. In a head's row these are two buckets of the vocabulary."""

_SCALE = "|scale"
_LEVELS = 127
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""The system's error number in a message of safetensors, which is written in Rust."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors to a safetensors file, whole or absent, and return its SHA-256."""
    # Into a file that is there: safetensors would make one that others can read.
    with written_whole(path) as beside:
        try:
            save_file({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, beside)
        except SafetensorError as error:
            if number := _OS_ERROR.search(str(error)):
                raise OSError(int(number[1]), str(error)) from error
            raise
        return sha256_file(beside)


class StoredTensors(Mapping[str, Tensor]):
    """The tensors of a safetensors file by name. Each access reads the file; nothing is kept."""

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path, self._device = path, str(device)
        with safe_open(path, framework="pt") as file:
            self._names = tuple(file.keys())

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        with safe_open(self._path, framework="pt", device=self._device) as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def encode_rows(rows: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """Encode each layer's rows (R, D) to be stored.

    fp32 keeps float32 or better as it is; bf16 rounds to 8 bits of mantissa. int8 has a scale in bf16 for each block of
    64 entries of a row, the largest entry over 127, so an entry's error is at most half a scale. One scale for the
    whole row would do for hidden layers, but not for a head, with frequent and rare tokens in one row.
    """
    if dtype == "fp32":
        return dict(rows)
    if dtype == "bf16":
        return {name: tensor.to(torch.bfloat16) for name, tensor in rows.items()}
    stored: dict[str, Tensor] = {}
    for name, tensor in rows.items():
        entries, scales = [], []
        for block in _blocks(tensor):
            scale = (block.abs().amax(2) / _LEVELS).to(torch.bfloat16)
            safe = torch.where(scale > 0, scale, 1.0).to(block.dtype)
            # Where the scale was rounded down, the largest entry is beyond 127 by less than a half.
            entries.append((block / safe[..., None]).round().clamp(-_LEVELS, _LEVELS).to(torch.int8).flatten(1))
            scales.append(scale)
        stored[name], stored[name + _SCALE] = torch.cat(entries, 1), torch.cat(scales, 1)
    return stored


def scales_of(width: int) -> int:
    """Return the number of scales of an int8 row of `width` entries."""
    return -(-width // SCALE_BLOCK)


def _blocks(rows: Tensor) -> list[Tensor]:
    """View rows (R, D) as blocks with a scale each: (R, D // 64, 64), and (R, 1, D % 64) unless that is empty."""
    count = rows.shape[1] // SCALE_BLOCK
    even = count * SCALE_BLOCK
    parts = [rows[:, :even].view(len(rows), count, SCALE_BLOCK)] if even else []
    return parts + ([rows[:, None, even:]] if even < rows.shape[1] else [])


def keep_rows(
    rows: Mapping[str, Tensor], kept: Sequence[int], height: int, widths: Mapping[str, int]
) -> dict[str, Tensor]:
    """Return the rows `kept` (n,) of every layer: rows (height, D) -> (n, D). Without sums, `kept` is empty."""
    if len(kept) == height:
        return dict(rows)
    if not kept:
        return {name: torch.zeros(0, width) for name, width in widths.items()}
    return {name: tensor[torch.tensor(kept, device=tensor.device)] for name, tensor in rows.items()}


def count_rows(path: Path, layer: str) -> int:
    """Return the number of rows in a shard, from its header alone."""
    with safe_open(path, framework="pt") as file:
        return int(file.get_slice(layer).get_shape()[0])


def read_rows(path: Path, layers: Sequence[str], device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """Yield each layer's rows (R, D) of a shard, one layer at a time, in float32 or better."""
    with safe_open(path, framework="pt", device=str(device)) as file:
        scaled = {name for name in file.keys() if name.endswith(_SCALE)}  # noqa: SIM118  # safe_open is no mapping
        for name in layers:
            rows: Tensor = file.get_tensor(name)
            rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
            if name + _SCALE in scaled:  # `rows` are a copy then, of int8
                scales = file.get_tensor(name + _SCALE).to(rows.dtype)
                for block, scale in zip(_blocks(rows), scales.split(rows.shape[1] // SCALE_BLOCK or 1, 1), strict=True):
                    block.mul_(scale[..., None])
            yield name, rows


def plan_shards(
    stops: Sequence[int], width: int, shares: NDArray[np.int64] | None = None, most_shares: int = 0
) -> Iterator[tuple[int, int]]:
    """Yield (first row, last row + 1) of each shard.

    A window's examples lie all over the rows of its group, and each shard with one of them reads the window. So a shard
    ends where a group ends, unless the group is too large for one shard. Rows of a large group are folds, dealt by a
    hash of the examples' ids: to cut it between rows is to cut it by that hash.

    Args:
        stops: last row + 1 of each group, in order.
        width: numbers in a row.
        shares: number of examples to add to each row.
        most_shares: most of them in a shard; a single row may have more.
    """
    most = max(1, SHARD_BYTES // (4 * width))
    total = None if shares is None else np.concatenate([[0], np.cumsum(shares)])

    def fits(low: int) -> int:
        """Return the last row + 1 of the longest shard from row `low` on."""
        if total is None:
            return low + most
        return min(low + most, max(low + 1, int(np.searchsorted(total, total[low] + most_shares, side="right")) - 1))

    low = before = 0
    for stop in stops:
        if stop > fits(low) and before > low:
            yield low, before
            low = before
        while fits(low) < stop:
            cut = fits(low)
            yield low, cut
            low = cut
        before = stop
    if before > low:
        yield low, before
