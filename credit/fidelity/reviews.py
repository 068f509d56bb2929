"""Reviews of an index's data: the overlap between its providers, and signs of what the model learned.

A review says that somebody looked before money followed the index, and what was found: counts and the heaviest cases,
no texts. It is tied by fingerprints to the index and to the data that was read. To read one takes no model.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

from credit.errors import IntegrityError
from credit.fidelity.overlap import BLOCK, DENSE, SHINGLE, Overlap
from credit.ledger.indexes import ReviewKind
from credit.storage import canonical_json, parse_object
from credit.text import counted

if TYPE_CHECKING:
    from credit.fidelity.membership import Learned

NAMED = 20
"""Heaviest cases that a review names: an index can have thousands of providers."""
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class IndexReview(ABC):
    """Review of an index's data. Each kind adds its `settings` and `findings`.

    Attributes:
        index: fingerprint of the index.
        data: hash of the training data that was read, which is the index's.
    """

    kind: ClassVar[ReviewKind]
    index: str
    data: str

    @property
    @abstractmethod
    def result(self) -> str:
        """The finding in a few words; they name no provider."""

    @abstractmethod
    def words(self, day: str) -> str:
        """Return sentences for a provider about the review and its finding; they name no other provider.

        Args:
            day: day of the review, as ISO 8601.
        """

    @property
    def canonical(self) -> str:
        """The review as one line of JSON with sorted keys: the text behind its SHA-256."""
        return canonical_json({"kind": self.kind, **asdict(self)})

    @property
    def sha256(self) -> str:
        """Hash of the canonical text, as hexadecimal."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class OverlapSettings:
    """Settings of a comparison of texts.

    Attributes:
        least: fraction of others' text that makes a record a copy.
        shingle: letters and digits of a shingle.
        block: shingles of a block.
        dense: fraction of a block's shingles from which on it counts whole.
        sampled: compared fraction of all shingles.
    """

    least: float
    shingle: int
    block: int
    dense: float
    sampled: float


@dataclass(frozen=True, slots=True)
class SharedText:
    """Two providers, and the fraction (0 to 1) of the first one's text found in the other's."""

    provider: str
    other: str
    shared: float


@dataclass(frozen=True, slots=True)
class OverlapFindings:
    """Findings of a comparison of texts.

    Attributes:
        providers: number of providers.
        records: number of records.
        copies: records that are copies of other providers' text.
        copying: providers with a copy; who had the text first is another question.
        repeats: records that repeat their own provider's text as much.
        pairs: number of ordered pairs of providers that share text.
        heaviest: those of them with the largest fractions.
    """

    providers: int
    records: int
    copies: int
    copying: int
    repeats: int
    pairs: int
    heaviest: tuple[SharedText, ...]


@dataclass(frozen=True, slots=True)
class OverlapReview(IndexReview):
    """Comparison of the texts of an index's providers with each other."""

    kind: ClassVar[ReviewKind] = "overlap"
    settings: OverlapSettings
    findings: OverlapFindings

    @property
    def result(self) -> str:
        """The finding in a few words; they name no provider."""
        found, least = self.findings, self.settings.least
        records = counted(found.records, "record")
        return f"{found.copies} of {records} with {least:.0%} or more of another provider's text"

    def words(self, day: str) -> str:
        """Return sentences for a provider about the review and its finding."""
        found, least = self.findings, self.settings.least
        return (
            f"On {day} the {found.records} texts of all {found.providers} providers were compared with each other,"
            f" disguised copies included: {found.copies or 'none'} of them had {least:.0%} or more in common with"
            " another provider's text. Text that several providers gave is paid to each of them."
        )


@dataclass(frozen=True, slots=True)
class MembershipSettings:
    """Settings of a look at the model's learning.

    Attributes:
        earlier: SHA-256 of the earlier checkpoint.
        max_length: tokens read in one pass; None: the model's, at most 2048.
        tokens: most tokens read of each provider.
        below: fraction of the others' learning below which a provider is doubted.
    """

    earlier: str
    max_length: int | None
    tokens: int
    below: float


