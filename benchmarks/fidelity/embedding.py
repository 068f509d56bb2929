"""Influence through the input embedding. An index does not watch it; the laboratory measures the loss.

An example's gradient is, for every token that it reads, the gradient that arrives at that token's place. Tokens share
512 buckets, the width is turned into 32 random directions, and the curvature is the diagonal of the Fisher, damped by
its mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from credit.records import LoggedOutput, TrainingRecord
from credit.valuation import GroupRows, LanguageModel
from credit.valuation.batches import make_batch, plan_batches
from credit.valuation.language_model import sequence_losses
from credit.valuation.tokens import Encoder, Window

BUCKETS, DIRECTIONS, ROWS = 512, 32, 32
_BATCH_TOKENS = 2048


def embedding_influence(
    model: LanguageModel, records: Sequence[TrainingRecord], outputs: Sequence[LoggedOutput]
) -> tuple[Tensor, GroupRows, list[str]]:
    """Return influences of folded rows (Q, R) on outputs, the rows' layout, and the provider of each group."""
    encoder = Encoder(model.tokenizer, model.max_length)
    providers = sorted({record.group.provider for record in records})
    examples, owners = [], []
    for record in records:
        for window in encoder.training(record):
            examples.append(window)
            owners.append(providers.index(record.group.provider))
    gradients = _gradients(model, examples)
    squares = gradients.square().mean(0)
    queries = _gradients(model, [encoder.output(output)[0] for output in outputs]) / (squares + squares.mean())
    rows, groups, counts = [], [], []
    owner = torch.tensor(owners)
    for group in range(len(providers)):
        own = torch.nonzero(owner == group)[:, 0]
        parts = min(ROWS, len(own))
        rows += [gradients[own[i::parts]].sum(0) for i in range(parts)]
        counts += [len(own[i::parts]) for i in range(parts)]
        groups += [group] * parts
    values = (queries @ torch.stack(rows).T / len(examples)).double()
    return values, GroupRows(torch.tensor(groups), torch.tensor(counts), len(providers)), providers


def _gradients(model: LanguageModel, examples: Sequence[Window]) -> Tensor:
    """Projected gradients of every example's loss with respect to the embedding's rows: (N, BUCKETS * DIRECTIONS)."""
    embedding = model.module.get_input_embeddings()
    width = embedding.weight.shape[1]
    generator = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(width, min(DIRECTIONS, width), generator=generator)).Q
    bucket = torch.randint(BUCKETS, (embedding.weight.shape[0],), generator=generator)
    result = torch.zeros(len(examples), BUCKETS, directions.shape[1])
    for positions in plan_batches([len(example.tokens) for example in examples], _BATCH_TOKENS):
        batch = make_batch([examples[p] for p in positions])
        read = embedding(batch.input_ids).detach().requires_grad_()
        logits = model.module(inputs_embeds=read, use_cache=False).logits
        (arrived,) = torch.autograd.grad(sequence_losses(logits, batch.labels).sum(), read)
        for row, position in enumerate(positions):
            result[position].index_add_(0, bucket[batch.input_ids[row]], arrived[row] @ directions)
    return result.flatten(1)
