"""The slow, obvious way: autograd one example at a time, explicit projection, dense inverse, plain loops."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from credit.valuation.language_model import LanguageModel
from credit.valuation.projection import Hashing, LayerProjection, Side
from credit.valuation.tokens import Window


def weight_gradients(model: LanguageModel, example: Window, names: Sequence[str]) -> dict[str, Tensor]:
    """Autograd's gradient (O, I) of one unpadded example's summed loss with respect to each layer's weight."""
    modules = dict(model.module.named_modules())
    flags = {p: p.requires_grad for p in model.module.parameters()}
    for parameter in flags:
        parameter.requires_grad_(True)
    ids = torch.from_numpy(example.tokens.astype(np.int64))[None]
    log_probs = model.module(input_ids=ids).logits[0].log_softmax(-1)
    loss = -sum(log_probs[t - 1, ids[0, t]] for t in range(example.start, ids.shape[1]))
    weights = [modules[name].weight for name in names]
    grads = torch.autograd.grad(loss, weights)
    for parameter, flag in flags.items():
        parameter.requires_grad_(flag)
    # Conv1D stores its weight as (I, O).
    return {n: g.mT if isinstance(modules[n], Conv1D) else g for n, g in zip(names, grads, strict=True)}


def untie(model: LanguageModel) -> LanguageModel:
    """Give a head that shares the embedding's weight one of its own: autograd's gradient is then the head's alone."""
    head = model.module.get_output_embeddings()
    if head.weight is model.module.get_input_embeddings().weight:
        head.weight = nn.Parameter(head.weight.detach().clone())
    return model


def projected(gradients: dict[str, Tensor], projections: dict[str, LayerProjection]) -> dict[str, Tensor]:
    """P_out G P_inᵀ of each layer, flattened."""
    result = {}
    for name, gradient in gradients.items():
        p = projections[name]
        left, right = dense(p.p_out, gradient.shape[0]), dense(p.p_in, gradient.shape[1])
        result[name] = (left @ gradient @ right.mT).flatten()
    return result


def dense(side: Side, width: int) -> Tensor:
    """One side of a projection as a matrix (R, width), float64."""
    if side is None:
        return torch.eye(width, dtype=torch.float64)
    if not isinstance(side, Hashing):
        return side.double()
    matrix = torch.zeros(side.width, width, dtype=torch.float64)
    for entry, (bucket, weight) in enumerate(zip(side.buckets, side.weights, strict=True)):
        matrix[bucket, entry] = weight
    return matrix


def influence_matrix(train: list[dict[str, Tensor]], queries: list[dict[str, Tensor]], damping: float) -> Tensor:
    """1/N Σ_l g_qᵀ (M_l + λ_l I)⁻¹ g_i by a dense inverse: (queries, examples)."""
    count = len(train)
    total = torch.zeros(len(queries), count, dtype=torch.float64)
    for name in train[0]:
        g = torch.stack([t[name] for t in train])
        q = torch.stack([t[name] for t in queries])
        fisher = sum(torch.outer(row, row) for row in g) / count
        dim = fisher.shape[0]
        inverse = torch.linalg.inv(fisher + damping * fisher.trace() / dim * torch.eye(dim, dtype=torch.float64))
        total += q @ inverse @ g.mT / count
    return total


def group_numbers(folds: list[tuple[float, int]], noise: float) -> tuple[float, float]:
    """(influence, support) of one group from its folds (sum, examples), written as in the definition."""
    n = sum(m for _, m in folds)
    influence = sum(s for s, _ in folds)
    if all(m == 1 for _, m in folds):
        return influence, sum(s for s, _ in folds if s > noise)
    mu = influence / n
    variance = sum((s - m * mu) ** 2 / m for s, m in folds) / (len(folds) - 1)
    sigma = math.sqrt(variance)
    a = (mu - noise) / sigma
    phi = math.exp(-a * a / 2) / math.sqrt(2 * math.pi)
    cdf = (1 + math.erf(a / math.sqrt(2))) / 2
    return influence, n * (mu * cdf + sigma * phi)


def pooled_sigma(groups: list[list[tuple[float, int]]]) -> float:
    """Spread of one example's influence, pooled over groups with their degrees of freedom."""
    squares = freedom = 0.0
    for folds in groups:
        n = sum(m for _, m in folds)
        mu = sum(s for s, _ in folds) / n
        squares += sum((s - m * mu) ** 2 / m for s, m in folds)
        freedom += len(folds) - 1
    return math.sqrt(squares / freedom)
