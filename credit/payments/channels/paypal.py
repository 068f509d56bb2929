"""PayPal's Payouts Web UI.

Source: https://developer.paypal.com/payouts/use-payouts/send-money/use-web-ui (updated 2026-09-10): no header, one
currency in a file, at most 5 000 rows. The columns are recipient, amount, currency, customer ID (the sender's own id
of the payment), note and wallet.

Currencies, and those without decimals: https://developer.paypal.com/docs/archive/mass-pay/integration-guide/currency-codes/
(updated 2026-08-17).
"""

from __future__ import annotations

from credit.accounting.amounts import currency_digits
from credit.errors import InputError
from credit.payments.channels.channel import Channel, PaymentLine, csv_writer, safe

CURRENCIES = (
    "AUD", "BRL", "CAD", "CHF", "CZK", "DKK", "EUR", "GBP", "HKD", "HUF", "ILS", "JPY", "MXN", "MYR", "NOK", "NZD",
    "PHP", "PLN", "SEK", "SGD", "THB", "TWD", "USD",
)  # fmt: skip
WHOLE = frozenset({"HUF", "JPY", "TWD"})
"""Currencies of which PayPal carries whole units alone, whatever ISO 4217 says."""


def cells(line: PaymentLine) -> tuple[str, ...]:
    """Return the cells of a payment.

    Raises:
        InputError: the address of the PayPal account is missing or unsafe, or PayPal does not carry the amount.
    """
    recipient = safe(line, "paypal", line.details.paypal, longest=127)
    return (recipient, _amount(line), line.currency, line.reference, f"Statement {line.period}", "PAYPAL")


def _amount(line: PaymentLine) -> str:
    if line.currency not in WHOLE:
        return line.amount
    whole, rest = divmod(line.amount_minor, 10 ** currency_digits(line.currency))
    if rest:
        raise InputError(
            f"{line.provider}: PayPal carries whole {line.currency} alone, and {line.amount} is not; pay it in another"
            " file: --format csv"
        )
    return str(whole)


CHANNEL = Channel(
    name="paypal",
    title="PayPal",
    help="paypal is for PayPal's mass payments.",
    most_payments=5_000,
    check=cells,
    write=csv_writer(cells),
    currencies=CURRENCIES,
)
