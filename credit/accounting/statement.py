"""What a provider is told about a period: one canonical document, from which all its faces are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import rfc8785

from credit.accounting.money import format_amount
from credit.accounting.waterfall import Waterfall

FORMAT = "credit.statement.v1"

MEANING = (
    "A credit says that the model's answers would have been less likely without this data, as estimated by "
    "influence functions. It is an estimate, not a proof of copying, and no judgement of the work's worth."
)


@dataclass(frozen=True, slots=True)
class PoolShare:
    """A provider's share of one pool, in minor units; the fraction is credit_micro / total_credit_micro."""

    reference: str
    currency: str
    net_minor: int
    amount_minor: int


@dataclass(frozen=True, slots=True)
class StatementInput:
    """Everything that a statement says of one provider and period.

    `collections` maps each collection to its micro-credits; `total_credit_micro` counts all providers' credits.
    `chain_head` is the hash of the ledger's last transaction when the statement was made.
    """

    provider: str
    name: str
    period: str
    collections: Mapping[str, int]
    total_credit_micro: int
    shares: Sequence[PoolShare]
    waterfalls: Sequence[Waterfall]
    policies: Sequence[str]
    indexes: Sequence[str]
    chain_head: str


def statement_json(facts: StatementInput) -> str:
    """Render a statement as canonical JSON (RFC 8785).

    Amounts of money stand as decimal strings beside their currency, credits as strings of micro-credits: both stay
    exact in every JSON reader.
    """
    credit_micro = sum(facts.collections.values())
    body: dict[str, Any] = {
        "format": FORMAT,
        "period": facts.period,
        "provider": {"key": facts.provider, "name": facts.name},
        "credits": {
            "credit_micro": str(credit_micro),
            "total_credit_micro": str(facts.total_credit_micro),
            "collections": [
                {"collection": name, "credit_micro": str(amount)} for name, amount in sorted(facts.collections.items())
            ],
        },
        "pools": [
            {
                "reference": share.reference,
                "currency": share.currency,
                "net": format_amount(share.net_minor, share.currency),
                "fraction": f"{credit_micro}/{facts.total_credit_micro}",
                "amount": format_amount(share.amount_minor, share.currency),
            }
            for share in facts.shares
        ],
        "balances": [
            {
                "currency": fall.currency,
                "opening": format_amount(fall.opening_minor, fall.currency),
                "earned": format_amount(fall.earned_minor, fall.currency),
                "adjustments": format_amount(fall.adjustments_minor, fall.currency),
                "payable": format_amount(fall.payable_minor, fall.currency),
                "carried_forward": format_amount(fall.carried_minor, fall.currency),
                "reason": fall.reason,
            }
            for fall in facts.waterfalls
        ],
        "policies": sorted(facts.policies),
        "indexes": sorted(facts.indexes),
        "chain_head": facts.chain_head,
        "meaning": MEANING,
    }
    return rfc8785.dumps(body).decode()
