"""A look at an index without retraining: one small optimiser step away from each provider's data.

The step is the first one of Adam, upwards on the mean loss of all the provider's tokens: every weight moves by the same
small amount, against what the data asks of it. What outputs lose by it is compared with the index, as what they lose by
retraining is. It tells whether gradients, projection, folding and damping describe this model; it cannot tell what
training without the data would have given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from credit.accounting.credits import Policy
from credit.errors import InputError
from credit.fidelity.certificate import Certificate
from credit.fidelity.metrics import Floats
from credit.fidelity.retrain import log_likelihoods, recipe_fingerprint
from credit.fidelity.validate import (
    PAYABLE,
    Progress,
    all_measures,
    check_data,
    control_shares,
    features_of,
    only,
    score_falls,
)
from credit.records import LoggedOutput, TrainingRecord
from credit.valuation import AttributionIndex, LanguageModel
from credit.valuation.batches import make_batch, plan_batches
from credit.valuation.tokens import Window

STEP = 1e-4
"""How far every weight moves. Ten times as far gave the same where it was tried."""

_BATCH_TOKENS = 4096


def validate_quickly(
    index: AttributionIndex,
    model: LanguageModel,
    records: Sequence[TrainingRecord],
    outputs: Sequence[LoggedOutput],
    *,
    controls: Sequence[str] = (),
    progress: Progress | None = None,
) -> Certificate:
    """Compare an index with one small step away from each provider's data; arguments as of `validate`.

    Raises:
        InputError: there are no outputs, or the data is not that of the index.
    """
    everybody = check_data(index, records, outputs, controls)
    providers = [name for name in everybody if name not in controls]
    lengths = (index.manifest.max_length, index.output_length(model))
    falls = step_falls(model, records, outputs, providers, *lengths, progress)
    features = features_of(index, model, outputs, everybody)
    trained = [everybody.index(name) for name in providers]
    measures = only(all_measures(index, model, records, outputs, features, everybody), trained)
    policies = {name: Policy(measure=measure).fingerprint for name, measure in PAYABLE.items()}
    return Certificate(
        kind="quick",
        index=index.manifest.fingerprint,
        data=index.manifest.data_sha256,
        recipe=recipe_fingerprint({"quick": "adam", "step": STEP}),
        outputs=len(outputs),
        providers=tuple(providers),
        retrainings=0,
        ceiling=None,
        methods=tuple(score_falls(name, measure, falls, policies.get(name, "")) for name, measure in measures.items()),
        calibration=None,
        controls=control_shares(features["excess"] + features["support"], everybody, controls),
    )


def step_falls(
    model: LanguageModel,
    records: Sequence[TrainingRecord],
    outputs: Sequence[LoggedOutput],
    providers: Sequence[str],
    max_length: int,
    output_length: int,
    progress: Progress | None = None,
) -> Floats:
    """What each output loses (Q, P), in nats, by one step away from each provider's data; the model is put back."""
    encoder = model.encoder(max_length)
    before = log_likelihoods(model, outputs, output_length)
    columns = []
    for number, name in enumerate(providers, start=1):
        examples: dict[int, list[Window]] = {}
        for record in records:
            if own := sum(share.ppm for share in record.shares if share.group.provider == name):
                examples.setdefault(own, []).extend(encoder.training(record))
        if not any(examples.values()):
            raise InputError(f"the data of {name} has no token to predict")
        with _stepped_away(model, examples):
            columns.append(before - log_likelihoods(model, outputs, output_length))
        if progress:
            progress(number, len(providers))
    return np.stack(columns, axis=1)


@contextmanager
def _stepped_away(model: LanguageModel, examples: Mapping[int, Sequence[Window]]) -> Iterator[None]:
    """Move the model one step away from examples, and put it back.

    They come by the provider's share of them, in parts per million, by which their loss counts.
    """
    parameters = list(model.module.parameters())
    kept = [(parameter, parameter.detach().clone(), parameter.requires_grad) for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
            parameter.grad = None
        tokens = sum(ppm * example.predicted for ppm, own in examples.items() for example in own)
        for ppm, own in examples.items():
            for positions in plan_batches([len(example.tokens) for example in own], _BATCH_TOKENS):
                batch = make_batch([own[p] for p in positions]).to(model.device)
                (model.loss(batch) * ppm / tokens).backward()  # type: ignore[no-untyped-call]  # torch: untyped
        torch.optim.Adam(parameters, lr=STEP, maximize=True).step()
        yield
    finally:
        with torch.no_grad():
            for parameter, value, required in kept:
                parameter.copy_(value)
                parameter.grad = None
                parameter.requires_grad_(required)
