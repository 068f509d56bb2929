"""Measures of what providers gave outputs: those of the index, and simple ones that attribution has to beat.

Every measure is an array (Q, P) for Q outputs and P providers. The simple ones need no curvature, or no model at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import bm25s
import numpy as np
import torch
from numpy.typing import NDArray

from credit.accounting.credits import Measure
from credit.fidelity.certificate import BM25, PLAIN, TOKEN_SHARE
from credit.fidelity.metrics import Floats
from credit.records import PPM, LoggedOutput, Share, TrainingRecord
from credit.valuation import AttributionIndex, LanguageModel
from credit.valuation.batches import make_batch, plan_batches
from credit.valuation.tokens import Window

FEATURES = ("excess", "support", "volume")
"""Terms of effect, which calibration weighs."""
PAYABLE: dict[str, Measure] = {PLAIN: "effect", "influence": "influence", "support": "support"}
"""Measures that a policy can pay by, by the name of the method."""

_NEAREST = 100
_BATCH_TOKENS = 4096


def features_of(
    index: AttributionIndex, model: LanguageModel, outputs: Sequence[LoggedOutput], providers: Sequence[str]
) -> dict[str, Floats]:
    """Return influence and the terms of effect of every provider on every output (Q, P), nats."""
    valuation = index.value(model, outputs)
    columns = [providers.index(group.provider) for group in index.groups]
    features = {}
    for name in ("influence", *FEATURES):
        values = getattr(valuation, name).numpy()
        total = np.zeros((len(outputs), len(providers)))
        for column, provider in enumerate(columns):
            total[:, provider] += values[:, column]
        features[name] = total
    return features


def all_measures(
    index: AttributionIndex,
    model: LanguageModel,
    records: Sequence[TrainingRecord],
    outputs: Sequence[LoggedOutput],
    features: Mapping[str, Floats],
    providers: Sequence[str],
) -> dict[str, Floats]:
    """Return all measures (Q, P) by name: those of the index, whose `features_of` are given, and the baselines."""
    return {
        PLAIN: features["excess"] + features["support"],
        "influence": features["influence"],
        "support": features["support"],
        TOKEN_SHARE: token_share(index, providers, len(outputs)),
        BM25: bm25(records, outputs, providers),
        "word overlap": word_overlap(records, outputs, providers),
        "gradient product": gradient_product(index, model, outputs, providers),
        "hidden-state similarity": hidden_similarity(
            model, records, outputs, providers, index.manifest.max_length, index.output_length(model)
        ),
    }


def only(measures: Mapping[str, Floats], columns: Sequence[int]) -> dict[str, Floats]:
    """Return measures (Q, P) of some providers only, by their columns."""
    return {name: values[:, columns] for name, values in measures.items()}


def token_share(index: AttributionIndex, providers: Sequence[str], outputs: int) -> Floats:
    """Return the predicted tokens of each provider, the same for every output: paying by volume."""
    counts = np.zeros(len(providers))
    for layout in index.manifest.groups:
        counts[providers.index(layout.group.provider)] += layout.tokens_ppm / PPM
    repeated: Floats = np.tile(counts, (outputs, 1))
    return repeated


def bm25(records: Sequence[TrainingRecord], outputs: Sequence[LoggedOutput], providers: Sequence[str]) -> Floats:
    """Return BM25 of each completion against the records, summed over a provider's records in the top 100.

    Providers who share a record have their shares of its score.
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


def word_overlap(
    records: Sequence[TrainingRecord], outputs: Sequence[LoggedOutput], providers: Sequence[str]
) -> Floats:
    """Return the rare words that completions share with records, beyond the noise, summed by provider as support is.

    The overlap of a record is the sum of log(N / n) over its different words in the completion, for N records, n of
    which have the word. Only what exceeds an output's mean over records by more than their spread counts. Providers
    who share a record have their shares of it.
    """
    held = [_words(_text(record)) for record in records]
    having: dict[str, list[int]] = {}
    for number, words in enumerate(held):
        for word in words:
            having.setdefault(word, []).append(number)
    owned = _owned_shares([record.shares for record in records], providers)
    result = np.zeros((len(outputs), len(providers)))
    for row, output in enumerate(outputs):
        overlap = np.zeros(len(records))
        # In one order: sets have another in every process, and sums of doubles depend on it.
        for word in sorted(_words(output.completion) & having.keys()):
            overlap[having[word]] += np.log(len(records) / len(having[word]))
        result[row] = np.maximum(overlap - overlap.mean() - overlap.std(), 0.0) @ owned
    return result


def gradient_product(
    index: AttributionIndex, model: LanguageModel, outputs: Sequence[LoggedOutput], providers: Sequence[str]
) -> Floats:
    """Return inner products of projected gradients, without curvature, by provider (TracIn at one checkpoint)."""
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
    """Return the cosine of mean last hidden states, summed over a provider's shares of the 100 nearest examples."""
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
    """Return the share of each provider in each of N records: (N, P)."""
    owned = np.zeros((len(shares), len(providers)))
    for row, parts in enumerate(shares):
        for share in parts:
            owned[row, providers.index(share.group.provider)] += share.ppm / PPM
    return owned


def _states(model: LanguageModel, examples: Sequence[Window]) -> NDArray[np.float64]:
    """Return the unit mean of the last hidden states over the predicted positions of each example: (N, width)."""
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


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def _text(record: TrainingRecord) -> str:
    return " ".join([record.prompt or "", record.completion, *(message.content for message in record.messages)])
