"""Records that cross package borders: plain and frozen, each checking its own validity."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from fractions import Fraction
from itertools import pairwise
from typing import Literal, NamedTuple

from credit.errors import InputError, InvalidRequestError

HOUSE = "house"
"""Key of the reserved provider for everything that no provider earned."""

UNATTRIBUTED = "unattributed"
"""Collection of the house for the credit of outputs without a supporting group."""

ECHO_COLLECTION = "echo"
"""Collection of the house for the part of outputs that only repeats their prompts."""

DEFAULT_COLLECTION = "default"
MICRO = 1_000_000
"""Micro-credits in a credit; an output of weight 1 distributes one credit."""

PPM = 1_000_000
"""Parts per million in a whole, the unit of agreed shares: 700 000 is 70 %."""

CREDIT = "CREDIT"
"""The commodity of credits in the ledger, in micro-credits; every other commodity is an ISO 4217 code."""

PaymentFormat = Literal["csv", "pain001", "paypal", "wise"]
"""Names of the payment channels; `credit.payments.channels` describes each."""

VoidTo = Literal["provider", "house", "escrow"]
"""Where the money of a voided payout goes."""

MIN_FIDELITY = 0.5
"""Least fidelity that a close demands of a certificate, as a fraction of the noise ceiling, unless told otherwise."""

MAX_OUTPUT_SHARE = 0.25
"""Largest share of a period's credits that one output may decide, unless told otherwise."""

WAITING_DAYS = 7
"""Days for which a changed account waits for its first payment, unless told otherwise.

A week: long enough for a provider to hear of the change and object. Marketplaces wait for 3 days (Amazon), 5 (Etsy) or
up to 7 (Airbnb), but they pay every few days, and we pay once a month.
"""

MANIFEST = "manifest.json"
"""File of an index that describes all its other files; without it a folder is no index."""

OWN_SOURCE = "own"
"""Source of outputs logged in credit's own format."""

_ACCEPTANCE = re.compile(r"[^\s:][^:]*: \S(.*\S)?")

THOUGHT_MARKS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>"))
"""Marks that models put around their thoughts."""

_PROVIDER_KEY = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_COLLECTION = re.compile(r"[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]{0,126}[^\s\x00-\x1f\x7f])?")
_PERIOD = re.compile(r"(?!0000|9999)[0-9]{4}-(?:0[1-9]|1[0-2])")


def is_provider_key(text: str) -> bool:
    """Return True if `text` has the form of a provider's key: `[a-z0-9][a-z0-9_-]{0,63}`."""
    return _PROVIDER_KEY.fullmatch(text) is not None


def is_collection(text: str) -> bool:
    """Return True if `text` can name a collection: 1 to 128 characters, no control characters, no outer space."""
    return _COLLECTION.fullmatch(text) is not None


def is_acceptance(text: str) -> bool:
    """Return True if `text` has the form of a decision by name: `NAME: reason`, in one line."""
    return _ACCEPTANCE.fullmatch(text) is not None and text.isprintable()


def is_period(text: str) -> bool:
    """Return True if `text` is a period: a calendar month `YYYY-MM` in UTC, with days before and after it."""
    return _PERIOD.fullmatch(text) is not None


def period_of(moment: datetime | date) -> str:
    """Return the period `YYYY-MM` of a moment (in UTC)."""
    return f"{moment.year:04d}-{moment.month:02d}"


