"""Compares what attribution predicts with what retraining shows, beside the noise ceiling and the baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from credit.accounting.credits import Measure, Policy
from credit.errors import InputError
from credit.fidelity.baselines import bm25, gradient_product, hidden_similarity, token_share
from credit.fidelity.certificate import (
    BM25,
    CALIBRATED,
    PLAIN,
    TO_BEAT,
    TOKEN_SHARE,
    Calibration,
    Certificate,
    Control,
    MethodScore,
    certificate_path,
)
from credit.fidelity.counterfactuals import Counterfactual, plan
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
from credit.fidelity.retrain import Laboratory
from credit.records import LoggedOutput, TrainingRecord
from credit.storage import write_whole
from credit.valuation import AttributionIndex, LanguageModel

Progress = Callable[[int, int], None]

_FEATURES = ("excess", "support", "volume")
PAYABLE: dict[str, Measure] = {PLAIN: "effect", "influence": "influence", "support": "support"}
"""Measures that a policy can pay by, by the method's name."""


def validate(
    index: AttributionIndex,
    model: LanguageModel,
    records: Sequence[TrainingRecord],
    outputs: Sequence[LoggedOutput],
    laboratory: Laboratory,
    *,
    recipe: str,
    halves: int = 8,
    seeds: int = 1,
    controls: Sequence[str] = (),
    workers: int = 1,
    progress: Progress | None = None,
) -> Certificate:
    """Retrain without each provider and on random halves of them, and compare.

    Args:
        index: the index to validate.
        model: the model that it was built with.
        records: its training data.
        outputs: logged outputs of the model.
        laboratory: where retrainings are made and kept.
        recipe: fingerprint of the recipe.
        halves: random halves of the providers, each trained twice.
        seeds: retrainings of the full data and without each provider.
        controls: providers in the index whose data the model was never trained on; no retraining sees it.
        workers: retrainings at a time.
        progress: called with retrainings done and in all.

    Raises:
        InputError: there are no outputs, or the data is not that of the index.
    """
    everybody = check_data(index, records, outputs, controls)
    providers = [name for name in everybody if name not in controls]
    runs = plan(providers, halves=halves, seeds=seeds)
    evidence = _Evidence(providers, laboratory.outcomes(runs, workers=workers, progress=progress))
    features = features_of(index, model, outputs, everybody)
    trained = [everybody.index(name) for name in providers]
    measures = only(all_measures(index, model, records, outputs, features, everybody), trained)
    calibration, calibrated = evidence.calibrate(only(features, trained))
    measures = {CALIBRATED: calibrated} | measures
    sizes = token_share(index, everybody, 1)[0, trained]
    policies = {name: Policy(measure=measure).fingerprint for name, measure in PAYABLE.items()}
    to_beat = {name: measures[name] for name in TO_BEAT}
    policies[CALIBRATED] = Policy(alpha=calibration.alpha, beta=calibration.beta, gamma=calibration.gamma).fingerprint
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
    )
    fit = calibration if certificate.calibration_helps else Calibration(1.0, 1.0, 0.0, 0, 0.0)
    paid = sum(w * features[name] for w, name in zip((fit.alpha, fit.beta, fit.gamma), _FEATURES, strict=True))
    return replace(certificate, controls=control_shares(np.asarray(paid), everybody, controls))


def check_data(
    index: AttributionIndex,
    records: Sequence[TrainingRecord],
    outputs: Sequence[LoggedOutput],
    controls: Sequence[str],
) -> list[str]:
    """Return the providers of an index, sorted; refuse data and controls that are not its own."""
    if not outputs:
        raise InputError("there are no outputs to validate on; log some first: credit ingest-outputs")
    providers = sorted({group.provider for group in index.groups})
    tagged = {share.group.provider for record in records for share in record.shares}
    if tagged != set(providers):
        odd = min(tagged ^ set(providers))
        raise InputError(f"the data and {index.folder} do not have the same providers: {odd} is in one only")
    strange = sorted(set(controls) - set(providers))
    if strange:
        raise InputError(f"{index.folder} has no provider {strange[0]} that could be a control")
    return providers


def all_measures(
    index: AttributionIndex,
    model: LanguageModel,
    records: Sequence[TrainingRecord],
    outputs: Sequence[LoggedOutput],
    features: Mapping[str, Floats],
    providers: Sequence[str],
) -> dict[str, Floats]:
    """Return what is compared: the index's measures and the baselines, each (Q, P) for Q outputs and P providers."""
    return {
        PLAIN: features["excess"] + features["support"],
        "influence": features["influence"],
        "support": features["support"],
        TOKEN_SHARE: token_share(index, providers, len(outputs)),
        BM25: bm25(records, outputs, providers),
        "gradient product": gradient_product(index, model, outputs, providers),
        "hidden-state similarity": hidden_similarity(
            model, records, outputs, providers, index.manifest.max_length, index.output_length(model)
        ),
    }


