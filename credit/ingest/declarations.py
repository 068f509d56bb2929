"""Declarations in training data about its use: licences, reservations of text and data mining, robots' rules, RSL.

A row makes them in its fields, and its data set in metadata beside it (`croissant`).

They are counted and named, and decide nothing: a declaration can be outdated, or answered by a contract.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from credit.ingest.croissant import PROHIBITION
from credit.ingest.files import Row
from credit.records import TrainingRecord

_LICENCES = frozenset({"license", "licence", "licenses", "licences", "max_stars_repo_licenses", "detected_licenses"})
_RESERVATIONS = frozenset({"tdm_reservation", "tdm_reserved", "tdmrep", "tdm_opt_out", "opt_out", "opted_out"})
"""Fields whose truth reserves the text, as in TDMRep (https://www.w3.org/community/reports/tdmrep/)."""
_PERMISSIONS = frozenset({"ai_training", "ai_train", "train_ai", "genai_training", "ai_generative_training"})
"""Fields whose falsehood forbids training."""
_RULES = frozenset({"robots", "robots_txt", "x_robots_tag", "ai_txt", "content_usage", "rsl", "rsl_license", "usage"})
"""Fields with rules in words or in XML."""
_INSIDE = ("metadata", "meta", "provenance", "info")
"""Fields in which data sets keep declarations one level down."""

_FORBIDS = re.compile(
    r"\bno-?ai\b|\bno-?train|\bno-?ml\b|train-(?:gen)?ai\s*=\s*n|ai-?train\s*=\s*(?:n|no)\b"
    r"|<prohibits[^>]*type=[\"']usage[\"'][^>]*>[^<]*\b(?:all|ai-all|train-ai|ai-train)\b"
    r"|user-agent:\s*(?:gptbot|ccbot|google-extended|claudebot|anthropic-ai)\s+disallow:\s*/"
    r"|no (?:ai|machine learning|model) training|not? (?:be )?used? (?:for|to) (?:ai |train)",
    re.IGNORECASE,
)
"""Words that forbid training: noai (DeviantArt), train-ai=n (aipref), RSL 1.0, robots.txt, and plain English."""

_TRAINING = re.compile(r"train|mining|\btdm\b|\bai\b|machine.?learning", re.IGNORECASE)
"""Actions in a policy that are training, or include it."""

_TRUE = frozenset({"1", "true", "yes", "y", "reserved"})
_FALSE = frozenset({"0", "false", "no", "n", "notallowed", "not_allowed", "disallowed", "disallow", "forbidden"})
_KEPT = 1000
_SHOWN = 80


@dataclass(slots=True)
class Declarations:
    """Counts of declarations in data, filled while a `TrainingReader` reads it.

    Attributes:
        licences: records by the licence that they name.
        forbidding: records by a declaration that forbids training.
        places: the first record of each of those.
        providers: records that forbid it, by provider.
    """

    licences: Counter[str] = field(default_factory=Counter)
    forbidding: Counter[str] = field(default_factory=Counter)
    places: dict[str, str] = field(default_factory=dict)
    providers: Counter[str] = field(default_factory=Counter)

    @property
    def columns(self) -> frozenset[str]:
        """Fields to read for them; tables in columns leave all others unread."""
        plain = _LICENCES | _RESERVATIONS | _PERMISSIONS | _RULES | set(_INSIDE)
        return plain | {name.replace("_", "-") for name in plain}

    def clear(self) -> None:
        """Start again."""
        for counts in (self.licences, self.forbidding, self.places, self.providers):
            counts.clear()

    def note(self, row: Row, record: TrainingRecord, of_data: Iterable[tuple[str, str]] = ()) -> None:
        """Count the declarations of a row.

        Args:
            row: the row.
            record: says whose it is.
            of_data: declarations of its data set, as name and text; a licence holds where the row names none.
        """
        forbids = set()
        declared = list(_declared(row.record))
        licensed = any(name in _LICENCES and value for name, value in declared)
        for name, value in (*declared, *(item for item in of_data if not licensed or item[0] not in _LICENCES)):
            for text in _texts(value):
                if name in _LICENCES:
                    self._count(self.licences, text)
                if _is_forbidding(name, text):
                    forbids.add(f"{name}: {text}")
        for declaration in sorted(forbids):
            self._count(self.forbidding, declaration)
            self.places.setdefault(declaration[:_SHOWN], str(row.place))
        if forbids:
            self.providers.update({share.group.provider for share in record.shares})

    @staticmethod
    def _count(counts: Counter[str], text: str) -> None:
        """Count a text, without keeping ever more of them."""
        text = " ".join(text.split())[:_SHOWN]
        counts[text if text in counts or len(counts) < _KEPT else "others"] += 1


def _declared(record: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for name, value in record.items():
        plain = name.lower().replace("-", "_")
        yield plain, value
        if plain in _INSIDE and isinstance(value, dict):
            yield from ((inner.lower().replace("-", "_"), found) for inner, found in value.items())


def _texts(value: object) -> Iterator[str]:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str | int | bool):
            yield str(item)


def _is_forbidding(name: str, text: str) -> bool:
    word = text.strip().lower()
    if name in _RESERVATIONS:
        return word in _TRUE
    if name in _PERMISSIONS:
        return word in _FALSE
    if name == PROHIBITION:
        return _TRAINING.search(text) is not None
    return name in _RULES | _LICENCES and _FORBIDS.search(text) is not None
