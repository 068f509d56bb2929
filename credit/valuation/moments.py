"""Second moments of a model's layers over a sample of its training data: what projections are fitted to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from credit.valuation.batching import make_batch, plan_batches
from credit.valuation.gradients import ModelTap, Sink
from credit.valuation.model import LanguageModel
from credit.valuation.projection import LayerMoments
from credit.valuation.rows import fold_key
from credit.valuation.tokens import Example


def choose_sample(examples: Sequence[Example], size: int) -> list[Example]:
    """Choose examples by the hash of their ids: the same for any order of the data."""
    ranked = sorted(examples, key=lambda example: (fold_key(f"sample/{example.id}"), example.id))
    return ranked[:size]


def second_moments(
    model: LanguageModel,
    layers: Mapping[str, nn.Module],
    sample: Sequence[Example],
    *,
    tokens_per_batch: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, LayerMoments]:
    """One forward and activation-only backward pass over the sample: A and B of every layer, padding left out."""
    sums = _MomentSums()
    total = sum(len(example.tokens) for example in sample)
    done = 0
    with ModelTap(model.module, layers, sums.observe) as tap:
        for positions in plan_batches([len(example.tokens) for example in sample], tokens_per_batch):
            batch = make_batch([sample[position] for position in positions]).to(model.device)
            sums.real = batch.real
            tap.run(partial(model.loss, batch), batch.size)
            done += int(batch.real.sum())
            if progress:
                progress(done, total)
    return {name: LayerMoments(a / total, sums.b[name] / total, total / len(sample)) for name, a in sums.a.items()}


class _MomentSums:
    """Sums of x xᵀ and δ δᵀ over real tokens, in float32 or better."""

    def __init__(self) -> None:
        self.a: dict[str, Tensor] = {}
        self.b: dict[str, Tensor] = {}
        self.real = torch.empty(0, dtype=torch.bool)

    def observe(self, name: str, x: Tensor) -> Sink:
        _add(self.a, name, x[self.real])
        # Padding has no gradient, so that its δ δᵀ adds nothing.
        return lambda dy: _add(self.b, name, dy.flatten(0, 1))


def _add(sums: dict[str, Tensor], name: str, rows: Tensor) -> None:
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    product = rows.mT @ rows
    if name in sums:
        sums[name] += product
    else:
        sums[name] = product
