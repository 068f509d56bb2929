"""Kinds of transactions, and the details that a transaction of each kind states.

`TransactionKind` is the one table of them: who posts a kind, whether a person can reverse it, the form of its
idempotency key, and the class of its details. Names, keys and details are hashed with each transaction: a change of one
of them would be another encoding of the journal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Literal, Self

from credit.ledger.accounts import AccountKind

PostedBy = Literal["compute", "close", "person", "payment"]
Reversible = Literal["always", "while open", "never"]


@dataclass(frozen=True, slots=True)
class TransactionDetails:
    """Facts that a transaction states beside its entries and its memo; stored as JSON and hashed with it."""

    def said(self) -> dict[str, Any]:
        """Return the facts by name, without those that are None."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def read(cls, details_json: str) -> Self | None:
        """Return the details from JSON, or None when it holds details of another class."""
        said = json.loads(details_json)
        try:
            return cls(**said)
        except TypeError:
            return None


@dataclass(frozen=True, slots=True)
class CreditsDetails(TransactionDetails):
    """The score book of credits (SHA-256), and the fingerprints of its compute run and its index."""

    score_book: str
    run: str | None = None
    index: str | None = None


@dataclass(frozen=True, slots=True)
class PoolDetails(TransactionDetails):
    """The parts of a pool's net in minor units, and the reference of the pool."""

    gross_minor: int
    deductions_minor: int
    reference: str


@dataclass(frozen=True, slots=True)
class AllocationDetails(TransactionDetails):
    """The pool's reference, the house policy, and why collections are on hold, by `provider/collection`."""

    pool: str
    house: str
    held: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class ConversionDetails(TransactionDetails):
    """The rate of a conversion: one unit of `base` in `quote` on a day, and its source."""

    base: str
    quote: str
    on: str
    rate: str
    source: str


@dataclass(frozen=True, slots=True)
class AdjustmentDetails(TransactionDetails):
    """Id and hash of the corrected transaction, if the adjustment cites one."""

    cites: int | None = None
    cites_hash: str | None = None


@dataclass(frozen=True, slots=True)
class RestatementDetails(TransactionDetails):
    """The restated period, the method, and the restated micro-credits by provider."""

    restates: str
    method: Mapping[str, Any]
    credit_micro: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ReversalDetails(TransactionDetails):
    """Kind and hash of the reversed transaction."""

    kind: str
    hash: str


@dataclass(frozen=True, slots=True)
class RemittanceDetails(TransactionDetails):
    """The purpose of a remittance; of withholding, the last period that it covers, and the provider, if named."""

    of: str
    through: str | None = None
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class UnvaluedDetails(TransactionDetails):
    """Name of an unvalued output, and the SHA-256 of its content."""

    output: str
    content_sha256: str


@dataclass(frozen=True, slots=True)
class ExportDetails(TransactionDetails):
    """A batch of payouts: its row, its file, its payouts, and for each the version of the provider's details.

    `waiting_days` is how long a changed account had to wait; batches of earlier versions have none.
    """

    batch: int
    reference: str
    format: str
    period: str
    payer: str
    payouts: Sequence[int]
    details: Sequence[int]
    file_sha256: str
    waiting_days: int | None = None


@dataclass(frozen=True, slots=True)
class ResultDetails(TransactionDetails):
    """A bank's result for a payout of a batch: its reference, the reason of a failure, and its value date if known.

    `fee_minor` is what banks on the way kept of the payment, in minor units: the payee got less.
    """

    batch: int
    payout: int
    reference: str
    reason: str
    value_on: str | None = None
    fee_minor: int | None = None


@dataclass(frozen=True, slots=True)
class VoidDetails(TransactionDetails):
    """A payout that is never paid, and where its money went: provider, house or escrow."""

    payout: int
    goes_to: str


_BALANCE = "{period}:{provider}:{currency}"
_HELD = "{period}:{group}:{currency}"


