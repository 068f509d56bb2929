"""Records with something else in the place of whatever there is."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence

from hypothesis import strategies as st


def deep(value: object, depth: int) -> object:
    """Return a value inside lists or objects inside each other, of its own kind."""
    for _ in range(depth):
        value = {"a": value} if isinstance(value, dict) else [value]
    return value


HOSTILE = st.sampled_from(
    [
        *(None, True, 0, -1, 10**400, "", " ", "\x00", "\ud800", "\x1b[2J", "../x", "[", '{"role": 1}', "x" * 5000),
        *([], [None], [[]], [{}], {}, {"": None}, {"role": "assistant"}, {"messages": 5}, {"values": [5]}),
        *(float("nan"), float("-inf"), 1e308, 1e-320, 2**63, -(2**53), "1e999999", "0x1F", "NaN", "9" * 5000),
        *("[" * 100_000, '{"a":' * 100_000, "\udfff\ud800", "\u202e", deep([], 300), deep({}, 300), [[0] * 50] * 50),
    ]
)


def fuzz(examples: int) -> int:
    """Number of examples of a test of hostile input: few in the suite, as many as `CREDIT_FUZZ` says in a long run."""
    return int(os.environ.get("CREDIT_FUZZ", examples))


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


def spoilt(records: Sequence[object]) -> st.SearchStrategy[list[object]]:
    """A few of some records, with hostile values in place of one to three of theirs."""
    return _spoilt(json.loads(json.dumps(records, default=float)))


@st.composite
def _spoilt(draw: st.DrawFn, records: Sequence[object]) -> list[object]:
    found = draw(st.lists(st.sampled_from(records), min_size=1, max_size=3))
    for _ in range(draw(st.integers(1, 3))):
        found = _changed(found, draw(st.sampled_from(list(_places(found))[1:])), draw(HOSTILE))
    return found


_PIECES = [b"", b"\0", b"\n", b'"', b"{", b"}", b"[", b"]", b",", b"\\", b"\\ud800", b"\xff", b"NaN", b"9" * 400]


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """A file in which bytes are changed, left out, doubled, or put in from elsewhere, or which is cut off."""
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, max(len(content) - 1, 0)))
        end = begin + draw(st.integers(0, 200))
        again = st.just(content[begin:end] * 2)
        piece = draw(st.sampled_from(_PIECES) | st.binary(max_size=8) | again)
        content = content[:begin] + piece + content[draw(st.sampled_from([begin, begin + len(piece), end])) :]
    return content[: draw(st.just(len(content)) | st.integers(0, len(content)))]
