"""Gains from farmed outputs, with and without the policies against them, and what these cost the honest.

    python -m benchmarks.fidelity.farming --work /tmp/lab

Case `quick` of the laboratory: eight providers, a small model trained on all of them, honest outputs as many of each.
One provider's friends farm: they add outputs that its text earns. What counts is its share of all credits. Then come
two providers in the index whose text the model was never trained on: junk of common phrases, and outliers. A few CPU
minutes; the model is kept in the folder.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.fidelity.cases import CASES, SEED, Case
from benchmarks.fidelity.gaming import GAMER, common_lines
from credit.accounting.credits import MeasuredOutput, PeriodCredits, Policy
from credit.ledger.limits import Limits, UserOutput, limit_outputs
from credit.records import HOUSE, MICRO, Group, LoggedOutput, TrainingRecord
from credit.valuation import AttributionIndex, IndexSettings, LanguageModel, build_index, load_model

CAP = 2
"""Credits of a user's day here, where an honest user asks once: the default of 1000 is for traffic of another size."""

OFF = Policy(echo=0, repeats=0, user_cap_micro=0)
ON = Policy(user_cap_micro=CAP * MICRO)
DAY = "2026-01-05T12:00:00.000000Z"


@dataclass(frozen=True)
class Asked:
    """An output and its user; empty: not logged."""

    output: LoggedOutput
    user: str


class Market:
    """An index with its model, and credits of traffic by a policy."""

    def __init__(self, model: LanguageModel, records: Sequence[TrainingRecord], folder: Path) -> None:
        if not (folder / "manifest.json").is_file():
            build_index(model, records, folder, IndexSettings(), name="lab")
        self._model, self._index = model, AttributionIndex.open(folder)
        self._encoder = model.encoder(self._index.output_length(model))

    def shares(self, traffic: Sequence[Asked], policy: Policy) -> dict[str, float]:
        """Return each provider's share of what is paid to providers; the house's part is in `house`, of all."""
        outputs = [asked.output for asked in traffic]
        values = self._index.value(self._model, outputs, echo=policy.echo, noise_floor=policy.noise_floor)
        counts = self._counted(traffic, policy)
        sums = PeriodCredits("2026-01")
        for number, (asked, measures) in enumerate(zip(traffic, values.effect().tolist(), strict=True)):
            reading = self._encoder.read_output(asked.output, policy.echo)
            echo = MICRO * reading.echo // reading.predicted
            item = MeasuredOutput(policy.of_one_output, f"o{number}", MICRO, self._index.groups, measures, echo)
            sums.add(item.counted(counts.get(number, MICRO)))
        found: dict[str, float] = {}
        totals = sums.totals()
        for group, micro in totals.items():
            found[group.provider] = found.get(group.provider, 0.0) + micro / sum(totals.values())
        return found

    def echo_share(self, traffic: Sequence[Asked], length: int) -> float:
        """Return the part of the predicted tokens that is echo."""
        readings = [self._encoder.read_output(asked.output, length) for asked in traffic]
        return sum(reading.echo for reading in readings) / sum(reading.predicted for reading in readings)

    def _counted(self, traffic: Sequence[Asked], policy: Policy) -> dict[int, int]:
        limits = Limits(policy.repeats, policy.user_cap_micro)
        items = [
            UserOutput(number, "own", f"{number:06d}", DAY, asked.user, _said(asked.output), MICRO, "2026-01", limits)
            for number, asked in enumerate(traffic)
        ]
        return {item.output.id: item.counted_micro for item in limit_outputs(items)}


def _said(output: LoggedOutput) -> str:
    return f"{output.prompt}\0{output.completion}"


def honest(case: Case) -> list[Asked]:
    """The outputs of the case, each asked by a user of its own."""
    return [Asked(output, f"user{number}") for number, output in enumerate(case.outputs)]


def farmed(case: Case, size: int, prompt: Callable[[str], str], said: Callable[[str], str]) -> list[Asked]:
    """Outputs from pieces of the gamer's training text, all asked by one user."""
    own = [record.completion for record in case.records if record.group.provider == GAMER]
    texts = [text for text in own if len(text) > 400]
    rng = random.Random(SEED)
    found = []
    for number in range(size):
        text = texts[number % len(texts)]
        low = rng.randrange(len(text) - 300)
        piece = text[low : low + 300]
        output = replace(case.outputs[0], external_id=f"farmed{number}", prompt=prompt(piece), completion=said(piece))
        found.append(Asked(output, "mallory"))
    return found


