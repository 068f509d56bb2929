"""The whole method on tensors, in the order of its formula.

    G    = Σ_t (P_out δ_t)(P_in x_t)ᵀ         `projected_gradient`   LoGra, arXiv:2405.13954, eq. 6
    M    = 1/N Σ_i vec(G_i) vec(G_i)ᵀ          the curvature          or EK-FAC's, arXiv:1806.03884
    ĝ_q  = (M + λI)⁻¹ vec(G_q)                 `precondition`         of the output's gradient alone
    s_k  = Σ_i w_ik vec(G_i)                   the rows               w_ik: a group's share of example i
    v_qk = 1/N Σ_layers ĝ_q · s_k              `influence`            Koh & Liang 2017, arXiv:1703.04730, eq. 2
    influence, support, effect of each group   `summarise`

Positive influence means that the example made the output likelier. The curvature of the summed training loss is N·M:
hence 1/N. Builds and valuations call these very functions; hooks, batches, shards and files only bring them tensors.

Legend: N examples, T tokens, I and O widths of a layer's inputs x and output gradients δ, R and S their ranks,
D = S·R numbers in a projected gradient, Q outputs, K rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from credit.errors import ValuationError
from credit.valuation.projection import Hashing, Side

SLICE_NUMBERS = 2**21
"""Influences of rows on outputs that `summarise` takes into float64 at a time."""


def projected_gradient(x: Tensor, dy: Tensor, p_in: Side, p_out: Side) -> Tensor:
    """Return each example's LoGra gradient: the sum over tokens of outer products of both projected sides.

    Args:
        x: inputs (N, T, I).
        dy: output gradients (N, T, O).
        p_in: projection of the inputs to R; None if they are projected already, or not at all.
        p_out: projection of the output gradients to S, likewise.

    Returns:
        (N, S, R), in float32 or better.
    """
    x = project(x, p_in)
    if isinstance(p_out, Hashing) and x.shape[2] < x.shape[1]:  # fewer numbers to hash after the product
        return p_out.sum(_outer_products(dy, x), dim=1)
    return _outer_products(project(dy, p_out), x)


def project(values: Tensor, side: Side) -> Tensor:
    """Project the last dimension: values (..., I) -> (..., R)."""
    if side is None:
        return values
    if isinstance(side, Hashing):
        return side.sum(values, dim=-1)
    # The projection takes the dtype of the values, which under autocast is not that of the weights.
    return values @ side.to(values.dtype).mT


def _outer_products(dy: Tensor, x: Tensor) -> Tensor:
    """Return the sum over tokens of δ xᵀ: (N, T, S) and (N, T, R) -> (N, S, R), in float32 or better."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    if x.is_cuda and x.dtype == dy.dtype != dtype:
        # Products of two bf16 numbers are exact in float32, and so summed: nothing is lost.
        return torch.bmm(dy.mT, x, out_dtype=dtype)
    return torch.bmm(dy.to(dtype).mT, x.to(dtype))


def precondition(gradients: Tensor, damped: Tensor) -> Tensor:
    """Return (M + λI)⁻¹ g for each gradient of a layer.

    Args:
        gradients: (N, D).
        damped: lower Cholesky factor (D, D) of M + λI, or M + λ (D,) of a diagonal M.

    Returns:
        (N, D).
    """
    if damped.dim() == 1:
        return gradients / damped.to(gradients.dtype)
    return torch.cholesky_solve(gradients.to(damped.dtype).mT, damped).mT


def influence(preconditioned: Mapping[str, Tensor], rows: Iterable[tuple[str, Tensor]], scale: float) -> Tensor:
    """Return the influence of rows on outputs, summed over layers, in nats: (Q, K).

    Args:
        preconditioned: for each layer the outputs' preconditioned gradients (Q, D).
        rows: the name of each layer with its rows (K, D), one layer at a time in memory; at least one.
        scale: 1/N, times the mean size of weighted examples.
    """
    # A generator: the rows of one layer are in memory at a time.
    parts = (preconditioned[layer] @ sums.to(preconditioned[layer].dtype).mT for layer, sums in rows)
    return reduce(torch.add, parts) * scale


@dataclass(frozen=True, slots=True)
class GroupRows:
    """Layout of rows by group.

    Attributes:
        group: number of each row's group, (K,) int64.
        count: examples in each row, (K,) int64.
        groups: number of groups.
        mass: sum of the group's shares of these examples, (K,) float64; None if every share is 1.
        squares: sum of the squares of these shares, (K,) float64; None if every share is 1.
    """

    group: Tensor
    count: Tensor
    groups: int
    mass: Tensor | None = None
    squares: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Valuation:
    """Influence, support and effect of every group on a batch of outputs, in nats, float64.

    Attributes:
        influence: (Q, groups), signed: the sum over the group's rows.
        excess: (Q, groups), signed: influence drawn towards zero by the noise of a sum of as many examples.
        support: (Q, groups), ≥ 0: influence of the examples beyond the noise of one.
        volume: (Q, groups), ≥ 0: the group's examples, each times its share, times the pooled spread of one example.
        noise: threshold τ between noise and support, (Q,).
    """

    influence: Tensor
    excess: Tensor
    support: Tensor
    volume: Tensor
    noise: Tensor

    def effect(self, alpha: float = 1.0, beta: float = 1.0, gamma: float = 0.0) -> Tensor:
        """Return α·excess + β·support + γ·volume (Q, groups): the measure that is paid for, in nats once calibrated."""
        return alpha * self.excess + beta * self.support + gamma * self.volume


