"""Worth of `credit validate --quick`: one optimiser step away from a provider's data, beside retraining.

    python -m benchmarks.fidelity.stepped --work /tmp/lab                 # an hour; less where retrainings are kept
    python -m benchmarks.fidelity.stepped --work /tmp/lab --case prose    # one case; nothing is written

First the step itself as a prediction of retraining, then indexes: how well each agrees with the step, and how well it
predicts retraining. A quick validation could choose between indexes, or their damping, only if the two went together.
Writes reports/fidelity/quick.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.fidelity.cases import CASES
from benchmarks.fidelity.grid import DEFAULT, EKFAC, FISHER, Valuer, Variant
from benchmarks.fidelity.lab import REPORTS
from benchmarks.fidelity.scores import Scoring
from benchmarks.fidelity.truth import MAX_LENGTH, Truth, retrain
from credit.fidelity.metrics import correlation, spearman
from credit.fidelity.validation import step_falls
from credit.valuation import IndexSettings

_ALL = ("packages", "prose", "pretrained")
_HIDDEN = FISHER.layers
VARIANTS = (
    *(Variant(f"head, damping {damping:g}", DEFAULT, damping=damping, cases=_ALL) for damping in (0.03, 0.3, 3, 30)),
    Variant("head, random r4", IndexSettings(rank=4, projection="random"), cases=_ALL),
    Variant("hidden layers, damping 3", IndexSettings(layers=_HIDDEN), cases=_ALL),
    Variant("hidden layers, damping 0.01", IndexSettings(layers=_HIDDEN), damping=0.01, cases=_ALL),
    Variant("hidden layers, random r64, dense Fisher", FISHER),
    Variant("hidden layers, EK-FAC full rank", EKFAC),
)


def lines(truth: Truth, work: Path) -> Iterator[str]:
    """Yield a case's results in Markdown."""
    scoring, model = Scoring(truth), truth.model()
    falls = step_falls(model, truth.case.records, truth.case.outputs, truth.providers, MAX_LENGTH, MAX_LENGTH)
    step = scoring.score(falls)
    yield f"## {truth.case.name}"
    yield ""
    yield (
        f"The step's own falls, as a prediction of retraining: LDS {step.lds.value:.2f} ({step.lds.low:.2f},"
        f" {step.lds.high:.2f}), leave-one-out Pearson {step.pearson:.2f}, clear top-1 {step.clear:.2f}."
    )
    yield ""
    yield "| index | Pearson with the step | Pearson with leave-one-out | LDS |"
    yield "|---|---|---|---|"
    valuer = Valuer(truth, work)
    agreed, true = [], []
    for variant in VARIANTS:
        if truth.case.name not in variant.cases:
            continue
        features = valuer.features(variant)
        effect = features.excess[1.0] + features.support[1.0]
        scores = scoring.score(effect)
        agreed.append(float(correlation(effect, falls).mean()))
        true.append(scores.lds.value)
        yield f"| {variant.name} | {agreed[-1]:.2f} | {scores.pearson:.2f} | {scores.lds.value:.2f} |"
    together = float(spearman(np.array(agreed), np.array(true)))
    yield ""
    yield f"Indexes by their agreement with the step and by LDS: rank correlation {together:.2f}."
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the laboratory, with its retrainings")
    parser.add_argument("--case", choices=list(CASES), help="[default: all three, written to the report]")
    arguments = parser.parse_args()
    page = ["# What a quick validation is worth", "", "    python -m benchmarks.fidelity.stepped --work DIR", ""]
    for name in [arguments.case] if arguments.case else _ALL:
        make, size = CASES[name]
        work = arguments.work / name
        work.mkdir(parents=True, exist_ok=True)
        for line in lines(retrain(make(work, size), work), work):
            print(line, flush=True)
            page.append(line)
    if not arguments.case:
        (REPORTS / "quick.md").write_text("\n".join(page), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
