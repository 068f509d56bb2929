"""Validation: predictions of attribution against what happens without a provider's data, by retraining or by a step.

`validate` retrains and compares, beside the noise ceiling and the baselines. `validate_quickly` looks at an index
without retraining: it takes one small optimiser step away from each provider's data, the first one of Adam, upwards on
the mean loss of the provider's tokens. Every weight moves by the same small amount, against what the data asks of it.
The losses of the outputs tell whether gradients, projection, folding and damping describe this model. They cannot tell
what training without the data would have given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from credit.accounting.credits import CounterfactualKind, Policy
from credit.engines import Engine, Slice
from credit.errors import InputError
from credit.fidelity.certificate import (
    CALIBRATED,
    TO_BEAT,
    Calibration,
    Certificate,
    Control,
    MethodScore,
    certificate_path,
)
from credit.fidelity.measures import FEATURES, PAYABLE, all_measures, features_of, only, token_share
from credit.fidelity.metrics import (
    Estimate,
    Floats,
    attribution_error,
    correlation,
    estimate,
    estimate_of,
    fit_nonnegative,
    linear_datamodelling_score,
    noise_ceiling,
    share_error,
    shares,
    spearman,
    top_one,
)
from credit.fidelity.recipes import recipe_fingerprint
from credit.fidelity.retraining import Counterfactual, Laboratory, Progress, log_likelihoods, plan
from credit.records import LoggedOutput, TrainingRecord
from credit.storage import write_whole
from credit.valuation import AttributionIndex, LanguageModel
from credit.valuation.batches import make_batch, plan_batches
from credit.valuation.tokens import Window

STEP = 1e-4
"""Distance that every weight moves in a quick validation. Ten times as far gave the same where it was tried."""

_BATCH_TOKENS = 4096


def retrain_slice(
    index: AttributionIndex,
    records: Sequence[TrainingRecord],
    outputs: Sequence[LoggedOutput],
    laboratory: Laboratory,
    part: Slice,
    *,
    halves: int = 8,
    seeds: int = 1,
    controls: Sequence[str] = (),
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> int:
    """Make a slice of the retrainings of `validate`, and return their number. Slices run on machines of any number.

    Raises:
        InputError: there are no outputs, or the data differs from the index's.
        LockHeldError: another process is at work on this slice.
    """
    everybody = check_data(index, records, outputs, controls)
    runs = plan([name for name in everybody if name not in controls], halves=halves, seeds=seeds)
    return laboratory.make_slice(runs, part, engine=engine, progress=progress)


def validate(
    index: AttributionIndex,
    model: LanguageModel,
    records: Sequence[TrainingRecord],
    outputs: Sequence[LoggedOutput],
    laboratory: Laboratory,
    *,
    recipe: str,
    counterfactual: CounterfactualKind | Literal[""] = "",
    halves: int = 8,
    seeds: int = 1,
    controls: Sequence[str] = (),
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> Certificate:
    """Retrain without each provider and on random halves of them, and compare with the measures.

    Args:
        index: the index to validate.
        model: the model that it was built with.
        records: its training data.
        outputs: logged outputs of the model.
        laboratory: makes and keeps the retrainings.
        recipe: fingerprint of the recipe.
        counterfactual: of the recipe, see `Policy`; empty: nobody said, and it is taken for `removed`.
        halves: random halves of the providers, each trained twice.
        seeds: retrainings of the full data and without each provider.
        controls: providers in the index whose data the model was never trained on; no retraining sees it.
        engine: retrains; None for this process.
        progress: called after each retraining.

    Raises:
        InputError: there are no outputs, or the data differs from the index's.
    """
    everybody = check_data(index, records, outputs, controls)
    providers = [name for name in everybody if name not in controls]
    runs = plan(providers, halves=halves, seeds=seeds)
    evidence = Evidence(providers, laboratory.outcomes(runs, engine=engine, progress=progress))
    features = features_of(index, model, outputs, everybody)
    trained = [everybody.index(name) for name in providers]
    measures = only(all_measures(index, model, records, outputs, features, everybody), trained)
    calibration, calibrated = evidence.calibrate(only(features, trained))
    measures = {CALIBRATED: calibrated} | measures
    sizes = token_share(index, everybody, 1)[0, trained]
    about = Policy(counterfactual=counterfactual or "removed").of_one_output
    policies = {name: replace(about, measure=measure).fingerprint for name, measure in PAYABLE.items()}
    to_beat = {name: measures[name] for name in TO_BEAT}
    fitted = replace(about, alpha=calibration.alpha, beta=calibration.beta, gamma=calibration.gamma)
    policies[CALIBRATED] = fitted.fingerprint
    certificate = Certificate(
        kind="retraining",
        index=index.manifest.fingerprint,
        data=index.manifest.data_sha256,
        recipe=recipe,
        outputs=len(outputs),
        providers=tuple(providers),
        retrainings=len(runs),
        ceiling=evidence.ceiling(),
        methods=tuple(
            evidence.score(name, measure, sizes, policies.get(name, ""), to_beat) for name, measure in measures.items()
        ),
        calibration=calibration,
        counterfactual=counterfactual,
    )
    fit = calibration if certificate.calibration_helps else Calibration(1.0, 1.0, 0.0, 0, 0.0)
    paid = sum(w * features[name] for w, name in zip((fit.alpha, fit.beta, fit.gamma), FEATURES, strict=True))
    return replace(certificate, controls=control_shares(np.asarray(paid), everybody, controls))


def check_data(
    index: AttributionIndex,
    records: Sequence[TrainingRecord],
    outputs: Sequence[LoggedOutput],
    controls: Sequence[str],
) -> list[str]:
    """Return the providers of an index, sorted.

    Raises:
        InputError: there are no outputs, or data or controls are not those of the index.
    """
    if not outputs:
        raise InputError("there are no outputs to validate on; log some first: credit ingest-outputs")
    providers = sorted({group.provider for group in index.groups})
    tagged = {share.group.provider for record in records for share in record.shares}
    if tagged != set(providers):
        odd = min(tagged ^ set(providers))
        raise InputError(
            f"{odd} is a provider of the data or of {index.folder}, but not of both; give the data of the index"
        )
    strange = sorted(set(controls) - set(providers))
    if strange:
        raise InputError(f"{index.folder} has no provider {strange[0]} that could be a control")
    return providers


def control_shares(measure: Floats, providers: Sequence[str], controls: Sequence[str]) -> tuple[Control, ...]:
    """Return the share of all credits that each control gets by a measure (Q, P)."""
    of_each = shares(measure)
    return tuple(Control(name, float(of_each[providers.index(name)])) for name in sorted(controls))


def write_certificate(folder: Path, certificate: Certificate) -> Path:
    """Write a certificate into the folder of its index."""
    path = certificate_path(folder, certificate.kind)
    write_whole(path, certificate.to_json().encode())
    return path


def score_falls(method: str, measure: Floats, fall: Floats, policy: str = "") -> MethodScore:
    """Return the scores of a measure (Q, P) against the losses of outputs without each provider (Q, P), nats."""
    return MethodScore(
        method=method,
        lds=None,
        lds_given_size=None,
        pearson=estimate(correlation(measure, fall)),
        spearman=estimate(spearman(measure, fall)),
        top_one=estimate(top_one(measure, fall)),
        share_error=estimate_of(lambda chosen: share_error(measure[chosen], fall[chosen]), len(measure)),
        policy=policy,
        attribution_error=attribution_error(measure, fall),
    )


class Evidence:
    """Outcomes of retrainings as arrays, for S halves, Q outputs, P providers.

    Attributes:
        providers: names of the columns.
        member: (S, P), 1 where a provider's data is in a half.
        halves: log-likelihoods (S, Q) after the halves, nats, for each of two seeds; empty without halves.
        falls: losses of the outputs (Q, P) without each provider, nats, for each seed.
        fall: the same (Q, P), from means over the seeds.
    """

    def __init__(self, providers: Sequence[str], results: Mapping[Counterfactual, Floats]) -> None:
        self.providers = providers
        everybody = frozenset(providers)
        halves = sorted({run.providers for run in results if run.kind == "half"}, key=sorted)
        self.member = np.array([[float(name in half) for name in providers] for half in halves])
        self.halves = [
            np.array([results[Counterfactual("half", half, seed)] for half in halves]) for seed in range(2) if halves
        ]
        seeds = sorted({run.seed for run in results if run.kind == "full"})
        full = np.array([results[Counterfactual("full", everybody, seed)] for seed in seeds])
        left_out = [[Counterfactual("leave-out", everybody - {name}, seed) for name in providers] for seed in seeds]
        without = np.array([np.stack([results[run] for run in runs], axis=1) for runs in left_out])
        self.falls: list[Floats] = [of_all[:, None] - of_rest for of_all, of_rest in zip(full, without, strict=True)]
        self.fall: Floats = full.mean(0)[:, None] - without.mean(0)

    def ceiling(self) -> Estimate | None:
        """Return the best LDS that any prediction could reach, given the noise of retraining; None without halves."""
        return estimate(noise_ceiling(*self.halves)) if self.halves else None

    def lds(self, measure: Floats, size: Floats | None = None) -> Floats:
        """Return the LDS (Q,) of a measure (Q, P); with the sizes of the halves (S,), what they do not explain."""
        actual: Floats = np.mean(self.halves, axis=0)
        return linear_datamodelling_score(self.member, measure, actual, size)

    def score(
        self, method: str, measure: Floats, sizes: Floats, policy: str, to_beat: Mapping[str, Floats]
    ) -> MethodScore:
        """Score one measure (Q, P), alone and beside those to beat (Q, P). `sizes` (P,): tokens of the providers."""
        score = score_falls(method, measure, self.fall, policy)
        if not self.halves:
            return score
        lds = self.lds(measure)
        others = {name: self.lds(other) for name, other in to_beat.items()}
        return replace(
            score,
            lds=estimate(lds),
            leads={name: estimate(lds - other) for name, other in others.items() if name != method},
            lds_given_size=estimate(self.lds(measure, self.member @ sizes)),
        )

    def calibrate(self, features: Mapping[str, Floats]) -> tuple[Calibration, Floats]:
        """Return weights α, β, γ ≥ 0 that fit the falls, and effects (Q, P) by weights fitted on other providers."""
        columns = np.stack([features[name] for name in FEATURES], axis=2)
        crossed = np.empty_like(self.fall)
        for fold in range(2):
            # Fitted on half of the providers for the other half: no effect has seen its own retraining.
            tested = np.arange(len(self.providers)) % 2 == fold
            weights = fit_nonnegative(columns[:, ~tested].reshape(-1, 3), self.fall[:, ~tested].ravel())
            crossed[:, tested] = columns[:, tested] @ weights
        positive = crossed > 0
        total = float(crossed[positive].sum())
        ratio = float(self.fall[positive].sum()) / total if total else 0.0
        alpha, beta, gamma = (float(w) for w in fit_nonnegative(columns.reshape(-1, 3), self.fall.ravel()))
        return Calibration(alpha, beta, gamma, fitted_on=len(self.providers), ratio=ratio), crossed


def validate_quickly(
    index: AttributionIndex,
    model: LanguageModel,
    records: Sequence[TrainingRecord],
    outputs: Sequence[LoggedOutput],
    *,
    controls: Sequence[str] = (),
    progress: Progress | None = None,
) -> Certificate:
    """Compare an index with one small step away from each provider's data. Arguments: see `validate`.

    Raises:
        InputError: there are no outputs, or the data differs from the index's.
    """
    everybody = check_data(index, records, outputs, controls)
    providers = [name for name in everybody if name not in controls]
    lengths = (index.manifest.max_length, index.output_length(model))
    falls = step_falls(model, records, outputs, providers, *lengths, progress)
    features = features_of(index, model, outputs, everybody)
    trained = [everybody.index(name) for name in providers]
    measures = only(all_measures(index, model, records, outputs, features, everybody), trained)
    policies = {name: Policy(measure=measure).of_one_output.fingerprint for name, measure in PAYABLE.items()}
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
    """Return the losses of outputs (Q, P), nats, by one step away from each provider's data. The model is put back."""
    encoder = model.encoder(max_length)
    before = log_likelihoods(model, outputs, output_length)
    columns = []
    for number, name in enumerate(providers, start=1):
        examples: dict[int, list[Window]] = {}
        for record in records:
            if own := sum(share.ppm for share in record.shares if share.group.provider == name):
                examples.setdefault(own, []).extend(encoder.training(record))
        if not any(examples.values()):
            raise InputError(f"the data of {name} has no token to predict; give it a record of two tokens or more")
        with _stepped_away(model, examples):
            columns.append(before - log_likelihoods(model, outputs, output_length))
        if progress:
            progress(number, len(providers))
    return np.stack(columns, axis=1)


@contextmanager
def _stepped_away(model: LanguageModel, examples: Mapping[int, Sequence[Window]]) -> Iterator[None]:
    """Move the model one step away from examples, and put it back.

    `examples` are keyed by the provider's share of them in parts per million, which weighs their loss.
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
        # Uphill on their loss. Adam's first step moves every weight by STEP, whatever the gradient's size.
        torch.optim.Adam(parameters, lr=STEP, maximize=True).step()
        yield
    finally:
        with torch.no_grad():
            for parameter, value, required in kept:
                parameter.copy_(value)
                parameter.grad = None
                parameter.requires_grad_(required)
