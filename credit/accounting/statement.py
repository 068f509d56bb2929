"""The statement of a provider for a period: one canonical document; its page and files show what stands in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import rfc8785

from credit.accounting.amounts import format_amount, format_amounts
from credit.accounting.apportion import Earning
from credit.accounting.comparison import History, compared, year_to_date
from credit.accounting.fx import exact_text
from credit.accounting.statement_lines import STATEMENT_LINES
from credit.accounting.waterfall import HeldCollection, Waterfall
from credit.records import AccountChange, Correction, Terms

FORMAT = "credit.statement.v1"

MEANING = (
    "A credit says that the model's answers would have been less likely without this data. It is an estimate, computed"
    " from the model and the data; it is no proof of copying, and no judgement of the work's worth."
)


@dataclass(frozen=True, slots=True)
class PoolShare:
    """A provider's earning from one pool of `net_minor` minor units."""

    reference: str
    currency: str
    net_minor: int
    earning: Earning


@dataclass(frozen=True, slots=True)
class ValidationCheck:
    """The evidence of how well an index and policy predict; numbers as text, empty where there are none.

    `certificate` is the SHA-256 of the certificate, `checked_on` the day of its registration, `measure` the number
    credits follow. `agreement` and the baselines are rank correlations with retraining (LDS); `ceiling` is the best
    possible one.
    """

    index: str
    policy: str
    certificate: str = ""
    checked_on: str = ""
    recipe: str = ""
    data: str = ""
    measure: str = ""
    agreement: str = ""
    ceiling: str = ""
    token_share: str = ""
    bm25: str = ""


@dataclass(frozen=True, slots=True)
class ReviewCheck:
    """A review of an index's data, of a kind. `review` is its SHA-256; empty as the rest where there is none.

    `reviewed_on` is the day of its registration. `result` says in words what was found; it names no provider.
    """

    index: str
    kind: str
    review: str = ""
    reviewed_on: str = ""
    result: str = ""


@dataclass(frozen=True, slots=True)
class Validation:
    """The validation of a period as its statements tell it, in numbers and words.

    `unvalidated` is the reason for paying without a certificate, `unreviewed` that for paying without a review.
    """

    checks: Sequence[ValidationCheck] = ()
    words: Sequence[str] = ()
    unvalidated: str = ""
    reviews: Sequence[ReviewCheck] = ()
    unreviewed: str = ""


@dataclass(frozen=True, slots=True)
class Certainty:
    """The certainty of a provider's share of all credits.

    `low` and `high` bound its 90 % interval, as fractions: over the choice of outputs, and where it
    `covers_attribution`, over the error of the estimate that retraining showed. `alike` counts the other providers with
    shares that cannot be told apart from it.
    """

    outputs: int
    low: float
    high: float
    alike: int
    covers_attribution: bool = False


@dataclass(frozen=True, slots=True)
class Uncounted:
    """Outputs of a period that count for less because of their users, and the micro-credits left out.

    Attributes:
        repeats: outputs with the same text for the same user on the same day, from the second on; they do not count.
        capped: outputs of users' days beyond the limit; they count in part.
        total_micro: left out, of all providers and the house.
        own_micro: left out of this provider's.
    """

    repeats: int
    capped: int
    total_micro: int
    own_micro: int


@dataclass(frozen=True, slots=True)
class StatementInput:
    """The content of a statement for one provider and period.

    Attributes:
        collections: micro-credits of each collection, by the month of the outputs: an output that came too late for
            its own month counts in a later period.
        total_credit_micro: the credits of all providers.
        terms: the agreed terms, by currency; a currency without any has the defaults.
        chain_head: the hash of the ledger's last transaction when the statement was made.
        seal_head: the hash of the last seal of its other rows.
        certainty: None where no output's credits are known.
        outputs_unvalued: outputs that could not be valued, and distribute nothing to anybody.
        issuer: name, address and legal text of the issuer, or empty.
        account_changes: changes of the account that the provider is paid to, since its last statement.
        uncounted: what the limits on users left out; None: nothing.
        history: what the provider was told before.
        releases: reserves that are still held, in minor units: by currency, then by the period that releases them.
    """

    provider: str
    name: str
    period: str
    collections: Mapping[str, Mapping[str, int]]
    total_credit_micro: int
    shares: Sequence[PoolShare]
    waterfalls: Sequence[Waterfall]
    corrections: Sequence[Correction]
    terms: Mapping[str, Terms]
    policies: Sequence[str]
    indexes: Sequence[str]
    chain_head: str
    seal_head: str
    validation: Validation = Validation()
    certainty: Certainty | None = None
    outputs_unvalued: int = 0
    issuer: Mapping[str, str] = field(default_factory=dict)
    account_changes: Sequence[AccountChange] = ()
    uncounted: Uncounted | None = None
    history: History = field(default_factory=History)
    releases: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def statement_json(facts: StatementInput) -> str:
    """Render a statement as canonical JSON (RFC 8785).

    Amounts of money stand as decimal strings beside their currency, credits as strings of micro-credits: both stay
    exact in every JSON reader.
    """
    totals = {name: sum(months.values()) for name, months in facts.collections.items()}
    changes = [asdict(item) | {"on": item.on.isoformat()} for item in facts.account_changes]
    on_hold = [row for fall in facts.waterfalls for row in on_hold_rows(fall)]
    body: dict[str, Any] = {
        "format": FORMAT,
        "period": facts.period,
        "provider": {"key": facts.provider, "name": facts.name},
        **({"issuer": dict(facts.issuer)} if facts.issuer else {}),
        "credits": {
            "credit_micro": str(sum(totals.values())),
            "total_credit_micro": str(facts.total_credit_micro),
            "collections": [
                {"collection": name, "credit_micro": str(amount)} for name, amount in sorted(totals.items())
            ],
            "late": [
                {"collection": name, "month": month, "credit_micro": str(amount)}
                for name, months in sorted(facts.collections.items())
                for month, amount in sorted(months.items())
                if month != facts.period
            ],
            "certainty": None if facts.certainty is None else _certainty(facts.certainty),
            **({"outputs_unvalued": facts.outputs_unvalued} if facts.outputs_unvalued else {}),
            **({"uncounted": _uncounted(facts.uncounted)} if facts.uncounted else {}),
        },
        "pools": [_pool(share) for share in facts.shares],
        "balances": [
            _balance(fall, facts.terms.get(fall.currency, Terms()), facts.releases.get(fall.currency, {}))
            for fall in facts.waterfalls
        ],
        "corrections": [_correction(line) for line in facts.corrections],
        **({"on_hold": on_hold} if on_hold else {}),
        **({"account_changes": changes} if changes else {}),
        **_conversions(facts.waterfalls),
        "policies": sorted(facts.policies),
        "indexes": sorted(facts.indexes),
        "chain_head": facts.chain_head,
        "seal_head": facts.seal_head,
        "validation": asdict(facts.validation),
        "meaning": MEANING,
    }
    if facts.history.before is not None:
        body["compared"] = compared(facts.history.before, body)
    if facts.history.year:
        body["year_to_date"] = year_to_date(facts.history, body)
    # Canonical, so that the SHA-256 of the text is the identity of the statement.
    return rfc8785.dumps(body).decode()


