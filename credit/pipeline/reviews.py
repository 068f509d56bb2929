"""Reviews of an index's data: recorded on the data that the index was built from, and demanded by a close."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from sqlalchemy import Connection

from credit.accounting.statement import ReviewCheck, Validation
from credit.errors import InputError, LedgerError, MismatchError, ValuationError
from credit.fidelity.reviews import (
    IndexReview,
    MembershipReview,
    MembershipSettings,
    OverlapReview,
    membership_review,
    overlap_review,
    read_review,
)
from credit.ingest.training import TrainingReader
from credit.ingest.training_source import AS_IT_IS, TrainingSource
from credit.ledger.indexes import RegisteredReview, ReviewKind, indexes, indexes_in_place, register_review, reviews
from credit.pipeline.certification import deciding_methods
from credit.pipeline.workspace import Workspace
from credit.records import TrainingRecord

if TYPE_CHECKING:
    from credit.fidelity.membership import Learned
    from credit.fidelity.overlap import Overlap

KINDS: tuple[ReviewKind, ...] = get_args(ReviewKind)
_COMMANDS: Mapping[ReviewKind, str] = {
    "overlap": "credit overlap DATA",
    "membership": "credit membership MODEL EARLIER DATA",
}
_NOTHING: Mapping[ReviewKind, str] = {
    "overlap": "Nobody has compared the texts of all providers with each other.",
    "membership": "Nobody has looked for signs that the model was trained on everybody's texts.",
}


class IndexedData:
    """Training data of an index, read again: each iteration yields the same records, those with examples.

    The first iteration ends with an error if all that was read is not the data that the index was built from.

    Args:
        workspace: the ledger that will keep the review.
        index: folder of the index.
        data: files of its training data.
        source: how to read data in another form.
        model: folder of the model, of which the tokenizer alone is read; None: where it was indexed.

    Raises:
        LedgerError: there is no ledger; raised before any work.
        InputError: `index` is no index, or a file as a whole cannot be used.
        MismatchError: the tokenizer or the data is not that of the index.
        ValuationError: the model's folder cannot be used.
    """

    def __init__(
        self,
        workspace: Workspace,
        index: Path,
        data: Sequence[Path],
        source: TrainingSource = AS_IT_IS,
        *,
        model: Path | None = None,
    ) -> None:
        from credit.valuation import read_manifest
        from credit.valuation.language_model import fingerprint_tokenizer_of, load_encoder

        with workspace.open():
            self.workspace = workspace
        self.folder, self.manifest = index, read_manifest(index)
        self.records = 0
        place = model or Path(self.manifest.model_path)
        if not place.is_dir():
            raise ValuationError(f"{place}, the model of {index}, is not there; say where it moved: --model DIR")
        if fingerprint_tokenizer_of(place) != self.manifest.tokenizer_sha256:
            raise MismatchError(f"{place} has another tokenizer than the one that {index} was built with")
        self._encoder = load_encoder(place, self.manifest.max_length, self.manifest.settings.template_date)
        # The index's own: it left out who was unknown then, or withdrew.
        shares = [share for item in self.manifest.excluded for share in item.shares]
        groups = {layout.group for layout in self.manifest.groups} | {share.group for share in shares}
        self.reader = TrainingReader(data, source=source, known_providers={group.provider for group in groups})
        self._left_out: dict[int, InputError] = {}
        self._position = 0

    def __iter__(self) -> Iterator[TrainingRecord]:
        from credit.valuation.examples import indexed_records

        if self.records:
            for number, record in enumerate(self.reader, start=1):
                if number in self._left_out:
                    self.reader.leave_out(self._left_out[number])
                else:
                    yield record
            return
        found = 0
        for record in indexed_records(self._numbered(), self._encoder, self.folder, self.manifest, self._leave_out):
            found += 1
            yield record
        self.records = found

    def _numbered(self) -> Iterator[TrainingRecord]:
        self._position = 0
        for record in self.reader:
            self._position += 1
            yield record

    def _leave_out(self, error: InputError) -> None:
        self._left_out[self._position] = error
        self.reader.leave_out(error)

    def check_model(self, model: Path) -> None:
        """Refuse another model than the index's.

        Raises:
            MismatchError: its weights differ.
        """
        from credit.valuation.language_model import fingerprint_model

        if fingerprint_model(model) != self.manifest.model_sha256:
            raise MismatchError(f"{model} is not the model that {self.folder} was built with")


def record_overlap(data: IndexedData, found: Overlap, *, least: float) -> OverlapReview:
    """Enter the review of an index in the ledger: the result of `find_overlap` on its data.

    Raises:
        LedgerError: the ledger knows the index under another model's name.
    """
    made = overlap_review(
        data.manifest.fingerprint, data.manifest.data_sha256, found, records=data.records, least=least
    )
    _record(data, made)
    return made


def record_membership(
    data: IndexedData,
    found: Sequence[Learned],
    *,
    earlier: Path,
    max_length: int | None = None,
    tokens: int,
) -> MembershipReview:
    """Enter the review of an index in the ledger: the result of `what_was_learned` on its data and model.

    Args:
        data: the index's data, read again.
        found: the result.
        earlier: folder of the earlier checkpoint.
        max_length: tokens read in one pass; None: the model's, at most 2048.
        tokens: most tokens that were read of each provider.

    Raises:
        LedgerError: the ledger knows the index under another model's name.
    """
    from credit.fidelity.membership import DOUBTED_BELOW
    from credit.valuation.language_model import fingerprint_model

    settings = MembershipSettings(fingerprint_model(earlier), max_length, tokens, DOUBTED_BELOW)
    made = membership_review(data.manifest.fingerprint, data.manifest.data_sha256, found, settings)
    _record(data, made)
    return made


def _record(data: IndexedData, made: IndexReview) -> None:
    from credit.pipeline.index import register

    with data.workspace.open() as ledger:
        register(ledger, data.folder)
        with ledger.write() as conn:
            register_review(conn, made.index, made.kind, made.canonical, now=datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class MissingReview:
    """A review that a close will ask for. `path` is the index's folder; empty: the index is no longer there."""

    index: str
    model: str
    path: str
    kind: ReviewKind

    @property
    def command(self) -> str:
        """The command that records it."""
        return f"{_COMMANDS[self.kind]} --register {self.path or 'INDEX'}"

    def __str__(self) -> str:
        return f"no review of {self.kind} of the index {self.index[:16]} of {self.model}: {self.command}"