class TransactionKind(StrEnum):
    """A kind of transaction: its name, who posts it, when a person can reverse it, its idempotency key, its details.

    The `account` of a line of a statement is the other side of the provider's payable account.
    """

    posted_by: PostedBy
    reversible: Reversible
    key_form: str
    details: type[TransactionDetails] | None
    account: AccountKind | None

    def __new__(
        cls,
        name: str,
        posted_by: PostedBy,
        reversible: Reversible,
        key_form: str,
        details: type[TransactionDetails] | None = None,
        account: AccountKind | None = None,
    ) -> TransactionKind:
        """Make a member of a row of the table; the name is its value."""
        kind = str.__new__(cls, name)
        kind._value_ = name
        kind.posted_by, kind.reversible, kind.key_form, kind.details = posted_by, reversible, key_form, details
        kind.account = account
        return kind

    CREDITS = "credits", "compute", "while open", "credits:{score_book}:{day}", CreditsDetails
    """The credits of a score book's outputs of one day, from `credits:issued` to the collections that earned them."""
    UNVALUED = "unvalued", "person", "never", "unvalued:{output}:{times}", UnvaluedDetails
    """The credits of an output that cannot be valued; a reversal takes it back when the output is restored."""
    POOL = "pool", "person", "while open", "pool:{period}:{currency}:{reference}", PoolDetails
    """Money to distribute, from outside into the period's pool."""

    PERIOD_BASIS = "period-basis", "close", "never", "period-basis:{period}"
    """Credits of a period, moved to where the sums over the period put them."""
    ALLOCATION = "allocation", "close", "never", "allocation:{period}:{currency}:{reference}", AllocationDetails
    """A pool, divided among those who earned it and the house."""
    COLLECTION_RELEASE = "collection-release", "close", "never", "collection-release:" + _HELD, None, AccountKind.HELD
    """Earnings of a collection that is on hold no more, given to its provider."""
    RESERVE = "reserve", "close", "never", "reserve:" + _BALANCE, None, AccountKind.RESERVE
    """A part of the earnings, held back."""
    RESERVE_RELEASE = "reserve-release", "close", "never", "reserve-release:" + _BALANCE, None, AccountKind.RESERVE
    """Reserves that fell due, given back."""
    RECOUPMENT = "recoupment", "close", "never", "recoupment:" + _BALANCE, None, AccountKind.ADVANCE
    """Earnings set off against advances."""
    CONVERSION = "conversion", "close", "never", "conversion:" + _BALANCE, ConversionDetails
    """A balance, exchanged into the currency that the provider is paid in."""
    WITHHOLDING = "withholding", "close", "never", "withholding:" + _BALANCE, None, AccountKind.WITHHOLDING
    """Tax withheld."""
    FEES = "fees", "close", "never", "fees:" + _BALANCE, None, AccountKind.FEES
    """The fee of a payout."""
    PAYOUT = "payout", "close", "never", "payout:" + _BALANCE, None, AccountKind.PAYOUT
    """A balance, approved for payment."""

    ADVANCE = "advance", "person", "always", "advance:{provider}:{currency}:{reference}"
    """Money paid to a provider before it was earned."""
    REMITTANCE = "remittance", "person", "always", "remittance:{of}:{currency}:{reference}", RemittanceDetails
    """Withheld tax, fees or the house's money, paid to whom it belongs."""
    ADJUSTMENT = "adjustment", "person", "always", "adjust:{of}:{said}", AdjustmentDetails
    """Money between the house, or escrow, and a provider. Its key repeats all its facts, or is given."""
    RESTATEMENT = "restatement", "person", "always", "restate:{period}:{number}", RestatementDetails
    """The difference that another policy or index makes to a closed period, in the first open one."""
    REVERSAL = "reversal", "person", "never", "reverse:{txn_id}", ReversalDetails
    """The negation of another transaction."""

    PAYMENT_EXPORT = "payment-export", "payment", "never", "payment-export:{batch}", ExportDetails
    """Payouts that left for a bank in one file."""
    PAYMENT_PAID = "payment-paid", "payment", "never", "payment-result:{batch}:{payout}", ResultDetails
    """A payout that the bank paid."""
    PAYMENT_FAILED = "payment-failed", "payment", "never", "payment-result:{batch}:{payout}", ResultDetails
    """A payout that the bank did not pay."""
    PAYMENT_RETURNED = "payment-returned", "payment", "never", "payment-return:{batch}:{payout}", ResultDetails
    """A payout that came back after it was paid."""

    PAYOUT_VOID = "payout-void", "payment", "never", "payout-void:{payout}", VoidDetails
    """A payout that must never be paid, given back to its provider, or to the house or escrow."""

    @classmethod
    def named(cls, name: str) -> TransactionKind:
        """Return the kind of a name; ValueError when it is none."""
        for kind in cls:
            if kind == name:
                return kind
        raise ValueError(f"{name!r} is no kind of transaction")

    @property
    def counterpart(self) -> AccountKind:
        """The kind of account of a line of a statement; ValueError for other transactions."""
        if self.account is None:
            raise ValueError(f"{self} moves money of no single kind of account")
        return self.account

    def key(self, **parts: object) -> str:
        """Return the idempotency key of a transaction, from the parts that `key_form` names."""
        return self.key_form.format(**parts)


CLOSE_KINDS = frozenset(kind for kind in TransactionKind if kind.posted_by == "close")
"""The kinds of transactions of a close."""
