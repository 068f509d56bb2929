"""Credits: measures in nats become micro-credits, exactly, and sum to the weight of the outputs.

**One output at a time** (`basis: output`): each output distributes its weight by its own measures. **The period as
one** (`basis: period`): measures are added up over the period, each times its output's weight, and the sums divide all
weights, as if the period were a single output. An output with strong measures then counts for more than one with weak
ones.

**Negative measures** earn nothing. With `negative: zero` they cost nothing either. With `negative: net` they are set
off within the period. Where the period is one, they enter its sums. Where each output pays alone, a group loses part of
its other credits of the period: an output that speaks against it by −m takes weight × m / max(P, N) from it. P is the
sum of the output's positive measures, N that of its negative ones without their sign, so an output takes from all
groups together at most its weight, however weakly it supports anybody. The groups with credits left share what is set
off, in proportion; nobody ends below zero.

All sums are exact: a double is an integer times a power of two. Neither the order of outputs nor that of groups can
change a result, nor can a scale that is a power of two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from math import frexp, isfinite, ldexp
from typing import Any, Literal, get_args

from credit.accounting.apportion import apportion_doubles, largest_remainder
from credit.errors import InvalidRequestError, ValuationError
from credit.records import ECHO_COLLECTION, HOUSE, MICRO, UNATTRIBUTED, Group
from credit.storage import canonical_json

Measure = Literal["effect", "support", "influence"]

Basis = Literal["output", "period"]
Negative = Literal["zero", "net"]
Thoughts = Literal["context", "paid"]
CounterfactualKind = Literal["removed", "replaced"]

UNEARNED = Group(HOUSE, UNATTRIBUTED)
"""The group that gets the credits that no data earned."""

ECHO = Group(HOUSE, ECHO_COLLECTION)
"""The group that gets the part of an output that repeats its prompt: the user wrote it, and no data earned it."""

_MANTISSA_BITS = 53

_LATER: dict[str, Any] = {
    "basis": "output",
    "negative": "zero",
    "thoughts": "context",
    "counterfactual": "removed",
    "echo": 0,
    "repeats": 0,
    "user_cap_micro": 0,
}
"""Fields that stand in the JSON only where they have another value than this one: that of policies before the field."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How measures become credits. Policy is data: it is stored with every run that it shaped.

    Attributes:
        measure: the number credits follow: effect, support or influence.
        noise_floor: the limit of noise, for an example in support and for a sum of examples in effect, as a multiple
            of an output's pooled spread; at least 0.
        alpha: weight of influence beyond the noise in effect.
        beta: weight of support in effect.
        gamma: weight of volume in effect.
        damping: of the curvature, relative to its mean eigenvalue; None for that of the index.
        basis: `output`, and each output distributes its own weight; or `period`, and measures are added up first.
        negative: `zero`, and negative measures count for nothing; or `net`, and they are set off within the period.
        thoughts: `context`, and a model's thoughts are part of what its answer followed; or `paid`, and they are valued
            with the answer.
        counterfactual: of a provider's absence: `removed`, and the model trains fewer steps on less data; or
            `replaced`, and it trains as many steps, on more of the others' data.
        echo: tokens of a completion are not paid for where this many in a row stand in the prompt; 0 pays for all.
        repeats: times one user's output of one text counts on a day; 0 counts every one.
        user_cap_micro: most micro-credits of one user's outputs on a day; 0 for no limit.

    The numbers are parameters of the valuation, not amounts: doubles, which JSON carries without loss.
    """

    measure: Measure = "effect"
    noise_floor: float = 1.0
    alpha: float = 1.0
    beta: float = 1.0
    gamma: float = 0.0
    damping: float | None = None
    basis: Basis = "output"
    negative: Negative = "zero"
    thoughts: Thoughts = "context"
    counterfactual: CounterfactualKind = "removed"
    echo: int = 16
    repeats: int = 1
    user_cap_micro: int = 1000 * MICRO

    def __post_init__(self) -> None:
        kinds = (
            ("measure", Measure),
            ("basis", Basis),
            ("negative", Negative),
            ("thoughts", Thoughts),
            ("counterfactual", CounterfactualKind),
        )
        for name, known in kinds:
            if getattr(self, name) not in get_args(known):
                raise InvalidRequestError(f"{name} is {getattr(self, name)!r}; it must be one of {get_args(known)}")
        for name in ("noise_floor", "alpha", "beta", "gamma", "damping"):
            value = getattr(self, name)
            if name == "damping" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
                raise InvalidRequestError(f"{name} is {value!r}; it must be a finite number")
            # 1, 1.0 and the -0.0 of a careless subtraction must not make two fingerprints of one policy.
            object.__setattr__(self, name, float(value) + 0.0)
        for name in ("echo", "repeats", "user_cap_micro"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InvalidRequestError(f"{name} is {value!r}; it must be a whole number, at least 0")
        if self.damping is not None and self.damping <= 0:
            raise InvalidRequestError(f"damping is {self.damping}; it must be positive")
        if self.noise_floor < 0:
            raise InvalidRequestError(f"noise_floor is {self.noise_floor}; it cannot be negative")

    @classmethod
    def chosen(cls, **fields: Any) -> Policy:
        """Return the policy with the fields that somebody chose, and the default measure of its counterfactual.

        Where others take a provider's place, influence predicted retraining best; where they do not, effect is paid.
        """
        unnamed = not fields.keys() & {"measure", "alpha", "beta", "gamma"}
        if fields.get("counterfactual") == "replaced" and unnamed:
            fields["measure"] = "influence"
        return cls(**fields)

    def to_json(self) -> str:
        """Return the policy as canonical JSON: sorted keys, no spaces, shortest exact numbers."""
        said = {name: value for name, value in asdict(self).items() if _LATER.get(name, "") != value}
        return canonical_json(said)

    @classmethod
    def from_json(cls, text: str) -> Policy:
        """Read a policy from the JSON of `to_json`: with every required field, and no unknown one."""
        try:
            stored = json.loads(text)
        except ValueError as error:
            raise InvalidRequestError(f"a stored policy is not JSON: {error}") from error
        known = {field.name for field in fields(cls)}
        if not isinstance(stored, dict) or set(stored) - _LATER.keys() != known - _LATER.keys():
            found = sorted(stored) if isinstance(stored, dict) else stored
            raise InvalidRequestError(f"a stored policy must have the fields {sorted(known)}, not {found}")
        return cls(**(_LATER | stored))

    @property
    def needs_period(self) -> bool:
        """True if the credits of an output depend on the other outputs of its period."""
        return (self.basis, self.negative) != ("output", "zero")

    @property
    def of_one_output(self) -> Policy:
        """The policy as far as a validation can test it: its measure of whole answers, not how these count."""
        return replace(self, basis="output", negative="zero", thoughts="context", echo=0, repeats=0, user_cap_micro=0)

    @property
    def limits_users(self) -> bool:
        """True if an output can count for less because of the user's other outputs."""
        return bool(self.repeats or self.user_cap_micro)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, in hex: equal policies, equal fingerprints."""
        return sha256(self.to_json().encode()).hexdigest()


def group_tie_key(tie_key: str, group: Group) -> bytes:
    """Return the key of a group in a tie: a hash, so no group wins every tie."""
    return sha256(f"{tie_key}\0{group.provider}\0{group.collection}".encode()).digest()


def output_credits(
    weight_micro: int, groups: Sequence[Group], measures: Sequence[float], *, tie_key: str, echo_micro: int = 0
) -> list[tuple[Group, int]]:
    """Distribute an output's weight over groups, in proportion to the positive parts of their measures.

    Args:
        weight_micro: the output's weight in micro-credits, at least 0.
        groups: the groups that were valued, all different.
        measures: one number in nats for each group; only positive ones earn.
        tie_key: the name of the output: it breaks ties, and errors show it.
        echo_micro: the part of the weight that repeats the prompt; the rest is distributed.

    Returns:
        Every group with its micro-credits (0 included), in the order given, then the house's collections, where they
        get something: `unattributed` takes what is to be distributed when no measure is positive, `echo` takes
        `echo_micro`. All sum to `weight_micro` exactly.

    Raises:
        ValuationError: a measure is not a finite number.
        InvalidRequestError: the arguments do not fit each other.
    """
    if len(groups) != len(measures):
        raise InvalidRequestError(f"output {tie_key}: {len(groups)} groups but {len(measures)} measures")
    if not all(map(isfinite, measures)):
        group, measure = next(pair for pair in zip(groups, measures, strict=True) if not isfinite(pair[1]))
        raise ValuationError(f"output {tie_key}: the measure of {group} is {measure}, which is not a finite number")
    if weight_micro < 0:
        raise InvalidRequestError(f"output {tie_key}: its weight is negative: {weight_micro}")
    if not 0 <= echo_micro <= weight_micro:
        raise InvalidRequestError(f"output {tie_key}: its echo is {echo_micro} of a weight of {weight_micro}")
    house = [(ECHO, echo_micro)] if echo_micro else []
    paid_micro = weight_micro - echo_micro
    if max(measures, default=0.0) <= 0.0:
        return [*((group, 0) for group in groups), (UNEARNED, paid_micro), *house]
    parts = apportion_doubles(paid_micro, measures, lambda position: group_tie_key(tie_key, groups[position]))
    return [*zip(groups, parts, strict=True), *house]


@dataclass(frozen=True, slots=True)
class MeasuredOutput:
    """An output that distributes `weight_micro` by a policy: one measure in nats for each group; `name` breaks ties.

    `echo_micro` is the part of the weight that repeats the prompt.
    """

    policy: Policy
    name: str
    weight_micro: int
    groups: Sequence[Group]
    measures: Sequence[float]
    echo_micro: int = 0

    def counted(self, micro: int) -> MeasuredOutput:
        """Return the output as it distributes only `micro` of its weight; its echo shrinks alike, rounded down."""
        echo = micro * self.echo_micro // self.weight_micro if self.weight_micro else 0
        return replace(self, weight_micro=micro, echo_micro=echo)


class PeriodCredits:
    """Sum of the credits of a period's outputs; the outputs of one policy are divided together."""

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
        if item.echo_micro:
            _sum_into(self._alone, {ECHO: item.echo_micro})
            item = replace(item, weight_micro=item.weight_micro - item.echo_micro, echo_micro=0)
        # For every policy, also one that sums over the period: this checks the measures, and `net` starts from it.
        credited = output_credits(item.weight_micro, item.groups, item.measures, tie_key=item.name)
        if not item.policy.needs_period:
            _sum_into(self._alone, dict(credited))
            return
        if item.policy not in self._together:
            self._together[item.policy] = _Together(item.policy)
        self._together[item.policy].add(item, dict(credited))

    def totals(self) -> dict[Group, int]:
        """Return the period's micro-credits by group, none negative; they sum to the weights of its outputs."""
        found = dict(self._alone)
        # In an order of its own: outputs may come in any.
        for policy in sorted(self._together, key=lambda policy: policy.to_json()):
            _sum_into(found, self._together[policy].divided(self._period))
        return {group: micro for group, micro in found.items() if micro}


