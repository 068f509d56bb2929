"""Laboratory: the engine's choices as predictions of retraining, over several cases.

    python -m benchmarks.fidelity.lab --work /tmp/lab                  # everything: hours
    python -m benchmarks.fidelity.lab --work /tmp/lab --case packages --only "random r64"

Retrainings are kept in the work folder: run again, only new ones are made. Writes a page and a plot for each case to
reports/fidelity. Grid and cases are in `grid.py` and `cases.py` beside this file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np

from benchmarks.fidelity.cases import CASES
from benchmarks.fidelity.grid import GRID, Features, Valuer, Variant
from benchmarks.fidelity.scores import Scores, Scoring, fitted
from benchmarks.fidelity.truth import Truth, retrain
from credit.fidelity.metrics import Floats

ROOT = Path(__file__).parent.parent.parent
REPORTS = ROOT / "reports" / "fidelity"
_PLAIN = ": influence + support over 1 σ"


def measures(features: Features, scoring: Scoring) -> Iterator[tuple[str, Floats]]:
    """Yield all measures (Q, P) that could pay: those of an index, and effect with weights fitted on retrainings."""
    infl, volume = features.influence, features.volume
    for floor, support in features.support.items():
        at = "" if floor == 0 else f" over {floor:g} σ"
        yield f"support{at}", support
        yield f"influence + support{at}", features.excess[floor] + support
    yield "influence", infl
    yield "influence + support + volume/5", infl + features.support[0.0] + 0.2 * volume
    yield "support + volume/5", features.support[0.0] + 0.2 * volume
    yield (
        "effect, fitted on 4 retrainings",
        fitted([features.excess[1.0], features.support[1.0], volume], scoring.evidence.fall, 4),
    )


def run(truth: Truth, work: Path, variants: Sequence[Variant]) -> tuple[list[tuple[str, Scores]], str]:
    """Score the baselines and every variant on a case. Return the rows, and paragraphs on the default."""
    scoring = Scoring(truth)
    rows = list(scoring.baselines())
    for name, scores in rows:
        print(scores.line(name), flush=True)
    said = ""
    valuer = Valuer(truth, work)
    for variant in variants:
        features = valuer.features(variant)
        if variant is GRID[0]:
            support = features.support[1.0]
            excess = features.excess[1.0]
            nats = scoring.calibrated([excess, support, features.volume]).words()
            effect = excess + support
            words = [scoring.leads(effect), scoring.limits(effect), nats, scoring.coverage(effect).words()]
            said = "\n\n".join(words)
            print(said, flush=True)
        for name, measure in measures(features, scoring):
            scores = scoring.score(measure)
            rows.append((f"{variant.name}: {name}", scores))
            print(scores.line(rows[-1][0]), flush=True)
    return rows, said


def page(truth: Truth, rows: Sequence[tuple[str, Scores]], said: str) -> str:
    """Return a case's results in Markdown."""
    scoring = Scoring(truth)
    size = truth.case.size
    noise = scoring.noise()
    seeds = "two seeds" if size.seeds == 2 else f"{size.seeds} seed"
    made = (
        f"{truth.case.text}. {len(truth.case.outputs)} outputs; {len(truth.outcomes)} retrainings: all data, without "
        f"each provider ({seeds} each), and {size.halves} random halves of the providers (two seeds each)."
    )
    bound = (
        f"**Noise.** LDS cannot exceed {noise.lds:.2f} ({noise.lds_given_size:.2f} given size): two seeds of a half "
        "agree no better."
    )
    command = f"    python -m benchmarks.fidelity.lab --work DIR --case {truth.case.name}"
    lines = [f"# Fidelity: {truth.case.name}", "", made, "", command, "", bound]
    if noise.pearson is not None:
        lines.append(
            f"Leave-one-out: two seeds agree by a Pearson correlation of {noise.pearson:.2f}; nothing can predict "
            f"their mean better than {noise.pearson_ceiling:.2f}; their shares differ by {noise.shares:.2f}."
        )
    lines += ["", said, "", f"![LDS of every measure]({truth.case.name}.svg)", "", Scores.heading()]
    lines += [scores.line(name) for name, scores in rows]
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[tuple[str, Scores]], ceiling: float) -> str:
    """Return the LDS of plain effect under every variant and of baselines, with 90 % intervals and ceiling, as SVG."""
    shown = sorted(
        ((name, scores.lds) for name, scores in rows if ": " not in name or name.endswith(_PLAIN)),
        key=lambda row: -row[1].value,
    )
    low = min(0.0, *(lds.low for _, lds in shown))
    high = max(ceiling, *(lds.high for _, lds in shown))
    left, width, step = 260, 400, 20
    bottom = step * len(shown) + 10

    def x(value: float) -> str:
        return f"{left + width * (value - low) / (high - low):.1f}"

    parts = [f'<path d="M{x(ceiling)},0V{bottom}" stroke="#555" stroke-dasharray="4"/>']
    for tick in np.arange(np.ceil(low * 5) / 5, high, 0.2):
        parts.append(f'<path d="M{x(tick)},0V{bottom}" stroke="#ddd"/>')
        parts.append(f'<text x="{x(tick)}" y="{bottom + 16}" text-anchor="middle">{tick:.1f}</text>')
    for place, (name, lds) in enumerate(shown):
        y, colour = step * place + 15, "#1f4e79" if name.endswith(_PLAIN) else "#c5571f"
        parts.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{escape(name.removesuffix(_PLAIN))}</text>')
        parts.append(f'<path d="M{x(lds.low)},{y}H{x(lds.high)}" stroke="{colour}"/>')
        parts.append(f'<circle cx="{x(lds.value)}" cy="{y}" r="4" fill="{colour}"/>')
    parts.append(f'<text x="{left}" y="{bottom + 36}">LDS (90 % interval); blue: attribution, orange: baselines</text>')
    size = f'viewBox="0 0 {left + width + 20} {bottom + 46}"'
    drawn = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">\n{drawn}\n</svg>\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for retrainings, kept between runs")
    parser.add_argument("--case", action="append", choices=list(CASES), help="[default: all]")
    parser.add_argument("--only", action="append", help="names of variants; nothing is written then")
    parser.add_argument("--workers", type=int, default=1, help="retrainings at a time")
    arguments = parser.parse_args()
    np.set_printoptions(precision=3)
    for name in arguments.case or ("packages", "prose", "pretrained"):
        make, size = CASES[name]
        work = arguments.work / name
        work.mkdir(parents=True, exist_ok=True)
        truth = retrain(make(work, size), work, arguments.workers)
        chosen = [v for v in GRID if name in v.cases and (not arguments.only or v.name in arguments.only)]
        rows, said = run(truth, work, chosen)
        if not arguments.only:
            REPORTS.mkdir(parents=True, exist_ok=True)
            (REPORTS / f"{name}.md").write_text(page(truth, rows, said), encoding="utf-8")
            drawn = plot(rows, Scoring(truth).noise().lds)
            (REPORTS / f"{name}.svg").write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
