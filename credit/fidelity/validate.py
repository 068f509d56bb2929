"""Compares what attribution predicts with what retraining shows, beside the noise ceiling and the baselines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from credit.errors import InputError, IntegrityError
from credit.fidelity.baselines import bm25, gradient_product, hidden_similarity, token_share
from credit.fidelity.counterfactuals import Counterfactual, plan
from credit.fidelity.metrics import (
    Estimate,
    Floats,
    correlation,
    estimate,
    estimate_of,
    fit_nonnegative,
    linear_datamodelling_score,
    noise_ceiling,
    share_error,
    spearman,
    top_one,
)
from credit.fidelity.retrain import Laboratory
from credit.records import LoggedOutput, TrainingRecord
from credit.valuation import AttributionIndex, LanguageModel
from credit.valuation.manifest import write_whole

CERTIFICATE = "certificate.json"
PLAIN, CALIBRATED = "effect", "effect, calibrated"

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class MethodScore:
    """How well one measure predicts retraining. Correlations are means over outputs; higher is better but for error.

    Attributes:
        lds: rank correlation over random halves of the providers.
        lds_given_size: the same with the tokens of each half partialled out.
        pearson: correlation over providers with the fall in nats when each is left out.
        spearman: the same by ranks.
        top_one: share of outputs whose leading provider is the one whose absence costs most.
        share_error: total variation distance of the shares of all credits, 0 to 1.
    """

    method: str
    lds: Estimate
    lds_given_size: Estimate
    pearson: Estimate
    spearman: Estimate
    top_one: Estimate
    share_error: Estimate


@dataclass(frozen=True, slots=True)
class Calibration:
    """Weights of effect that turn it into nats: what outputs lost without each provider, by least squares.

    `ratio` is the measured fall over the predicted one, summed over outputs and providers with a positive prediction,
    each provider predicted by weights that were fitted on others: 1 is right.
    """

    alpha: float
    beta: float
    gamma: float
    fitted_on: int
    ratio: float


@dataclass(frozen=True, slots=True)
class Certificate:
    """The result of a validation, tied by fingerprints to what was validated."""

    index: str
    recipe: str
    outputs: int
    providers: tuple[str, ...]
    retrainings: int
    ceiling: Estimate
    methods: tuple[MethodScore, ...]
    calibration: Calibration

    @property
    def calibration_helps(self) -> bool:
        """Whether calibrated effect predicts better than plain effect, on providers that it was not fitted on.

        A fit can put all weight on volume, which then pays everybody alike: what does not help must not be paid by.
        """
        scores = {score.method: score for score in self.methods}
        fitted, plain = scores[CALIBRATED], scores[PLAIN]
        return fitted.pearson.value >= plain.pearson.value and fitted.share_error.value <= plain.share_error.value

    def to_json(self) -> str:
        """Render as JSON with sorted keys; `sha256` covers all the rest."""
        body = asdict(self)
        canonical = json.dumps(body, sort_keys=True)
        body["sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
        return json.dumps(body, indent=1, sort_keys=True) + "\n"


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
        progress: called with retrainings done and in all.

    Raises:
        InputError: there are no outputs, or the data is not that of the index.
    """
    if not outputs:
        raise InputError("there are no outputs to validate on; log some first: credit ingest-outputs")
    providers = sorted({group.provider for group in index.groups})
    tagged = {record.group.provider for record in records}
    if tagged != set(providers):
        odd = min(tagged ^ set(providers))
        raise InputError(f"the data and {index.folder} do not have the same providers: {odd} is in one only")
    runs = plan(providers, halves=halves, seeds=seeds)
    results: dict[Counterfactual, Floats] = {}
    for number, run in enumerate(runs):
        results[run] = laboratory.outcome(run)
        if progress:
            progress(number + 1, len(runs))
    evidence = _Evidence(providers, results)
    features = _features(index, model, outputs, providers)
    effect = features["influence"] + features["support"]
    measures = {
        PLAIN: effect,
        "influence": features["influence"],
        "support": features["support"],
        "token share": token_share(index, providers, len(outputs)),
        "BM25": bm25(records, outputs, providers),
        "gradient product": gradient_product(index, model, outputs, providers),
        "hidden-state similarity": hidden_similarity(model, records, outputs, providers, index.manifest.max_length),
    }
    calibration, calibrated = evidence.calibrate(features)
    measures = {CALIBRATED: calibrated} | measures
    sizes = token_share(index, providers, 1)[0]
    return Certificate(
        index=index.manifest.fingerprint,
        recipe=recipe,
        outputs=len(outputs),
        providers=tuple(providers),
        retrainings=len(runs),
        ceiling=evidence.ceiling(),
        methods=tuple(evidence.score(name, measure, sizes) for name, measure in measures.items()),
        calibration=calibration,
    )


