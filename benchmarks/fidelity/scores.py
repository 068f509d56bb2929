"""Scores of a measure against a case's retrainings, the noise that bounds them, and the baselines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import polars as pl

from benchmarks.fidelity.truth import Truth
from credit.fidelity.baselines import bm25
from credit.fidelity.counterfactuals import Counterfactual
from credit.fidelity.intervals import ShareBootstrap
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
from credit.valuation.language_model import load_model
from credit.valuation.tokens import Encoder

_CLEAR = 2.0
_RIDGE = 0.1
_SPLITS = 200
_FACTOR = 2.0
"""Predicted nats are to be right within it."""


@dataclass(frozen=True, slots=True)
class Scores:
    """How well a measure predicts: see `credit.fidelity.validate.MethodScore`; `clear` is top-1 on clear outputs."""

    lds: Estimate
    lds_given_size: float
    pearson: float
    spearman: float
    top_one: float
    clear: float
    share_error: float

    @staticmethod
    def heading() -> str:
        """Head of the table."""
        return (
            "| measure | LDS | given size | LOO Pearson | LOO Spearman | top-1 | clear top-1 | share error |\n"
            "|---|---|---|---|---|---|---|---|"
        )

    def line(self, name: str) -> str:
        """One row of the table."""
        rest = (self.lds_given_size, self.pearson, self.spearman, self.top_one, self.clear, self.share_error)
        lds = f"{self.lds.value:.2f} ({self.lds.low:.2f}, {self.lds.high:.2f})"
        return f"| {name} | {lds} | " + " | ".join(f"{value:.2f}" for value in rest) + " |"


@dataclass(frozen=True, slots=True)
class Noise:
    """What no prediction can exceed, from retrainings that differ by their seed alone; None where there is one seed.

    Attributes:
        lds: noise ceiling of LDS.
        lds_given_size: the same, with size partialled out.
        pearson: correlation of leave-one-out falls of two seeds.
        pearson_ceiling: what that leaves for predicting their mean.
        shares: total variation distance of the two seeds' shares.
    """

    lds: float
    lds_given_size: float
    pearson: float | None
    pearson_ceiling: float | None
    shares: float | None


@dataclass(frozen=True, slots=True)
class Coverage:
    """How often a 90 % interval held what retraining showed: over outputs alone, and over attribution as well."""

    outputs_alone: float
    with_attribution: float

    def words(self) -> str:
        """What a page says of it."""
        return (
            "**Intervals.** Half of the outputs validated, the other half paid for: the 90 % interval of a provider's"
            f" share held the share that leaving it out shows {self.with_attribution:.0%} of the time; that over the"
            f" choice of outputs alone, which an index without a certificate gets, {self.outputs_alone:.0%}."
        )


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Nats that outputs lost without providers, over what effect predicts: 1 is right.

    Attributes:
        plain: of effect as it is: influence beyond its noise + support.
        fitted: medians over fits; each is judged by providers that it did not see.
        within: part of the fits that are right within a factor of two.
        retrainings: what a fit sees.
    """

    plain: float
    fitted: float
    within: float
    retrainings: int

    def words(self) -> str:
        """What a page says of it."""
        return (
            f"**Nats.** Measured over predicted nats: {self.plain:.2f} by plain effect; {self.fitted:.2f} (median) once"
            f" it is fitted on {self.retrainings} retrainings and judged by the providers that the fit did not see,"
            f" within a factor of two for {self.within:.0%} of the fits."
        )


