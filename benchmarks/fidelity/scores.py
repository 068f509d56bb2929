"""Scores of measures against a case's retrainings, the noise that bounds them, and the baselines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import polars as pl

from benchmarks.fidelity.truth import Truth
from credit.fidelity.intervals import ShareBootstrap
from credit.fidelity.measures import bm25
from credit.fidelity.metrics import (
    Estimate,
    Floats,
    attribution_error,
    ceiling_of,
    correlation,
    estimate,
    fit_nonnegative,
    noise_ceiling,
    share_error,
    shares,
    spearman,
    top_one,
)
from credit.fidelity.validation import Evidence, score_falls
from credit.valuation.language_model import load_model
from credit.valuation.tokens import Encoder

_CLEAR = 2.0
_RIDGE = 0.1
_SPLITS = 200
_FACTOR = 2.0
"""Factor within which predicted nats count as right."""


@dataclass(frozen=True, slots=True)
class Scores:
    """How well a measure predicts: see `credit.fidelity.validation.MethodScore`; `clear` is top-1 on clear outputs."""

    lds: Estimate
    lds_given_size: float
    pearson: float
    spearman: float
    top_one: float
    clear: float
    share_error: float

    @staticmethod
    def heading() -> str:
        """Return the head of the table."""
        return (
            "| measure | LDS | given size | LOO Pearson | LOO Spearman | top-1 | clear top-1 | share error |\n"
            "|---|---|---|---|---|---|---|---|"
        )

    def line(self, name: str) -> str:
        """Return one row of the table."""
        rest = (self.lds_given_size, self.pearson, self.spearman, self.top_one, self.clear, self.share_error)
        lds = f"{self.lds.value:.2f} ({self.lds.low:.2f}, {self.lds.high:.2f})"
        return f"| {name} | {lds} | " + " | ".join(f"{value:.2f}" for value in rest) + " |"


@dataclass(frozen=True, slots=True)
class Noise:
    """Bounds of all predictions, from retrainings that differ only by their seed; None: there is one seed.

    Attributes:
        lds: noise ceiling of LDS.
        lds_given_size: the same, with size partialled out.
        pearson: correlation of leave-one-out falls of two seeds.
        pearson_ceiling: highest correlation with the mean of the two.
        shares: total variation distance of the two seeds' shares.
    """

    lds: float
    lds_given_size: float
    pearson: float | None
    pearson_ceiling: float | None
    shares: float | None


@dataclass(frozen=True, slots=True)
class Coverage:
    """Frequencies at which a 90 % interval held the share by retraining: over outputs only; over attribution too."""

    outputs_alone: float
    with_attribution: float

    def words(self) -> str:
        """Return the paragraph for a page."""
        return (
            "**Intervals.** Half of the outputs validated, the other half paid for: the 90 % interval of a provider's"
            f" share held the share that leaving it out shows {self.with_attribution:.0%} of the time; that over the"
            f" choice of outputs alone, which an index without a certificate gets, {self.outputs_alone:.0%}."
        )


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Measured over predicted nats: losses of outputs without providers over their effect. 1 is right.

    Attributes:
        plain: for effect without a fit: influence beyond its noise + support.
        fitted: median over fits, each judged by providers outside the fit.
        within: fraction of the fits that are right within a factor of two.
        retrainings: number in each fit.
    """

    plain: float
    fitted: float
    within: float
    retrainings: int

    def words(self) -> str:
        """Return the paragraph for a page."""
        return (
            f"**Nats.** Measured over predicted nats: {self.plain:.2f} by plain effect; {self.fitted:.2f} (median) once"
            f" it is fitted on {self.retrainings} retrainings and judged by the providers that the fit did not see,"
            f" within a factor of two for {self.within:.0%} of the fits."
        )


