"""Batches by token budget: sequences of like length together, so that little is spent on padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from credit.valuation.tokens import Window
from credit.valuation.transfer import upload

IGNORED = -100
"""Label of a token that is not predicted."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples padded on the right to one length.

    No attention mask goes to the model: in a causal model nothing real attends to what comes after it, and a mask
    would leave padding that has nothing to attend to (beyond a sliding window, say), which some kernels answer
    with NaN.

    Attributes:
        input_ids: (N, T) token ids.
        real: (N, T) whether a position is a token rather than padding.
        labels: (N, T) token ids where they are predicted, else -100.
    """

    input_ids: Tensor
    real: Tensor
    labels: Tensor

    @property
    def size(self) -> int:
        """Number of examples N."""
        return self.input_ids.shape[0]

    def to(self, device: torch.device) -> Batch:
        """Return the batch on another device."""
        return Batch(upload(self.input_ids, device), upload(self.real, device), upload(self.labels, device))


def plan_batches(lengths: Sequence[int], tokens_per_batch: int) -> list[list[int]]:
    """Group positions into batches of at most `tokens_per_batch` tokens, padding included.

    Sorted by length, ties by position, so that the plan is a function of its inputs. A sequence longer than the
    budget makes a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    batches: list[list[int]] = []
    current: list[int] = []
    for position in order:
        if current and lengths[position] * (len(current) + 1) > tokens_per_batch:
            batches.append(current)
            current = []
        current.append(position)
    if current:
        batches.append(current)
    return batches


def make_batch(examples: Sequence[Window]) -> Batch:
    """Pad examples on the right. Nothing real attends to padding, and it is not predicted: its id does not matter."""
    width = max(len(example.tokens) for example in examples)
    input_ids = np.zeros((len(examples), width), dtype=np.int64)
    real = np.zeros((len(examples), width), dtype=np.bool_)
    labels = np.full((len(examples), width), IGNORED, dtype=np.int64)
    for row, example in enumerate(examples):
        length = len(example.tokens)
        input_ids[row, :length] = example.tokens
        real[row, :length] = True
        labels[row, example.start : length] = example.tokens[example.start :]
    return Batch(torch.from_numpy(input_ids), torch.from_numpy(real), torch.from_numpy(labels))
