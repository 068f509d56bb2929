# ruff: noqa: RUF001 - letters that look alike are what is measured
"""Disguised copies: how much of each `credit overlap` finds, what it says of honest texts, and its cost.

    python -m benchmarks.disguises

Copies: 200 texts of docstrings, each from one provider and disguised by another. Honest texts: the docstrings and the
source files of ten packages, a provider each, which people wrote independently.
"""

from __future__ import annotations

import random
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path

from benchmarks.fidelity.cases import _docstrings
from credit.fidelity.overlap import find_overlap
from credit.records import Group, TrainingRecord

PACKAGES = (
    "torch", "transformers", "sqlalchemy", "polars", "networkx", "sympy", "numpy", "pydantic", "hypothesis", "rich"
)  # fmt: skip
COPIES = 200
WORDS = 300
HONEST_BYTES = 1_500_000
_CYRILLIC = str.maketrans("aceopxyiABCEHKMOPTXy", "асеорхуіАВСЕНКМОРТХу")
_GREEK = str.maketrans("oviAEHIKMNOPTXYZ", "ονιΑΕΗΙΚΜΝΟΡΤΧΥΖ")
_LEET = str.maketrans("oeast", "03457")
_FULL = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}


def _by_word(change: Callable[[int, str, random.Random], str]) -> Callable[[str, random.Random], str]:
    return lambda text, rng: " ".join(change(number, word, rng) for number, word in enumerate(text.split()))


def _replaced(every: int) -> Callable[[str, random.Random], str]:
    return _by_word(lambda number, word, rng: "".join(rng.choices("abcdefghij", k=6)) if number % every == 0 else word)


def _shuffled_sentences(text: str, rng: random.Random) -> str:
    sentences = re.split(r"(?<=[.:;])\s+", text)
    rng.shuffle(sentences)
    return " ".join(sentences)


def _shuffled_words(text: str, rng: random.Random) -> str:
    sentences = [sentence.split() for sentence in re.split(r"(?<=[.:;])\s+", text)]
    for words in sentences:
        rng.shuffle(words)
    return " ".join(" ".join(words) for words in sentences)


def _paraphrased(text: str, rng: random.Random) -> str:
    """Replace every second word and turn neighbours around: a stand-in for a text told in other words."""
    words = [w if n % 2 else "".join(rng.choices("abcdefghij", k=6)) for n, w in enumerate(text.split())]
    return " ".join(word for pair in zip(words[1::2], words[::2], strict=False) for word in pair)


DISGUISES: dict[str, Callable[[str, random.Random], str]] = {
    "none": lambda text, rng: text,
    "upper case": lambda text, rng: text.upper(),
    "punctuation and blanks stripped": lambda text, rng: re.sub(r"\W+", " ", text),
    "Cyrillic twins": lambda text, rng: text.translate(_CYRILLIC),
    "Cyrillic twins, upper case": lambda text, rng: text.upper().translate(_CYRILLIC),
    "Greek twins": lambda text, rng: text.translate(_GREEK),
    "full-width letters": lambda text, rng: text.translate(_FULL),
    "accents on every vowel": lambda text, rng: re.sub("[aeiou]", lambda m: m[0] + "\u0301", text),
    "zero-width space in every word": _by_word(lambda n, word, rng: word[:2] + "\u200b" + word[2:]),
    "Hangul filler in every word": _by_word(lambda n, word, rng: word[:2] + "\u3164" + word[2:]),
    "a digit glued to every fourth word": _by_word(lambda n, word, rng: word + "7" if n % 4 == 0 else word),
    "a digit inside every fourth word": _by_word(
        lambda n, word, rng: word[:2] + "7" + word[2:] if n % 4 == 0 else word
    ),
    "a letter glued to every fourth word": _by_word(lambda n, word, rng: word + "q" if n % 4 == 0 else word),
    "ASCII twins (I for l, rn for m)": lambda text, rng: text.replace("l", "I").replace("m", "rn"),
    "leetspeak (o e a s t)": lambda text, rng: text.translate(_LEET),
    "blanks inside words": _by_word(lambda n, word, rng: " ".join(word)),
    "every tenth word replaced": _replaced(10),
    "every seventh word replaced": _replaced(7),
    "every fifth word replaced": _replaced(5),
    "every fourth word replaced": _replaced(4),
    "sentences shuffled": _shuffled_sentences,
    "words shuffled in their sentences": _shuffled_words,
    "told in other words (every second word)": _paraphrased,
}


def main() -> None:
    """Print the tables."""
    docs = {name: [doc.text for doc in _docstrings(name)] for name in PACKAGES}
    print("| disguise | found of the copies' text | copies named at 80 % |\n|---|---|---|")
    texts = list(_texts(docs))[:COPIES]
    for name, change in DISGUISES.items():
        rng = random.Random(0)
        copies = [change(text, rng) for text in texts]
        found = find_overlap([*_records("ann", texts), *_records("mal", copies)])
        mal = next(item for item in found.providers if item.provider == "mal")
        named = sum(item.provider == "mal" for item in found.records)
        print(f"| {name} | {mal.shared:.1%} | {named} of {len(copies)} |")
    print("\n| honest texts | records | median provider shared | largest | named at 80 % |\n|---|---|---|---|---|")
    for what, corpus in (("docstrings", docs), ("source files", {name: list(_sources(name)) for name in PACKAGES})):
        records = [item for name, texts in corpus.items() for item in _records(name, texts)]
        _honest(what, records)
    records = [item for name, texts in docs.items() for item in _records(name, texts)]
    size = sum(len(item.completion.encode()) for item in records)
    for what, change in (("ASCII mostly", str), ("Cyrillic twins", DISGUISES["Cyrillic twins"])):
        given = [TrainingRecord(r.id, r.group, change(r.completion, rng) if change is not str else r.completion)
                 for r in records]  # fmt: skip
        began = time.process_time()
        find_overlap(given)
        print(f"\n{what}: {(time.process_time() - began) / size * 1e6:.2f} CPU seconds per MB of {size / 1e6:.1f} MB")


def _honest(what: str, records: list[TrainingRecord]) -> None:
    found = find_overlap(records)
    shared = sorted((item.shared, item.provider) for item in found.providers)
    named = [item for item in found.records if item.shared >= 0.8]
    middle = shared[len(shared) // 2][0]
    print(f"| {what} | {len(records)} | {middle:.1%} | {shared[-1][0]:.1%} ({shared[-1][1]}) | {len(named)} |")
    for item in named[:8]:
        print(f"  {item.id} with {item.other}", file=sys.stderr)


def _texts(docs: dict[str, list[str]]) -> Iterator[str]:
    """Yield texts of `WORDS` words, some of each package."""
    words = {name: " ".join(texts).split() for name, texts in docs.items()}
    for number in range(COPIES):
        for name in PACKAGES:
            part = words[name][number * WORDS : (number + 1) * WORDS]
            if len(part) == WORDS:
                yield " ".join(part)


def _records(provider: str, texts: Iterable[str]) -> Iterator[TrainingRecord]:
    for number, text in enumerate(texts):
        yield TrainingRecord(f"{provider}-{number}", Group(provider), text)


def _sources(name: str) -> Iterator[str]:
    folder = Path(str(import_module(name).__file__)).parent
    size = 0
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text("utf-8", "replace")
        size += len(text)
        if size > HONEST_BYTES:
            return
        yield text


if __name__ == "__main__":
    main()
