"""How sure a share is: what it would be had other outputs of the same kind been logged."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
import polars as pl
from numpy.typing import NDArray

REPLICATES = 200
NOMINAL = 0.90

_LOW, _HIGH = (1 - NOMINAL) / 2, (1 + NOMINAL) / 2


class ShareBootstrap:
    """Bootstrap of shares over outputs, in one pass and in memory that does not grow with them.

    Every output counts in each replicate as often as a Poisson variable of mean 1 says (Hanley and MacGibbon 2006):
    in the limit the same as drawing outputs with replacement. The draw follows from the output's name, so that a
    report made again says the same. It covers the choice of outputs alone, not the error of the valuation.
    """

    def __init__(self, key: Sequence[str]) -> None:
        self._key = list(key)
        self._sums: dict[tuple[str, ...], NDArray[np.float64]] = {}

    def add(self, rows: pl.DataFrame) -> None:
        """Add the rows of a score book: the columns of the key, `name` of the output, `credit_micro`."""
        names = rows["name"].unique(maintain_order=True).to_list()
        weights = {name: _weights(name) for name in names}
        grouped = rows.group_by([*self._key, "name"], maintain_order=True).agg(pl.col("credit_micro").sum())
        for row in grouped.iter_rows():
            values, name, credit_micro = row[:-2], row[-2], row[-1]
            if credit_micro:
                before = self._sums.setdefault(values, np.zeros(REPLICATES))
                before += credit_micro * weights[name]

    def intervals(self) -> dict[tuple[str, ...], tuple[float, float]]:
        """Return the 90 % interval of the share of every key that was credited."""
        if not self._sums:
            return {}
        total = np.sum(list(self._sums.values()), axis=0)
        drawn = total > 0
        found = {}
        for key, values in self._sums.items():
            low, high = np.quantile(values[drawn] / total[drawn], [_LOW, _HIGH])
            found[key] = (float(low), float(high))
        return found


def _weights(name: str) -> NDArray[np.int64]:
    seed = int.from_bytes(sha256(name.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).poisson(1.0, REPLICATES)
