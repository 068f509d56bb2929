"""Credits of a whole period, by policies that pay each output alone and by those that add up the period first.

**One output at a time** (`basis: output`): each distributes its weight by its own measures. **The period as one**
(`basis: pool`): measures are added up over the period, each times its output's weight, and all weights are divided by
the sums, as if the period were a single output. An output with strong measures then counts for more than one with
weak ones.

**Negative measures** earn nothing, and by `negative: zero` cost nothing. By `negative: net` they are set off within
the period: where the period is one, they enter its sums; where each output pays alone, a group that an output speaks
against by −m loses weight × m / max(P, N) of what other outputs of the period gave it, P being the sum of the output's
positive measures and N that of its negative ones without their sign: an output takes from all together at most what it
gives, its weight, however weakly it supports anybody. What is set off goes to those who are left with credits, in
proportion; nobody is left with less than none.

All sums are exact: a measure is a double, which is an integer times a power of two. So neither the order of outputs
nor that of groups can change a result, nor a scale that is a power of two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import frexp, isfinite, ldexp

from credit.accounting.apportion import largest_remainder
from credit.accounting.credits import UNEARNED, Policy, group_tie_key, output_credits
from credit.errors import ValuationError
from credit.records import Group

_MANTISSA_BITS = 53


@dataclass(frozen=True, slots=True)
class MeasuredOutput:
    """An output that distributes `weight_micro` by a policy: one measure in nats for each group; `name` breaks ties."""

    policy: Policy
    name: str
    weight_micro: int
    groups: Sequence[Group]
    measures: Sequence[float]


class PeriodCredits:
    """Adds up the credits of a period's outputs; outputs of one policy are divided together."""

    def __init__(self, period: str) -> None:
        self._period = period
        self._alone: dict[Group, int] = {}
        self._together: dict[Policy, _Together] = {}

    def add(self, item: MeasuredOutput) -> None:
        """Add an output.

        Raises:
            ValuationError: a measure is not a finite number.
            InvalidRequestError: groups and measures do not fit each other, or the weight is negative.
        """
        credited = output_credits(item.weight_micro, item.groups, item.measures, tie_key=item.name)
        if not item.policy.is_pooled:
            _sum_into(self._alone, dict(credited))
            return
        if item.policy not in self._together:
            self._together[item.policy] = _Together(item.policy)
        self._together[item.policy].add(item, dict(credited))

    def totals(self) -> dict[Group, int]:
        """Return the period's micro-credits by group, none negative; they sum to the weights of its outputs."""
        found = dict(self._alone)
        for policy in sorted(self._together, key=lambda policy: policy.to_json()):
            _sum_into(found, self._together[policy].divided(self._period))
        return {group: micro for group, micro in found.items() if micro}


class _Together:
    """The outputs that one policy divides together."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._weight_micro = 0
        self._unearned_micro = 0
        self._sums: dict[Group, dict[int, int]] = {}
        """By group, integers by the power of two that each is a multiple of."""

    def add(self, item: MeasuredOutput, credited: Mapping[Group, int]) -> None:
        if self._policy.basis == "output":
            # What no group supported stays with the house: there is nothing in it to be divided otherwise.
            unearned = item.weight_micro if max(item.measures, default=0.0) <= 0.0 else 0
            self._unearned_micro += unearned
            self._weight_micro += item.weight_micro - unearned
            for group in item.groups:
                self._add(group, 0, credited[group])
            if not unearned:
                self._set_off(item)
            return
        self._weight_micro += item.weight_micro
        for group, measure in zip(item.groups, item.measures, strict=True):
            if measure > 0 or self._policy.negative == "net":
                mantissa, exponent = frexp(measure)
                self._add(group, exponent, int(ldexp(mantissa, _MANTISSA_BITS)) * item.weight_micro)

    def _set_off(self, item: MeasuredOutput) -> None:
        """Take from each group that the output speaks against, rounded down to a micro-credit."""
        exact = [_integer(measure) for measure in item.measures]
        whole = max(sum(value for value in exact if value > 0), -sum(value for value in exact if value < 0))
        for group, value in zip(item.groups, exact, strict=True):
            if value < 0:
                self._add(group, 0, -(item.weight_micro * -value // whole))

    def _add(self, group: Group, exponent: int, amount: int) -> None:
        sums = self._sums.setdefault(group, {})
        sums[exponent] = sums.get(exponent, 0) + amount

    def divided(self, period: str) -> dict[Group, int]:
        """Divide what the outputs distribute together by the positive ones of the groups' sums."""
        lowest = min((exponent for sums in self._sums.values() for exponent in sums), default=0)
        totals = {
            group: sum(amount << (exponent - lowest) for exponent, amount in sums.items())
            for group, sums in self._sums.items()
        }
        earning = sorted(group for group, total in totals.items() if total > 0)
        if not earning:
            return {UNEARNED: self._weight_micro + self._unearned_micro}
        key = f"{period}\0{self._policy.to_json()}"
        parts = largest_remainder(
            self._weight_micro, [totals[group] for group in earning], [group_tie_key(key, group) for group in earning]
        )
        found = dict(zip(earning, parts, strict=True))
        _sum_into(found, {UNEARNED: self._unearned_micro})
        return found


_LEAST = 1074
"""Every finite double is a multiple of 2 to the power of minus this."""


def _integer(measure: float) -> int:
    """Return a finite double as a multiple of the smallest one that there is."""
    if not isfinite(measure):
        raise ValuationError(f"a measure is {measure}, which is not a finite number")
    numerator, denominator = measure.as_integer_ratio()
    return numerator << (_LEAST + 1 - denominator.bit_length())


def _sum_into(sums: dict[Group, int], more: Mapping[Group, int]) -> None:
    for group, micro in more.items():
        sums[group] = sums.get(group, 0) + micro
