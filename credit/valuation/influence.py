"""From inner products with fold rows to influence, support and volume of every group (DESIGN, section 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from credit.errors import ValuationError


@dataclass(frozen=True, slots=True)
class GroupRows:
    """How rows belong to groups: row r of group `group[r]` is the sum of `count[r]` examples' gradients.

    `group` and `count` are int64 tensors (R,), `groups` is the number of groups. Where groups share examples, a row is
    the sum of gradients times the group's shares: `mass` and `squares`, float64 (R,), are then the sums of these shares
    and of their squares. Without them, every share is 1.
    """

    group: Tensor
    count: Tensor
    groups: int
    mass: Tensor | None = None
    squares: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Valuation:
    """What a batch of outputs drew from every group, in nats, float64.

    Attributes:
        influence: (Q, groups), signed: Σ of the group's rows.
        excess: (Q, groups), signed: influence drawn towards zero by the noise that a sum of as many examples has.
        support: (Q, groups), ≥ 0: influence of those examples that pulled by more than the noise.
        volume: (Q, groups), ≥ 0: examples of the group, each times its share, times the pooled spread of one example.
        noise: (Q,), the threshold τ between support and noise.
    """

    influence: Tensor
    excess: Tensor
    support: Tensor
    volume: Tensor
    noise: Tensor

    def effect(self, alpha: float = 1.0, beta: float = 1.0, gamma: float = 0.0) -> Tensor:
        """α·excess + β·support + γ·volume (Q, groups): what is paid for, in nats once calibrated."""
        return alpha * self.excess + beta * self.support + gamma * self.volume


def summarise(values: Tensor, rows: GroupRows, noise_floor: float = 1.0) -> Valuation:
    """Reduce the influence of every row on every output to a few numbers per group.

    With fold sums s_f over m_f examples and n = Σ m_f: mean μ = Σ s_f / n and spread
    σ² = Σ (s_f − m_f μ)² / m_f / (F − 1), which estimates the variance of single examples because the sum of m
    of them has m times their variance. Support is exact where every row is one example, else the expectation
    n·[μ Φ(a) + σ φ(a)] with a = (μ − τ)/σ under a normal spread. τ = noise_floor × the spread pooled over groups.
    A sum of n examples that pull at random has the spread √n times that of one: excess is what influence has beyond
    τ √n, with its sign, and zero within (soft thresholding; Donoho & Johnstone 1994).

    With shares w of examples, s_f = Σ w_i x_i, whose mean is μ Σ w_i and whose variance is σ² Σ w_i². So Σ w_i stands
    for m_f and n, except under the square and the root, where Σ w_i² does; and an example supports by its share of
    what all of it would, if all of it would by more than the noise.

    Args:
        values: (Q, R) influence of each row on each output, nats.
        rows: layout of the rows.
        noise_floor: τ in units of the pooled spread, ≥ 0.

    Raises:
        ValuationError: a value is not finite, or the noise floor is negative or none.
    """
    if not 0 <= noise_floor < math.inf:
        raise ValuationError(f"noise floor {noise_floor} must be 0 or more, and finite")
    if not torch.isfinite(values).all():
        raise ValuationError("an influence is not a finite number; index and outputs need a wider dtype")
    s = values.double()
    mass = rows.count.double() if rows.mass is None else rows.mass
    variances = rows.count.double() if rows.squares is None else rows.squares
    group = rows.group
    folds = torch.bincount(group, minlength=rows.groups).double()
    n = torch.zeros(rows.groups, dtype=torch.float64).index_add_(0, group, mass)
    influence = _by_group(s, rows)
    mean = influence / n
    deviation = s - mass * mean[:, group]
    squares = _by_group(deviation.square() / variances, rows)
    freedom = folds - 1
    pooled = (squares.sum(1) / freedom.sum().clamp(min=1)).sqrt()
    sigma = (squares / freedom.clamp(min=1)).sqrt()
    noise = noise_floor * pooled
    of_sum = noise[:, None] * torch.bincount(group, weights=variances, minlength=rows.groups).sqrt()
    excess = influence.sign() * (influence.abs() - of_sum).clamp(min=0.0)
    exact = _by_group(torch.where(s > mass * noise[:, None], s, 0.0), rows)
    expected = n * _normal_excess(mean, sigma, noise[:, None])
    single = torch.bincount(group, weights=rows.count.double(), minlength=rows.groups) == folds  # a row is an example
    support = torch.where(single, exact, expected)
    return Valuation(influence, excess, support, n * pooled[:, None], noise)


def _by_group(values: Tensor, rows: GroupRows) -> Tensor:
    """Sum (Q, R) over the rows of each group -> (Q, groups)."""
    return values.new_zeros(values.shape[0], rows.groups).index_add_(1, rows.group, values)


def _normal_excess(mean: Tensor, sigma: Tensor, threshold: Tensor) -> Tensor:
    """E[x · 1(x > threshold)] of a normal variable: μ Φ(a) + σ φ(a) with a = (μ − threshold)/σ."""
    safe = torch.where(sigma > 0, sigma, 1.0)
    a = (mean - threshold) / safe
    density = torch.exp(-0.5 * a.square()) / math.sqrt(2 * math.pi)
    spread = mean * torch.special.ndtr(a) + sigma * density
    # With a threshold ≥ 0 the expectation cannot be negative; rounding can make it so far below the threshold.
    return torch.where(sigma > 0, spread.clamp(min=0.0), torch.where(mean > threshold, mean, 0.0))
