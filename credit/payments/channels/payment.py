"""A payout as a payment file states it, and what no payment file may hold.

A payment file is read by a machine that moves money: a cell is written exactly as it is known, or its payout is set
aside with the reason. Nothing is shortened, transliterated or quoted with an apostrophe on the way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from credit.accounting.amounts import format_amount
from credit.errors import InputError
from credit.ledger.personal_data import Details
from credit.text import printable

_RUNNABLE = re.compile(r"\s*'*[=+\-@]")
_BYTE_ORDER_MARK = "\ufeff"


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


def safe(line: PaymentLine, field: str, value: str, *, longest: int = 140) -> str:
    """Return `value` if it can stand in a machine's file as it is.

    Raises:
        InputError: it is missing, too long, holds a control or direction character, or is what a spreadsheet that
            somebody opens the file with would run. The message names the provider and the field, not the value.
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
