"""Folding of text for comparison: what looks the same to a reader becomes the same letters and digits.

Case, blanks, punctuation, marks and invisible characters go, styled forms become plain (NFKD), and letters of other
scripts become their ASCII twins: the skeletons of UTS #39, without regard to case. Digits glued to words go; in a text
with many digits inside words they become the letters that they stand for in leetspeak.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from pathlib import Path

from credit.text import invisible_character

_TWINS = Path(__file__).with_name("confusables.txt")
_IGNORED = re.compile(r"[\W_]+")
_DIGITS = re.compile(r"[0-9]+")
_WORD = re.compile(r"[0-9]*[^\W\d_][^\W_]*")
_ASCII_IGNORED = bytes(code for code in range(128) if not chr(code).isalnum())
_LEET = str.maketrans("013457", "oieast")
_LEET_FROM = 0.25
"""Digits inside words, for each one glued to a word, that make a text leetspeak."""


class _Table(dict[int, str | None]):
    """Replacements of characters by code point; those of marks and invisible characters are found when met."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        # Mn, Me: marks; Cf: no width. Others that nobody sees, such as Hangul fillers, are letters to Unicode.
        gone = unicodedata.category(character) in {"Mn", "Me", "Cf"} or invisible_character(character)
        self[code] = None if gone and not character.isspace() else character
        return self[code]


def folded(text: str) -> str:
    """Return the letters and digits of a text, those that look the same as the same."""
    if text.isascii():
        # Most texts; the same as below, several times as fast.
        return _without_glued_digits(text.lower()).encode().translate(None, _ASCII_IGNORED).decode()
    plain = unicodedata.normalize("NFKD", text).casefold().translate(_table())
    return _IGNORED.sub("", _without_glued_digits(plain))


def _without_glued_digits(text: str) -> str:
    """Return the text without digits beside letters, in leetspeak with the letters that they stand for."""
    inside = around = 0
    for found in _DIGITS.finditer(text):
        before, after = text[found.start() - 1 : found.start()].isalpha(), text[found.end() : found.end() + 1].isalpha()
        inside += before and after
        around += before != after
    if inside and _LEET_FROM * around <= inside:
        text = _WORD.sub(lambda found: found[0].translate(_LEET), text)
    if not inside and not around:
        return text

    def kept(found: re.Match[str]) -> str:
        start, end = found.span()
        return "" if text[start - 1 : start].isalpha() or text[end : end + 1].isalpha() else found[0]

    return _DIGITS.sub(kept, text)


@cache
def _table() -> _Table:
    table = _Table()
    for line in _TWINS.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            plain, twins = line.split(" ")
            table.update((ord(twin), plain) for twin in twins)
    return table
