"""PayPal's Payouts Web UI.

Source: https://developer.paypal.com/payouts/use-payouts/send-money/use-web-ui (updated 2026-09-10): no header, one
currency in a file, at most 5 000 rows. The columns are recipient, amount, currency, customer ID (the sender's own id
of the payment), note and wallet.
"""

from __future__ import annotations

from credit.accounting.payability import CARRIAGE
from credit.errors import InputError
from credit.payments.channels.channel import Channel, PaymentLine, csv_writer, safe


def cells(line: PaymentLine) -> tuple[str, ...]:
    """Return the cells of a payment.

    Raises:
        InputError: the address of the PayPal account is missing or unsafe, or PayPal does not carry the amount.
    """
    recipient = safe(line, "paypal", line.details.paypal, longest=127)
    return (recipient, _amount(line), line.currency, line.reference, f"Statement {line.period}", "PAYPAL")


def _amount(line: PaymentLine) -> str:
    unit = CARRIAGE["paypal"].unit_minor(line.currency)
    if unit == 1:
        return line.amount
    whole, rest = divmod(line.amount_minor, unit)
    if rest:
        raise InputError(
            f"{line.provider}: PayPal carries whole {line.currency} alone, and {line.amount} is not; pay it in another"
            f" file: --format csv. Or void it, and let closes pay whole amounts: credit pay void --help; credit"
            f" providers terms {line.provider} --currency {line.currency} --channel paypal"
        )
    return str(whole)


CHANNEL = Channel(
    name="paypal",
    help="paypal is for PayPal's mass payments.",
    most_payments=5_000,
    check=cells,
    write=csv_writer(cells),
)
