"""Charts: the same bytes again, well-formed, safe, readable by those who hear them."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from credit.reporting.charts import (
    BAR,
    DAILY_BANDS,
    HOUSE_GREY,
    INK,
    PALETTE,
    SHARE_BARS,
    daily_chart,
    share_chart,
)

SVG = "{http://www.w3.org/2000/svg}"
NAMES = {"ada": "Ada Press", "bell": "Bell & Sons <script>", "house": "House", "own": "Own docs"}
HOUSE = {"house", "own"}
CREDITS = {"ada": 5_000_000, "bell": 3_000_000, "own": 1_000_000, "house": 1_000_000}
DAYS = {"2026-10-03": CREDITS, "2026-10-31": {"ada": 250_000}, "2026-09-30": {"bell": 750_000}}


def texts(svg: str) -> list[str]:
    return [item.text or "" for item in ET.fromstring(svg).iter(f"{SVG}text")]


def widths(svg: str, colour: str) -> list[float]:
    return [float(width) for width in re.findall(rf'd="M204,[\d.]+h([\d.]+)v[^"]*" fill="{colour}"', svg)]


def test_the_same_numbers_give_the_same_bytes() -> None:
    assert share_chart(CREDITS, NAMES, HOUSE, "2026-10") == share_chart(CREDITS, NAMES, HOUSE, "2026-10")
    assert daily_chart(DAYS, NAMES, HOUSE, "2026-10") == daily_chart(DAYS, NAMES, HOUSE, "2026-10")


def test_bars_are_in_proportion_and_the_house_is_one_in_grey() -> None:
    svg = share_chart(CREDITS, NAMES, HOUSE, "2026-10")
    ada, bell = widths(svg, BAR)
    (house,) = widths(svg, HOUSE_GREY)
    assert bell / ada == pytest.approx(3 / 5)
    assert house / ada == pytest.approx(2 / 5)
    assert texts(svg) == ["Ada Press", "Bell & Sons <script>", "House", "50.00 %", "30.00 %", "20.00 %"]


def test_the_interval_of_a_share_is_drawn_at_its_place_and_the_scale_makes_room_for_it() -> None:
    """Half of all credits is 0.5: the line from 0.4 to 0.75 is the widest thing and ends where the scale ends."""
    svg = share_chart(CREDITS, NAMES, HOUSE, "2026-10", {"ada": (0.4, 0.75)})
    ada, bell = widths(svg, BAR)
    assert ada == pytest.approx(420 * 0.5 / 0.75, abs=0.1)
    assert bell == pytest.approx(420 * 0.3 / 0.75, abs=0.1)
    lines = [(float(x), float(w)) for x, w in re.findall(rf'd="M([\d.]+),[\d.]+h([\d.]+)v[^"]*" fill="{INK}"', svg)]
    assert max(lines, key=lambda line: line[1]) == pytest.approx((204 + 420 * 0.4 / 0.75, 420 * 0.35 / 0.75), abs=0.1)
    assert len(lines) == 3, "one line and its two ends; the others have no interval"
    ET.fromstring(share_chart({"ada": 0}, NAMES, HOUSE, "2026-10", {"ada": (0.0, 0.0)}))


def test_a_chart_says_in_words_what_it_shows() -> None:
    for svg in (share_chart(CREDITS, NAMES, HOUSE, "2026-10"), daily_chart(DAYS, NAMES, HOUSE, "2026-10")):
        root = ET.fromstring(svg)
        assert root.get("role") == "img"
        assert "2026-10" in (root.findtext(f"{SVG}title") or "")
        assert "Bell & Sons <script>" in (root.findtext(f"{SVG}desc") or "")
        assert "<script" not in svg


def test_many_providers_are_put_together_in_both_charts() -> None:
    names = {f"p{number}": f"Provider {number}" for number in range(200)} | NAMES
    many = {key: 1_000_000 + place for place, key in enumerate(names)}
    shares = share_chart(many, names, HOUSE, "2026-10")
    assert len(widths(shares, BAR)) == SHARE_BARS
    assert f"{202 - SHARE_BARS + 1} others" in texts(shares)
    daily = daily_chart({"2026-10-01": many}, names, HOUSE, "2026-10")
    assert f"{202 - DAILY_BANDS + 1} others" in texts(daily)


def test_late_credits_stand_before_the_first_day() -> None:
    shown = texts(daily_chart(DAYS, NAMES, HOUSE, "2026-10"))
    assert shown[1:6] == ["0", "5", "10", "late", "5"], "the scale, and then the days"
    assert "late" not in texts(daily_chart({"2026-10-01": CREDITS}, NAMES, HOUSE, "2026-10"))


def test_both_axes_of_the_daily_chart_say_what_they_are() -> None:
    shown = texts(daily_chart(DAYS, NAMES, HOUSE, "2026-10"))
    assert shown[0] == "credits"
    assert "day of the month, UTC" in shown


def test_only_colours_of_the_palette_are_used() -> None:
    for svg in (share_chart(CREDITS, NAMES, HOUSE, "2026-10"), daily_chart(DAYS, NAMES, HOUSE, "2026-10")):
        assert set(re.findall(r"#[0-9a-f]{6}", svg)) <= set(PALETTE)


@pytest.mark.parametrize("credit", [{}, {"ada": 0}, {"ada": -5}])
def test_a_period_without_credits_can_be_drawn(credit: dict[str, int]) -> None:
    ET.fromstring(share_chart(credit, NAMES, HOUSE, "2026-02"))
    ET.fromstring(daily_chart({"2026-02-01": credit}, NAMES, HOUSE, "2026-02"))


def test_a_name_that_is_too_long_is_cut_and_control_characters_are_gone() -> None:
    svg = share_chart({"ada": 1}, {"ada": "a\u202eb\x07" + "long " * 20}, set(), "2026-10")
    assert texts(svg)[0] == "a\ufffdb\ufffdlong long long long lon…"
