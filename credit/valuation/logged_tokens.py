"""Token ids in a log: what the model saw and wrote, token by token, as far as they are this tokenizer's."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any


def answer_range(tokenizer: Any, ids: Sequence[int], text: str) -> tuple[int, int] | None:
    """Return where an answer begins and ends among the tokens that the model wrote.

    Thoughts stand before it. After it stand the end of the sequence, or a stop text that the server cut off.

    Args:
        tokenizer: the model's tokenizer.
        ids: (T,) the tokens.
        text: the answer as the log has it.

    Returns:
        Places of its first token and after its last one; None: the tokens do not spell it, as those of another
        tokenizer.
    """
    wanted = text.strip()
    if not wanted or not all(0 <= token < len(tokenizer) for token in ids):
        return None

    def spelt(begin: int, end: int) -> str:
        return str(tokenizer.decode(ids[begin:end], skip_special_tokens=True, clean_up_tokenization_spaces=False))

    # The answer begins with the last token from which on it is still whole, and ends with the first that completes it.
    places = range(len(ids))
    begin = bisect_left(places, True, key=lambda at: wanted not in spelt(at, len(ids))) - 1
    if begin < 0:
        return None
    end = bisect_left(places, True, lo=begin, key=lambda at: wanted in spelt(begin, at + 1)) + 1
    if spelt(begin, end).strip() != wanted:
        return None
    if spelt(0, end).strip() == wanted:
        begin = 0  # blanks before it are its own
    while text[-1].isspace() and end < len(ids) and spelt(end, end + 1).isspace():
        end += 1
    return begin, end