def write_certificate(folder: Path, certificate: Certificate) -> Path:
    """Write the certificate beside the index that it is about."""
    path = folder / CERTIFICATE
    write_whole(path, certificate.to_json().encode())
    return path


def read_certificate(index: AttributionIndex) -> Certificate | None:
    """Read the certificate of an index, if it has one that is about this very index.

    Raises:
        IntegrityError: the certificate was changed after it was written.
    """
    path = index.folder / CERTIFICATE
    if not path.is_file():
        return None
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        claimed = body.pop("sha256")
        certificate = _parse(body)
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path} is damaged ({error}); validate the index again") from error
    if json.loads(certificate.to_json())["sha256"] != claimed:
        raise IntegrityError(f"{path} was changed after it was written; validate the index again")
    return certificate if certificate.index == index.manifest.fingerprint else None


def _parse(body: dict[str, Any]) -> Certificate:
    methods = tuple(
        MethodScore(score.pop("method"), **{name: Estimate(**value) for name, value in score.items()})
        for score in body["methods"]
    )
    changes = {
        "providers": tuple(body["providers"]),
        "ceiling": Estimate(**body["ceiling"]),
        "methods": methods,
        "calibration": Calibration(**body["calibration"]),
    }
    return Certificate(**(body | changes))


_FEATURES = ("influence", "support", "volume")


def _features(
    index: AttributionIndex, model: LanguageModel, outputs: Sequence[LoggedOutput], providers: Sequence[str]
) -> dict[str, Floats]:
    """Influence, support and volume of every provider on every output (Q, P), nats."""
    valuation = index.value(model, outputs)
    columns = [providers.index(group.provider) for group in index.groups]
    features = {}
    for name in _FEATURES:
        values = getattr(valuation, name).numpy()
        total = np.zeros((len(outputs), len(providers)))
        for column, provider in enumerate(columns):
            total[:, provider] += values[:, column]
        features[name] = total
    return features


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

    def ceiling(self) -> Estimate:
        """Best LDS that any prediction could reach, given the noise of retraining."""
        if not self.halves:
            return Estimate(float("nan"), float("nan"), float("nan"))
        return estimate(noise_ceiling(*self.halves))

    def score(self, method: str, measure: Floats, sizes: Floats) -> MethodScore:
        """Score one measure (Q, P); `sizes` (P,) are the providers' tokens."""
        nothing = np.full(len(measure), np.nan)
        lds = partial = nothing
        if self.halves:
            actual = np.mean(self.halves, axis=0)
            lds = linear_datamodelling_score(self.member, measure, actual)
            partial = linear_datamodelling_score(self.member, measure, actual, self.member @ sizes)
        return MethodScore(
            method=method,
            lds=estimate(lds),
            lds_given_size=estimate(partial),
            pearson=estimate(correlation(measure, self.fall)),
            spearman=estimate(spearman(measure, self.fall)),
            top_one=estimate(top_one(measure, self.fall)),
            share_error=estimate_of(lambda chosen: share_error(measure[chosen], self.fall[chosen]), len(measure)),
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
        ratio = float(self.fall[positive].sum()) / total if total else float("nan")
        alpha, beta, gamma = (float(w) for w in fit_nonnegative(columns.reshape(-1, 3), self.fall.ravel()))
        return Calibration(alpha, beta, gamma, fitted_on=len(self.providers), ratio=ratio), crossed