class Scoring:
    """A case's retrainings as arrays: halves (S, Q) by seed, and what outputs lost without each provider (Q, P)."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        names, found = truth.providers, truth.outcomes
        everybody = frozenset(names)
        halves = sorted({run.providers for run in found if run.kind == "half"}, key=sorted)
        self.member = np.array([[float(name in half) for name in names] for half in halves])
        self.halves = [np.array([found[Counterfactual("half", half, seed)] for half in halves]) for seed in range(2)]
        self.falls = []
        for seed in range(truth.case.size.seeds):
            full = found[Counterfactual("full", everybody, seed)]
            without = [found[Counterfactual("leave-out", everybody - {name}, seed)] for name in names]
            self.falls.append(np.stack([full - outcome for outcome in without], axis=1))
        self.fall: Floats = np.mean(self.falls, axis=0)
        encoder = Encoder(load_model(truth.case.recipe.start).tokenizer, truth.case.recipe.max_length)
        self.tokens = np.zeros(len(names))
        for record in truth.case.records:
            self.tokens[names.index(record.group.provider)] += sum(e.predicted for e in encoder.training(record))

    def noise(self) -> Noise:
        """How far retrainings agree with each other."""
        given = spearman(self.halves[0].T, self.halves[1].T, self.member @ self.tokens)
        reliability = np.clip(given, 0, 1)
        lds = float(noise_ceiling(*self.halves).mean())
        lds_given = float(np.sqrt(2 * reliability / (1 + reliability)).mean())
        if len(self.falls) < 2:
            return Noise(lds, lds_given, None, None, None)
        agreement = correlation(self.falls[0], self.falls[1])
        clipped = np.clip(agreement, 0, 1)
        ceiling = float(np.sqrt(2 * clipped / (1 + clipped)).mean())
        return Noise(lds, lds_given, float(agreement.mean()), ceiling, share_error(*self.falls))

    def leads(self, measure: Floats) -> str:
        """By how much LDS of a measure (Q, P) is above that of each baseline, output by output, as a page says it."""
        actual, size = np.mean(self.halves, axis=0), self.member @ self.tokens
        said = []
        for name, baseline in self._baselines():
            leads = [
                estimate(
                    linear_datamodelling_score(self.member, measure, actual, given)
                    - linear_datamodelling_score(self.member, baseline, actual, given)
                )
                for given in (None, size)
            ]
            plain, rest = (f"{lead.value:+.2f} ({lead.low:+.2f}, {lead.high:+.2f})" for lead in leads)
            said.append(f"{plain} over {name}, {rest} given size")
        return f"**Leads.** LDS of effect, output by output, with 90 % intervals: {'; '.join(said)}."

    def coverage(self, measure: Floats) -> Coverage:
        """How often the 90 % interval of a share, by a measure (Q, P), holds the share by leave-one-out.

        One half of the outputs is validated, the other is a period with its interval; `_SPLITS` times. What is to be
        held is the share over all outputs, of which the period is a sample.
        """
        rng = np.random.default_rng(0)
        names = [f"output {number}" for number in range(len(measure))]
        target = shares(self.fall)
        held = np.zeros((2, len(target)))
        for _ in range(_SPLITS):
            order = rng.permutation(len(names))
            validated, period = np.array_split(order, 2)
            error = attribution_error(measure[validated], self.fall[validated])
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
        """How right nats are, by effect of influence, support and volume (Q, P); a fit sees `seen` providers."""
        plain = features[0] + features[1]
        ratios = []
        for chosen in combinations(range(plain.shape[1]), seen):
            unseen = [p for p in range(plain.shape[1]) if p not in chosen]
            predicted = np.stack(features, axis=2)[:, unseen] @ fit(features, self.fall, chosen)
            ratios.append(_ratio(predicted, self.fall[:, unseen]))
        found = np.array(ratios)
        within = (found > 1 / _FACTOR) & (found < _FACTOR)
        return Calibrated(_ratio(plain, self.fall), float(np.median(found)), float(within.mean()), seen + 1)

    def limits(self, measure: Floats) -> str:
        """What LDS a measure (Q, P) would have if a part of it were as the halves show it, as a page says it.

        A measure has a mean for every provider, how much its data help whatever is said, and what is beyond that. Each
        in turn is put in from an additive model of the halves, and the other is kept, scaled to the model's spread.
        """
        shown = self._effects(range(len(self.member))).T[:, 1:]
        mean, rest = (_centred(part) for part in (measure.mean(0), measure - measure.mean(0)))
        true_mean, true_rest = (_centred(part) for part in (shown.mean(0), shown - shown.mean(0)))
        actual = np.mean(self.halves, axis=0)
        mixed = [true_mean + rest * true_rest.std() / rest.std(), mean * true_mean.std() / mean.std() + true_rest]
        means_right, rest_right = (float(linear_datamodelling_score(self.member, m, actual).mean()) for m in mixed)
        return (
            f"**Limits.** An additive model that was fitted to the other halves reaches {self._additive():.2f}. Effect"
            f" would reach {means_right:.2f} if every provider's mean over the outputs, how much its data help whatever"
            f" is said, were as the halves show it; and {rest_right:.2f} if all but these means were."
        )

    def _effects(self, known: Sequence[int] | range) -> Floats:
        """Coefficients (1 + P, Q) of an additive model of the halves that are known, first the constant."""
        actual = np.mean(self.halves, axis=0)[list(known)]
        design = np.c_[np.ones(len(known)), self.member[list(known)]]
        ridge = _RIDGE * np.diag([0.0, *np.ones(self.member.shape[1])])
        weights: Floats = np.linalg.solve(design.T @ design + ridge, design.T @ actual)
        return weights

    def _additive(self) -> float:
        """LDS of an additive model, each half predicted from the others (neither it nor its complement)."""
        actual = np.mean(self.halves, axis=0)
        predicted = np.zeros_like(actual)
        for number, row in enumerate(self.member):
            known = [k for k, other in enumerate(self.member) if k != number and not np.array_equal(other, 1 - row)]
            predicted[number] = np.r_[1.0, row] @ self._effects(known)
        return float(spearman(predicted.T, actual.T).mean())

    def score(self, measure: Floats, fall: Floats | None = None) -> Scores:
        """Score a measure (Q, P) against the halves and `fall` (Q, P): by default its mean over seeds."""
        fall = self.fall if fall is None else fall
        actual = np.mean(self.halves, axis=0)
        hits = top_one(measure, fall)
        given = linear_datamodelling_score(self.member, measure, actual, self.member @ self.tokens)
        return Scores(
            lds=estimate(linear_datamodelling_score(self.member, measure, actual)),
            lds_given_size=float(given.mean()),
            pearson=float(correlation(measure, fall).mean()),
            spearman=float(spearman(measure, fall).mean()),
            top_one=float(hits.mean()),
            clear=float(hits[_clear(fall)].mean()),
            share_error=estimate_of(lambda chosen: share_error(measure[chosen], fall[chosen]), len(measure)).value,
        )

    def baselines(self) -> Iterator[tuple[str, Scores]]:
        """Scores of measures that need no index."""
        for name, measure in self._baselines():
            yield name, self.score(measure)
        if len(self.falls) > 1:
            yield "leave-one-out of another seed", self.score(self.falls[0], self.falls[1])

    def _baselines(self) -> Iterator[tuple[str, Floats]]:
        case = self.truth.case
        yield "tokens", np.tile(self.tokens, (len(case.outputs), 1))
        yield "BM25, top 100 records", bm25(case.records, case.outputs, self.truth.providers)


def _centred(values: Floats) -> Floats:
    """Less their mean over providers, which ranks of halves of one size do not see."""
    centred: Floats = values - values.mean(-1, keepdims=True)
    return centred


def _book(names: Sequence[str], measure: Floats) -> pl.DataFrame:
    """Credits of outputs as a score book has them: every output's micro-credits by its positive measures."""
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
    """Outputs (Q,) that plainly drew on one provider: its absence costs more than most, and twice the next."""
    ordered = np.sort(fall, axis=1)
    clear: Floats = (ordered[:, -1] > _CLEAR * ordered[:, -2].clip(min=0)) & (
        ordered[:, -1] > np.median(ordered[:, -1])
    )
    return clear


def fit(features: Sequence[Floats], fall: Floats, seen: Sequence[int]) -> Floats:
    """Weights ≥ 0 (K,) of features (Q, P) that tell best what outputs lost (Q, P) without the providers seen."""
    columns = np.stack(features, axis=2)[:, list(seen)]
    return fit_nonnegative(columns.reshape(-1, len(features)), fall[:, list(seen)].ravel())


def _ratio(predicted: Floats, fall: Floats) -> float:
    """Measured over predicted nats, where something is predicted; 0 where nothing is."""
    positive = predicted > 0
    total = float(predicted[positive].sum())
    return float(fall[positive].sum()) / total if total else 0.0


def fitted(features: Sequence[Floats], fall: Floats, retrainings: int) -> Floats:
    """Effect (Q, P) of every provider by weights ≥ 0 that were fitted to leave-one-out of some others.

    Every provider is predicted by the mean of the fits that did not see it.

    Args:
        features: K arrays (Q, P).
        fall: (Q, P), what outputs lost without each provider, nats.
        retrainings: providers whose absence a fit sees.
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
