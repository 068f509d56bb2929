"""Batches by token budget: sequences of like length together, so that little is spent on padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from credit.valuation.tokens import Example

IGNORED = -100
"""Label of a token that is not predicted."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples padded on the right to one length. `input_ids`, `attention_mask`, `labels`: (N, T)."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor

    @property
    def size(self) -> int:
        """Number of examples N."""
        return self.input_ids.shape[0]

    def to(self, device: torch.device) -> Batch:
        """Return the batch on another device."""
        return Batch(self.input_ids.to(device), self.attention_mask.to(device), self.labels.to(device))


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


def make_batch(examples: Sequence[Example]) -> Batch:
    """Pad examples on the right. Padding is neither attended to nor predicted; its token id does not matter."""
    width = max(len(example.tokens) for example in examples)
    input_ids = np.zeros((len(examples), width), dtype=np.int64)
    attention = np.zeros((len(examples), width), dtype=np.int64)
    labels = np.full((len(examples), width), IGNORED, dtype=np.int64)
    for row, example in enumerate(examples):
        length = len(example.tokens)
        input_ids[row, :length] = example.tokens
        attention[row, :length] = 1
        labels[row, example.start : length] = example.tokens[example.start :]
    return Batch(torch.from_numpy(input_ids), torch.from_numpy(attention), torch.from_numpy(labels))
