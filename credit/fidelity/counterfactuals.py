"""Which retrainings are made: all data, all but one provider, and random halves of the providers."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from credit.errors import InvalidRequestError

Kind = Literal["full", "leave-out", "half"]


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """A retraining: the providers whose data it sees, and its seed."""

    kind: Kind
    providers: frozenset[str]
    seed: int


def plan(providers: Sequence[str], *, halves: int, seeds: int, seed: int = 0) -> list[Counterfactual]:
    """Plan retrainings: the full data and each provider left out, `seeds` times each, and `halves` random halves.

    Halves are drawn in pairs, a set and its complement, so that every provider is in as many as it is out of. Each
    half is trained twice with different seeds: the agreement of the two is the noise ceiling.

    Raises:
        InvalidRequestError: there are fewer than three providers, or nothing would be retrained.
    """
    names = sorted(set(providers))
    if len(names) < 3:
        raise InvalidRequestError(f"validation compares providers; {len(names)} are too few, at least 3 are needed")
    if seeds < 1 or halves < 0:
        raise InvalidRequestError("validation needs at least one seed, and no negative number of halves")
    everybody = frozenset(names)
    runs = [Counterfactual("full", everybody, s) for s in range(seeds)]
    runs += [Counterfactual("leave-out", everybody - {name}, s) for name in names for s in range(seeds)]
    rng = random.Random(_number(f"{seed}/{','.join(names)}"))  # noqa: S311  # a reproducible draw, not a secret
    drawn: list[frozenset[str]] = []
    while len(drawn) < halves:
        half = frozenset(rng.sample(names, len(names) // 2))
        if half not in drawn:
            drawn += [half, everybody - half]
        elif len(drawn) >= 2 ** (len(names) - 1):
            break
    runs += [Counterfactual("half", half, s) for half in drawn[:halves] for s in range(2)]
    return runs


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
