"""PayPal's Payouts Web UI.

Source: https://developer.paypal.com/payouts/use-payouts/send-money/use-web-ui (updated 2026-09-10): no header, one
currency in a file, at most 5 000 rows. The columns are recipient, amount, currency, customer ID (the sender's own id
of the payment), note and wallet.
"""

from __future__ import annotations

from credit.payments.channels.channel import Channel, PaymentLine, csv_writer, safe


def cells(line: PaymentLine) -> tuple[str, ...]:
    """Return the cells of a payment; InputError if the address of the PayPal account is missing or unsafe."""
    recipient = safe(line, "paypal", line.details.paypal, longest=127)
    return (recipient, line.amount, line.currency, line.reference, f"Statement {line.period}", "PAYPAL")


CHANNEL = Channel(
    name="paypal",
    title="PayPal",
    help="paypal is for PayPal's mass payments.",
    most_payments=5_000,
    check=cells,
    write=csv_writer(cells),
)
