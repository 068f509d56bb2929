"""The records that cross module borders: plain, frozen, without behaviour beyond their own validity."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from fractions import Fraction
from itertools import pairwise
from typing import Literal

from credit.errors import InputError, InvalidRequestError

HOUSE = "house"
"""Key of the reserved provider that receives what no provider earned."""

UNATTRIBUTED = "unattributed"
"""Collection of the house that receives an output's credit when no group supported the output."""

DEFAULT_COLLECTION = "default"
MICRO = 1_000_000
"""Micro-credits in a credit: what one output of weight 1 distributes."""

PPM = 1_000_000
"""Parts of a whole in which shares are agreed: 700 000 is 70 %."""

CREDIT = "CREDIT"
"""The commodity of credits in the ledger, in micro-credits; every other commodity is an ISO 4217 code."""

PaymentFormat = Literal["csv", "pain001", "paypal", "wise"]
"""Names of the payment channels; `credit.payments.channels` describes each."""

OWN_SOURCE = "own"
"""Source of outputs logged in credit's own format."""

_PROVIDER_KEY = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_COLLECTION = re.compile(r"[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]{0,126}[^\s\x00-\x1f\x7f])?")
_PERIOD = re.compile(r"(?!0000|9999)[0-9]{4}-(?:0[1-9]|1[0-2])")


def is_provider_key(text: str) -> bool:
    """Whether `text` can be a provider's key: `[a-z0-9][a-z0-9_-]{0,63}`."""
    return _PROVIDER_KEY.fullmatch(text) is not None


def is_collection(text: str) -> bool:
    """Whether `text` can name a collection: 1 to 128 characters, no control characters, no outer space."""
    return _COLLECTION.fullmatch(text) is not None


def is_period(text: str) -> bool:
    """Whether `text` names a period: a calendar month `YYYY-MM` in UTC that has days before and after it."""
    return _PERIOD.fullmatch(text) is not None


def period_of(moment: datetime | date) -> str:
    """Return the period `YYYY-MM` in which a moment (in UTC) lies."""
    return f"{moment.year:04d}-{moment.month:02d}"


@dataclass(frozen=True, slots=True, order=True)
class Group:
    """A provider's collection: the unit that is valued and the line item of a statement."""

    provider: str
    collection: str = DEFAULT_COLLECTION

    def __str__(self) -> str:
        return f"{self.provider}/{self.collection}"


@dataclass(frozen=True, slots=True, order=True)
class Share:
    """A group's share of a record, in parts per million of it."""

    group: Group
    ppm: int = PPM


def agreed_shares(splits: Iterable[Share]) -> tuple[Share, ...]:
    """Return the shares of a record in the order of their groups, without those of nothing.

    Raises:
        InputError: a share is negative, a group is named twice, or they are not all of the record.
    """
    shares = sorted(splits)
    for share, after in pairwise(shares):
        if share.group == after.group:
            raise InputError(f"{share.group} is named twice; give it one share")
    for share in shares:
        if share.ppm < 0:
            raise InputError(f"the share of {share.group} is negative")
    total = sum(share.ppm for share in shares)
    if total != PPM:
        raise InputError(f"the shares sum to {shares_in_words(total)}, not to 1")
    return tuple(share for share in shares if share.ppm)