@dataclass(frozen=True, slots=True)
class LearnedText:
    """Learning of a provider's text, as a multiple of the other providers' median, with its 90 % interval."""

    provider: str
    relative: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class MembershipFindings:
    """Findings of a look at the model's learning: number of providers, of doubted ones, and the least learned."""

    providers: int
    doubted: int
    least: tuple[LearnedText, ...]


@dataclass(frozen=True, slots=True)
class MembershipReview(IndexReview):
    """Look at the model's learning of the texts of an index's providers."""

    kind: ClassVar[ReviewKind] = "membership"
    settings: MembershipSettings
    findings: MembershipFindings

    @property
    def result(self) -> str:
        """The finding in a few words; they name no provider."""
        found = self.findings
        return f"{found.doubted} of {counted(found.providers, 'provider')} with text that the model hardly learned"

    def words(self, day: str) -> str:
        """Return sentences for a provider about the review and its finding."""
        found = self.findings
        compared = f"On {day} two stages of the model's training were compared, to see what it learned from each text."
        if not found.doubted:
            return f"{compared} It learned from those of all {found.providers} providers: nobody's stand out."
        return (
            f"{compared} Those of {found.doubted} of the {found.providers} providers stand out: it learned much less"
            " from them than from the others', as if it had not been trained on them."
        )


def read_review(text: str) -> IndexReview:
    """Return the review in a text of `canonical`.

    Raises:
        IntegrityError: the text is no review.
    """
    try:
        body = parse_object(text)
        index, data, settings, found = body["index"], body["data"], body["settings"], body["findings"]
        if body["kind"] == OverlapReview.kind:
            pairs = tuple(SharedText(**item) for item in found.pop("heaviest"))
            return OverlapReview(index, data, OverlapSettings(**settings), OverlapFindings(**found, heaviest=pairs))
        least = tuple(LearnedText(**item) for item in found.pop("least"))
        return MembershipReview(index, data, MembershipSettings(**settings), MembershipFindings(**found, least=least))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"this is no review of this version of credit ({error})") from error


def overlap_review(index: str, data: str, found: Overlap, *, records: int, least: float) -> OverlapReview:
    """Return the review of a comparison of texts.

    Args:
        index: fingerprint of the index.
        data: hash of its training data.
        found: result of `find_overlap` on that data, with `least`.
        records: number of records.
        least: fraction that makes a copy.
    """
    copies = [item for item in found.records if item.shared >= least]
    pairs = [
        SharedText(item.provider, other, round(part, _DIGITS))
        for item in found.providers
        for other, part in item.others
        if part > 0
    ]
    heaviest = sorted(pairs, key=lambda item: (-item.shared, item.provider, item.other))[:NAMED]
    findings = OverlapFindings(
        providers=len(found.providers),
        records=records,
        copies=len(copies),
        copying=len({name for item in copies for name in item.provider.split(", ")}),
        repeats=sum(item.repeated >= least for item in found.records),
        pairs=len(pairs),
        heaviest=tuple(heaviest),
    )
    return OverlapReview(index, data, OverlapSettings(least, SHINGLE, BLOCK, DENSE, found.sampled), findings)


def membership_review(
    index: str, data: str, found: Sequence[Learned], settings: MembershipSettings
) -> MembershipReview:
    """Return the review of a look at the model's learning.

    Args:
        index: fingerprint of the index.
        data: hash of its training data.
        found: result of `what_was_learned` on that data, by these settings.
        settings: settings of the look.
    """
    least = [
        LearnedText(item.provider, *(round(part, _DIGITS) for part in (about.value, about.low, about.high)))
        for item in sorted(found, key=lambda item: (item.relative.value, item.provider))[:NAMED]
        for about in [item.relative]
    ]
    findings = MembershipFindings(len(found), sum(item.doubted for item in found), tuple(least))
    return MembershipReview(index, data, settings, findings)