@dataclass(frozen=True, slots=True, order=True)
class Group:
    """A provider's collection: the unit of valuation, and the line item of a statement."""

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
    """Return the shares of a record in the order of their groups, without shares of 0.

    Raises:
        InputError: a share is negative, a group is named twice, or the shares do not sum to the record.
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
    """Return parts per million as a decimal fraction, such as `0.7`."""
    whole, rest = divmod(ppm, PPM)
    return f"{whole}.{rest:06d}".rstrip("0").removesuffix(".")


@dataclass(frozen=True, slots=True)
class CallIdentity:
    """Ids by which loggers know one call of a model; an empty one is unknown.

    Attributes:
        trace: id of the trace.
        span: id of the span within the trace.
        parent: id of the span around it.
        response: id that the model's server gave its response.
        request: id that the server, or a gateway, gave the request.
        choice: index of the answer among those of the call.
    """

    trace: str = ""
    span: str = ""
    parent: str = ""
    response: str = ""
    request: str = ""
    choice: int = 0


class Place(NamedTuple):
    """The place of a record: a file and its 1-based line (or row)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A bad record: its place, the reason, its bytes as read, and for a span which one it is."""

    place: Place
    error: str
    raw: bytes
    identity: CallIdentity | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.place}: {self.error}"


@dataclass(frozen=True, slots=True)
class Provider:
    """A contributor of training data. `kind` `house` marks own or public-domain data: its share is the house's."""

    key: str
    name: str
    kind: Literal["provider", "house"] = "provider"


