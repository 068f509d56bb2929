"""How a build or a change of an index is run: what is the same for every pass of it, and for every checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from credit.valuation.batches import readings, tokens_in_batch
from credit.valuation.requirements import Needs, available_memory
from credit.valuation.task import AnyExample

_USED = 0.9
"""Of the memory there is, what a batch is planned to take at most: its need is an estimate."""

Progress = Callable[[str, int, int], None]
"""Called with a phase, the tokens done and the tokens in all."""


@dataclass(frozen=True, slots=True)
class Running:
    """How a build or a change is run.

    Attributes:
        tokens_per_batch: padded tokens in a batch, at most; None for 4096, on a GPU 16384.
        exclude: leave examples out whose gradient is not finite, and name them in the manifest; else the first is an
            error.
        progress: called after every batch.
        announce: called once, before the work begins, with the time, memory and disk that it needs; only then is a
            short probe made.
    """

    tokens_per_batch: int | None = None
    exclude: bool = False
    progress: Progress | None = None
    announce: Callable[[Needs], None] | None = None

    def within_memory(
        self, needs: Needs, examples: Sequence[AnyExample], device: torch.device
    ) -> tuple[Running, Needs]:
        """Return this, and the needs, with batches small enough for the memory there is: of one window at the least.

        Args:
            needs: with `batch_bytes` of a batch as large as these settings and the data allow.
            examples: the data.
            device: where it is run.
        """
        available = available_memory(device)
        if available is None or needs.memory_bytes <= available or not needs.batch_bytes:
            return self, needs
        sizes = [reading.window.size for reading in readings(examples)]
        longest = max(sizes)
        full = min(max(tokens_in_batch(self.tokens_per_batch, device), longest), sum(sizes))
        room = max(0, available - (needs.memory_bytes - needs.batch_bytes))
        tokens = max(longest, int(_USED * full * room / needs.batch_bytes))
        smaller = round(needs.batch_bytes * tokens / full)
        return replace(self, tokens_per_batch=tokens), replace(needs, batch_bytes=smaller)
