"""Check of training data before an index is built: what an index would take, and what somebody should look at first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from credit.errors import InputError, NothingToPredictError
from credit.fidelity.overlap import find_overlap
from credit.ingest.declarations import Declarations
from credit.ingest.quarantine import QuarantineSummary
from credit.ingest.training import TrainingCounts, TrainingReader
from credit.records import TrainingRecord
from credit.valuation.tokens import Encoder, Window

_NAMED = 200
"""Near-copies that are kept by name."""
_WORST = 20


@dataclass(frozen=True, slots=True)
class ProviderCheck:
    """Training data of one provider. A shared record counts for each of its providers.

    Attributes:
        provider: its key.
        known: False if the ledger does not know it; an index leaves its records out.
        records: records that can be used.
        characters: characters to learn from in them.
        tokens: the same in tokens; None without a model.
        shared: fraction (0 to 1) of its text that other providers have too.
        before: the same, counting only records of others that stand earlier in the data.
        repeated: fraction that repeats its own text.
        forbidding: rows that declare that they must not be trained on.
    """

    provider: str
    known: bool
    records: int
    characters: int
    tokens: int | None
    shared: float
    before: float
    repeated: float
    forbidding: int


@dataclass(frozen=True, slots=True)
class NearCopy:
    """A record with much text of another provider: `shared` is the fraction, `other` who has most of it."""

    id: str
    provider: str
    shared: float
    other: str


@dataclass(frozen=True, slots=True)
class Declared:
    """A licence, or a declaration that forbids training, with the number of rows that have it and the first place."""

    text: str
    records: int
    place: str = ""


@dataclass(frozen=True, slots=True)
class DataCheck:
    """Result of a check.

    Attributes:
        providers: each provider, by name.
        records: usable records, those of unknown providers too.
        tokens: tokens to learn from in them; None without a model.
        quarantined: records that cannot be used.
        unknown: usable records with a provider that the ledger does not know.
        empty: records without a token to predict.
        repeats: records that their provider gave before.
        over_long: records longer than a window, which are cut into several; 0 without a model.
        shared: records with the content of another provider's.
        near_copies: records with much text of another provider, the first of them.
        near_copies_in_all: their number.
        licences: licences named in the data, the most frequent first.
        forbidding: declarations that forbid training, the most frequent first.
        problems: reasons of quarantined records, in words.
        notices: remarks, in words.
    """

    providers: tuple[ProviderCheck, ...]
    records: int
    tokens: int | None
    quarantined: int
    unknown: int
    empty: int
    repeats: int
    over_long: int
    shared: int
    near_copies: tuple[NearCopy, ...]
    near_copies_in_all: int
    licences: tuple[Declared, ...]
    forbidding: tuple[Declared, ...]
    problems: tuple[str, ...]
    notices: tuple[str, ...]

    @property
    def left_out(self) -> int:
        """Records that an index would leave out."""
        return self.quarantined + self.unknown + self.empty + self.repeats

    @property
    def is_clean(self) -> bool:
        """True if an index would take all of it, and nothing in it forbids that."""
        return not (self.left_out or self.forbidding)


def examine(
    reader: TrainingReader,
    problems: QuarantineSummary,
    declarations: Declarations,
    *,
    known: Collection[str] | None = None,
    encoder: Encoder | None = None,
    least: float = 0.8,
    progress: Callable[[int, int], None] | None = None,
) -> DataCheck:
    """Check training data, in two passes over it and in memory that does not grow with it.

    Args:
        reader: the data; it accepts every provider.
        problems: gets the reader's quarantined records.
        declarations: notes what the reader's rows declare.
        known: providers in the ledger; None: any.
        encoder: encoder of the model, to count tokens and find what its template refuses; None counts no tokens.
        least: fraction of another provider's text from which on a record is a near-copy.
        progress: called in the second pass, with records done and in all.

    Raises:
        InputError: a file as a whole cannot be used.
    """
    counting = _Counting(reader, problems, encoder, known)
    overlap = find_overlap(counting, least=least, progress=progress)
    counts = counting.counts
    if counts is None:
        raise InputError("the training data was not read to its end")
    shares = {item.provider: item for item in overlap.providers}
    copies = [item for item in overlap.records if item.shared >= least]
    return DataCheck(
        providers=tuple(
            ProviderCheck(
                provider=name,
                known=known is None or name in known,
                records=counting.records[name],
                characters=counting.characters[name],
                tokens=None if encoder is None else counting.tokens[name],
                shared=shares[name].shared,
                before=shares[name].before,
                repeated=shares[name].repeated,
                forbidding=declarations.providers[name],
            )
            for name in sorted(counting.records)
        ),
        records=counts.records,
        tokens=None if encoder is None else counting.all_tokens,
        quarantined=counts.quarantined,
        unknown=counting.unknown,
        empty=counts.empty,
        repeats=counts.repeats + counts.duplicates,
        over_long=counting.over_long,
        shared=counts.shared,
        near_copies=tuple(NearCopy(item.id, item.provider, item.shared, item.other) for item in copies[:_NAMED]),
        near_copies_in_all=len(copies),
        licences=tuple(Declared(text, count) for text, count in declarations.licences.most_common(_WORST)),
        forbidding=tuple(
            Declared(text, count, declarations.places.get(text, ""))
            for text, count in declarations.forbidding.most_common(_WORST)
        ),
        problems=counting.problems,
        notices=counting.notices,
    )


class _Counting:
    """Usable records of a reader, counted in the first iteration; later ones yield the same records."""

    def __init__(
        self,
        reader: TrainingReader,
        problems: QuarantineSummary,
        encoder: Encoder | None,
        known: Collection[str] | None,
    ) -> None:
        self._reader, self._problems, self._encoder, self._known = reader, problems, encoder, known
        self.records: Counter[str] = Counter()
        self.characters: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self.all_tokens = self.unknown = self.over_long = 0
        self.counts: TrainingCounts | None = None
        self.problems: tuple[str, ...] = ()
        self.notices: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[TrainingRecord]:
        for record in self._reader:
            windows: list[Window] = []
            if self._encoder is not None:
                try:
                    windows = list(self._encoder.training(record))
                    if not windows:
                        raise NothingToPredictError("it has no token to predict")
                except InputError as error:
                    self._reader.leave_out(error)
                    continue
            if self.counts is None:
                self._count(record, windows)
            yield record
        if self.counts is None:
            self.counts = self._reader.counts
            self.problems, self.notices = self._problems.lines(), self._reader.notices

    def _count(self, record: TrainingRecord, windows: Sequence[Window]) -> None:
        owners = {share.group.provider for share in record.shares}
        learned = sum(len(m.content) for m in record.messages if m.role == "assistant") or len(record.completion)
        tokens = sum(window.predicted for window in windows)
        self.records.update(owners)
        self.characters.update(dict.fromkeys(owners, learned))
        self.tokens.update(dict.fromkeys(owners, tokens))
        self.all_tokens += tokens
        self.unknown += self._known is not None and not owners.issubset(self._known)
        self.over_long += any("#" in window.id.removeprefix(record.id) for window in windows)
