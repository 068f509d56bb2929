"""Division of a whole number by weights, exactly: the parts sum to the whole (largest remainder).

Hamilton's method: every part gets the floor of its exact share, and the units left over go one each to the
largest remainders. A part is therefore never a full unit away from its exact share.

Two functions do the same arithmetic. `largest_remainder` takes exact weights. `apportion_doubles` takes non-negative
IEEE doubles: they are dyadic rationals, as exact as any Fraction, and it is fast enough for every output of a model.
`allocate` divides a period's net pool among providers.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from hashlib import sha256
from math import frexp, isfinite, lcm, ldexp

from credit.errors import InvalidRequestError, LedgerError

_MANTISSA_BITS = 53
_SAFE_EXPONENT = 1000  # a double overflows beyond 1024


def largest_remainder(total: int, weights: Sequence[Fraction | int], tie_keys: Sequence[bytes]) -> list[int]:
    """Divide `total` in proportion to `weights`, in whole units.

    Args:
        total: the number to divide, at least 0; for a debt, divide its amount and change the sign.
        weights: one exact weight for each part, at least 0 and not all 0.
        tie_keys: one key for each part, all different; of equal remainders the smallest key wins.

    Returns:
        The parts, in the order of `weights`. They sum to `total`, a weight of 0 gets 0, and each is less than
        one unit from its exact share.

    Raises:
        InvalidRequestError: no weight is positive, a number is negative, or keys are missing or not unique.
    """
    if len(tie_keys) != len(weights):
        raise InvalidRequestError(f"{len(weights)} weights need as many tie keys, not {len(tie_keys)}")
    if len(set(tie_keys)) != len(tie_keys):
        raise InvalidRequestError("tie keys must differ: equal keys would leave a tie to the order of input")
    if any(weight < 0 for weight in weights):
        raise InvalidRequestError(f"a weight is negative: {min(weights)}")
    # Over one denominator the weights are integers, and the division below is exact.
    denominator = lcm(*(weight.denominator for weight in weights))
    scaled = [weight.numerator * (denominator // weight.denominator) for weight in weights]
    return _divide(total, scaled, tie_keys.__getitem__)


def apportion_doubles(total: int, weights: Sequence[float], tie_key: Callable[[int], bytes]) -> list[int]:
    """Divide `total` in proportion to doubles, as exactly as `largest_remainder` divides by Fractions.

    Args:
        total: the number to divide, at least 0.
        weights: finite doubles; the positive ones share, the others get 0. At least one must be positive.
        tie_key: returns the key of a part by its position; called only where remainders tie.

    Returns:
        The parts, in the order of `weights`, which sum to `total`. Multiplying all weights by a power of two
        changes nothing.

    Raises:
        InvalidRequestError: no weight is positive, one is not finite, `total` is negative, or two parts tie with one
            key.
    """
    # As doubles, whatever number types the caller has: the arithmetic below is exact for doubles alone.
    doubles = array("d", weights)
    if not all(map(isfinite, doubles)):
        raise InvalidRequestError("a weight is not a finite number")
    sharing = [position for position, weight in enumerate(doubles) if weight > 0.0]
    integers = _common_integers([doubles[position] for position in sharing])
    shares = _divide(total, integers, lambda share: tie_key(sharing[share]))
    parts = [0] * len(doubles)
    for position, share in zip(sharing, shares, strict=True):
        parts[position] = share
    return parts


def _common_integers(positive: list[float]) -> list[int]:
    """Return integers in exactly the proportion of positive doubles.

    The common factor is a power of two: it makes the smallest double a 53-bit integer, so all products are exact
    in double arithmetic and no Fraction is formed. A range too wide for that takes the slower exact ratios.
    """
    if not positive:
        return []
    shift = _MANTISSA_BITS - frexp(min(positive))[1]
    if frexp(max(positive))[1] + shift < _SAFE_EXPONENT:
        return [int(ldexp(weight, shift)) for weight in positive]
    ratios = [weight.as_integer_ratio() for weight in positive]
    denominator = max(ratio[1] for ratio in ratios)
    return [numerator * (denominator // own) for numerator, own in ratios]


def _divide(total: int, weights: Sequence[int], tie_key: Callable[[int], bytes]) -> list[int]:
    """Divide by non-negative integers with the largest remainder; call `tie_key` only where remainders tie."""
    if total < 0:
        raise InvalidRequestError(f"a negative total cannot be divided: {total}; divide its amount instead")
    whole = sum(weights)
    if whole == 0:
        raise InvalidRequestError("there is nothing to divide by: no weight is positive")
    # Integers of any size: no product overflows and nothing is rounded but the floor itself.
    parts = [total * weight // whole for weight in weights]
    # Never more than there are parts, because rounding down loses less than one unit of each.
    left = total - sum(parts)
    if left == 0:
        return parts
    # A remainder above the cut wins a unit; remainders at the cut compete by their keys for the units left.
    remainders = [total * weight - part * whole for weight, part in zip(weights, parts, strict=True)]
    cut = sorted(remainders, reverse=True)[left - 1]
    tied = []
    for position, remainder in enumerate(remainders):
        if remainder > cut:
            parts[position] += 1
            left -= 1
        elif remainder == cut:
            tied.append(position)
    if left < len(tied):
        # Keys, not positions: the order of the input must not decide who gets a cent.
        keys = {tie_key(position): position for position in tied}
        if len(keys) < len(tied):
            raise InvalidRequestError("two parts that tie have the same key, so that nothing can decide")
        tied = [keys[key] for key in sorted(keys)]
    for position in tied[:left]:
        parts[position] += 1
    return parts


@dataclass(frozen=True, slots=True)
class AllocatedShare:
    """One provider's share of a pool, in minor units: the fraction `credit_micro / total_credit_micro` of it."""

    provider: str
    credit_micro: int
    total_credit_micro: int
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Earning:
    """A share of a pool, and the provider's part of it at the agreed rate, in minor units.

    `held_minor` is the part of each collection on hold in `earned_minor`.
    """

    share: AllocatedShare
    rate_ppm: int
    earned_minor: int
    held_minor: Mapping[str, int] = field(default_factory=dict)


