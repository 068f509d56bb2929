"""Charts of a period: lengths and places, which the template `charts.html.j2` draws.

Every length is a percentage of the room that the page gives to a chart. So a chart follows the width of its page, and
the page's style sheet gives it the colours of the light, the dark and the printed page.
"""

from __future__ import annotations

import calendar
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Literal

from credit.records import MICRO

SHARE_BARS = 12
"""Providers with a bar of their own; the others share one."""

DAILY_BANDS = 4
"""Providers with a colour of their own in the daily chart; the others share one."""

Tone = Literal["one", "two", "three", "four", "others", "house"]
"""Colour of a band, by name: the style sheet has a colour for each."""

_TONES: Sequence[Tone] = ("one", "two", "three", "four")
_TOO_LONG = 1.5
"""A sum of several is cut where it is longer than this many times the longest bar of a single provider."""
_SHORTEST = 0.3
"""Percent of the chart's width: a share above zero shows as a bar, however small it is."""


@dataclass(frozen=True, slots=True)
class ShareBar:
    """A bar of the share chart: one provider, all others, or the house.

    Attributes:
        name: who it is.
        tone: `one` for a provider, `others` or `house`.
        share: fraction of the period's credits.
        interval: the share's 90 % interval; None where there is none, as for a sum of several.
        length: of the bar, in percent of the chart's width.
        reach: where the interval begins and ends, in percent of the chart's width; None
            without one, and where the bar is cut.
        is_cut: True where the bar is longer than the chart is wide.
    """

    name: str
    tone: Tone
    share: float
    interval: tuple[float, float] | None
    length: float
    reach: tuple[float, float] | None
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Band:
    """One colour of the daily chart, and its credits in the whole period."""

    name: str
    tone: Tone
    credit_micro: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a day's column, in percent of the chart's height from the top."""

    tone: Tone
    top: float
    height: float


@dataclass(frozen=True, slots=True)
class DayColumn:
    """A day of the month, or `late`; its place from the left, its credits by band, their pieces from the bottom up."""

    label: str
    place: int
    credit_micro: tuple[int, ...]
    pieces: tuple[Piece, ...]
    has_label: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """A round number of credits on the scale, and its distance from the top in percent of the chart's height."""

    label: str
    top: float


@dataclass(frozen=True, slots=True)
class DailyChart:
    """Columns for the days of a month, stacked by provider."""

    bands: tuple[Band, ...]
    days: tuple[DayColumn, ...]
    ticks: tuple[Tick, ...]


@dataclass(frozen=True, slots=True)
class _Party:
    """Somebody with a bar or band: one provider, all others together, or the house."""

    name: str
    tone: Tone
    credit_micro: int
    keys: frozenset[str]


def share_chart(
    credit_micro: Mapping[str, int],
    names: Mapping[str, str],
    house: Collection[str],
    intervals: Mapping[str, tuple[float, float]] | None = None,
) -> tuple[ShareBar, ...]:
    """Return the bars of a period's shares: the providers with most credits, all others, the house.

    The longest bar or interval of a single provider fills the chart. All others together, or the house, may earn many
    times as much: their bar is cut then, so the providers' own stay readable.

    Args:
        credit_micro: micro-credits by provider's key.
        names: every provider's name by its key.
        house: keys whose credits the house receives.
        intervals: of shares, as fractions, by provider's key.
    """
    total = sum(credit_micro.values())
    found = []
    own = sums = 0.0
    for party in _parties(credit_micro, names, house, SHARE_BARS):
        # Intervals do not add up: a sum of several has none.
        interval = (intervals or {}).get(*party.keys) if len(party.keys) == 1 else None
        share = party.credit_micro / total if total > 0 else 0.0
        found.append((party, share, interval))
        if _is_single(party):
            own = max(own, share, interval[1] if interval else 0.0)
        else:
            sums = max(sums, share)
    width = own if sums > own * _TOO_LONG and own > 0 else max(own, sums)
    return tuple(_share_bar(party, share, interval, width) for party, share, interval in found)


