"""The lines of a statement: from what was owed and earned to what is paid now and what is carried forward."""

from __future__ import annotations

from dataclasses import dataclass

from credit.accounting.money import format_amount
from credit.errors import IntegrityError, InvalidRequestError


@dataclass(frozen=True, slots=True)
class Waterfall:
    """One provider's balance in one currency over one period, in minor units.

    opening + earned + adjustments = payable + carried, always.

    Attributes:
        provider: whose balance it is.
        currency: ISO 4217 code.
        opening_minor: carried from the period before; negative is owed by the provider.
        earned_minor: allocated in this period, at least 0.
        adjustments_minor: corrections of earlier periods, of either sign.
        payable_minor: to be paid now, at least 0.
        carried_minor: the next period's opening.
        reason: why nothing is paid, in words; empty exactly when something is.
    """

    provider: str
    currency: str
    opening_minor: int
    earned_minor: int
    adjustments_minor: int
    payable_minor: int
    carried_minor: int
    reason: str

    def __post_init__(self) -> None:
        where = f"statement of {self.provider} in {self.currency}"
        balance = self.opening_minor + self.earned_minor + self.adjustments_minor
        if balance != self.payable_minor + self.carried_minor:
            raise IntegrityError(
                f"{where}: {self.payable_minor} payable and {self.carried_minor} carried are not {balance}"
            )
        if self.payable_minor < 0 or self.earned_minor < 0:
            raise IntegrityError(f"{where}: a payable or earned amount is negative")
        if (self.payable_minor == 0) != bool(self.reason):
            raise IntegrityError(f"{where}: a reason is given exactly when nothing is paid")


def settle(
    provider: str,
    currency: str,
    *,
    opening_minor: int,
    earned_minor: int,
    adjustments_minor: int = 0,
    minimum_payout_minor: int = 0,
) -> Waterfall:
    """Decide what is paid: the whole balance, or nothing, with the reason.

    A balance that is negative or below the minimum payout is carried forward whole. Nothing is clamped: a debt
    stays visible and is worked off by later earnings.

    Raises:
        InvalidRequestError: earnings or the minimum payout are negative, or the currency is unknown.
    """
    if earned_minor < 0 or minimum_payout_minor < 0:
        raise InvalidRequestError(
            f"{provider}: earnings ({earned_minor}) and minimum payout ({minimum_payout_minor}) cannot be negative"
        )
    balance = opening_minor + earned_minor + adjustments_minor
    amount = f"{format_amount(balance, currency)} {currency}"
    reason = ""
    if balance == 0:
        reason = "nothing is owed"
    elif balance < 0:
        reason = f"the balance of {amount} is negative; it is carried forward and set off against later earnings"
    elif balance < minimum_payout_minor:
        minimum = f"{format_amount(minimum_payout_minor, currency)} {currency}"
        reason = f"the balance of {amount} is below the minimum payout of {minimum}; it is carried forward"
    return Waterfall(
        provider,
        currency,
        opening_minor,
        earned_minor,
        adjustments_minor,
        payable_minor=0 if reason else balance,
        carried_minor=balance if reason else 0,
        reason=reason,
    )
