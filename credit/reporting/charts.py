"""Charts of a period as inline SVG: made with Altair, drawn by vl-convert, the same bytes for the same numbers.

Every mark has a fixed place in pixels (x from the left, y from the top), so that nothing depends on how wide a text
is: that differs with the fonts of the machine. A colour stands for one thing only (`PALETTE`), so that a page shown
in the dark can replace each of them.
"""

from __future__ import annotations

import calendar
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from typing import Any, Literal

import altair as alt
import vl_convert

from credit.records import MICRO
from credit.reporting.tables import share_text
from credit.text import printable

INK = "#1c2530"
MUTED = "#69747f"
RULE = "#dfe3e8"
HOUSE_GREY = "#a9b1ba"
HUES = ("#1f4e79", "#3f7cac", "#74a9cf", "#a3c8e0", "#cfe1ee")
"""One hue from dark to light; the last one is for all who have none of their own."""

PALETTE = (INK, MUTED, RULE, HOUSE_GREY, *HUES)

BAR = HUES[2]
"""Colour of a share's bar: light enough for the interval on it to be seen, in the light and in the dark."""

SHARE_BARS = 12
"""Providers with a bar of their own; the others share one."""

DAILY_BANDS = len(HUES) - 1
"""Providers with a colour of their own in the daily chart; the others share one."""

_WIDTH = 720
_NAME_LENGTH = 28

Align = Literal["left", "center", "right"]


@dataclass(frozen=True, slots=True)
class _Slice:
    """What one provider, all others or the house earned: its colour and, where it is asked for, credits by day."""

    name: str
    colour: str
    credit_micro: int
    keys: frozenset[str]


def share_chart(
    credit_micro: Mapping[str, int],
    names: Mapping[str, str],
    house: Collection[str],
    period: str,
    intervals: Mapping[str, tuple[float, float]] | None = None,
) -> str:
    """Draw how a period's credits are shared: a bar for each provider, in one hue, and one in grey for the house.

    The interval of a share is drawn over its bar as a line with ends.

    Args:
        credit_micro: micro-credits by provider's key.
        names: every provider's name by its key.
        house: keys whose credits the house receives.
        period: whose credits they are, for the description.
        intervals: of shares, as fractions, by provider's key.
    """
    slices = _slices(credit_micro, names, house, SHARE_BARS, (BAR,))
    total = sum(credit_micro.values())
    # What stands for several has none: intervals do not add up.
    known = [(intervals or {}).get(*item.keys) if len(item.keys) == 1 else None for item in slices]
    reach = [
        max(item.credit_micro, total * bounds[1] if bounds else 0) for item, bounds in zip(slices, known, strict=True)
    ]
    largest = max(reach, default=0)
    left, row, bar, span = 204, 27, 15, 420
    bars, labels, values = [], [], []
    whiskers = []
    for place, (item, bounds) in enumerate(zip(slices, known, strict=True)):
        middle = row * place + row / 2
        end = left + (max(1.0, span * item.credit_micro / largest) if item.credit_micro > 0 else 0.0)
        share = share_text(item.credit_micro / total) if total else share_text(0.0)
        bars.append(_box(left, middle - bar / 2, end, middle + bar / 2, item.colour))
        labels.append({"x": left - 12, "y": middle, "text": _short(item.name)})
        if bounds and total > 0:
            low, high = (left + span * total * bound / largest for bound in bounds)
            whiskers.append(_box(low, middle - 0.75, high, middle + 0.75, INK))
            whiskers += [_box(x - 0.75, middle - 4, x + 0.75, middle + 4, INK) for x in (low, high)]
            end = max(end, high)
        values.append({"x": end + 8, "y": middle, "text": share})
    layers = [_boxes(bars), _boxes(whiskers), _texts(labels, align="right"), _texts(values, align="left", color=MUTED)]
    told = "; ".join(f"{item.name} {value['text']}" for item, value in zip(slices, values, strict=True))
    return _svg(layers, row * max(1, len(slices)), f"Share of credits by provider, {period}", told)


def daily_chart(
    by_day: Mapping[str, Mapping[str, int]], names: Mapping[str, str], house: Collection[str], period: str
) -> str:
    """Draw a period's credits by day (UTC), stacked by provider; what came late stands before the first day.

    Args:
        by_day: micro-credits by day (`YYYY-MM-DD`) and provider's key.
        names: every provider's name by its key.
        house: keys whose credits the house receives.
        period: the month, `YYYY-MM`.
    """
    totals: dict[str, int] = {}
    for of_day in by_day.values():
        for key, micro in of_day.items():
            totals[key] = totals.get(key, 0) + micro
    slices = _slices(totals, names, house, DAILY_BANDS, HUES)
    columns = _columns(by_day, period)
    heights = [sum(max(0, _credits(item, column)) for item in slices) for _, column in columns]
    ticks = _ticks(max(heights, default=0.0))
    left, right, top, bottom = 54, 524, 28, 188
    step = (right - left) / len(columns)
    boxes, days = [], []
    for place, (label, column) in enumerate(columns):
        x, base = left + place * step, float(bottom)
        for item in slices:
            rise = (bottom - top) * max(0.0, _credits(item, column)) / ticks[-1]
            if rise:
                boxes.append(_box(x + step * 0.12, base - rise, x + step * 0.88, base, item.colour))
                base -= rise
        if place == 0 or (label.isdigit() and int(label) % 5 == 0):
            days.append({"x": x + step / 2, "y": bottom + 15, "text": label})
    lines = [(value, bottom - (bottom - top) * value / ticks[-1]) for value in ticks]
    rules = [_box(left, round(y), right, round(y) + 1, RULE) for _, y in lines]
    scale = [{"x": left - 8, "y": y, "text": f"{value:,g}"} for value, y in lines]
    titles = [{"x": left - 8, "y": 6, "text": "credits"}]
    days.append({"x": (left + right) / 2, "y": bottom + 34, "text": "day of the month, UTC"})
    keys = list(enumerate(reversed(slices)))
    swatches = [_box(548, top + 22 * place, 559, top + 22 * place + 11, item.colour) for place, item in keys]
    legend = [{"x": 568, "y": top + 22 * place + 5.5, "text": _short(item.name, 22)} for place, item in keys]
    layers = [
        _boxes(rules),
        _boxes(boxes),
        _texts(titles + scale, align="right", color=MUTED),
        _texts(days, align="center", color=MUTED),
        _boxes(swatches),
        _texts(legend, align="left"),
    ]
    told = "; ".join(f"{item.name} {item.credit_micro / MICRO:,.2f}" for item in slices)
    title = f"Credits by day and provider, {period}"
    return _svg(layers, max(bottom + 44, top + 22 * len(slices)), title, f"Credits of the period: {told}")


