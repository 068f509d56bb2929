"""Text from outside, made safe to show to people."""

from __future__ import annotations

import re

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return text without what could steer a terminal or turn the direction of writing."""
    return _UNPRINTABLE.sub("\ufffd", text)


def printable_lines(text: str) -> str:
    """Return `printable` text that keeps its line ends."""
    return "\n".join(map(printable, text.split("\n")))
