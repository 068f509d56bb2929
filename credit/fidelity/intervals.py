"""Intervals of shares: their spread over other outputs of the same kind, and the error of valuation."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import compress
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import polars as pl

from credit.accounting.credits import ECHO, UNEARNED, Policy
from credit.fidelity.metrics import Floats

REPLICATES = 200
NOMINAL = 0.90
FEWEST = 10
"""Fewest outputs that tell two shares apart: fewer say nothing of others of their kind."""

_LOW, _HIGH = (1 - NOMINAL) / 2, (1 + NOMINAL) / 2
_BLOCK = 1024
"""Outputs with their weights in memory at a time."""

_QUANTILES = np.array([NormalDist().inv_cdf((number + 0.5) / REPLICATES) for number in range(REPLICATES)])
"""Quantiles of the normal distribution, one for each replicate."""

Key = tuple[str, ...]
Mask = npt.NDArray[np.bool_]

_ALONE = Policy()
_GROUP = ("provider", "collection")


class ShareBootstrap:
    """Bootstrap of shares over outputs, in one pass and in constant memory.

    Every output counts in each replicate as often as a Poisson variable of mean 1 (Hanley and MacGibbon 2006): in the
    limit the same as drawing outputs with replacement. The output's name decides the draw. A report made again is
    therefore the same, and shares of several keys can be compared within each replicate.

    For a policy that sums over the period, each replicate is a period of its own: its sums come first, and are clipped
    and divided at the end (`credit.accounting.credits`).

    The error of valuation comes on top as a normal deviate for each key and replicate. A validation by retraining
    measures it (`credit.fidelity.metrics.attribution_error`); without one, intervals cover the choice of outputs only.

    Args:
        key: columns of the shares, of `provider` and `collection`.
        attribution_error: standard deviation of a share s over √(s·(1 − s)); 0: unknown.
    """

    def __init__(self, key: Sequence[str], attribution_error: float = 0.0) -> None:
        self._key = list(key)
        self._error = attribution_error
        self._alone: dict[Key, Floats] = {}
        self._together: dict[Policy, _PeriodSums] = {}
        self.outputs = 0

    def add(self, rows: pl.DataFrame, policy: Policy = _ALONE) -> None:
        """Add the rows of a score book, with its policy.

        Columns: those of the key, `name` of the output, `credit_micro`; for a policy that sums over the period also
        `provider`, `collection` and the policy's measure.
        """
        names = rows["name"].unique(maintain_order=True).to_list()
        self.outputs += len(names)
        for first in range(0, len(names), _BLOCK):
            block = names[first : first + _BLOCK]
            own = rows.filter(pl.col("name").is_in(block)) if len(names) > _BLOCK else rows
            # Poisson counts need no total number of outputs, so that one pass over the books is enough.
            counts = np.stack([output_counts(name) for name in block])
            if policy.needs_period:
                # Echo stays with the house, however the sums divide the rest.
                echo = (pl.col("provider") == ECHO.provider) & (pl.col("collection") == ECHO.collection)
                _add_lines(self._alone, own.filter(echo), self._key, "credit_micro", block, counts)
                own = own.filter(~echo)
                self._together.setdefault(policy, _PeriodSums(policy)).add(own, block, counts)
            else:
                _add_lines(self._alone, own, self._key, "credit_micro", block, counts)

    def intervals(self) -> dict[Key, tuple[float, float]]:
        """Return the 90 % interval of the share of every credited key."""
        credited = self._credits()
        found = np.quantile(self._shares(credited), [_LOW, _HIGH], axis=1) if credited else np.empty((2, 0))
        return {key: (float(low), float(high)) for key, low, high in zip(credited, *found, strict=True)}

    def alike(self) -> dict[Key, list[Key]]:
        """Return, for every credited key, the other keys with a share too close to tell apart.

        Two shares differ if the 90 % interval of their difference excludes zero. The difference is taken within each
        replicate. Shares of one whole move against each other: they can differ for sure though intervals overlap.
        """
        return {
            key: sorted(other for other, apart in zip(keys, above | below, strict=True) if other != key and not apart)
            for key, keys, above, below in self._told_apart()
        }

    def ranks(self, among: Collection[Key]) -> dict[Key, tuple[int, int]]:
        """Return the first and last rank that each credited key can have, of those in `among`; 1 is the largest share.

        So many others lie above it for sure, and below it, as `alike` tells them apart. Whoever is told apart from all
        has one rank.
        """
        found = {}
        for key, keys, above, below in self._told_apart(among):
            found[key] = (1 + int(above.sum()), len(keys) - int(below.sum()))
        return found

    def _told_apart(self, among: Collection[Key] | None = None) -> Iterator[tuple[Key, list[Key], Mask, Mask]]:
        """Yield every credited key with all of them, those that have more for sure, and those that have less."""
        credited = self._credits()
        compared = [among is None or key in among for key in credited]
        if not any(compared):
            return
        keys = list(compress(credited, compared))
        # Shares of the whole: those that are not compared have their part of it.
        drawn = self._shares(credited)[compared]
        for key, own in zip(keys, drawn, strict=True):
            # Zero lies below the 5 % quantile of a difference if more than 95 % of the replicates are positive.
            above, below = (drawn > own).mean(axis=1) > _HIGH, (drawn < own).mean(axis=1) > _HIGH
            enough = self.outputs >= FEWEST
            yield key, keys, above & enough, below & enough

    def _credits(self) -> dict[Key, Floats]:
        """Return the credits of every key in every replicate, without keys that have none at all."""
        found = {key: own.copy() for key, own in self._alone.items()}
        for sums in self._together.values():
            for group, own in sums.divided().items():
                key = tuple(group[_GROUP.index(name)] for name in self._key)
                found[key] = found.get(key, 0.0) + own
        return {key: own for key, own in found.items() if own.any()}

    def _shares(self, credited: Mapping[Key, Floats]) -> Floats:
        """Return the share of every key in every replicate with any credit: (keys, replicates)."""
        sums = np.stack(list(credited.values()))
        total = sums.sum(axis=0)
        # Few outputs can all be left out of a replicate; it has no shares then.
        shares: Floats = sums[:, total > 0] / total[total > 0]
        if self._error:
            deviates = np.stack([_deviates(key) for key in credited])[:, total > 0]
            shares = (shares + self._error * np.sqrt(shares * (1 - shares)) * deviates).clip(0, 1)
        return shares


class _PeriodSums:
    """Sums of the outputs of one policy in every replicate, as `credit.accounting.credits` makes them."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._sums: dict[Key, Floats] = {}
        self._weight = np.zeros(REPLICATES)
        self._unearned = np.zeros(REPLICATES)

    def add(self, rows: pl.DataFrame, names: Sequence[str], counts: Floats) -> None:
        nobody = (pl.col("provider") == UNEARNED.provider) & (pl.col("collection") == UNEARNED.collection)
        rows = rows.with_columns(
            pl.when(nobody).then(0.0).otherwise(pl.col(self._policy.measure)).alias("measure"),
            pl.col("credit_micro").sum().over("name").alias("weight"),
        )
        positive = pl.col("measure").clip(lower_bound=0.0)
        by_output = rows.group_by("name", maintain_order=True).agg(pl.col("weight").first(), positive.sum())
        weights = by_output["weight"].to_numpy().astype(np.float64)
        pays = (by_output["measure"].to_numpy() > 0) | (self._policy.basis == "period")
        self._weight += (weights * pays) @ counts
        self._unearned += (weights * ~pays) @ counts
        if self._policy.basis == "period":
            line = pl.col("weight") * (pl.col("measure") if self._policy.negative == "net" else positive)
        else:
            negative = (-pl.col("measure")).clip(lower_bound=0.0)
            whole = pl.max_horizontal(positive.sum().over("name"), negative.sum().over("name"))
            taken = pl.col("weight") * negative / whole
            credited = pl.when(nobody).then(0).otherwise(pl.col("credit_micro"))
            line = credited - pl.when(positive.sum().over("name") > 0).then(taken.floor()).otherwise(0.0)
        _add_lines(self._sums, rows.with_columns(line.alias("line")), _GROUP, "line", names, counts)

    def divided(self) -> dict[Key, Floats]:
        """Return the weight of every replicate, divided by its positive sums."""
        kept = {group: own.clip(min=0.0) for group, own in self._sums.items()}
        total = sum(kept.values(), np.zeros(REPLICATES))
        each = np.divide(self._weight, total, out=np.zeros(REPLICATES), where=total > 0)
        found = {group: own * each for group, own in kept.items()}
        nobody = (UNEARNED.provider, UNEARNED.collection)
        found[nobody] = found.get(nobody, 0.0) + self._unearned + np.where(total > 0, 0.0, self._weight)
        return found


