"""A payment channel, and the content of its files.

A machine that moves money reads these files. So a channel writes each cell exactly as the ledger has it, or the payout
is unpayable, with the reason. It shortens, transliterates and quotes nothing.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from credit.accounting.amounts import format_amount
from credit.accounting.payability import CARRIAGE, Carriage
from credit.errors import InputError
from credit.records import PaymentFormat
from credit.text import printable

if TYPE_CHECKING:  # commands read the registry for their help, which must not load a database
    from credit.ledger.personal_data import Details

_RUNNABLE = re.compile(r"\s*'*[=+\-@]")
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class Payer:
    """The payer as its bank knows it, and the dates of the payment by the machine's clock.

    `bic` may be empty. An empty `execute_on` is the day of the export. The export sets `written_at`, the moment in UTC
    at which it makes the file.
    """

    name: str
    iban: str
    bic: str
    town: str
    country: str
    execute_on: str
    written_at: str = ""


@dataclass(frozen=True, slots=True)
class PaymentLine:
    """One payment; `reference` is the payout's id in the file, `amount_minor` is in minor units of `currency`."""

    reference: str
    provider: str
    period: str
    currency: str
    amount_minor: int
    details: Details

    @property
    def amount(self) -> str:
        """The amount as a decimal string with all the currency's digits."""
        return format_amount(self.amount_minor, self.currency)


@dataclass(frozen=True, slots=True)
class PaymentFile:
    """The content of a batch's file: the batch's reference, the payer if given, the payments."""

    reference: str
    payer: Payer | None
    lines: Sequence[PaymentLine]


@dataclass(frozen=True, slots=True)
class Channel:
    """A way for payouts to leave: a kind of file for a bank or a payment service.

    Attributes:
        name: the value of `--format`, and the word for it in the ledger.
        help: one sentence for `credit pay export --help`.
        most_payments: the largest number of payments in a file.
        check: raises InputError for an unpayable payment; the message names provider, reason and remedy.
        write: returns the bytes of a file; the same content gives the same bytes.
        checked_payer: returns the payer in the form of the file, or raises InvalidRequestError; None for a file
            without a payer.
    """

    name: PaymentFormat
    help: str
    most_payments: int
    check: Callable[[PaymentLine], object]
    write: Callable[[PaymentFile], bytes]
    checked_payer: Callable[[Payer], Payer] | None = None

    @property
    def carriage(self) -> Carriage:
        """The money that it carries, and its name in messages."""
        return CARRIAGE[self.name]


def safe(line: PaymentLine, field: str, value: str, *, longest: int = 140) -> str:
    """Return `value` if a machine's file can hold it unchanged.

    Raises:
        InputError: it is missing, too long, holds a control or direction character, or would run as a formula if
            somebody opened the file in a spreadsheet. The message names provider and field, not the value.
    """
    remedy = f"correct it: credit providers details {line.provider} --{field.replace('_', '-')} ..."
    if not value:
        raise InputError(f"{line.provider}: {field} is missing; {remedy}")
    if len(value) > longest:
        raise InputError(f"{line.provider}: {field} has more than {longest} characters; {remedy}")
    if printable(value) != value or _BYTE_ORDER_MARK in value:
        raise InputError(f"{line.provider}: {field} holds a control character; {remedy}")
    if _RUNNABLE.match(value):
        raise InputError(f"{line.provider}: {field} starts like a formula; {remedy}")
    return value


def csv_writer(
    cells: Callable[[PaymentLine], Sequence[str]], header: Sequence[str] | None = None
) -> Callable[[PaymentFile], bytes]:
    """Return the `write` of a channel with CSV files (UTF-8, RFC 4180): a header if given, then a row per payment."""

    def write(file: PaymentFile) -> bytes:
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\r\n")
        rows.writerows([header] if header else [])
        rows.writerows(map(cells, file.lines))
        return text.getvalue().encode()

    return write