def summarise(values: Tensor, rows: GroupRows, noise_floor: float = 1.0) -> Valuation:
    """Reduce the influence of every row on every output to a few numbers per group.

    With fold sums s_f over m_f examples and n = Σ m_f, the mean is μ = Σ s_f / n and the spread of single examples
    σ² = Σ (s_f − m_f μ)² / m_f / (F − 1): a sum of m examples has m times the variance of one. The threshold τ is
    noise_floor × the spread pooled over groups.

    - Support sums the examples beyond τ: exactly if every row is one example, else by its expectation
      n·[μ Φ(a) + σ φ(a)] with a = (μ − τ)/σ under a normal spread.
    - Excess is the influence beyond τ √n, the noise of a sum of n examples, with its sign, and zero within it (soft
      thresholding; Donoho & Johnstone 1994).

    With shares w of examples, s_f = Σ w_i x_i has the mean μ Σ w_i and the variance σ² Σ w_i². So Σ w_i stands for m_f
    and n, but under the square and the root Σ w_i² does. An example supports by its share of the whole example's
    support, and only if the whole example lies beyond the noise.

    Args:
        values: influence of each row on each output, (Q, K), nats.
        rows: layout of the rows.
        noise_floor: τ in units of the pooled spread, ≥ 0.

    Raises:
        ValuationError: a value is not finite, or the noise floor is negative or none.
    """
    if not 0 <= noise_floor < math.inf:
        raise ValuationError(f"noise floor {noise_floor} must be 0 or more, and finite")
    if not torch.isfinite(values).all():
        raise ValuationError("an influence is not a finite number; index and outputs need a wider dtype")
    mass = rows.count.double() if rows.mass is None else rows.mass
    variances = rows.count.double() if rows.squares is None else rows.squares
    group = rows.group
    folds = torch.bincount(group, minlength=rows.groups).double()
    n = torch.zeros(rows.groups, dtype=torch.float64).index_add_(0, group, mass)

    def spreads(s: Tensor) -> tuple[Tensor, Tensor]:
        total = _by_group(s, rows)
        deviation = s - mass * (total / n)[:, group]
        return total, _by_group(deviation.square() / variances, rows)

    total, squares = _by_slices(spreads, values)
    # A group's mean is taken from the same folds, and costs one degree of freedom.
    freedom = folds - 1
    # Without a group of two rows there is no spread to pool. The noise is 0 then, and every pull counts.
    pooled = (squares.sum(1) / freedom.sum().clamp(min=1)).sqrt()
    sigma = squares.div_(freedom.clamp(min=1)).sqrt_()
    noise = noise_floor * pooled
    of_sum = noise[:, None] * torch.bincount(group, weights=variances, minlength=rows.groups).sqrt()
    # Soft: a group at the border of the noise gets little, so no share jumps when the noise moves a bit.
    excess = total.sign() * (total.abs() - of_sum).clamp(min=0.0)
    single = torch.bincount(group, weights=rows.count.double(), minlength=rows.groups) == folds  # a row is an example

    def supports(s: Tensor, total: Tensor, sigma: Tensor, noise: Tensor) -> tuple[Tensor]:
        # A share counts if the whole example, s / mass, lies beyond the noise.
        exact = _by_group(torch.where(s > mass * noise, s, 0.0), rows)
        return (torch.where(single, exact, n * _normal_excess(total / n, sigma, noise)),)

    (support,) = _by_slices(supports, values, total, sigma, noise[:, None])
    return Valuation(total, excess, support, n * pooled[:, None], noise)


def _by_slices(function: Callable[..., tuple[Tensor, ...]], values: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Return the results of a function that treats each output by itself, called with some outputs at a time.

    In float64, because spreads are small differences of large sums. All rows of all outputs at once would take a
    multiple of their own memory; slices change no bit.

    Args:
        function: takes influence (q, K) and others (q, ...) of some outputs, and returns tensors (q, groups).
        values: influence of all outputs, (Q, K).
        others: further numbers of all outputs, (Q, ...).
    """
    size = outputs_in_slice(values.shape[1])
    slices = [slice(low, low + size) for low in range(0, max(1, len(values)), size)]
    results = [function(values[part].double(), *(other[part] for other in others)) for part in slices]
    return tuple(torch.cat(parts) for parts in zip(*results, strict=True))


def outputs_in_slice(rows: int) -> int:
    """Return the outputs that `summarise` reduces at a time."""
    return max(1, SLICE_NUMBERS // max(1, rows))


def _by_group(values: Tensor, rows: GroupRows) -> Tensor:
    """Sum values (Q, K) over the rows of each group: (Q, groups)."""
    return values.new_zeros(values.shape[0], rows.groups).index_add_(1, rows.group, values)


def _normal_excess(mean: Tensor, sigma: Tensor, threshold: Tensor) -> Tensor:
    """Return E[x · 1(x > threshold)] of a normal variable: μ Φ(a) + σ φ(a) with a = (μ − threshold)/σ."""
    safe = torch.where(sigma > 0, sigma, 1.0)
    a = (mean - threshold) / safe
    density = torch.exp(-0.5 * a.square()) / math.sqrt(2 * math.pi)
    spread = mean * torch.special.ndtr(a) + sigma * density
    # With a threshold ≥ 0 the expectation is never negative, but rounding can make it so far below the threshold.
    return torch.where(sigma > 0, spread.clamp(min=0.0), torch.where(mean > threshold, mean, 0.0))