class _Together:
    """Outputs divided together by one policy."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._weight_micro = 0
        self._unearned_micro = 0
        self._sums: dict[Group, dict[int, int]] = {}
        """By group, integers by the power of two that each is a multiple of."""

    def add(self, item: MeasuredOutput, credited: Mapping[Group, int]) -> None:
        if self._policy.basis == "output":
            # An output that no group supported stays with the house: there are no measures to divide it by.
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
                # Summed as integers by exponent: floats would round, and round by the order of outputs.
                mantissa, exponent = frexp(measure)
                self._add(group, exponent, int(ldexp(mantissa, _MANTISSA_BITS)) * item.weight_micro)

    def _set_off(self, item: MeasuredOutput) -> None:
        """Take credits from each group that the output speaks against, rounded down to a micro-credit."""
        exact = [_integer(measure) for measure in item.measures]
        whole = max(sum(value for value in exact if value > 0), -sum(value for value in exact if value < 0))
        for group, value in zip(item.groups, exact, strict=True):
            if value < 0:
                self._add(group, 0, -(item.weight_micro * -value // whole))

    def _add(self, group: Group, exponent: int, amount: int) -> None:
        sums = self._sums.setdefault(group, {})
        sums[exponent] = sums.get(exponent, 0) + amount

    def divided(self, period: str) -> dict[Group, int]:
        """Divide the weight of all outputs by the sums of the groups, as far as they are positive."""
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
"""Every finite double is a multiple of 2 to the power of minus 1074."""


def _integer(measure: float) -> int:
    """Return a finite double as a multiple of the smallest positive one."""
    if not isfinite(measure):
        raise ValuationError(f"a measure is {measure}, which is not a finite number")
    numerator, denominator = measure.as_integer_ratio()
    return numerator << (_LEAST + 1 - denominator.bit_length())


def _sum_into(sums: dict[Group, int], more: Mapping[Group, int]) -> None:
    for group, micro in more.items():
        sums[group] = sums.get(group, 0) + micro
