"""Charts: the same again, in proportion, safe, readable by those who hear them."""

from __future__ import annotations

import re

import pytest

from credit.reporting.charts import DAILY_BANDS, SHARE_BARS, ShareBar, daily_chart, share_chart
from credit.reporting.pages import template
from tests.reporting.reading import Page

NAMES = {"ada": "Ada Press", "bell": "Bell & Sons <script>", "house": "House", "own": "Own docs"}
HOUSE = {"house", "own"}
CREDITS = {"ada": 5_000_000, "bell": 3_000_000, "own": 1_000_000, "house": 1_000_000}
DAYS = {"2026-10-03": CREDITS, "2026-10-31": {"ada": 250_000}, "2026-09-30": {"bell": 750_000}}


def shares_html(bars: tuple[ShareBar, ...]) -> str:
    return str(template("charts.html.j2").module.share_chart(bars, "2026-10"))


def daily_html(days: dict[str, dict[str, int]] = DAYS, names: dict[str, str] = NAMES, period: str = "2026-10") -> str:
    chart = daily_chart(days, names, HOUSE, period)
    return str(template("charts.html.j2").module.daily_chart(chart, period))


def test_the_same_numbers_give_the_same_bytes():
    bars = [share_chart(CREDITS, NAMES, HOUSE) for _ in range(2)]
    assert shares_html(bars[0]) == shares_html(bars[1])
    assert daily_html() == daily_html()


def test_bars_are_in_proportion_and_the_house_is_one_in_grey():
    ada, bell, house = share_chart(CREDITS, NAMES, HOUSE)
    assert bell.length / ada.length == pytest.approx(3 / 5)
    assert house.length / ada.length == pytest.approx(2 / 5)
    assert (ada.tone, bell.tone, house.tone) == ("one", "one", "house")
    shown = Page(shares_html((ada, bell, house))).seen
    assert shown == ["Ada Press", "50.00 %", "Bell & Sons <script>", "30.00 %", "House", "20.00 %"]


def test_the_interval_of_a_share_is_drawn_at_its_place_and_the_scale_makes_room_for_it():
    """Half of all credits is 0.5: the line from 0.4 to 0.75 is the widest thing and ends where the scale ends."""
    ada, bell, house = share_chart(CREDITS, NAMES, HOUSE, {"ada": (0.4, 0.75)})
    assert ada.length == pytest.approx(100 * 0.5 / 0.75, abs=0.01)
    assert bell.length == pytest.approx(100 * 0.3 / 0.75, abs=0.01)
    assert ada.reach == pytest.approx((100 * 0.4 / 0.75, 100), abs=0.01)
    assert bell.reach is house.reach is None
    html = shares_html((ada, bell, house))
    (line,) = re.findall(r'<g class="reach">(.*?)</g>', html)
    drawn = [(float(x), width) for x, width in re.findall(r'<rect x="([\d.]+)%"[^>]* width="([\d.]+%?)"', line)]
    assert drawn == [(53.33, "46.67%"), (53.33, "1.5"), (100.0, "1.5")], "one line and its two ends"
    assert "40.00 % to 75.00 %" in Page(html).heard
    assert share_chart({"ada": 0}, NAMES, HOUSE, {"ada": (0.0, 0.0)})[0].reach is None


def test_a_chart_says_in_words_what_it_shows():
    shares, daily = Page(shares_html(share_chart(CREDITS, NAMES, HOUSE))), Page(daily_html())
    for chart in (shares, daily):
        assert "October 2026" in chart.labels[0]
        assert "Bell & Sons <script>" in chart.heard
    assert shares.heard == shares.seen, "no number is in the drawing alone"
    assert {"5.250000", "3.750000", "2.000000"} <= set(daily.heard), "the credits of each band"
    assert {"0.750000", "late", "31"} <= set(daily.heard), "the credits of each day"
    assert "<script" not in shares_html(share_chart(CREDITS, NAMES, HOUSE)) + daily_html()


def test_many_providers_are_put_together_in_both_charts():
    names = {f"p{number}": f"Provider {number}" for number in range(200)} | NAMES
    many = {key: 1_000_000 + place for place, key in enumerate(names)}
    bars = share_chart(many, names, HOUSE)
    assert [bar.tone for bar in bars].count("one") == SHARE_BARS - 1
    assert [bar.name for bar in bars[-2:]] == [f"{202 - SHARE_BARS + 1} others", "House"]
    bands = daily_chart({"2026-10-01": many}, names, HOUSE, "2026-10").bands
    assert [band.name for band in bands[-2:]] == [f"{202 - DAILY_BANDS + 1} others", "House"]
    assert len(bands) == DAILY_BANDS + 1
    assert len({band.tone for band in bands}) == len(bands)


def test_a_sum_of_many_or_the_house_does_not_make_the_providers_bars_too_short_to_read():
    names = {f"p{number}": f"Provider {number}" for number in range(300)} | NAMES
    many = dict.fromkeys(names, 1_000_000) | {"p0": 2_000_000, "house": 900_000_000}
    first, *_, others, house = share_chart(many, names, HOUSE)
    assert first.length == 100
    assert (others.length, others.is_cut) == (house.length, house.is_cut) == (100, True)
    html = shares_html((first, others, house))
    assert html.count('class="tear"') == 2
    assert Page(html).heard[-1] == "74.83 %", "its number is not cut"
    alone = share_chart({"house": 5}, NAMES, HOUSE)
    assert [(bar.length, bar.is_cut) for bar in alone] == [(100, False)]


def test_late_credits_stand_before_the_first_day():
    days = daily_chart(DAYS, NAMES, HOUSE, "2026-10").days
    assert [day.label for day in days[:3]] == ["late", "1", "2"]
    assert [day.label for day in days if day.has_label] == ["late", "5", "10", "15", "20", "25", "30"]
    assert "late" not in Page(daily_html({"2026-10-01": CREDITS})).seen


def test_a_column_is_stacked_from_the_bottom_up_without_gaps_and_to_scale():
    chart = daily_chart(DAYS, NAMES, HOUSE, "2026-10")
    assert [tick.label for tick in chart.ticks] == ["0", "5", "10"]
    assert [tick.top for tick in chart.ticks] == [100, 50, 0]
    third = chart.days[3]
    assert [(piece.tone, piece.top, piece.height) for piece in third.pieces] == [
        ("one", 50, 50), ("two", 20, 30), ("house", 0, 20),
    ]  # fmt: skip


def test_both_axes_of_the_daily_chart_say_what_they_are():
    shown = Page(daily_html()).seen
    assert shown[0] == "credits"
    assert "day of the month, UTC" in shown


def test_colours_come_from_the_style_sheet_alone():
    for html in (shares_html(share_chart(CREDITS, NAMES, HOUSE)), daily_html()):
        assert not re.search(r"#[0-9a-f]{3,6}\b|\bfill=|\bstroke=|\bstyle=", html)


@pytest.mark.parametrize("credit", [{}, {"ada": 0}, {"ada": -5}])
def test_a_period_without_credits_can_be_drawn(credit):
    assert all(bar.length == 0 for bar in share_chart(credit, NAMES, HOUSE))
    shares_html(share_chart(credit, NAMES, HOUSE))
    daily_html({"2026-02-01": credit}, period="2026-02")


def test_control_characters_in_a_name_are_named_and_a_right_to_left_name_keeps_its_direction():
    html = shares_html(share_chart({"ada": 1}, {"ada": "a\u202eb\x07" + "long " * 20}, set()))
    assert Page(html).seen[0] == "a<U+202E>b<U+0007>" + ("long " * 20).strip()
    assert '<span class="who" dir="auto">' in html