def _slices(
    credit_micro: Mapping[str, int], names: Mapping[str, str], house: Collection[str], limit: int, hues: Sequence[str]
) -> list[_Slice]:
    """Return the providers with most credits, then all others as one, then the house."""
    ranked = sorted((key for key in credit_micro if key not in house), key=lambda key: (-credit_micro[key], key))
    own, others = (ranked, []) if len(ranked) <= limit else (ranked[: limit - 1], ranked[limit - 1 :])
    found = [
        _Slice(names[key], hues[min(place, len(hues) - 1)], credit_micro[key], frozenset([key]))
        for place, key in enumerate(own)
    ]
    for label, keys, colour in ((f"{len(others)} others", others, hues[-1]), ("House", list(house), HOUSE_GREY)):
        earned = [key for key in keys if key in credit_micro]
        if earned:
            found.append(_Slice(label, colour, sum(credit_micro[key] for key in earned), frozenset(earned)))
    return found


def _columns(by_day: Mapping[str, Mapping[str, int]], period: str) -> list[tuple[str, Mapping[str, int]]]:
    """Return label and credits of every day of the month, with earlier days put together in front."""
    days = calendar.monthrange(int(period[:4]), int(period[5:]))[1]
    late: dict[str, int] = {}
    for day, of_day in by_day.items():
        if not day.startswith(period):
            for key, micro in of_day.items():
                late[key] = late.get(key, 0) + micro
    columns: list[tuple[str, Mapping[str, int]]] = [("late", late)] if late else []
    return columns + [(str(day), by_day.get(f"{period}-{day:02d}", {})) for day in range(1, days + 1)]


def _credits(item: _Slice, column: Mapping[str, int]) -> float:
    return sum(column.get(key, 0) for key in item.keys) / MICRO


def _ticks(largest: float) -> list[float]:
    """Return round values from 0 to the first one that is not below the largest."""
    if largest <= 0:
        return [0.0, 1.0]
    rough = largest / 3
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [step * place for place in range(ceil(largest / step * 0.999) + 1)]


def _box(x: float, y: float, x2: float, y2: float, colour: str) -> dict[str, Any]:
    return {"x": round(x, 3), "y": round(y, 3), "x2": round(x2, 3), "y2": round(y2, 3), "colour": colour}


def _boxes(items: Sequence[Mapping[str, Any]]) -> alt.Chart:
    chart: alt.Chart = alt.Chart(alt.InlineData(values=list(items)))
    drawn: alt.Chart = chart.mark_rect().encode(
        x=alt.X("x:Q", scale=None, axis=None),
        x2="x2",
        y=alt.Y("y:Q", scale=None, axis=None),
        y2="y2",
        color=alt.Color("colour:N", scale=None, legend=None),
    )
    return drawn


def _texts(items: Sequence[Mapping[str, Any]], *, align: Align, color: str = INK) -> alt.Chart:
    chart: alt.Chart = alt.Chart(alt.InlineData(values=list(items)))
    drawn: alt.Chart = chart.mark_text(align=align, baseline="middle", color=color, fontSize=12.5).encode(
        x=alt.X("x:Q", scale=None, axis=None), y=alt.Y("y:Q", scale=None, axis=None), text=alt.Text("text:N")
    )
    return drawn


def _short(name: str, length: int = _NAME_LENGTH) -> str:
    """Return a name as a label can carry it."""
    plain = printable(name)
    return plain if len(plain) <= length else plain[: length - 1].rstrip() + "…"


def _svg(layers: Sequence[alt.Chart], height: int, title: str, description: str) -> str:
    chart = (
        alt.layer(*layers)
        .properties(width=_WIDTH, height=height, padding=0, autosize=alt.AutoSizeParams(type="none"))
        .configure(background="transparent", font="Helvetica Neue, Arial, sans-serif", aria=False)
        .configure_view(stroke=None)
    )
    drawn = vl_convert.vegalite_to_svg(chart.to_dict())
    _, _, inner = drawn.partition(">")
    told = f"<title>{escape(printable(title))}</title><desc>{escape(printable(description))}</desc>"
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size}>{told}{inner}'
