"""Agreement of predictions with retraining: rank correlations, shares, calibration, and how sure they are.

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
    """Average ranks along the last axis; ties share theirs."""
    flat = values.reshape(-1, values.shape[-1])
    result = np.empty_like(flat)
    for row, line in enumerate(flat):
        _, inverse, counts = np.unique(line, return_inverse=True, return_counts=True)
        last = np.cumsum(counts)
        result[row] = (last - (counts - 1) / 2)[inverse]
    shaped: Floats = result.reshape(values.shape)
    return shaped


def correlation(a: Floats, b: Floats) -> Floats:
    """Pearson correlation along the last axis; 0 where one side does not vary: it predicts nothing."""
    a = a - a.mean(-1, keepdims=True)
    b = b - b.mean(-1, keepdims=True)
    scale = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    product: Floats = (a * b).sum(-1)
    quotient: Floats = np.divide(product, scale, out=np.zeros_like(product), where=scale > 0)
    return quotient


def spearman(a: Floats, b: Floats, given: Floats | None = None) -> Floats:
    """Rank correlation along the last axis; with `given`, what remains once its ranks are partialled out of both."""
    x, y = ranks(a), ranks(b)
    if given is None:
        return correlation(x, y)
    z = ranks(np.broadcast_to(given, a.shape).copy())
    xy, xz, yz = correlation(x, y), correlation(x, z), correlation(y, z)
    scale = np.sqrt(np.clip((1 - xz**2) * (1 - yz**2), 0, None))
    partial: Floats = np.divide(xy - xz * yz, scale, out=np.zeros_like(xy), where=scale > 1e-9)
    return partial


def linear_datamodelling_score(member: Floats, predicted: Floats, actual: Floats, size: Floats | None = None) -> Floats:
    """LDS of each output (arXiv:2303.14186, section 2): does the sum of what is present predict the outcome?

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
    """Rank correlation that a perfect prediction would reach, for each output (Q,).

    `first` and `second` (S, Q) are outcomes of the same retrainings with different seeds. Their agreement r is the
    reliability of one outcome; the mean of both has reliability 2r/(1+r) (Spearman-Brown), and a prediction that knew
    the expectation would correlate with that mean by its square root.
    """
    r = np.clip(spearman(first.T, second.T), 0.0, 1.0)
    ceiling: Floats = np.sqrt(2 * r / (1 + r))
    return ceiling


def shares(measure: Floats) -> Floats:
    """Share of every provider (P,): each output (Q, P) divides one credit by its positive measures."""
    result: Floats = _divided(measure).mean(0)
    return result


def _divided(measure: Floats) -> Floats:
    """Every output's credit (Q, P), divided by its positive measures; nothing where there is none."""
    positive = np.clip(measure, 0.0, None)
    total = positive.sum(1, keepdims=True)
    divided: Floats = np.divide(positive, total, out=np.zeros_like(positive), where=total > 0)
    return divided


def share_error(predicted: Floats, actual: Floats) -> float:
    """Total variation distance of the shares that two measures (Q, P) give: 0 the same, 1 disjoint."""
    return float(np.abs(shares(predicted) - shares(actual)).sum() / 2)


def attribution_error(predicted: Floats, actual: Floats) -> float:
    """How far shares are off beyond what the choice of outputs explains, as a standard deviation over √(s·(1 − s)).

    The squared error of each provider's share s, less its sampling variance over outputs, is added up over providers
    and compared with Σ s·(1 − s): large shares are off by more than small ones, as counts are. Providers whose shares
    were never compared can be given an error by it.

    Args:
        predicted: (Q, P), what credits are divided by.
        actual: (Q, P), what each output lost without each provider.
    """
    differences = _divided(predicted) - _divided(actual)
    outputs = len(differences)
    error = differences.mean(0)
    sampling = differences.var(0, ddof=1) / outputs if outputs > 1 else np.zeros_like(error)
    share = shares(predicted)
    scale = float((share * (1 - share)).sum())
    excess = float((error**2 - sampling).sum())
    return float(np.sqrt(max(excess, 0.0) / scale)) if scale > 0 else 0.0


def top_one(predicted: Floats, actual: Floats) -> Floats:
    """1 for each output (Q,) whose leading provider is the same by prediction and by retraining, else 0."""
    hits: Floats = (predicted.argmax(1) == actual.argmax(1)).astype(np.float64)
    return hits


def estimate(per_output: Floats, seed: int = 0) -> Estimate:
    """Mean over outputs with a 90 % bootstrap interval over outputs."""
    return estimate_of(lambda chosen: float(per_output[chosen].mean()), len(per_output), seed)


def estimate_of(statistic: Callable[[NDArray[np.int64]], float], outputs: int, seed: int = 0) -> Estimate:
    """A statistic of a set of outputs, with a 90 % bootstrap interval over outputs."""
    rng = np.random.default_rng(seed)
    drawn = [statistic(rng.integers(0, outputs, outputs)) for _ in range(_RESAMPLES)]
    low, high = np.quantile(drawn, [0.05, 0.95])
    return Estimate(statistic(np.arange(outputs)), float(low), float(high))


def fit_nonnegative(features: Floats, target: Floats) -> Floats:
    """Least squares with coefficients that are not negative, exact for few features: all active sets are tried.

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
            if (solution < 0).any():
                continue
            error = float(((features[:, columns] @ solution - target) ** 2).sum())
            if error < smallest:
                best, smallest = np.zeros(count), error
                best[columns] = solution
    return best