def _add_lines(
    sums: dict[Key, Floats], rows: pl.DataFrame, key: Sequence[str], column: str, names: Sequence[str], counts: Floats
) -> None:
    """Add the credits of the outputs `names` to the sums of every key, times their counts (outputs, replicates)."""
    place = {name: number for number, name in enumerate(names)}
    own: dict[Key, Floats] = {}
    grouped = rows.group_by([*key, "name"], maintain_order=True).agg(pl.col(column).sum())
    for row in grouped.filter(pl.col(column) != 0).iter_rows():
        given = own.setdefault(row[:-2], np.zeros(len(names)))
        given[place[row[-2]]] = row[-1]
    if not own:
        return
    # Sums of whole micro-credits are exact in doubles: how outputs are spread over books changes nothing.
    for group, weighted in zip(own, np.stack(list(own.values())) @ counts, strict=True):
        before = sums.setdefault(group, np.zeros(REPLICATES))
        before += weighted


def output_counts(name: str) -> Floats:
    """Return the count of an output in each replicate, drawn from its name."""
    seed = int.from_bytes(sha256(name.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).poisson(1.0, REPLICATES).astype(np.float64)


def _deviates(key: Key) -> Floats:
    """Return quantiles of the normal distribution in an order drawn from the key."""
    seed = int.from_bytes(sha256("\0".join(key).encode()).digest()[:8], "big")
    return np.random.default_rng(seed).permutation(_QUANTILES)
