"""A statement compared with the one before: every part against its formula, and all parts against the difference."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from credit.accounting.amounts import format_amount, parse_amount
from credit.accounting.comparison import CAUSES, History, compared, year_to_date
from credit.accounting.statement_lines import STATEMENT_LINES

LARGEST = 10**12


def pool(net: int, fraction: str, earned: int, *, rate: int = 1_000_000, reference: str = "main") -> dict[str, Any]:
    amounts = {"net": format_amount(net, "EUR"), "earned": format_amount(earned, "EUR")}
    return {"reference": reference, "currency": "EUR", "fraction": fraction, "rate_ppm": rate, **amounts}


def balance(currency: str = "EUR", **lines: int) -> dict[str, str]:
    """Lines of a balance in minor units; those that are not given are 0."""
    amounts = {line.name: format_amount(lines.get(line.name, 0), currency) for line in STATEMENT_LINES}
    return {"currency": currency, **amounts}


def body(period: str, pools: list[dict[str, Any]], balances: list[dict[str, str]]) -> dict[str, Any]:
    credited = {"credit_micro": "1", "total_credit_micro": "4"}
    return {"period": period, "credits": credited, "pools": pools, "balances": balances}


def minor(text: str) -> int:
    return parse_amount(text, "EUR", allow_negative=True)


def test_a_smaller_pool_and_a_larger_share_are_told_apart():
    """29.44 of a pool of 240.00, then 23.47 of 180.00: the share rose, and yet less is paid."""
    before = body("2026-01", [pool(24_000, "12267/100000", 2_944)], [balance(earned=2_944, payable=2_944)])
    now = body("2026-02", [pool(18_000, "13039/100000", 2_347)], [balance(earned=2_347, payable=2_347)])
    found = compared(before, now)
    (one,) = found["balances"]
    assert (found["period"], one["before"], one["payable"], one["change"]) == ("2026-01", "29.44", "23.47", "-5.97")
    (of_pool,) = one["pools"]
    # (180 - 240) x 0.12267 = -7.3602; 180 x (0.13039 - 0.12267) = 1.3896
    assert [of_pool[name] for name in CAUSES] == ["-7.36", "1.39", "0.00", "0.00"]
    assert one["lines"] == []


def test_a_rate_a_new_pool_and_one_that_is_gone_have_parts_of_their_own():
    before = body("2026-01", [pool(10_000, "1/4", 2_500), pool(1_000, "1/2", 500, reference="old")], [])
    now = body("2026-02", [pool(10_000, "1/4", 1_750, rate=700_000), pool(300, "1/3", 100, reference="new")], [])
    now["balances"] = [balance(earned=1_850, payable=1_850)]
    parts = {
        item["reference"]: [item[name] for name in CAUSES] for item in compared(before, now)["balances"][0]["pools"]
    }
    assert parts == {
        "main": ["0.00", "0.00", "-7.50", "0.00"],
        "new": ["1.00", "0.00", "0.00", "0.00"],
        "old": ["-5.00", "0.00", "0.00", "0.00"],
    }


def test_what_is_taken_counts_against_the_provider_and_what_is_carried_on_too():
    before = body("2026-01", [], [balance(opening=100, withholding=30, payable=70)])
    now = body("2026-02", [], [balance(opening=100, withholding=50, carried_forward=50)])
    (one,) = compared(before, now)["balances"]
    assert one["lines"] == [{"line": "withholding", "change": "-0.20"}, {"line": "carried_forward", "change": "-0.50"}]
    assert one["change"] == "-0.70"


def test_a_currency_of_one_month_alone_is_compared_with_nothing():
    before, now = body("2026-01", [], [balance(payable=5)]), body("2026-02", [], [balance("JPY", payable=7)])
    changes = {item["currency"]: item["change"] for item in compared(before, now)["balances"]}
    assert changes == {"EUR": "-0.05", "JPY": "7"}


amounts = st.integers(0, LARGEST)


@st.composite
def statements(draw: st.DrawFn) -> dict[str, Any]:
    """A statement whose lines add up, with up to three pools whose earnings are rounded by a unit at most."""
    pools = []
    for reference in draw(st.lists(st.sampled_from("abc"), unique=True)):
        whole = draw(st.integers(1, LARGEST))
        net, part, rate = draw(amounts), draw(st.integers(0, whole)), draw(st.integers(0, 1_000_000))
        exact = net * Fraction(part, whole) * Fraction(rate, 1_000_000)
        pools.append(pool(net, f"{part}/{whole}", int(exact) + draw(st.integers(0, 1)), rate=rate, reference=reference))
    lines = {line.name: draw(amounts) for line in STATEMENT_LINES if line.section != "outcome"}
    lines["earned"] = sum(minor(item["earned"]) for item in pools)
    left = sum(line.sign * lines[line.name] for line in STATEMENT_LINES if line.section != "outcome")
    lines |= {"payable": left, "carried_forward": 0} if draw(st.booleans()) and left > 0 else {"carried_forward": left}
    return body("2026-03", pools, [balance(**lines)])


@given(before=statements(), now=statements())
def test_all_parts_add_up_to_the_difference_to_the_cent(before: dict[str, Any], now: dict[str, Any]):
    (one,) = compared(before, now)["balances"]
    for item in one["pools"]:
        assert sum(minor(item[name]) for name in CAUSES) == minor(item["change"])
        assert minor(item["earned"]) - minor(item["before"]) == minor(item["change"])
        assert abs(minor(item["rounding"])) <= 3, "three roundings of half a unit, and two of a whole one"
    parts = sum(minor(item["change"]) for item in (*one["pools"], *one["lines"]))
    assert minor(one["payable"]) - minor(one["before"]) == minor(one["change"]) == parts


def test_a_year_adds_up_all_its_statements():
    history = History()
    history.add(body("2026-01", [], [balance(earned=100, payable=0), balance("JPY", earned=3, payable=3)]))
    history.add(body("2026-02", [], [balance(earned=50, payable=150)]))
    now = body("2026-03", [], [balance(earned=25, payable=25)])
    sums = [
        {"currency": "EUR", "earned": "1.75", "payable": "1.75"},
        {"currency": "JPY", "earned": "3", "payable": "3"},
    ]
    assert year_to_date(history, now) == sums
    assert year_to_date(history, now) == sums, "a second look changes nothing"
