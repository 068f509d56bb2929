"""Text for people: safe to print, and with counts that agree with their nouns."""

from __future__ import annotations

import re

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return text without characters that steer a terminal or turn the direction of writing."""
    return _UNPRINTABLE.sub("\ufffd", text)


def printable_lines(text: str) -> str:
    """Return text as `printable` does, but with its line ends."""
    return "\n".join(map(printable, text.split("\n")))


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, with an s in the plural: `1 output`, `2 outputs`."""
    return f"{count} {noun if count == 1 else noun + 's'}"