def _uncounted(item: Uncounted) -> dict[str, Any]:
    return {
        "outputs_repeated": item.repeats,
        "outputs_capped": item.capped,
        "credit_micro": str(item.own_micro),
        "total_credit_micro": str(item.total_micro),
    }


def _certainty(item: Certainty) -> dict[str, Any]:
    return {
        "outputs": item.outputs,
        "interval": "90 %",
        "interval_over": ["outputs", *(["attribution"] if item.covers_attribution else [])],
        "share_low": f"{item.low:.6f}",
        "share_high": f"{item.high:.6f}",
        "providers_alike": item.alike,
    }


def _pool(share: PoolShare) -> dict[str, Any]:
    allocated = share.earning.share
    amounts = {"net": share.net_minor, "amount": allocated.amount_minor, "earned": share.earning.earned_minor}
    return {
        "reference": share.reference,
        "currency": share.currency,
        "fraction": f"{allocated.credit_micro}/{allocated.total_credit_micro}",
        "rate_ppm": share.earning.rate_ppm,
        **format_amounts(amounts, share.currency),
    }


def _balance(fall: Waterfall, terms: Terms, releases: Mapping[str, int]) -> dict[str, Any]:
    """Return the lines of a balance, with the agreed rate of each line that has one, and the reserves to come."""
    lines = fall.amounts
    rest = {"reserve_balance": fall.reserve_balance_minor, "advance_balance": fall.advance_balance_minor}
    rates = {line.rate: getattr(terms, line.rate) for line in STATEMENT_LINES if line.rate and lines[line.name]}
    return {
        "currency": fall.currency,
        "agreement": terms.agreement_reference,
        "reason": fall.reason,
        **format_amounts(lines | rest, fall.currency),
        **rates,
        **({"reserve_releases": format_amounts(dict(sorted(releases.items())), fall.currency)} if releases else {}),
    }


def on_hold_rows(fall: Waterfall) -> list[dict[str, str]]:
    """Return the rows of a statement about collections: on hold, with the reason, or released."""

    def amounts(item: HeldCollection) -> dict[str, int]:
        return {
            "opening": item.opening_minor,
            "corrected": item.corrected_minor,
            "held": item.held_minor,
            "released": item.released_minor,
            "balance": item.balance_minor,
        }

    return [
        {
            "currency": fall.currency,
            "collection": item.collection,
            "reason": item.reason,
            **format_amounts(amounts(item), fall.currency),
        }
        for item in fall.collections
    ]


def _conversions(falls: Sequence[Waterfall]) -> dict[str, Any]:
    """Return the conversions: amount, rate, exact result and rounded result; nothing where there are none."""
    found = [fall.conversion for fall in falls if fall.conversion is not None]
    rows = [
        {
            "currency": item.currency,
            "amount": format_amount(item.amount_minor, item.currency),
            "into": item.into,
            "base": item.given.base,
            "quote": item.given.quote,
            "rate": str(item.given.rate),
            "on": item.given.on.isoformat(),
            "source": item.given.source,
            "exact": exact_text(item.exact),
            "converted": format_amount(item.converted_minor, item.into),
        }
        for item in found
    ]
    return {"conversions": rows} if rows else {}


def _correction(line: Correction) -> dict[str, Any]:
    return {
        "currency": line.currency,
        "amount": format_amount(line.amount_minor, line.currency),
        "kind": line.kind,
        "reason": line.reason,
        "transaction": line.txn_id,
        "hash": line.txn_hash,
        "cites": line.cites,
        **({"collection": line.collection} if line.collection is not None else {}),
    }