def daily_chart(
    by_day: Mapping[str, Mapping[str, int]], names: Mapping[str, str], house: Collection[str], period: str
) -> DailyChart:
    """Return a period's credits by day (UTC), stacked by provider; credits of earlier days stand first, as `late`.

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
    parties = _parties(totals, names, house, DAILY_BANDS)
    columns = [
        (label, tuple(sum(of_day.get(key, 0) for key in party.keys) for party in parties))
        for label, of_day in _days(by_day, period)
    ]
    # A day can be negative in part: moves by the sums of a period take credits away.
    highest = max((sum(max(0, micro) for micro in credited) for _, credited in columns), default=0)
    ticks = _round_values(highest / MICRO)
    days = tuple(
        DayColumn(label, place, credited, tuple(_pieces(parties, credited, ticks[-1])), _has_label(place, label))
        for place, (label, credited) in enumerate(columns)
    )
    return DailyChart(
        bands=tuple(Band(party.name, party.tone, party.credit_micro) for party in parties),
        days=days,
        ticks=tuple(Tick(f"{value:,g}", _percent(ticks[-1] - value, ticks[-1])) for value in ticks),
    )


def _parties(
    credit_micro: Mapping[str, int], names: Mapping[str, str], house: Collection[str], limit: int
) -> list[_Party]:
    """Return the providers with most credits, then all others as one, then the house."""
    ranked = sorted((key for key in credit_micro if key not in house), key=lambda key: (-credit_micro[key], key))
    own, others = (ranked, []) if len(ranked) <= limit else (ranked[: limit - 1], ranked[limit - 1 :])
    found = [
        _Party(names[key], _TONES[min(place, len(_TONES) - 1)], credit_micro[key], frozenset([key]))
        for place, key in enumerate(own)
    ]
    sums: tuple[tuple[str, Sequence[str], Tone], ...] = (
        (f"{len(others)} others", others, "others"),
        ("House", [key for key in house if key in credit_micro], "house"),
    )
    found += [
        _Party(name, tone, sum(credit_micro[key] for key in keys), frozenset(keys)) for name, keys, tone in sums if keys
    ]
    return found


def _is_single(party: _Party) -> bool:
    return party.tone not in {"others", "house"}


def _share_bar(party: _Party, share: float, interval: tuple[float, float] | None, width: float) -> ShareBar:
    """Return a bar in a chart as wide as the share `width`."""
    is_cut = share > width
    reach = None
    if interval is not None and not is_cut and width > 0:
        reach = _percent(interval[0], width), min(100.0, _percent(interval[1], width))
    length = 0.0 if share <= 0 else 100.0 if is_cut else max(_SHORTEST, _percent(share, width))
    tone: Tone = "one" if _is_single(party) else party.tone
    return ShareBar(party.name, tone, share, interval, length, reach, is_cut)


def _days(by_day: Mapping[str, Mapping[str, int]], period: str) -> list[tuple[str, Mapping[str, int]]]:
    """Return label and credits of every day of the month, with all earlier days as one in front."""
    count = calendar.monthrange(int(period[:4]), int(period[5:]))[1]
    late: dict[str, int] = {}
    for day, of_day in by_day.items():
        if not day.startswith(period):
            for key, micro in of_day.items():
                late[key] = late.get(key, 0) + micro
    columns: list[tuple[str, Mapping[str, int]]] = [("late", late)] if late else []
    return columns + [(str(day), by_day.get(f"{period}-{day:02d}", {})) for day in range(1, count + 1)]


def _has_label(place: int, label: str) -> bool:
    """Return True for the first column and every fifth day: more labels would touch on a phone."""
    return place == 0 or (label.isdigit() and int(label) % 5 == 0)


def _pieces(parties: Sequence[_Party], credited: Sequence[int], highest: float) -> list[Piece]:
    """Stack a day's credits; corrections can take away more than the day gave, and a negative sum has no piece."""
    found, below, base = [], 0, 100.0
    for party, micro in zip(parties, credited, strict=True):
        below += max(0, micro)
        top = _percent(highest - below / MICRO, highest)
        if top < base:
            found.append(Piece(party.tone, top, round(base - top, 2)))
        base = top
    return found


def _round_values(largest: float) -> list[float]:
    """Return round values from 0 up to the first one not below the largest."""
    if largest <= 0:
        return [0.0, 1.0]
    rough = largest / 3
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [step * place for place in range(ceil(largest / step * 0.999) + 1)]


def _percent(part: float, whole: float) -> float:
    return round(100 * part / whole, 2)
