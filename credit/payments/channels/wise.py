"""Wise's batch template for recipients with an IBAN.

Source: https://wise.com/help/articles/2663302 (columns and their meaning) with the header of the template for EUR; at
most 1 000 transfers in a batch: https://docs.wise.com/guides/batch-transfers. `amountCurrency` is `target`: the
recipient gets the exact amount, and the payer bears the fees.
"""

from __future__ import annotations

from credit.payments.channels.channel import Channel, PaymentLine, csv_writer, safe

_RECEIVERS = {"person": "PERSON", "institution": "INSTITUTION"}
_HEADER = (
    "name",
    "recipientEmail",
    "paymentReference",
    "receiverType",
    "amountCurrency",
    "amount",
    "sourceCurrency",
    "targetCurrency",
    "IBAN",
)


def cells(line: PaymentLine) -> tuple[str, ...]:
    """Return the cells of a payment; InputError if one is missing or unsafe."""
    details = line.details
    holder = safe(line, "legal_name", details.holder)
    email = safe(line, "email", details.email) if details.email else ""
    receiver = safe(line, "receiver", _RECEIVERS.get(details.receiver, ""))
    iban = safe(line, "iban", details.iban)
    return (holder, email, line.reference, receiver, "target", line.amount, line.currency, line.currency, iban)


CHANNEL = Channel(
    name="wise",
    help="wise is for Wise's batch transfers.",
    most_payments=1_000,
    check=cells,
    write=csv_writer(cells, _HEADER),
)
