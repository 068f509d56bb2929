"""Gains from gaming the numbers: each trick is played, the model trained on it, and the shares compared.

    python -m benchmarks.fidelity.gaming --work /tmp/lab
    python -m benchmarks.fidelity.gaming --work /tmp/lab --case quick --seeds 1    # as in the tests

Case `packages` (or `quick`, the same in small), and one of its providers of middling size as the gamer. The tricks
stand in the data on which the model is trained, as they would. What counts is the share of all credits that the gamer
gets, by each measure and weighting, against its share when it is honest; the spread of honest shares over seeds is the
noise.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.fidelity.cases import CASES, SEED, Case, held_out_prose
from benchmarks.fidelity.grid import DEFAULT, Features, Variant, reduce_rows, row_influence
from credit.fidelity.membership import what_was_learned
from credit.fidelity.metrics import Floats, shares
from credit.fidelity.overlap import find_overlap
from credit.records import Group, TrainingRecord
from credit.valuation import LanguageModel, load_model

GAMER, RIVAL = "polars", "rich"
SECOND = "polars-2"
CONTROL = "control"
WEIGHTINGS = ("none", "unit")
LEAST = 0.15
"""Part of a record that others had before, from which on it is left out; honest ones here have 0.003 at the most."""

Records = list[TrainingRecord]


def honest(records: Sequence[TrainingRecord]) -> Records:
    """Everybody's data as it is."""
    return list(records)


def tenfold(records: Sequence[TrainingRecord]) -> Records:
    """Every record of the gamer ten times, under other ids, past the reader that would leave repeats out."""
    own = _of(records, GAMER)
    return [*records, *(replace(r, id=f"{r.id}#{n}") for n in range(9) for r in own)]


def tenfold_noticed(records: Sequence[TrainingRecord]) -> Records:
    """The same, and the reader leaves the repeats out of the index, though the model was trained on them."""
    return list(records)


def noise(records: Sequence[TrainingRecord]) -> Records:
    """As much text again of random letters."""
    rng = random.Random(SEED)
    size = sum(len(r.completion) for r in _of(records, GAMER))
    letters = "abcdefghijklmnopqrstuvwxyz     \n"
    return [*records, *_added("noise", "".join(rng.choice(letters) for _ in range(size)))]


