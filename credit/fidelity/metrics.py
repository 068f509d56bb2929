"""Agreement of predictions with retraining: rank correlations, shares, calibration, each with its interval.

Legend: S retrainings, Q outputs, P providers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 90 % interval, from resampling outputs."""

    value: float
    low: float
    high: float


def ranks(values: Floats) -> Floats:
    """Return ranks along the last axis; ties share their average."""
    flat = values.reshape(-1, values.shape[-1])
    result = np.empty_like(flat)
    for row, line in enumerate(flat):
        _, inverse, counts = np.unique(line, return_inverse=True, return_counts=True)
        last = np.cumsum(counts)
        result[row] = (last - (counts - 1) / 2)[inverse]
    shaped: Floats = result.reshape(values.shape)
    return shaped


def correlation(a: Floats, b: Floats) -> Floats:
    """Return the Pearson correlation along the last axis; 0 where one side does not vary: it predicts nothing."""
    a = a - a.mean(-1, keepdims=True)
    b = b - b.mean(-1, keepdims=True)
    scale = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    product: Floats = (a * b).sum(-1)
    quotient: Floats = np.divide(product, scale, out=np.zeros_like(product), where=scale > 0)
    return quotient


def spearman(a: Floats, b: Floats, given: Floats | None = None) -> Floats:
    """Return the rank correlation along the last axis; with `given`, the partial one with its ranks held fixed."""
    x, y = ranks(a), ranks(b)
    if given is None:
        return correlation(x, y)
    z = ranks(np.broadcast_to(given, a.shape).copy())
    xy, xz, yz = correlation(x, y), correlation(x, z), correlation(y, z)
    # Rounding can put a perfect correlation a little beyond 1.
    scale = np.sqrt(np.clip((1 - xz**2) * (1 - yz**2), 0, None))
    # Where the size explains a side wholly, nothing is left to correlate: 0, not rounding over rounding.
    partial: Floats = np.divide(xy - xz * yz, scale, out=np.zeros_like(xy), where=scale > 1e-9)
    return partial


def linear_datamodelling_score(member: Floats, predicted: Floats, actual: Floats, size: Floats | None = None) -> Floats:
    """Return the LDS of each output (arXiv:2303.14186, section 2): the sum of present effects against the outcome.

    Args:
        member: (S, P), 1 where a provider's data was in the retraining.
        predicted: (Q, P), effects.
        actual: (S, Q), log-likelihood of the outputs, nats.
        size: (S,), tokens of each retraining, to be partialled out.

    Returns:
        (Q,) rank correlations over retrainings.
    """
    return spearman(predicted @ member.T, actual.T, size)


def noise_ceiling(first: Floats, second: Floats) -> Floats:
    """Return the rank correlation of a perfect prediction, for each output (Q,).

    `first` and `second` (S, Q) are outcomes of the same retrainings with two seeds. Their agreement r is the
    reliability of one outcome. The mean of both has reliability 2r/(1+r), and the true expectation would correlate with
    that mean by its square root: `ceiling_of`.
    """
    return ceiling_of(spearman(first.T, second.T))


def ceiling_of(agreement: Floats) -> Floats:
    """Return the highest correlation with the mean of two measurements that agree by r: √(2r/(1+r)), Spearman-Brown."""
    r = np.clip(agreement, 0.0, 1.0)
    ceiling: Floats = np.sqrt(2 * r / (1 + r))
    return ceiling


def shares(measure: Floats) -> Floats:
    """Return the share of every provider (P,): each output (Q, P) divides one credit by its positive measures."""
    result: Floats = _divided(measure).mean(0)
    return result


def _divided(measure: Floats) -> Floats:
    """Return every output's credit (Q, P), divided by its positive measures; zeros where there are none."""
    positive = np.clip(measure, 0.0, None)
    total = positive.sum(1, keepdims=True)
    divided: Floats = np.divide(positive, total, out=np.zeros_like(positive), where=total > 0)
    return divided


def share_error(predicted: Floats, actual: Floats) -> float:
    """Return the total variation distance between the shares of two measures (Q, P): 0 the same, 1 disjoint."""
    return float(np.abs(shares(predicted) - shares(actual)).sum() / 2)


def attribution_error(predicted: Floats, actual: Floats) -> float:
    """Return the error of shares beyond the choice of outputs, as a standard deviation over √(s·(1 − s)).

    The squared error of each provider's share s, less its sampling variance over outputs, is summed over providers and
    divided by Σ s·(1 − s): large shares are off by more than small ones, as counts are. The result gives an error to
    shares that were never compared.

    Args:
        predicted: (Q, P), the measure that divides credits.
        actual: (Q, P), losses of each output without each provider.
    """
    differences = _divided(predicted) - _divided(actual)
    outputs = len(differences)
    error = differences.mean(0)
    sampling = differences.var(0, ddof=1) / outputs if outputs > 1 else np.zeros_like(error)
    share = shares(predicted)
    scale = float((share * (1 - share)).sum())
    # The intervals already cover the sampling of outputs; only the excess is the error of the estimate.
    excess = float((error**2 - sampling).sum())
    return float(np.sqrt(max(excess, 0.0) / scale)) if scale > 0 else 0.0


def top_one(predicted: Floats, actual: Floats) -> Floats:
    """Return 1 for each output (Q,) with the same first provider by prediction and by retraining, else 0."""
    hits: Floats = (predicted.argmax(1) == actual.argmax(1)).astype(np.float64)
    return hits


def estimate(per_output: Floats, seed: int = 0) -> Estimate:
    """Return the mean over outputs with a 90 % bootstrap interval over outputs."""
    return estimate_of(lambda chosen: float(per_output[chosen].mean()), len(per_output), seed)


def estimate_of(statistic: Callable[[NDArray[np.int64]], float], outputs: int, seed: int = 0) -> Estimate:
    """Return a statistic of a set of outputs with a 90 % bootstrap interval over outputs."""
    # Seeded: a certificate made again from the same numbers is the same certificate.
    rng = np.random.default_rng(seed)
    drawn = [statistic(rng.integers(0, outputs, outputs)) for _ in range(_RESAMPLES)]
    low, high = np.quantile(drawn, [0.05, 0.95])
    return Estimate(statistic(np.arange(outputs)), float(low), float(high))


def fit_nonnegative(features: Floats, target: Floats) -> Floats:
    """Return least-squares coefficients (K,) of at least 0. Exact: all active sets are tried.

    Args:
        features: (N, K), K at most a handful.
        target: (N,).
    """
    count = features.shape[1]
    best, smallest = np.zeros(count), float((target**2).sum())
    for size in range(1, count + 1):
        for chosen in combinations(range(count), size):
            columns = list(chosen)
            solution, *_ = np.linalg.lstsq(features[:, columns], target, rcond=None)
            # Not clipped: the best solution on fewer columns comes up by itself.
            if (solution < 0).any():
                continue
            error = float(((features[:, columns] @ solution - target) ** 2).sum())
            if error < smallest:
                best, smallest = np.zeros(count), error
                best[columns] = solution
    return best