def tricks(case: Case) -> dict[str, list[Asked]]:
    """Return the traffic that each trick adds to the honest one."""
    tenth, all_of_it = round(len(case.outputs) / 9), len(case.outputs)
    rest = farmed(case, all_of_it, lambda piece: piece[:200], lambda piece: piece[200:])
    echo = farmed(case, all_of_it, lambda piece: piece, lambda piece: piece)
    gibberish = [chr(random.Random(SEED + n).randrange(0x100, 0x2000)) for n in range(120)]
    rare = replace(rest[0].output, external_id="rare", completion="".join(gibberish))
    return {
        "a tenth of the traffic: its text as prompt, and again as answer (echo)": echo[:tenth],
        "a tenth of the traffic: two thirds of a passage as prompt, the rest as answer": rest[:tenth],
        "a tenth of the traffic: one such call, again and again": rest[:1] * tenth,
        "one user as much as all others: such calls": rest,
        "one user as much as all others: echo": echo,
        "the same by as many users, one call each": [replace(a, user=f"sock{n}") for n, a in enumerate(rest)],
        "a tenth of the traffic: answers of rare characters": [Asked(rare, "mallory")] * tenth,
    }


def common(case: Case, users: bool) -> list[Asked]:
    """Honest traffic in which some prompts are common: ten times as much, by Zipf's law, at temperature 0."""
    rng = random.Random(SEED)
    order = rng.sample(list(case.outputs), len(case.outputs))
    drawn = rng.choices(order, [1 / rank for rank in range(1, len(order) + 1)], k=10 * len(order))
    return [Asked(output, f"user{number}" if users else "") for number, output in enumerate(drawn)]


def moved(before: dict[str, float], after: dict[str, float]) -> float:
    """Return the largest change of a provider's share of what providers get, in points."""
    keys = (before.keys() | after.keys()) - {HOUSE}
    whole = [1 - found.get(HOUSE, 0.0) for found in (before, after)]
    return 100 * max(abs(before.get(key, 0) / whole[0] - after.get(key, 0) / whole[1]) for key in keys)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the model, kept between runs")
    arguments = parser.parse_args()
    make, size = CASES["quick"]
    work = arguments.work / "quick"
    work.mkdir(parents=True, exist_ok=True)
    case = make(work, size)
    folder = work / "gamed-honest-0"
    if not (folder / "tokenizer.json").is_file():  # written last
        case.recipe.train(case.records, 0, folder)
    model = load_model(folder, dtype="fp32")
    market = Market(model, case.records, work / "farming-index")
    base = honest(case)
    plain, kept = market.shares(base, OFF), market.shares(base, ON)
    print(f"| {GAMER}'s share of all credits | policies off | on | house, on |\n|---|---|---|---|")
    print(f"| honest | {plain[GAMER]:.1%} | {kept[GAMER]:.1%} | {kept.get(HOUSE, 0):.1%} |", flush=True)
    for name, more in tricks(case).items():
        off, on = market.shares([*base, *more], OFF), market.shares([*base, *more], ON)
        print(f"| {name} | {off[GAMER]:.1%} | {on[GAMER]:.1%} | {on.get(HOUSE, 0):.1%} |", flush=True)
    print("\n| cost to the honest | echo, of tokens | largest change of a share, points |\n|---|---|---|")
    for length in (2, 4, 6, 8, 12, 16):
        policy = replace(OFF, echo=length)
        change = moved(plain, market.shares(base, policy))
        print(f"| echo {length} | {market.echo_share(base, length):.1%} | {change:.2f} |", flush=True)
    for name, users in (("common prompts, users logged", True), ("common prompts, no users logged", False)):
        traffic = common(case, users)
        change = moved(market.shares(traffic, OFF), market.shares(traffic, replace(OFF, repeats=1)))
        print(f"| repeats 1: {name} | | {change:.2f} |", flush=True)
    untrained(case, model, base, work)


def untrained(case: Case, model: LanguageModel, base: Sequence[Asked], work: Path) -> None:
    """Print the shares of two providers in the index with text that the model was never trained on."""
    rng = random.Random(SEED)
    size = sum(len(record.completion) for record in case.records if record.group.provider == GAMER)
    lines = common_lines(case.records)
    junk = "\n".join(rng.choice(lines) for _ in range(size // 25))[:size]
    rare = "".join(chr(rng.randrange(0x100, 0x2000)) for _ in range(size // 4))
    print("\n| in the index, never trained on | policies off | on |\n|---|---|---|")
    for name, text in (("junk of common phrases", junk), ("outliers: characters that nobody else has", rare)):
        group = Group("junk")
        more = [TrainingRecord(f"junk/{low}", group, text[low : low + 4000]) for low in range(0, len(text), 4000)]
        market = Market(model, [*case.records, *more], work / f"farming-{name.split()[0].strip(':')}")
        off, on = market.shares(base, OFF), market.shares(base, ON)
        print(f"| {name} | {off.get('junk', 0):.1%} | {on.get('junk', 0):.1%} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