@dataclass(frozen=True, slots=True)
class Terms:
    """A provider's contract terms in one currency; the defaults hold without a contract.

    Shares are in parts per million, amounts in minor units. A fraction of a minor unit falls to the provider.

    Attributes:
        rate_ppm: the provider's share of an allocation; the rest is the house's.
        minimum_payout_minor: the smallest payout; less is carried forward.
        reserve_ppm: the share of a period's earnings that is held back.
        reserve_release_periods: months until the release of a reserve; 0 exactly without a reserve.
        recoupment_ppm: the largest share of a period's earnings that goes towards earlier advances.
        withholding_ppm: the share of a payout withheld as tax.
        fee_minor: the fee of every payout.
        agreement_reference: the contract's name among its parties.
        pay_in: another currency to pay in, at the period's rate; empty: none. Minimum, withholding and fee are then
            agreed in that other currency.
        channel: the way in which payouts leave; None: any. A close pays what it can carry, and carries the rest
            forward.
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
    channel: PaymentFormat | None = None

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
        if self.pay_in and (self.minimum_payout_minor or self.withholding_ppm or self.fee_minor or self.channel):
            raise InvalidRequestError(
                "minimum payout, withholding, fee and channel belong to where money is paid: agree them in"
                f" {self.pay_in}, in which it is, and none in the currency that is converted to it"
            )


@dataclass(frozen=True, slots=True)
class Rate:
    """The decimal number `coefficient` / 10^`digits`, more than 0, with its digits as given."""

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
    """The price of one unit of `base` in `quote` on a day, and its source."""

    base: str
    quote: str
    on: date
    rate: Rate
    source: str

    def __str__(self) -> str:
        return f"1 {self.base} = {self.rate} {self.quote} ({self.source}, {self.on})"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat.

    `extra` is a JSON object with its other fields for the chat template: `tool_calls`, `tool_call_id`, `name` and
    `reasoning_content`; empty: none.
    """

    role: str
    content: str
    extra: str = ""


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """One record of training data, of the group that contributed it or of several groups with shares.

    Exactly one form is filled: `completion` alone (plain text), `prompt` and `completion`, `messages` with `template`
    as in a `LoggedOutput`, or `completion_ids`, the tokens that were learnt, after those of `prompt_ids`. A record of
    one group has a `group` and no `splits`, also where it was given as a split; a record of several has no `group`.

    Raises:
        InputError: both group and splits are given, or neither, or the shares do not sum to the record.
    """

    id: str
    group: Group | None
    completion: str = ""
    prompt: str | None = None
    messages: tuple[Message, ...] = ()
    splits: tuple[Share, ...] = ()
    template: str = ""
    prompt_ids: tuple[int, ...] = field(default=(), kw_only=True)
    completion_ids: tuple[int, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        if (self.group is None) == (not self.splits):
            raise InputError(f"record {self.id}: a group is needed, or splits, and not both")
        if self.splits:
            shares = agreed_shares(self.splits)
            object.__setattr__(self, "group", shares[0].group if len(shares) == 1 else None)
            object.__setattr__(self, "splits", shares if len(shares) > 1 else ())

    @property
    def shares(self) -> tuple[Share, ...]:
        """The groups' shares, in the order of groups; together the whole record."""
        return self.splits if self.group is None else (Share(self.group),)


def output_name(source: str, external_id: str) -> str:
    """Return the name of an output in reports, from its source and its id there."""
    return external_id if source == OWN_SOURCE else f"{source}:{external_id}"


@dataclass(frozen=True, slots=True)
class SpanLink:
    """A span of a trace and the span around it, if any; `is_call`: it is an answered call of a model."""

    trace: str
    span: str
    parent: str
    is_call: bool


@dataclass(frozen=True, slots=True)
class LoggedOutput:
    """One logged generation of a model.

    `messages` is a chat prompt and `prompt` a plain one; at most one of them is filled, and an output without a prompt
    has neither. `weight_micro` is the weight in micro-credits, all of which the output distributes. `identity` says
    which call it is; two outputs with the same content are equal, whatever their loggers called them. `user` and `text`
    are pseudonyms (`credit.ingest.pseudonyms`): of the user whom the model answered, and of question and answer. They
    are empty where nobody logged a user, and in outputs older than pseudonyms. `salt` goes into the content hash, and
    leaves with the texts.

    `thoughts` are the model's words to itself before the completion; the model saw it, and nobody is paid for it.
    `template` is a JSON object with the further input of the chat template, such as `tools`; empty: nothing.
    `prompt_ids` are the tokens that the model saw before it wrote, and `completion_ids` those that it wrote, thoughts
    too, where the log has them; empty: it has the text alone.
    """

    source: str
    external_id: str
    occurred_at: datetime
    model: str
    completion: str
    prompt: str = ""
    messages: tuple[Message, ...] = ()
    weight_micro: int = MICRO
    thoughts: str = ""
    template: str = ""
    prompt_ids: tuple[int, ...] = field(default=(), kw_only=True)
    completion_ids: tuple[int, ...] = field(default=(), kw_only=True)
    identity: CallIdentity = field(default=CallIdentity(), compare=False)
    user: str = field(default="", kw_only=True)
    text: str = field(default="", kw_only=True, compare=False)
    salt: str = field(default="", kw_only=True, compare=False)

    @property
    def name(self) -> str:
        """The name in reports: the id in the log, after the source unless that is the own format."""
        return output_name(self.source, self.external_id)

    @property
    def with_thoughts_in_completion(self) -> LoggedOutput:
        """The same output with its thoughts, between marks, at the head of the completion; as text alone."""
        if not self.thoughts:
            return self
        opening, closing = THOUGHT_MARKS[0]
        said = f"{opening}\n{self.thoughts}\n{closing}\n\n{self.completion}"
        return replace(self, completion=said, thoughts="", prompt_ids=(), completion_ids=())


@dataclass(frozen=True, slots=True)
class Correction:
    """A movement on a provider's payable account, in minor units; `cites` is the id of the corrected transaction.

    With a `collection`, the movement is on the account of that collection's held earnings.
    """

    provider: str
    currency: str
    amount_minor: int
    txn_id: int
    txn_hash: str
    kind: str
    reason: str
    cites: int | None
    collection: str | None = None


@dataclass(frozen=True, slots=True)
class AccountChange:
    """A change of the account that a provider is paid to, as far as a permanent record may tell it.

    Attributes:
        on: the day on which it was recorded, in UTC.
        change: the first account is `recorded`, another one `changed`; `erased` means all personal data.
        account: `iban`, `paypal` or `email`; empty after an erasure.
        last_four: the last four characters of the new IBAN; empty for other accounts.
    """

    on: date
    change: Literal["recorded", "changed", "removed", "erased"]
    account: str = ""
    last_four: str = ""
