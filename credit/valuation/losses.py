"""Loss of a language model: cross-entropy of the predicted tokens, with little memory beside the logits.

Legend: N windows, T positions, P = N·T positions of a batch, V tokens of the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from credit.valuation.batches import IGNORED
from credit.valuation.gradients import loss_scale
from credit.valuation.task import upload

CHUNK_LOGITS = {"cpu": 2**22, "cuda": 2**26}
"""Logits in one operation; on a GPU enough to keep it busy."""


def sequence_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of cross-entropies of each window: logits (N, T, V), labels (N, T) -> (N,), in float32 or better.

    Never a mean: with a mean, a window's gradient depends on the others of its batch. The gradient cannot be
    differentiated again.
    """
    predicted = F.pad(labels[:, 1:], (0, 1), value=IGNORED)  # each position predicts the next token
    losses: Tensor = _CrossEntropy.apply(logits.flatten(0, 1), predicted.flatten())  # type: ignore[no-untyped-call]  # torch leaves Function.apply untyped
    return losses.view(labels.shape).sum(1)


class _CrossEntropy(torch.autograd.Function):
    """Cross-entropy of each position: logits (P, V), tokens (P,) with -100 for no prediction -> (P,).

    The same pass makes the gradient, chunk by chunk, in the logits' own dtype, and keeps nothing else beside the
    logits. Autograd would keep the logarithms, and form two more matrices of that size on the way back. Chunks without
    a predicted token are skipped: those of a long prompt, for example.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        ctx.scale = loss_scale(logits.dtype)
        losses = torch.zeros(len(tokens), dtype=dtype, device=logits.device)
        gradient = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        predicts = (tokens != IGNORED).cpu().numpy()
        own_tokens = tokens.clamp(min=0)[:, None]
        for used in _chunks(predicts, logits):
            kept = None if gradient is None else gradient[used]
            in_place = kept is not None and kept.dtype == dtype
            log_p = torch.log_softmax(logits[used], 1, dtype=dtype, out=kept if in_place else None)
            own = log_p.gather(1, own_tokens[used])
            losses[used] = -own.squeeze(1)
            if kept is not None:
                if ctx.scale != 1:  # before it is rounded: float16 would lose the least probable tokens
                    log_p += math.log(ctx.scale)
                torch.exp(log_p, out=kept)
                # p - 1 of the token itself: subtracted in full precision, then rounded to the logits' dtype.
                kept.scatter_(1, own_tokens[used], own.expm1_().mul_(ctx.scale).to(kept.dtype))
        ignored = upload(torch.from_numpy(np.flatnonzero(~predicts)), logits.device)
        # A chunk reaches from its first predicting position to its last; between them some predict nothing.
        losses.index_fill_(0, ignored, 0)
        if gradient is not None:
            ctx.save_for_backward(gradient.index_fill_(0, ignored, 0))
        return losses

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (gradient,), (scale,) = ctx.saved_tensors, upstream
        if (scale == ctx.scale).all():  # the sum of all losses, as a tap scales it
            return gradient, None
        return gradient * (scale / ctx.scale).to(gradient.dtype)[:, None], None


def _chunks(predicts: NDArray[np.bool_], logits: Tensor) -> Iterator[slice]:
    """Yield the predicting positions of each chunk of logits (P, V), from the first to the last of the chunk."""
    size = max(1, CHUNK_LOGITS.get(logits.device.type, CHUNK_LOGITS["cpu"]) // logits.shape[1])
    places = np.flatnonzero(predicts)
    for low in range(0, len(predicts), size):
        own = places[slice(*np.searchsorted(places, [low, low + size]))]
        if len(own):
            yield slice(int(own[0]), int(own[-1]) + 1)
