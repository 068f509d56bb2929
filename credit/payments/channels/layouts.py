"""Payment files in CSV: our own layout, and those that PayPal and Wise document for their uploads.

UTF-8, RFC 4180; the same batch gives the same bytes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from credit.errors import InputError
from credit.payments.channels.payment import PaymentLine, safe
from credit.storage import write_whole


@dataclass(frozen=True, slots=True)
class Layout:
    """How a CSV file for a service looks: its header (None: it has none), a line's cells, the most lines it takes."""

    header: tuple[str, ...] | None
    cells: Callable[[PaymentLine], tuple[str, ...]]
    most_lines: int


def _own_cells(line: PaymentLine) -> tuple[str, ...]:
    """Cells of our own layout: everything that a person needs to make the payment, the account or PayPal named."""
    details = line.details
    if not (details.iban or details.paypal or details.email):
        raise InputError(
            f"{line.provider}: iban, paypal and email are missing;"
            f" add one: credit providers details {line.provider} --iban ..."
        )
    texts = (safe(line, name, value) if (value := getattr(details, name)) else "" for name in _OPTIONAL)
    holder = safe(line, "legal_name", details.holder)
    return (line.reference, line.provider, line.period, line.amount, line.currency, holder, *texts)


def _paypal_cells(line: PaymentLine) -> tuple[str, ...]:
    """Cells of a row of PayPal's Payouts Web UI: recipient, amount, currency, customer ID, note, wallet.

    Source: https://developer.paypal.com/payouts/use-payouts/send-money/use-web-ui (updated 2026-09-10): no header,
    one currency in a file, at most 5 000 rows; the customer ID is the sender's own for the payment.
    """
    recipient = safe(line, "paypal", line.details.paypal, longest=127)
    return (recipient, line.amount, line.currency, line.reference, f"Statement {line.period}", "PAYPAL")


def _wise_cells(line: PaymentLine) -> tuple[str, ...]:
    """Cells of a row of Wise's batch template for recipients with an IBAN.

    `amountCurrency` is `target`: the recipient gets the exact amount, the payer bears the fees. Source:
    https://wise.com/help/articles/2663302 (columns and their meaning) with the header of the template for EUR; at
    most 1 000 transfers in a batch: https://docs.wise.com/guides/batch-transfers.
    """
    details = line.details
    holder = safe(line, "legal_name", details.holder)
    kind = {"person": "PERSON", "institution": "INSTITUTION"}.get(details.receiver, "")
    email = safe(line, "email", details.email) if details.email else ""
    receiver = safe(line, "receiver", kind)
    iban = safe(line, "iban", details.iban)
    return (holder, email, line.reference, receiver, "target", line.amount, line.currency, line.currency, iban)


_OPTIONAL = ("iban", "bic", "paypal", "email", "street", "building", "postcode", "town", "country")
_WISE_PERSON = ("name", "recipientEmail", "paymentReference", "receiverType")
_WISE_MONEY = ("amountCurrency", "amount", "sourceCurrency", "targetCurrency", "IBAN")

LAYOUTS = {
    "csv": Layout(("payout_id", "provider", "period", "amount", "currency", "name", *_OPTIONAL), _own_cells, 1_000_000),
    "paypal": Layout(None, _paypal_cells, 5_000),
    "wise": Layout((*_WISE_PERSON, *_WISE_MONEY), _wise_cells, 1_000),
}
"""Every CSV layout, by the name of its format."""


def render_csv(layout: Layout, lines: Sequence[PaymentLine]) -> bytes:
    """Return the file of a batch.

    Raises:
        InputError: a cell of a line cannot be written as it is.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    if layout.header is not None:
        writer.writerow(layout.header)
    writer.writerows(layout.cells(line) for line in lines)
    return text.getvalue().encode()


def write_file(out: Path, content: bytes) -> None:
    """Write the file whole or not at all, for its owner's eyes alone: it may hold bank details."""
    write_whole(out, content, mode=0o600)
