"""Between host and device without waiting: while a host waits for a GPU, nothing is launched that comes after."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def upload(values: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the host to a device. On a GPU what was launched before goes on meanwhile."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


class Download:
    """A copy of a tensor on the host, begun when made; only who reads it waits, and for nothing launched later."""

    def __init__(self, values: Tensor) -> None:
        self._values = values.to("cpu", non_blocking=True)
        self._done: torch.cuda.Event | None = None
        if values.is_cuda:
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            self._done.record()

    def read(self) -> Tensor:
        """Return the copy."""
        if self._done:
            self._done.synchronize()
        return self._values


def one_behind(items: Iterable[T], device: torch.device) -> Iterator[T]:
    """Yield items, on a GPU each when the next has been launched: the device has work while this one is looked at."""
    waiting: list[T] = []
    for item in items:
        waiting.append(item)
        if device.type != "cuda" or len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting
