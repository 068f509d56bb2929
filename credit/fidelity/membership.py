"""Membership: signs that a model was, or was not, trained on a provider's text.

Influence tells the effect of data like this, even if the model never saw it. The training run itself tells more: a
model learns the text it is trained on faster than other text of the kind. So providers are compared by the fall of the
loss per token between two checkpoints. This is membership inference (Yeom et al. 2018, arXiv:1709.01604) for a whole
contribution at a time; the earlier checkpoint replaces a guess at the difficulty of the text.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from credit.errors import InputError, InvalidRequestError
from credit.fidelity.metrics import Estimate, Floats
from credit.fidelity.retraining import Progress
from credit.records import TrainingRecord
from credit.valuation.batches import make_batch, plan_batches
from credit.valuation.language_model import LanguageModel
from credit.valuation.tokens import Encoder, Window

DOUBTED_BELOW = 0.7
"""Fraction of the others' learning. A provider whose whole interval lies below it is doubted.

It lies between the highest value of text outside the training data and the lowest of text inside, where there is enough
of either (reports/fidelity/membership.md).
"""
TOKENS = 50_000
"""Most tokens that are read of each provider."""

_BATCH_TOKENS = 4096
_RESAMPLES = 1000
_LEAST_LEARNED = 0.01
"""Nats per token. A smaller fall of the median provider's loss tells nothing."""


@dataclass(frozen=True, slots=True)
class Learned:
    """Learning of a provider's text between two checkpoints.

    Attributes:
        provider: key of the provider.
        tokens: predicted tokens read.
        before: loss at the earlier checkpoint, nats per token.
        after: loss of the model, nats per token.
        relative: `before - after` over its median among the other providers; 90 % interval over windows of text.
    """

    provider: str
    tokens: int
    before: float
    after: float
    relative: Estimate

    @property
    def learned(self) -> float:
        """Fall of the loss, nats per token."""
        return self.before - self.after

    @property
    def doubted(self) -> bool:
        """True if the model learned very little of it in all windows: perhaps it was never trained on it."""
        return self.relative.high < DOUBTED_BELOW


class WindowSample:
    """Sample of windows of each provider's text, drawn by a hash of their ids, up to a number of predicted tokens.

    A window of a shared record is in the sample of each of its providers.
    """

    def __init__(self, encoder: Encoder, tokens: int = TOKENS) -> None:
        if tokens < 1:
            raise InvalidRequestError(f"{tokens} tokens of each provider are too few; read at least 1: --tokens")
        self._encoder, self._room = encoder, tokens
        self._heaps: dict[str, list[tuple[int, str, Window]]] = {}
        self._held: dict[str, int] = {}

    def add(self, record: TrainingRecord) -> None:
        """Add the windows of a record."""
        for window in self._encoder.training(record):
            draw = int.from_bytes(hashlib.sha256(window.id.encode()).digest()[:8], "big")
            for provider in {share.group.provider for share in record.shares}:
                self._push(provider, draw, window)

    def _push(self, provider: str, draw: int, window: Window) -> None:
        heap = self._heaps.setdefault(provider, [])
        heapq.heappush(heap, (-draw, window.id, window))  # the largest draw leaves first
        self._held[provider] = self._held.get(provider, 0) + window.predicted
        # Keep just enough windows with the smallest draws: the order of the data does not matter.
        while self._held[provider] - heap[0][-1].predicted >= self._room:
            self._held[provider] -= heapq.heappop(heap)[-1].predicted

    def windows(self) -> dict[str, list[Window]]:
        """Return the drawn windows by provider, smallest draws first."""
        return {name: [w for *_, w in sorted(heap, reverse=True)] for name, heap in sorted(self._heaps.items())}


def what_was_learned(
    load: Sequence[Callable[[], LanguageModel]],
    records: Iterable[TrainingRecord],
    *,
    max_length: int | None = None,
    tokens: int = TOKENS,
    progress: Progress | None = None,
) -> tuple[Learned, ...]:
    """Compare the learning of every provider's text since an earlier checkpoint.

    Args:
        load: two functions that load the earlier checkpoint and the model; memory holds one at a time.
        records: the alleged training data of the model.
        max_length: tokens read in one pass; None: the model's, at most 2048.
        tokens: most tokens to read of each provider.
        progress: called with windows read and in all, of both checkpoints.

    Returns:
        A line for each provider, by name.

    Raises:
        InputError: fewer than three providers have text, the checkpoints do not share a vocabulary, or the model
            learned nothing between them.
    """
    model = load[0]()
    vocabulary = model.tokenizer.get_vocab()
    sample = WindowSample(model.encoder(max_length or model.max_length), tokens)
    for record in records:
        sample.add(record)
    windows = sample.windows()
    if len(windows) < 3:
        raise InputError(f"providers are compared with each other: {len(windows)} are too few, at least 3 are needed")
    losses = []
    total = 2 * sum(len(part) for part in windows.values())
    for number, each in enumerate(load):
        if number:
            del model  # one at a time is in memory
            model = each()
        if model.tokenizer.get_vocab() != vocabulary:
            raise InputError(f"{model.path} has another vocabulary: both must be checkpoints of one model")
        losses.append(_losses(model, windows, total, number * total // 2, progress))
    return _compare(windows, *losses)


def _losses(
    model: LanguageModel, windows: Mapping[str, Sequence[Window]], total: int, done: int, progress: Progress | None
) -> dict[str, Floats]:
    """Return the loss of every window, nats, by provider."""
    model.module.eval()
    result = {}
    for name, part in windows.items():
        values = np.zeros(len(part))
        for positions in plan_batches([window.size for window in part], _BATCH_TOKENS):
            batch = make_batch([part[p] for p in positions]).to(model.device)
            with torch.no_grad():
                values[positions] = model.losses(batch).double().cpu().numpy()
            done += len(positions)
            if progress:
                progress(done, total)
        if not np.isfinite(values).all():
            raise InputError(f"the loss of {model.path} on text of {name} is not finite")
        result[name] = values
    return result


def _compare(
    windows: Mapping[str, Sequence[Window]], before: Mapping[str, Floats], after: Mapping[str, Floats]
) -> tuple[Learned, ...]:
    rng = np.random.default_rng(0)
    predicted, learned, drawn = {}, {}, {}
    for name, part in windows.items():
        counts = np.array([window.predicted for window in part])
        falls = before[name] - after[name]
        chosen = rng.integers(0, len(part), (_RESAMPLES, len(part)))
        predicted[name] = int(counts.sum())
        learned[name] = float(falls.sum() / counts.sum())
        drawn[name] = falls[chosen].sum(1) / counts[chosen].sum(1)
    if np.median(list(learned.values())) < _LEAST_LEARNED:
        raise InputError(
            f"the model learned too little since the earlier checkpoint to tell anything"
            f" ({np.median(list(learned.values())):.3f} nats a token of the median provider's text);"
            " name an earlier one, or the model that it was tuned from"
        )
    found = []
    for name in windows:
        others = [other for other in windows if other != name]
        relative = learned[name] / float(np.median([learned[other] for other in others]))
        resampled = drawn[name] / np.median([drawn[other] for other in others], axis=0)
        low, high = np.quantile(resampled, [0.05, 0.95])
        found.append(
            Learned(
                name,
                predicted[name],
                float(before[name].sum()) / predicted[name],
                float(after[name].sum()) / predicted[name],
                Estimate(relative, float(low), float(high)),
            )
        )
    return tuple(found)