def with_reviews(conn: Connection, period: str, validation: Validation, *, unreviewed: str) -> Validation:
    """Return the validation of a period with the reviews of all data behind its credits.

    The last review of each kind counts. An index that was changed has another fingerprint, and needs reviews anew.

    Args:
        conn: from `Ledger.read` or `Ledger.write`.
        period: the period `YYYY-MM`.
        validation: what `certify` returned for it.
        unreviewed: the reason for paying without all reviews, or empty.

    Raises:
        LedgerError: a review is missing, and there is no reason; or there is a reason without need.
        IntegrityError: a review cannot be read.
    """
    found = _last_reviews(conn, period)
    missing = _missing(conn, found)
    if missing and not unreviewed:
        raise LedgerError(_refusal(period, missing))
    if found and not missing and unreviewed:
        raise LedgerError(f"all data that {period} was computed with is reviewed; close it without --unreviewed")
    said = [_check(index, kind, item) for (index, kind), item in found.items()]
    words = dict.fromkeys([*validation.words, *(sentence for _, sentence in said)])
    return replace(validation, reviews=[check for check, _ in said], unreviewed=unreviewed, words=[*words])


def missing_reviews(conn: Connection, period: str) -> tuple[MissingReview, ...]:
    """Return the reviews that a close of a period will ask for."""
    return _missing(conn, _last_reviews(conn, period))


def _last_reviews(conn: Connection, period: str) -> dict[tuple[str, ReviewKind], RegisteredReview | None]:
    """Return the last review of each kind for every index that decides the credits of a period."""
    last = {(item.index_fingerprint, item.kind): item for item in reviews(conn)}
    wanted = sorted({method.index_fingerprint for method in deciding_methods(conn, period)})
    return {(index, kind): last.get((index, kind)) for index in wanted for kind in KINDS}


def _missing(
    conn: Connection, found: dict[tuple[str, ReviewKind], RegisteredReview | None]
) -> tuple[MissingReview, ...]:
    keys = [key for key, item in found.items() if item is None]
    if not keys:
        return ()
    models = {item.fingerprint: item.model for item in indexes(conn)}
    paths = {item.fingerprint: item.path for item in indexes_in_place(conn)}
    return tuple(MissingReview(index, models[index], paths.get(index, ""), kind) for index, kind in keys)


def _refusal(period: str, missing: Sequence[MissingReview]) -> str:
    _, first = next(groupby(missing, key=lambda item: item.index))
    items = list(first)
    kinds, commands = " and ".join(item.kind for item in items), " and ".join(item.command for item in items)
    gone = "" if items[0].path else ", which is no longer in its folder"
    return (
        f"{period} was computed with the index {items[0].index[:16]} of {items[0].model}{gone}, and nobody reviewed its"
        f' data for {kinds}: {commands}, or credit close {period} --unreviewed "REASON", which every statement will'
        " show"
    )


def _check(index: str, kind: ReviewKind, item: RegisteredReview | None) -> tuple[ReviewCheck, str]:
    """Return a review as statements name it, and its sentences for a provider."""
    if item is None:
        return ReviewCheck(index, kind), _NOTHING[kind]
    made, day = read_review(item.body_json), item.registered_at.date().isoformat()
    return ReviewCheck(index, kind, item.sha256, day, made.result), made.words(day)