def only(measures: Mapping[str, Floats], columns: Sequence[int]) -> dict[str, Floats]:
    """Return measures (Q, P) of some providers alone, by their columns."""
    return {name: values[:, columns] for name, values in measures.items()}


def control_shares(measure: Floats, providers: Sequence[str], controls: Sequence[str]) -> tuple[Control, ...]:
    """Return what share of all credits each control gets by a measure (Q, P)."""
    of_each = shares(measure)
    return tuple(Control(name, float(of_each[providers.index(name)])) for name in sorted(controls))


def write_certificate(folder: Path, certificate: Certificate) -> Path:
    """Write the certificate beside the index that it is about."""
    path = certificate_path(folder, certificate.kind)
    write_whole(path, certificate.to_json().encode())
    return path


def features_of(
    index: AttributionIndex, model: LanguageModel, outputs: Sequence[LoggedOutput], providers: Sequence[str]
) -> dict[str, Floats]:
    """Influence, and what effect is made of, of every provider on every output (Q, P), nats."""
    valuation = index.value(model, outputs)
    columns = [providers.index(group.provider) for group in index.groups]
    features = {}
    for name in ("influence", *_FEATURES):
        values = getattr(valuation, name).numpy()
        total = np.zeros((len(outputs), len(providers)))
        for column, provider in enumerate(columns):
            total[:, provider] += values[:, column]
        features[name] = total
    return features


def score_falls(method: str, measure: Floats, fall: Floats, policy: str = "") -> MethodScore:
    """Score one measure (Q, P) against what outputs lost without each provider (Q, P), nats."""
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


class _Evidence:
    """Outcomes of the retrainings, arranged: halves (S, Q) by seed, and the fall without each provider (Q, P)."""

    def __init__(self, providers: Sequence[str], results: Mapping[Counterfactual, Floats]) -> None:
        self.providers = providers
        halves = sorted({run.providers for run in results if run.kind == "half"}, key=sorted)
        self.member = np.array([[float(name in half) for name in providers] for half in halves])
        self.halves = [
            np.array([results[Counterfactual("half", half, seed)] for half in halves]) for seed in range(2) if halves
        ]
        full = self._mean(results, frozenset(providers))
        without = [self._mean(results, frozenset(providers) - {name}) for name in providers]
        self.fall = np.stack([full - outcome for outcome in without], axis=1)

    @staticmethod
    def _mean(results: Mapping[Counterfactual, Floats], providers: frozenset[str]) -> Floats:
        chosen = [values for run, values in results.items() if run.providers == providers and run.kind != "half"]
        mean: Floats = np.mean(chosen, axis=0)
        return mean

    def ceiling(self) -> Estimate | None:
        """Best LDS that any prediction could reach, given the noise of retraining."""
        return estimate(noise_ceiling(*self.halves)) if self.halves else None

    def score(
        self, method: str, measure: Floats, sizes: Floats, policy: str, to_beat: Mapping[str, Floats]
    ) -> MethodScore:
        """Score one measure (Q, P), also beside those to beat (Q, P); `sizes` (P,) are the providers' tokens."""
        score = score_falls(method, measure, self.fall, policy)
        if not self.halves:
            return score
        actual = np.mean(self.halves, axis=0)
        lds = linear_datamodelling_score(self.member, measure, actual)
        others = {name: linear_datamodelling_score(self.member, other, actual) for name, other in to_beat.items()}
        return replace(
            score,
            lds=estimate(lds),
            leads={name: estimate(lds - other) for name, other in others.items() if name != method},
            lds_given_size=estimate(linear_datamodelling_score(self.member, measure, actual, self.member @ sizes)),
        )

    def calibrate(self, features: Mapping[str, Floats]) -> tuple[Calibration, Floats]:
        """Fit α, β, γ ≥ 0 to the falls; return them, and effects (Q, P) by weights fitted on other providers."""
        columns = np.stack([features[name] for name in _FEATURES], axis=2)
        crossed = np.empty_like(self.fall)
        for fold in range(2):
            tested = np.arange(len(self.providers)) % 2 == fold
            weights = fit_nonnegative(columns[:, ~tested].reshape(-1, 3), self.fall[:, ~tested].ravel())
            crossed[:, tested] = columns[:, tested] @ weights
        positive = crossed > 0
        total = float(crossed[positive].sum())
        ratio = float(self.fall[positive].sum()) / total if total else 0.0
        alpha, beta, gamma = (float(w) for w in fit_nonnegative(columns.reshape(-1, 3), self.fall.ravel()))
        return Calibration(alpha, beta, gamma, fitted_on=len(self.providers), ratio=ratio), crossed