class Scoring:
    """Scores of measures on a case, whose retrainings are its evidence. `tokens` (P,): predicted tokens by provider."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        names = truth.providers
        self.evidence = Evidence(names, truth.outcomes)
        encoder = Encoder(load_model(truth.case.recipe.start).tokenizer, truth.case.recipe.max_length)
        self.tokens = np.zeros(len(names))
        for record in truth.case.records:
            self.tokens[names.index(record.group.provider)] += sum(e.predicted for e in encoder.training(record))

    def noise(self) -> Noise:
        """Return the agreement of retrainings with each other."""
        first, second = self.evidence.halves
        falls = self.evidence.falls
        given = spearman(first.T, second.T, self.evidence.member @ self.tokens)
        lds, lds_given = float(noise_ceiling(first, second).mean()), float(ceiling_of(given).mean())
        if len(falls) < 2:
            return Noise(lds, lds_given, None, None, None)
        agreement = correlation(falls[0], falls[1])
        return Noise(
            lds,
            lds_given,
            float(agreement.mean()),
            float(ceiling_of(agreement).mean()),
            share_error(falls[0], falls[1]),
        )

    def leads(self, measure: Floats) -> str:
        """Return the paragraph on the LDS of a measure (Q, P) beyond that of each baseline, output by output."""
        lds, size = self.evidence.lds, self.evidence.member @ self.tokens
        said = []
        for name, baseline in self._baselines():
            leads = [estimate(lds(measure, given) - lds(baseline, given)) for given in (None, size)]
            plain, rest = (f"{lead.value:+.2f} ({lead.low:+.2f}, {lead.high:+.2f})" for lead in leads)
            said.append(f"{plain} over {name}, {rest} given size")
        return f"**Leads.** LDS of effect, output by output, with 90 % intervals: {'; '.join(said)}."

    def coverage(self, measure: Floats) -> Coverage:
        """Return the frequency at which the 90 % interval of a share by a measure (Q, P) holds that by leave-one-out.

        Half of the outputs is validated, the other half is a period with its interval; `_SPLITS` times. The period is a
        sample of all outputs, whose share is the one to hold.
        """
        rng = np.random.default_rng(0)
        names = [f"output {number}" for number in range(len(measure))]
        target = shares(self.evidence.fall)
        held = np.zeros((2, len(target)))
        for _ in range(_SPLITS):
            order = rng.permutation(len(names))
            validated, period = np.array_split(order, 2)
            error = attribution_error(measure[validated], self.evidence.fall[validated])
            # The names decide the draws: every split has its own.
            book = _book([f"{names[i]} {rng.integers(1 << 62)}" for i in period], measure[period])
            for row, spread in enumerate((0.0, error)):
                bootstrap = ShareBootstrap(["provider"], spread)
                bootstrap.add(book)
                found = bootstrap.intervals()
                for number, share in enumerate(target):
                    low, high = found.get((str(number),), (0.0, 0.0))
                    held[row, number] += low <= share <= high
        outputs_alone, both = held.mean(1) / _SPLITS
        return Coverage(float(outputs_alone), float(both))

    def calibrated(self, features: Sequence[Floats], seen: int = 4) -> Calibrated:
        """Return the errors of nats by excess, support and volume (Q, P); each fit sees `seen` providers."""
        plain = features[0] + features[1]
        ratios = []
        for chosen in combinations(range(plain.shape[1]), seen):
            unseen = [p for p in range(plain.shape[1]) if p not in chosen]
            predicted = np.stack(features, axis=2)[:, unseen] @ fit(features, self.evidence.fall, chosen)
            ratios.append(_ratio(predicted, self.evidence.fall[:, unseen]))
        found = np.array(ratios)
        within = (found > 1 / _FACTOR) & (found < _FACTOR)
        return Calibrated(_ratio(plain, self.evidence.fall), float(np.median(found)), float(within.mean()), seen + 1)

    def limits(self, measure: Floats) -> str:
        """Return the paragraph on the LDS of a measure (Q, P) with one component replaced by the truth of the halves.

        A measure is a mean for every provider, the help of its data to any output, and the rest. Each in turn comes
        from an additive model of the halves; the other is kept, scaled to the model's spread.
        """
        shown = self._effects(range(len(self.evidence.member))).T[:, 1:]
        mean, rest = (_centred(part) for part in (measure.mean(0), measure - measure.mean(0)))
        true_mean, true_rest = (_centred(part) for part in (shown.mean(0), shown - shown.mean(0)))
        mixed = [true_mean + rest * true_rest.std() / rest.std(), mean * true_mean.std() / mean.std() + true_rest]
        means_right, rest_right = (float(self.evidence.lds(m).mean()) for m in mixed)
        return (
            f"**Limits.** An additive model that was fitted to the other halves reaches {self._additive():.2f}. Effect"
            f" would reach {means_right:.2f} if every provider's mean over the outputs, how much its data help whatever"
            f" is said, were as the halves show it; and {rest_right:.2f} if all but these means were."
        )

    def _effects(self, known: Sequence[int] | range) -> Floats:
        """Return coefficients (1 + P, Q) of an additive model of the known halves, first the constant."""
        actual = np.mean(self.evidence.halves, axis=0)[list(known)]
        design = np.c_[np.ones(len(known)), self.evidence.member[list(known)]]
        ridge = _RIDGE * np.diag([0.0, *np.ones(self.evidence.member.shape[1])])
        weights: Floats = np.linalg.solve(design.T @ design + ridge, design.T @ actual)
        return weights

    def _additive(self) -> float:
        """Return the LDS of an additive model; each half is predicted from the others, without its complement."""
        actual = np.mean(self.evidence.halves, axis=0)
        predicted = np.zeros_like(actual)
        for number, row in enumerate(self.evidence.member):
            known = [
                k for k, other in enumerate(self.evidence.member) if k != number and not np.array_equal(other, 1 - row)
            ]
            predicted[number] = np.r_[1.0, row] @ self._effects(known)
        return float(spearman(predicted.T, actual.T).mean())

    def score(self, measure: Floats, fall: Floats | None = None) -> Scores:
        """Return the scores of a measure (Q, P) on the halves and on `fall` (Q, P), by default its mean over seeds."""
        fall = self.evidence.fall if fall is None else fall
        falls = score_falls("", measure, fall)
        return Scores(
            lds=estimate(self.evidence.lds(measure)),
            lds_given_size=float(self.evidence.lds(measure, self.evidence.member @ self.tokens).mean()),
            pearson=falls.pearson.value,
            spearman=falls.spearman.value,
            top_one=falls.top_one.value,
            clear=float(top_one(measure, fall)[_clear(fall)].mean()),
            share_error=falls.share_error.value,
        )

    def baselines(self) -> Iterator[tuple[str, Scores]]:
        """Yield the scores of measures without an index."""
        for name, measure in self._baselines():
            yield name, self.score(measure)
        if len(self.evidence.falls) > 1:
            yield "leave-one-out of another seed", self.score(self.evidence.falls[0], self.evidence.falls[1])

    def _baselines(self) -> Iterator[tuple[str, Floats]]:
        case = self.truth.case
        yield "tokens", np.tile(self.tokens, (len(case.outputs), 1))
        yield "BM25, top 100 records", bm25(case.records, case.outputs, self.truth.providers)


def _centred(values: Floats) -> Floats:
    """Return values less their mean over providers: ranks of halves of one size do not see it."""
    centred: Floats = values - values.mean(-1, keepdims=True)
    return centred


def _book(names: Sequence[str], measure: Floats) -> pl.DataFrame:
    """Return a score book: every output's micro-credits, divided by its positive measures."""
    positive = measure.clip(min=0)
    total = positive.sum(1)
    cells = [
        (name, str(provider), round(1e6 * part / whole))
        for name, line, whole in zip(names, positive, total, strict=True)
        if whole > 0
        for provider, part in enumerate(line)
    ]
    return pl.DataFrame(cells, schema=["name", "provider", "credit_micro"], orient="row")


