"""Records with something else in the place of whatever there is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from hypothesis import strategies as st

HOSTILE = st.sampled_from(
    [
        *(None, True, 0, -1, 10**400, "", " ", "\x00", "\ud800", "\x1b[2J", "../x", "[", '{"role": 1}', "x" * 5000),
        *([], [None], [[]], [{}], {}, {"": None}, {"role": "assistant"}, {"messages": 5}, {"values": [5]}),
    ]
)


def _places(value: object, above: tuple = ()) -> Iterator[tuple]:
    yield above
    for name, inner in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from _places(inner, (*above, name))


def _changed(value: object, place: tuple, to: object) -> object:
    if not place:
        return to
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = _changed(value[place[0]], place[1:], to)
    return copy


@st.composite
def spoilt(draw: st.DrawFn, records: Sequence[object]) -> list[object]:
    """Records in which one to three values are hostile ones."""
    found = json.loads(json.dumps(records, default=float))
    for _ in range(draw(st.integers(1, 3))):
        found = _changed(found, draw(st.sampled_from(list(_places(found))[1:])), draw(HOSTILE))
    return found
