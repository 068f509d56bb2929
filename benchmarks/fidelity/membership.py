"""Worth of `credit membership`: each provider in turn is left out of the training, and looked for among the others.

    python -m benchmarks.fidelity.membership --work /tmp/lab                  # half an hour; writes the report
    python -m benchmarks.fidelity.membership --work /tmp/lab --case packages  # one case; nothing is written

For every provider of a case a model is trained without it, and its checkpoint in the middle of the run; what the model
learned in between, or since the model that it was tuned from, is compared between all providers, that one among them.
It is right if it names that one and nobody else.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.fidelity.cases import CASES, Case
from benchmarks.fidelity.lab import REPORTS
from credit.fidelity.membership import DOUBTED_BELOW, Learned, what_was_learned
from credit.valuation import load_model

MIDDLE = 0.5


def learned(case: Case, work: Path, left: str | None) -> Iterator[tuple[str, tuple[Learned, ...]]]:
    """Yield an earlier checkpoint's name, and what was learned since by a model that never saw the provider `left`."""
    records = [record for record in case.records if record.group.provider != left]
    folders = {part: work / "membership" / f"{left}-{part:g}" for part in (MIDDLE, 1.0)}
    for part, folder in folders.items():
        if not (folder / "tokenizer.json").is_file():  # written last
            case.recipe.train(records, 0, folder, until=part)
    earlier = {"middle of the run": folders[MIDDLE]}
    if not case.recipe.scratch:
        earlier["model that it was tuned from"] = case.recipe.start
    for name, folder in earlier.items():
        load = [partial(load_model, path, dtype="fp32") for path in (folder, folders[1.0])]
        yield name, what_was_learned(load, case.records, max_length=case.recipe.max_length)


def lines(case: Case, work: Path) -> Iterator[str]:
    """Yield a case's results in Markdown."""
    providers = sorted({record.group.provider for record in case.records})
    strange: dict[str, list[Learned]] = {}
    own: dict[str, list[Learned]] = {}
    for left in (None, *providers):
        for name, found in learned(case, work, left):
            strange.setdefault(name, []).extend(item for item in found if item.provider == left)
            own.setdefault(name, []).extend(item for item in found if item.provider != left)
            print(case.name, left, name, *(_told(item) for item in found), flush=True)
    for name, seen in own.items():
        unseen = strange[name]
        yield f"| {case.name} | {name} | {_named(unseen)} | {_span(unseen)} | {_named(seen)} | {_span(seen)} |"


def _told(item: Learned) -> str:
    return f"{item.provider} {item.relative.value:.2f} ({item.relative.low:.2f}, {item.relative.high:.2f})"


def _named(found: Sequence[Learned]) -> str:
    return f"{sum(item.doubted for item in found)} of {len(found)}"


def _span(found: Sequence[Learned]) -> str:
    values = [item.relative.value for item in found]
    return f"{min(values):.2f} to {max(values):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for models, kept between runs")
    parser.add_argument("--case", choices=list(CASES), help="[default: all three, written to the report]")
    arguments = parser.parse_args()
    page = [
        "# Does the training tell whose text was in it?",
        "",
        "    python -m benchmarks.fidelity.membership --work DIR",
        "",
        "Every provider was left out of the training once, and looked for among all. Named is whoever's text the model",
        f"learned less than {DOUBTED_BELOW:g} times as much of as of the others' (their median), to the upper end of a",
        "90 % interval over the windows of text that were read.",
        "",
        "| case | since | not trained on: named | learned of it | trained on: named | learned of it |",
        "|---|---|---|---|---|---|",
    ]
    for name in [arguments.case] if arguments.case else ("packages", "prose", "pretrained"):
        make, size = CASES[name]
        work = arguments.work / name
        work.mkdir(parents=True, exist_ok=True)
        page += lines(make(work, size), work)
    text = "\n".join(page) + "\n"
    print(text)
    if not arguments.case:
        (REPORTS / "membership.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
