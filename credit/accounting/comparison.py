"""A statement compared with the one before: what is paid now and was paid then, and why it changed, to the minor unit.

What a provider earns from a pool is net x fraction x rate: the pool, the provider's share of it, and the agreed rate.
From one month to the next they are changed in this order, one after the other:

    by the pool    (net now − net then) x fraction then x rate then
    by the share    net now x (fraction now − fraction then) x rate then
    by the rate     net now x fraction now x (rate now − rate then)

Each is rounded to the minor unit, half to even. The two amounts were rounded too, so a unit or two can remain: they
stand as `rounding`, and the parts add up exactly. Every other line of a balance changes as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from credit.accounting.amounts import format_amount, format_amounts, parse_amount
from credit.accounting.statement_lines import STATEMENT_LINES
from credit.records import PPM

CAUSES = ("pool", "share", "rate", "rounding")
"""Parts of the change of what a pool brought, in the order of a statement."""

YEARLY = ("earned", "payable")
"""Lines of a balance that are added up over a year."""

Body = Mapping[str, Any]
"""A statement as its JSON says."""


@dataclass(slots=True)
class History:
    """What a provider was told before.

    Attributes:
        before: its statement for the period before; None if it got none.
        year: what its statements of earlier periods of the calendar year add up to, in minor units: by currency, then
            by line, `earned` and `payable`.
    """

    before: Body | None = None
    year: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, body: Body) -> None:
        """Count a statement in the year's sums."""
        for balance in body["balances"]:
            currency = balance["currency"]
            sums = self.year.setdefault(currency, dict.fromkeys(YEARLY, 0))
            for name in YEARLY:
                sums[name] += parse_amount(balance[name], currency, allow_negative=True)


def year_to_date(history: History, now: Body) -> list[dict[str, str]]:
    """Return what a provider earned and was to be paid in the calendar year up to a statement, by currency."""
    sums = History(year={currency: dict(lines) for currency, lines in history.year.items()})
    sums.add(now)
    return [{"currency": currency, **format_amounts(lines, currency)} for currency, lines in sorted(sums.year.items())]


def compared(before: Body, now: Body) -> dict[str, Any]:
    """Return what changed between two statements of a provider, as it stands in the later one.

    Returns:
        Period and credits of the earlier statement, and for each currency what was payable and is, with the parts of
        the difference. Amounts are decimal strings beside their currency.
    """
    currencies = sorted({item["currency"] for body in (before, now) for item in body["balances"]})
    return {
        "period": before["period"],
        "credit_micro": before["credits"]["credit_micro"],
        "total_credit_micro": before["credits"]["total_credit_micro"],
        "balances": [_compared_balance(currency, before, now) for currency in currencies],
    }


def _compared_balance(currency: str, before: Body, now: Body) -> dict[str, Any]:
    then, today = (_minors(_of_currency(body["balances"], currency), currency) for body in (before, now))
    pools = list(_compared_pools(currency, before["pools"], now["pools"]))
    lines = {
        line.name: (today[line.name] - then[line.name]) * (-1 if line.name == "carried_forward" else line.sign)
        for line in STATEMENT_LINES
        if line.name not in ("earned", "payable")
    }
    changes = {name: change for name, change in lines.items() if change}
    return {
        "currency": currency,
        **format_amounts({"before": then["payable"], "payable": today["payable"]}, currency),
        "change": format_amount(today["payable"] - then["payable"], currency),
        "pools": pools,
        "lines": [{"line": name, "change": format_amount(change, currency)} for name, change in changes.items()],
    }


def _compared_pools(currency: str, before: Sequence[Body], now: Sequence[Body]) -> Iterator[dict[str, Any]]:
    """Yield the change of what each pool of a currency brought. One that is new brought nothing then."""
    then, today = ({item["reference"]: item for item in all_ if item["currency"] == currency} for all_ in (before, now))
    for reference in sorted(then.keys() | today.keys()):
        old, new = then.get(reference), today.get(reference)
        old_net, old_fraction, old_rate, old_earned = _factors(old or _empty(today[reference]))
        new_net, new_fraction, new_rate, new_earned = _factors(new or _empty(then[reference]))
        parts = {
            "pool": round((new_net - old_net) * old_fraction * old_rate),
            "share": round(new_net * (new_fraction - old_fraction) * old_rate),
            "rate": round(new_net * new_fraction * (new_rate - old_rate)),
        }
        change = new_earned - old_earned
        parts["rounding"] = change - sum(parts.values())
        fractions = {"fraction_before": (old or {}).get("fraction", ""), "fraction": (new or {}).get("fraction", "")}
        yield {
            "reference": reference,
            **fractions,
            **format_amounts({"before": old_earned, "earned": new_earned, "change": change, **parts}, currency),
        }


def _empty(pool: Body) -> Body:
    """Return a pool of no money, with the share and rate of another: all that the other brought is the pool's doing."""
    return {**pool, "net": "0", "earned": "0"}


def _factors(pool: Body) -> tuple[int, Fraction, Fraction, int]:
    """Return net (minor units), fraction and rate of a pool, and what was earned from it (minor units)."""
    part, whole = map(int, pool["fraction"].split("/"))
    net, earned = (parse_amount(pool[name], pool["currency"], allow_negative=True) for name in ("net", "earned"))
    return net, Fraction(part, whole) if whole else Fraction(0), Fraction(pool["rate_ppm"], PPM), earned


def _of_currency(balances: Sequence[Body], currency: str) -> Body:
    return next((item for item in balances if item["currency"] == currency), {})


def _minors(balance: Body, currency: str) -> dict[str, int]:
    """Return every line of a balance in minor units; 0 for a line that it lacks."""
    return {
        line.name: parse_amount(balance.get(line.name, "0"), currency, allow_negative=True) for line in STATEMENT_LINES
    }
