"""Our own CSV file: every detail, for a person or a script to make the payments."""

from __future__ import annotations

from credit.errors import InputError
from credit.payments.channels.channel import Channel, PaymentLine, csv_writer, safe

_DETAILS = ("iban", "bic", "paypal", "email", "street", "building", "postcode", "town", "country")
_HEADER = ("payout_id", "provider", "period", "amount", "currency", "name", *_DETAILS)


def cells(line: PaymentLine) -> tuple[str, ...]:
    """Return the cells of a payment.

    Raises:
        InputError: the payee has no account, wallet or address, or a cell cannot stand in the file.
    """
    details = line.details
    if not (details.iban or details.paypal or details.email):
        raise InputError(
            f"{line.provider}: iban, paypal and email are missing;"
            f" add one: credit providers details {line.provider} --iban ..."
        )
    texts = (safe(line, name, value) if (value := getattr(details, name)) else "" for name in _DETAILS)
    holder = safe(line, "legal_name", details.holder)
    return (line.reference, line.provider, line.period, line.amount, line.currency, holder, *texts)


CHANNEL = Channel(
    name="csv",
    help="csv has every detail, for a person or a script.",
    most_payments=1_000_000,
    check=cells,
    write=csv_writer(cells, _HEADER),
)