def common_text(records: Sequence[TrainingRecord]) -> Records:
    """Add as much text again, of the lines in most files."""
    block = "\n".join(common_lines(records))
    size = sum(len(r.completion) for r in _of(records, GAMER))
    return [*records, *_added("common", (block * (size // len(block) + 1))[:size])]


def common_lines(records: Sequence[TrainingRecord]) -> list[str]:
    """Return the lines that stand in most records."""
    lines = Counter(line for r in records for line in set(r.completion.splitlines()) if len(line) > 12)
    return [line for line, _ in lines.most_common(400)]


def common_text_noticed(records: Sequence[TrainingRecord]) -> Records:
    """The same, and what `credit overlap` names is left out of the index, though the model was trained on it."""
    return _less_overlap(common_text(records))


def two_accounts(records: Sequence[TrainingRecord]) -> Records:
    """Half of the gamer's records under a second account."""
    second = {r.id for r in _of(records, GAMER)[::2]}
    return [replace(r, group=Group(SECOND)) if r.id in second else r for r in records]


def copied(records: Sequence[TrainingRecord]) -> Records:
    """All of a rival's records too, each with a blank changed."""
    return [*records, *(replace(r, id=f"{r.id}#copy", group=Group(GAMER), completion=" " + r.completion)
                        for r in _of(records, RIVAL))]  # fmt: skip


def copied_noticed(records: Sequence[TrainingRecord]) -> Records:
    """The same, and what `credit overlap` names is left out of the index, though the model was trained on it."""
    return _less_overlap(copied(records))


def keywords(records: Sequence[TrainingRecord]) -> Records:
    """Add as much text again, of the identifiers most used by others."""
    words = Counter(w for r in records if r.group.provider != GAMER for w in r.completion.split() if len(w) > 3)
    common = [word for word, _ in words.most_common(300)]
    rng = random.Random(SEED)
    size = sum(len(r.completion) for r in _of(records, GAMER))
    text = " ".join(rng.choice(common) for _ in range(size // 6))
    return [*records, *_added("words", text)]


def outliers(records: Sequence[TrainingRecord]) -> Records:
    """A tenth as much text of bytes that no other text has: every token a surprise, every gradient long."""
    rng = random.Random(SEED)
    size = sum(len(r.completion) for r in _of(records, GAMER)) // 10
    return [*records, *_added("bytes", "".join(chr(rng.randrange(0x100, 0x2000)) for _ in range(size)))]


TRICKS: dict[str, Callable[[Sequence[TrainingRecord]], Records]] = {
    "honest": honest,
    "data ten times, unnoticed": tenfold,
    "data ten times, noticed": tenfold_noticed,
    "padded with noise": noise,
    "padded with common text": common_text,
    "padded with common text, noticed": common_text_noticed,
    "two accounts": two_accounts,
    "a rival's data copied": copied,
    "a rival's data copied, noticed": copied_noticed,
    "keywords": keywords,
    "outliers": outliers,
}
TRAINED_AS = {
    "data ten times, noticed": "data ten times, unnoticed",
    "padded with common text, noticed": "padded with common text",
    "two accounts": "honest",
    "a rival's data copied, noticed": "a rival's data copied",
}
"""Tricks whose model is that of another: what it was trained on is the same."""


def measures(features: Features) -> dict[str, Floats]:
    """Return the compared measures, each (Q, P)."""
    return {
        "influence + support over 1 σ": features.excess[1.0] + features.support[1.0],
        "influence + support + volume/5": features.influence + features.support[0.0] + 0.2 * features.volume,
        "influence": features.influence,
        "support": features.support[0.0],
        "support over 1 σ": features.support[1.0],
    }


def play(
    case: Case, work: Path, tricks: Sequence[str], seeds: int, weightings: Sequence[str] = WEIGHTINGS
) -> Iterator[tuple[str, str, str, list[float]]]:
    """Yield trick, weighting, measure, and for each seed the gamer's share of all credits (0 to 1)."""
    for trick in tricks:
        records = TRICKS[trick](case.records)
        for weighting in weightings:
            found: dict[str, list[float]] = {}
            for seed in range(seeds):
                model = _model(case, work, TRAINED_AS.get(trick, trick), seed)
                for name, share in _shares(case, work, model, records, weighting).items():
                    found.setdefault(name, []).append(share)
            for name, values in found.items():
                yield trick, weighting, name, values


def control(case: Case, work: Path, seed: int = 0) -> dict[str, float]:
    """Share of all credits (0 to 1) of a provider in the index whose text the model was never trained on."""
    model = _model(case, work, "honest", seed)
    return _shares(case, work, model, _with_control(case), "none", of=(CONTROL,))


def doubted(case: Case, work: Path, seed: int = 0) -> set[str]:
    """Return the providers that `credit membership` names when one of them was left out of the training."""
    load = [partial(_model, case, work, "honest", seed, until) for until in (0.5, 1.0)]
    found = what_was_learned(load, _with_control(case), max_length=case.recipe.max_length)
    return {item.provider for item in found if item.doubted}


def _with_control(case: Case) -> Records:
    return [*case.records, *(TrainingRecord(d.id, Group(CONTROL), d.text) for d in held_out_prose(12_000))]


def _shares(
    case: Case,
    work: Path,
    model: LanguageModel,
    records: Sequence[TrainingRecord],
    weighting: str,
    of: tuple[str, ...] = (GAMER, SECOND),
) -> dict[str, float]:
    providers = sorted({r.group.provider for r in records})
    settings = replace(DEFAULT, weighting=weighting)
    values, rows, owners = row_influence(case, model, records, Variant("", settings), work)
    columns = [number for number, name in enumerate(providers) if name in of]
    found = measures(reduce_rows(values, rows, owners, providers))
    return {name: float(shares(measure)[columns].sum()) for name, measure in found.items()}


def _model(case: Case, work: Path, trick: str, seed: int, until: float = 1.0) -> LanguageModel:
    folder = work / f"gamed-{trick.replace(' ', '-').replace(',', '')}-{seed}{'' if until == 1.0 else f'-{until:g}'}"
    if not (folder / "tokenizer.json").is_file():  # written last
        case.recipe.train(TRICKS[trick](case.records), seed, folder, until=until)
    return load_model(folder, dtype="fp32")


def _of(records: Sequence[TrainingRecord], provider: str) -> Records:
    return [record for record in records if record.group.provider == provider]


def _less_overlap(records: Records) -> Records:
    """Return the records without those found to `LEAST` in earlier records of others."""
    named = {item.id for item in find_overlap(records, least=LEAST).records if item.before >= LEAST}
    return [record for record in records if record.id not in named]


def _added(name: str, text: str, chunk: int = 4000) -> Records:
    """The gamer's additional records."""
    return [
        TrainingRecord(f"{GAMER}/{name}/{low}", Group(GAMER), text[low : low + chunk])
        for low in range(0, len(text), chunk)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for models, kept between runs")
    parser.add_argument("--case", choices=["packages", "quick"], default="packages")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", action="append", help="names of tricks")
    arguments = parser.parse_args()
    make, size = CASES[arguments.case]
    work = arguments.work / arguments.case
    work.mkdir(parents=True, exist_ok=True)
    case = make(work, size)
    print("| trick | weighting | measure | share | seeds |\n|---|---|---|---|---|")
    for trick, weighting, measure, found in play(case, work, arguments.only or list(TRICKS), arguments.seeds):
        spread = ", ".join(f"{100 * value:.1f}" for value in found)
        print(f"| {trick} | {weighting} | {measure} | {100 * np.mean(found):.1f} % | {spread} |", flush=True)
    for measure, share in control(case, work).items():
        print(f"| control, never trained on | none | {measure} | {100 * share:.1f} % | |", flush=True)
    print(f"credit membership names: {', '.join(sorted(doubted(case, work))) or 'nobody'}")


if __name__ == "__main__":
    sys.exit(main())