def shares_in_words(ppm: int) -> str:
    """Write parts per million as the fraction that they are: `0.7`."""
    whole, rest = divmod(ppm, PPM)
    return f"{whole}.{rest:06d}".rstrip("0").removesuffix(".")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record was read: a file and its 1-based line (or row)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A record that could not be used: where it was, why, and its bytes as they were."""

    place: Place
    error: str
    raw: bytes

    def __str__(self) -> str:
        return f"{self.place}: {self.error}"


@dataclass(frozen=True, slots=True)
class Provider:
    """Who can be credited. `kind` `house` marks own or public-domain data, whose share the house receives."""

    key: str
    name: str
    kind: Literal["provider", "house"] = "provider"


@dataclass(frozen=True, slots=True)
class Terms:
    """What is agreed with a provider about money in one currency; the defaults hold where nothing is.

    Shares are in parts per million, amounts in minor units. A fraction of a minor unit falls to the provider.

    Attributes:
        rate_ppm: share of an allocation that is the provider's; the rest is the house's.
        minimum_payout_minor: less than this is not paid but carried forward.
        reserve_ppm: share of what is earned in a period that is held back.
        reserve_release_periods: months after which it is released; 0 exactly when nothing is held back.
        recoupment_ppm: share of what is earned in a period that may go towards advances paid before.
        withholding_ppm: share of what is paid that is withheld as tax.
        fee_minor: taken from every payout.
        agreement_reference: the contract, as its parties call it.
        pay_in: another currency, to which what would be paid is converted at the period's rate; empty: none. What is
            taken when money is paid (minimum, withholding, fee) is then agreed in that other currency.
    """

    rate_ppm: int = PPM
    minimum_payout_minor: int = 0
    reserve_ppm: int = 0
    reserve_release_periods: int = 0
    recoupment_ppm: int = PPM
    withholding_ppm: int = 0
    fee_minor: int = 0
    agreement_reference: str = ""
    pay_in: str = ""

    def __post_init__(self) -> None:
        for name in ("rate_ppm", "reserve_ppm", "recoupment_ppm", "withholding_ppm"):
            if not 0 <= getattr(self, name) <= PPM:
                raise InvalidRequestError(f"{name} is {getattr(self, name)}; a share is between 0 and {PPM} ppm")
        for name in ("minimum_payout_minor", "reserve_release_periods", "fee_minor"):
            if getattr(self, name) < 0:
                raise InvalidRequestError(f"{name} is {getattr(self, name)}; it must not be negative")
        if (self.reserve_ppm == 0) != (self.reserve_release_periods == 0):
            raise InvalidRequestError(
                f"a reserve of {self.reserve_ppm} ppm that is released after {self.reserve_release_periods} periods"
                " makes no sense; agree both, or neither"
            )
        if self.pay_in and (self.minimum_payout_minor or self.withholding_ppm or self.fee_minor):
            raise InvalidRequestError(
                f"minimum payout, withholding and fee are taken where money is paid: agree them in {self.pay_in}, in"
                " which it is, and none in the currency that is converted to it"
            )


@dataclass(frozen=True, slots=True)
class Rate:
    """The decimal number `coefficient` / 10^`digits`, more than 0, with the digits that it was given in."""

    coefficient: int
    digits: int

    @property
    def value(self) -> Fraction:
        """The exact number."""
        return Fraction(self.coefficient, 10**self.digits)

    def __str__(self) -> str:
        whole, rest = divmod(self.coefficient, 10**self.digits)
        return f"{whole}.{rest:0{self.digits}d}" if self.digits else str(whole)


@dataclass(frozen=True, slots=True)
class GivenRate:
    """What one unit of `base` cost in `quote` on a day, and who says so."""

    base: str
    quote: str
    on: date
    rate: Rate
    source: str

    def __str__(self) -> str:
        return f"1 {self.base} = {self.rate} {self.quote} ({self.source}, {self.on})"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """One record of training data, tagged with the group that contributed it, or with the shares of several.

    Exactly one form is filled: `completion` alone (plain text), `prompt` and `completion`, or `messages`. A record of
    which one group has all has a `group` and no `splits`, however it was given; one of several has no `group`.

    Raises:
        InputError: it has a group and splits, or neither, or its shares are not all of it.
    """

    id: str
    group: Group | None
    completion: str = ""
    prompt: str | None = None
    messages: tuple[Message, ...] = ()
    splits: tuple[Share, ...] = ()

    def __post_init__(self) -> None:
        if (self.group is None) == (not self.splits):
            raise InputError(f"record {self.id}: a group is needed, or splits, and not both")
        if self.splits:
            shares = agreed_shares(self.splits)
            object.__setattr__(self, "group", shares[0].group if len(shares) == 1 else None)
            object.__setattr__(self, "splits", shares if len(shares) > 1 else ())

    @property
    def shares(self) -> tuple[Share, ...]:
        """Who has which share of it, in the order of their groups; together all of it."""
        return self.splits if self.group is None else (Share(self.group),)


def output_name(source: str, external_id: str) -> str:
    """Return what reports call the output that a log of a source calls `external_id`."""
    return external_id if source == OWN_SOURCE else f"{source}:{external_id}"


@dataclass(frozen=True, slots=True)
class LoggedOutput:
    """One logged generation of a model.

    `messages` holds a chat prompt and `prompt` a plain one (at most one of them is filled; both empty: the
    output had no prompt). `weight_micro` is the output's weight in micro-credits: what it distributes.
    """

    source: str
    external_id: str
    occurred_at: datetime
    model: str
    completion: str
    prompt: str = ""
    messages: tuple[Message, ...] = ()
    weight_micro: int = MICRO

    @property
    def name(self) -> str:
        """What reports call the output: its id in its log, after its source if that is not the own format."""
        return output_name(self.source, self.external_id)
