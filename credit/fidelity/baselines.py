"""What attribution has to beat: simple measures (Q outputs, P providers) that need no curvature, or no model at all."""

from __future__ import annotations

from collections.abc import Sequence

import bm25s
import numpy as np
import torch
from numpy.typing import NDArray

from credit.fidelity.metrics import Floats
from credit.records import PPM, LoggedOutput, Share, TrainingRecord
from credit.valuation import AttributionIndex, LanguageModel
from credit.valuation.batches import make_batch, plan_batches
from credit.valuation.tokens import Window

_NEAREST = 100
_BATCH_TOKENS = 4096


def token_share(index: AttributionIndex, providers: Sequence[str], outputs: int) -> Floats:
    """Predicted tokens of each provider, the same for every output: what paying by volume would do."""
    counts = np.zeros(len(providers))
    for layout in index.manifest.groups:
        counts[providers.index(layout.group.provider)] += layout.tokens_ppm / PPM
    repeated: Floats = np.tile(counts, (outputs, 1))
    return repeated


def bm25(records: Sequence[TrainingRecord], outputs: Sequence[LoggedOutput], providers: Sequence[str]) -> Floats:
    """BM25 of each output's completion against every record: the sum over a provider's records in the top 100.

    Of a record that providers share, each has its share of the score.
    """
    texts = [_text(record) for record in records]
    retriever = bm25s.BM25()
    retriever.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)
    queries = bm25s.tokenize([output.completion for output in outputs], show_progress=False, return_ids=False)
    owned = _owned_shares([record.shares for record in records], providers)
    result = np.zeros((len(outputs), len(providers)))
    for row, words in enumerate(queries):
        if not words:
            continue
        scores = np.asarray(retriever.get_scores(words), dtype=np.float64)
        best = np.argsort(-scores, kind="stable")[:_NEAREST]
        result[row] = scores[best] @ owned[best]
    return result


def gradient_product(
    index: AttributionIndex, model: LanguageModel, outputs: Sequence[LoggedOutput], providers: Sequence[str]
) -> Floats:
    """Plain inner product of projected gradients, without curvature, summed per provider (TracIn at one checkpoint)."""
    queries = index.output_gradients(model, outputs)
    parts = []
    for shard in index.shards(model.device):
        products = [queries[name] @ rows.to(queries[name].dtype).mT for name, rows in shard]
        parts.append(torch.stack(products).sum(0))
    values = torch.cat(parts, dim=1).double().cpu().numpy()
    result = np.zeros((len(outputs), len(providers)))
    for layout in index.manifest.groups:
        result[:, providers.index(layout.group.provider)] += values[:, layout.start : layout.stop].sum(1)
    return result


def hidden_similarity(
    model: LanguageModel,
    records: Sequence[TrainingRecord],
    outputs: Sequence[LoggedOutput],
    providers: Sequence[str],
    max_length: int,
    output_length: int,
) -> Floats:
    """Cosine of mean last hidden states: the sum over a provider's examples among the 100 nearest, by its shares."""
    encoder = model.encoder(max_length)
    examples: list[Window] = []
    shares: list[tuple[Share, ...]] = []
    for record in records:
        for example in encoder.training(record):
            examples.append(example)
            shares.append(record.shares)
    reader = model.encoder(output_length)
    queries = [reader.output(output)[0] for output in outputs]
    similarity = _states(model, queries) @ _states(model, examples).T
    owned = _owned_shares(shares, providers)
    result = np.zeros((len(outputs), len(providers)))
    for row, line in enumerate(similarity):
        best = np.argsort(-line, kind="stable")[:_NEAREST]
        result[row] = line[best] @ owned[best]
    return result


def _owned_shares(shares: Sequence[tuple[Share, ...]], providers: Sequence[str]) -> Floats:
    """Return what share of each of N records each provider has: (N, P)."""
    owned = np.zeros((len(shares), len(providers)))
    for row, parts in enumerate(shares):
        for share in parts:
            owned[row, providers.index(share.group.provider)] += share.ppm / PPM
    return owned


def _states(model: LanguageModel, examples: Sequence[Window]) -> NDArray[np.float64]:
    """Unit mean of the last hidden states over the predicted positions of each example: (N, width)."""
    rows: list[NDArray[np.float64]] = [np.empty(0)] * len(examples)
    for positions in plan_batches([len(example.tokens) for example in examples], _BATCH_TOKENS):
        batch = make_batch([examples[p] for p in positions]).to(model.device)
        with torch.no_grad():
            states = model.module(
                input_ids=batch.input_ids,
                use_cache=False,
                output_hidden_states=True,
            ).hidden_states[-1]
        weight = (batch.labels >= 0).to(states.dtype)[..., None]
        mean = (states * weight).sum(1) / weight.sum(1)
        for position, row in zip(positions, torch.nn.functional.normalize(mean.double(), dim=1).cpu(), strict=True):
            rows[position] = row.numpy()
    return np.stack(rows)


def _text(record: TrainingRecord) -> str:
    return " ".join([record.prompt or "", record.completion, *(message.content for message in record.messages)])
