"""The loss of a language model: cross-entropy of the predicted tokens, with little memory beside the logits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from credit.valuation.batching import IGNORED

_CHUNK = {"cpu": 2**22, "cuda": 2**26}
"""Logits that are worked on at a time, which on a GPU must be many enough to keep it busy."""


def sequence_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of cross-entropies of each example: logits (N, T, V), labels (N, T) -> (N,), in float32 or better.

    Never a mean: a mean would make an example's gradient depend on the others of its batch. The gradient cannot be
    differentiated again.
    """
    predicted = F.pad(labels[:, 1:], (0, 1), value=IGNORED)  # what each position predicts: the next token
    losses: Tensor = _CrossEntropy.apply(logits.flatten(0, 1), predicted.flatten())  # type: ignore[no-untyped-call]  # torch leaves Function.apply untyped
    return losses.view(labels.shape).sum(1)


class _CrossEntropy(torch.autograd.Function):
    """Cross-entropy of each position: logits (P, V), tokens (P,), of which -100 are not predicted -> (P,).

    The gradient is made in the same pass, chunk by chunk, in the logits' own dtype: beside the logits it is all that is
    kept. Autograd would keep the logarithms, and form two further matrices of the size of all logits on the way back.
    Chunks without a predicted token, of a long prompt for one, are passed over.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        losses = torch.zeros(len(tokens), dtype=dtype, device=logits.device)
        gradient = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        for chunk, used in _chunks(tokens, logits.shape[1]):
            if gradient is not None:
                gradient[chunk.start : used.start] = 0
                gradient[used.stop : chunk.stop] = 0
            if used.start == used.stop:
                continue
            in_place = gradient is not None and gradient.dtype == dtype
            log_p = torch.log_softmax(
                logits[used], 1, dtype=dtype, out=gradient[used] if gradient is not None and in_place else None
            )
            own, ignored = tokens[used].clamp(min=0)[:, None], tokens[used] == IGNORED
            losses[used] = -log_p.gather(1, own).squeeze(1).masked_fill(ignored, 0)
            if gradient is not None:
                p = log_p.exp_()
                p.scatter_add_(1, own, p.new_full((), -1.0).expand(own.shape))
                p[ignored] = 0
                if not in_place:
                    gradient[used] = p
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (gradient,), (scale,) = ctx.saved_tensors, upstream
        if (scale == 1).all():  # the sum of all losses
            return gradient, None
        return gradient * scale.to(gradient.dtype)[:, None], None


def _chunks(tokens: Tensor, vocabulary: int) -> Iterator[tuple[slice, slice]]:
    """Yield chunks of the positions (P,), and in each the part from the first to the last token that is predicted."""
    size = max(1, _CHUNK.get(tokens.device.type, _CHUNK["cpu"]) // vocabulary)
    places = (tokens != IGNORED).nonzero().squeeze(1).cpu().numpy()
    for low in range(0, len(tokens), size):
        high = min(low + size, len(tokens))
        own = places[slice(*np.searchsorted(places, [low, high]))]
        yield slice(low, high), slice(int(own[0]), int(own[-1]) + 1) if len(own) else slice(low, low)
