"""What each payment channel carries: the currencies, and the smallest unit of each.

A close decides by it: what the agreed channel cannot carry is carried forward, with the reason. `credit.payments`
writes the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from credit.accounting.amounts import currency_digits
from credit.records import PaymentFormat


@dataclass(frozen=True, slots=True)
class Carriage:
    """The money that a channel carries.

    Attributes:
        title: the channel's name in messages.
        currencies: those that it carries; empty for all.
        whole: those of which it carries whole units alone, whatever ISO 4217 says.
    """

    title: str
    currencies: tuple[str, ...] = ()
    whole: frozenset[str] = frozenset()

    def takes(self, currency: str) -> bool:
        """Return True if the channel carries a currency."""
        return not self.currencies or currency in self.currencies

    def unit_minor(self, currency: str) -> int:
        """Return the smallest amount of a currency that the channel carries, in minor units."""
        return 10 ** currency_digits(currency) if currency in self.whole else 1


CARRIAGE: Mapping[PaymentFormat, Carriage] = {
    "csv": Carriage("CSV"),
    "pain001": Carriage("SEPA", ("EUR",)),
    # https://developer.paypal.com/docs/archive/mass-pay/integration-guide/currency-codes/ (updated 2026-08-17)
    "paypal": Carriage(
        "PayPal",
        (
            "AUD", "BRL", "CAD", "CHF", "CZK", "DKK", "EUR", "GBP", "HKD", "HUF", "ILS", "JPY", "MXN", "MYR", "NOK",
            "NZD", "PHP", "PLN", "SEK", "SGD", "THB", "TWD", "USD",
        ),
        frozenset({"HUF", "JPY", "TWD"}),
    ),
    "wise": Carriage("Wise"),
}  # fmt: skip
"""Every channel; `credit.payments.channels` has the rest of each."""