def _clear(fall: Floats) -> Floats:
    """Return True for outputs (Q,) that plainly drew on one provider: its absence costs a lot, and twice the next."""
    ordered = np.sort(fall, axis=1)
    clear: Floats = (ordered[:, -1] > _CLEAR * ordered[:, -2].clip(min=0)) & (
        ordered[:, -1] > np.median(ordered[:, -1])
    )
    return clear


def fit(features: Sequence[Floats], fall: Floats, seen: Sequence[int]) -> Floats:
    """Return weights ≥ 0 (K,) of features (Q, P) that fit the losses of outputs (Q, P) without the providers seen."""
    columns = np.stack(features, axis=2)[:, list(seen)]
    return fit_nonnegative(columns.reshape(-1, len(features)), fall[:, list(seen)].ravel())


def _ratio(predicted: Floats, fall: Floats) -> float:
    """Return measured over predicted nats where something is predicted; 0: nothing is."""
    positive = predicted > 0
    total = float(predicted[positive].sum())
    return float(fall[positive].sum()) / total if total else 0.0


def fitted(features: Sequence[Floats], fall: Floats, retrainings: int) -> Floats:
    """Return the effect (Q, P) of every provider by weights ≥ 0, fitted to leave-one-out of some others.

    The mean of the fits without a provider predicts it.

    Args:
        features: K arrays (Q, P).
        fall: (Q, P), losses of outputs without each provider, nats.
        retrainings: providers left out in a fit.
    """
    columns = np.stack(features, axis=2)
    total = np.zeros_like(fall)
    fits = np.zeros(fall.shape[1])
    for seen in combinations(range(fall.shape[1]), retrainings):
        weights = fit(features, fall, seen)
        unseen = [p for p in range(fall.shape[1]) if p not in seen]
        total[:, unseen] += columns[:, unseen] @ weights
        fits[unseen] += 1
    return total / fits