def allocate(period: str, net_minor: int, credit_micro: Mapping[str, int]) -> list[AllocatedShare]:
    """Divide a net pool in proportion to credits.

    Args:
        period: the period `YYYY-MM`; with the provider's key it decides ties.
        net_minor: the net pool in minor units of its currency, at least 0.
        credit_micro: micro-credits of every provider, at least 0.

    Returns:
        One share for each provider, by key; the amounts sum to `net_minor` exactly. SHA-256 of period and provider
        decides between equal remainders, so no provider wins in every period.

    Raises:
        LedgerError: there is money to distribute, but nobody has credits.
        InvalidRequestError: a negative pool or negative credits.
    """
    providers = sorted(credit_micro)
    credited = [credit_micro[provider] for provider in providers]
    for provider, credit in zip(providers, credited, strict=True):
        if credit < 0:
            raise InvalidRequestError(f"{period}: the credits of {provider} are negative: {credit}")
    if net_minor < 0:
        raise InvalidRequestError(f"{period}: the net pool is negative: {net_minor}; a pool must be at least 0")
    total = sum(credited)
    if total == 0:
        if net_minor > 0:
            raise LedgerError(
                f"{period}: there is a pool to distribute but nothing was credited; log the period's outputs "
                f"and run `credit compute` first"
            )
        amounts = [0] * len(providers)
    else:
        # With the period: the same provider would otherwise win every tie for ever.
        keys = [sha256(f"{period}\0{provider}".encode()).digest() for provider in providers]
        amounts = largest_remainder(net_minor, credited, keys)
    return [
        AllocatedShare(provider, credit, total, amount)
        for provider, credit, amount in zip(providers, credited, amounts, strict=True)
    ]
