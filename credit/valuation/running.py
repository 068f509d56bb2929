"""How a build or a change of an index is run: what is the same for every pass of it, and for every checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from credit.valuation.estimate import Needs
from credit.valuation.passes import DEFAULT_TOKENS_PER_BATCH

Progress = Callable[[str, int, int], None]
"""Called with a phase, the tokens done and the tokens in all."""


@dataclass(frozen=True, slots=True)
class Running:
    """How a build or a change is run.

    Attributes:
        tokens_per_batch: padded tokens in a batch, at most.
        exclude: leave examples out whose gradient is not finite, and name them in the manifest; else the first is an
            error.
        progress: called after every batch.
        announce: called once, before the work begins, with the time, memory and disk that it needs; only then is a
            short probe made.
    """

    tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH
    exclude: bool = False
    progress: Progress | None = None
    announce: Callable[[Needs], None] | None = None
