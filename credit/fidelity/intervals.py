"""How sure a share is: what it would be had other outputs of the same kind been logged, and valued without error."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from statistics import NormalDist

import numpy as np
import polars as pl

from credit.fidelity.metrics import Floats

REPLICATES = 200
NOMINAL = 0.90
FEWEST = 10
"""Outputs below which no two shares are told apart: so few say nothing of others of their kind."""

_LOW, _HIGH = (1 - NOMINAL) / 2, (1 + NOMINAL) / 2
_BLOCK = 1024
"""Outputs whose weights are in memory at a time."""

_QUANTILES = np.array([NormalDist().inv_cdf((number + 0.5) / REPLICATES) for number in range(REPLICATES)])
"""Of the normal distribution, one for each replicate."""

Key = tuple[str, ...]


class ShareBootstrap:
    """Bootstrap of shares over outputs, in one pass and in memory that does not grow with them.

    Every output counts in each replicate as often as a Poisson variable of mean 1 says (Hanley and MacGibbon 2006):
    in the limit the same as drawing outputs with replacement. The draw follows from the output's name, so that a
    report made again says the same, and is the same for all keys, so that their shares can be compared within each
    replicate.

    The error of the valuation comes on top, as a normal deviate for each key and replicate: what a validation by
    retraining found of the shares (`credit.fidelity.metrics.attribution_error`). Without one, intervals cover the
    choice of outputs alone.

    Args:
        key: columns by which shares are taken.
        attribution_error: standard deviation of a share s over √(s·(1 − s)); 0 where it is not known.
    """

    def __init__(self, key: Sequence[str], attribution_error: float = 0.0) -> None:
        self._key = list(key)
        self._error = attribution_error
        self._sums: dict[Key, Floats] = {}
        self.outputs = 0

    def add(self, rows: pl.DataFrame) -> None:
        """Add the rows of a score book: the columns of the key, `name` of the output, `credit_micro`."""
        names = rows["name"].unique(maintain_order=True).to_list()
        self.outputs += len(names)
        for first in range(0, len(names), _BLOCK):
            block = names[first : first + _BLOCK]
            self._add(rows.filter(pl.col("name").is_in(block)) if len(names) > _BLOCK else rows, block)

    def _add(self, rows: pl.DataFrame, names: Sequence[str]) -> None:
        place = {name: number for number, name in enumerate(names)}
        own: dict[Key, Floats] = {}
        grouped = rows.group_by([*self._key, "name"], maintain_order=True).agg(pl.col("credit_micro").sum())
        for row in grouped.filter(pl.col("credit_micro") != 0).iter_rows():
            credited = own.setdefault(row[:-2], np.zeros(len(names)))
            credited[place[row[-2]]] = row[-1]
        if not own:
            return
        # Sums of whole micro-credits are exact in doubles: how outputs are spread over books changes nothing.
        weighted = np.stack(list(own.values())) @ np.stack([_weights(name) for name in names])
        for key, sums in zip(own, weighted, strict=True):
            before = self._sums.setdefault(key, np.zeros(REPLICATES))
            before += sums

    def intervals(self) -> dict[Key, tuple[float, float]]:
        """Return the 90 % interval of the share of every key that was credited."""
        found = np.quantile(self._shares(), [_LOW, _HIGH], axis=1) if self._sums else np.empty((2, 0))
        return {key: (float(low), float(high)) for key, low, high in zip(self._sums, *found, strict=True)}

    def alike(self) -> dict[Key, list[Key]]:
        """Return for every key that was credited those whose shares cannot be told apart from its own.

        Two shares are told apart when the 90 % interval of their difference does not hold zero. The difference is
        taken within each replicate: shares of one whole move against each other, so that two intervals that overlap
        can belong to shares that differ for sure.
        """
        keys = list(self._sums)
        if self.outputs < FEWEST:
            return {key: sorted(set(keys) - {key}) for key in keys}
        drawn = self._shares() if keys else np.empty((0, 0))
        found = {}
        for key, own in zip(keys, drawn, strict=True):
            # Below the 5 % quantile of the difference lies zero when more than 95 % of the replicates are positive.
            above, below = (own > drawn).mean(axis=1), (own < drawn).mean(axis=1)
            told = np.maximum(above, below) > _HIGH
            found[key] = sorted(other for other, apart in zip(keys, told, strict=True) if other != key and not apart)
        return found

    def _shares(self) -> Floats:
        """Shares of every key in every replicate in which anything was credited: (keys, replicates)."""
        sums = np.stack(list(self._sums.values()))
        total = sums.sum(axis=0)
        shares: Floats = sums[:, total > 0] / total[total > 0]
        if self._error:
            deviates = np.stack([_deviates(key) for key in self._sums])[:, total > 0]
            shares = (shares + self._error * np.sqrt(shares * (1 - shares)) * deviates).clip(0, 1)
        return shares


def _weights(name: str) -> Floats:
    seed = int.from_bytes(sha256(name.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).poisson(1.0, REPLICATES).astype(np.float64)


def _deviates(key: Key) -> Floats:
    """Quantiles of the normal distribution in an order that the key decides."""
    seed = int.from_bytes(sha256("\0".join(key).encode()).digest()[:8], "big")
    return np.random.default_rng(seed).permutation(_QUANTILES)
