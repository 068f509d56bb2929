"""Text for people: safe to print, with nouns in the right number."""

from __future__ import annotations

import re

_INVISIBLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f"  # control characters
    r"\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"  # turn the direction of writing, or end a line
    r"\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u2060-\u2065\u206a-\u206f\u3164\ufeff\uffa0"
    r"\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"  # no width, or tags
    # Joiners belong to words of Arabic, Persian and the scripts of India, and hide everywhere else.
    r"|(?<![\u0600-\u1cff])[\u200c\u200d]|[\u200c\u200d](?![\u0600-\u1cff])"
)


def printable(text: str) -> str:
    """Return text with code points, such as `<U+202E>`, for invisible characters and those that reorder others."""
    return _INVISIBLE.sub(lambda found: f"<{_code_point(found[0])}>", text)


def invisible_character(text: str) -> str | None:
    """Return the code point of the first character `printable` would replace, such as `U+202E`, or None."""
    found = _INVISIBLE.search(text)
    return _code_point(found[0]) if found else None


def printable_lines(text: str) -> str:
    """Return text as `printable` does, but with its line ends."""
    return "\n".join(map(printable, text.split("\n")))


def _code_point(character: str) -> str:
    return f"U+{ord(character):04X}"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, with an s in the plural: `1 output`, `2 outputs`."""
    return f"{count} {noun if count == 1 else noun + 's'}"
