"""What outputs pay, said once more in fractions: each alone, and those that a policy adds up over a month."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from math import floor
from typing import NamedTuple

NOBODY = "house"
"""Who is credited with what no group earned."""


class Paid(NamedTuple):
    """How an output's measures become credits."""

    measure: str = "support"
    basis: str = "output"
    negative: str = "zero"

    @property
    def needs_period(self) -> bool:
        return self[1:] != ("output", "zero")

    @property
    def text(self) -> str:
        """The policy as it is stored; it breaks ties between those whom it divides a month among."""
        basis = '"basis":"period",' if self.basis == "period" else ""
        negative = '"negative":"net",' if self.negative == "net" else ""
        return (
            f'{{"alpha":1.0,{basis}"beta":1.0,"damping":null,"gamma":0.0,"measure":"{self.measure}",'
            f'{negative}"noise_floor":1.0}}'
        )


ALONE = Paid()


@dataclass
class Output:
    """A logged output: when it occurred, what it weighs and measures, and where it is.

    It is `waiting`, `valued` (its credits count in `month`), `unvalued` or `reversed`; `history` says
    whether it ever was unvalued, and `reason` why it is.
    """

    name: str
    occurred: int
    weight: int
    measures: Mapping[str, Mapping[str, int]]
    paid: Paid = ALONE
    state: str = "waiting"
    month: int = -1
    history: bool = False
    reason: str = ""

    def alone(self, paid: Paid) -> dict[str, int]:
        """What it pays by itself: its weight, by the positive ones of its measures."""
        measures = {key: value for key, value in self.measures[paid.measure].items() if value > 0}
        return divide(self.name, self.weight, measures, group_name) if measures else {NOBODY: self.weight}


def group_name(key: str) -> str:
    """How a group is named where ties between groups are broken; `ann` is ann's default collection."""
    provider, _, collection = key.partition("/")
    return f"{provider}\0{collection or 'default'}"


def divide(
    name: str, net: int, credited: Mapping[str, Fraction | int], named: Callable[[str], str] = str
) -> dict[str, int]:
    """Floors of the exact shares; what is left goes to the largest remainders, ties by hash."""
    total = Fraction(sum(credited.values()))
    exact = {key: net * value / total if total else Fraction(0) for key, value in credited.items()}
    parts = {key: floor(value) for key, value in exact.items()}
    order = sorted(exact, key=lambda key: (parts[key] - exact[key], sha256(f"{name}\0{named(key)}".encode()).digest()))
    left = net - sum(parts.values()) if total else 0
    for key in order[:left]:
        parts[key] += 1
    return parts


def month_credits(month: str, outputs: Sequence[tuple[Output, Paid]]) -> dict[str, int]:
    """What outputs pay together, each by its own policy."""
    found: dict[str, int] = defaultdict(int)
    for paid in {paid for _, paid in outputs}:
        own = [output for output, other in outputs if other == paid]
        parts = [_together(month, own, paid)] if paid.needs_period else [output.alone(paid) for output in own]
        for part in parts:
            for key, micro in part.items():
                found[key] += micro
    return {key: micro for key, micro in found.items() if micro}


def _together(month: str, outputs: Sequence[Output], paid: Paid) -> dict[str, int]:
    divided, unearned = 0, 0
    sums: dict[str, Fraction] = defaultdict(Fraction)
    for output in outputs:
        measures = output.measures[paid.measure]
        positive = sum(value for value in measures.values() if value > 0)
        negative = -sum(value for value in measures.values() if value < 0)
        if paid.basis == "output" and not positive:
            unearned += output.weight
            continue
        divided += output.weight
        alone = output.alone(paid)
        for key, value in measures.items():
            if paid.basis == "period":
                sums[key] += output.weight * (value if paid.negative == "net" else max(value, 0))
            else:
                lost = Fraction(output.weight * -value, max(positive, negative)) if value < 0 else 0
                sums[key] += alone.get(key, 0) - floor(lost)
    left = {key: value for key, value in sums.items() if value > 0}
    if not left:
        return {NOBODY: divided + unearned}
    parts = divide(f"{month}\0{paid.text}", divided, left, group_name)
    parts[NOBODY] = parts.get(NOBODY, 0) + unearned
    return parts
