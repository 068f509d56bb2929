"""Dividing a period's net pool among providers by their credits, to the minor unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from credit.accounting.apportion import largest_remainder
from credit.errors import InvalidRequestError, LedgerError


@dataclass(frozen=True, slots=True)
class Share:
    """What one provider gets of a pool: the fraction `credit_micro / total_credit_micro`, in minor units."""

    provider: str
    credit_micro: int
    total_credit_micro: int
    amount_minor: int


def allocate(period: str, net_minor: int, credit_micro: Mapping[str, int]) -> list[Share]:
    """Divide a net pool in proportion to credits.

    Args:
        period: the period `YYYY-MM`; with the provider's key it decides ties.
        net_minor: the net pool in minor units of its currency, at least 0.
        credit_micro: micro-credits of every provider, at least 0.

    Returns:
        One share for each provider, by key; the amounts sum to `net_minor` exactly. Equal remainders are
        decided by SHA-256 of period and provider, so that no provider wins in every period.

    Raises:
        LedgerError: there is money to distribute, but nobody was credited.
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
        keys = [sha256(f"{period}\0{provider}".encode()).digest() for provider in providers]
        amounts = largest_remainder(net_minor, credited, keys)
    return [
        Share(provider, credit, total, amount)
        for provider, credit, amount in zip(providers, credited, amounts, strict=True)
    ]
