"""Training records, tagged with their providers, streamed from files of any size; repeats are left out."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Annotated, Self

from pydantic import PlainValidator

from credit.errors import InputError, InvalidRequestError, NothingToPredictError
from credit.ingest import fields as kinds
from credit.ingest.conversations import messages_of, template_of, tools_of
from credit.ingest.croissant import Croissant, Croissants
from credit.ingest.declarations import Declarations
from credit.ingest.fields import FieldError, InputModel, digest, validate
from credit.ingest.files import Row, notices_of_ignored
from credit.ingest.training_files import TrainingFile, check_training_input, rows_of, training_files
from credit.ingest.training_forms import FOREIGN_FIELDS, Formed, formed_records
from credit.ingest.training_source import AS_IT_IS, CROISSANT, PATH, ProviderRule, TrainingSource, lookup
from credit.records import (
    DEFAULT_COLLECTION,
    HOUSE,
    Group,
    Message,
    Place,
    Quarantined,
    Share,
    TrainingRecord,
    agreed_shares,
)
from credit.text import counted

_EXAMPLES = 5
_NAMELESS = "content-"
"""Start of the ids that are hashes."""


def _token_ids(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(item) is int and 0 <= item < 1 << 31 for item in value):
        raise FieldError("must be a list of token ids")
    return tuple(value)


TokenIds = Annotated[tuple[int, ...], PlainValidator(_token_ids)]


class _TrainingFields(InputModel):
    id: kinds.Identifier | None = None
    provider: kinds.ProviderKey | None = None
    text: kinds.FilledText | None = None
    prompt: kinds.Text | None = None
    completion: kinds.FilledText | None = None
    messages: Annotated[tuple[Message, ...], PlainValidator(messages_of)] | None = None
    tools: Annotated[list[object], PlainValidator(tools_of)] | None = None
    chat_template_kwargs: dict[str, object] | None = None
    prompt_ids: TokenIds = ()
    completion_ids: TokenIds | None = None
    collection: kinds.Collection = DEFAULT_COLLECTION
    splits: kinds.Splits | None = None


FIELDS = tuple(_TrainingFields.model_fields)


@dataclass(frozen=True, slots=True)
class TrainingCounts:
    """Counts of an iteration over training data.

    Attributes:
        records: records handed out.
        records_by_group: the same by provider and collection; a shared record counts in each group.
        quarantined: records that cannot be used.
        duplicates: records left out because the same record came before.
        repeats: records left out because their provider gave the same content before, under another id.
        empty: records left out because they have no token to predict.
        shared: records with the content of another provider's record; they are handed out.
        shared_examples: some of them, with their places.
    """

    records: int
    records_by_group: Mapping[Group, int]
    quarantined: int
    duplicates: int
    repeats: int
    empty: int
    shared: int
    shared_examples: tuple[str, ...]


class TrainingReader:
    """Tagged training records of files; iterating again starts again, and counts again.

    Each record has `id`, `provider` and one of `text`, `prompt` with `completion`, and `messages`; optionally
    `collection`, and for the chat template `tools` and `chat_template_kwargs`. Forms of other tools are read too
    (`training_forms`). A record of several providers has `splits` in place of `provider`: fractions that sum to 1, as
    in `[{"provider": "ann", "share": 0.7}, {"provider": "bob", "share": 0.3, "collection": "x"}]` or "1/3". A notice
    names all other fields, such as `license`: terms live in the ledger (`credit providers terms`). Ids are unique over
    all files. A record without one is named by a hash of its provider and content, which moving or sorting the files
    does not change. A second record with an id is left out if it is the same, and quarantined if it differs.

    Args:
        paths: files (JSON, CSV, Parquet, texts), folders written by `save_to_disk`, and folders of all these, read in
            this order.
        source: how to read data in another form, or without providers.
        declarations: notes what each used row declares about training; None: nothing does.
        known_providers: providers that may be tagged; None: any.
        on_quarantined: gets each quarantined record at once; None: they are collected in `quarantined`.

    Raises:
        InputError: a file as a whole cannot be used (some faults show only while it is read).
        InvalidRequestError: the mapping of fields makes no sense, or there are no paths.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        source: TrainingSource | None = None,
        declarations: Declarations | None = None,
        known_providers: Collection[str] | None = None,
        on_quarantined: Callable[[Quarantined], None] | None = None,
    ) -> None:
        if not paths:
            raise InvalidRequestError("no training data was named")
        for path in paths:
            check_training_input(path)
        self._paths = tuple(paths)
        self._source = source or AS_IT_IS
        self._names = kinds.field_names(FIELDS, self._source.fields)
        self._rule: ProviderRule | None = None
        if self._source.provider_from is not None:
            self._rule = ProviderRule(self._source.provider_from, self._source.provider_map)
        self._declarations = declarations
        needs_cards = declarations is not None or self._source.provider_from == CROISSANT
        self._cards = Croissants() if needs_cards else None
        named = {*self._names.values(), *([self._rule.name] if self._rule else [])}
        self._own = frozenset(named | {name.partition(".")[0] for name in named})
        self._known_providers = known_providers
        self._on_quarantined = on_quarantined
        self._restart()

    def _restart(self) -> None:
        self.quarantined: list[Quarantined] = []
        self._records = 0
        self._groups: Counter[Group] = Counter()
        self._ignored: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()
        self._forms: Counter[str] = Counter()
        self._nameless = self._rejected = 0
        if self._declarations is not None:
            self._declarations.clear()
        self._bad = self._duplicates = self._repeats = self._shared = 0
        self._empty = 0
        self._first_empty = ""
        self._examples: list[str] = []
        self._last: tuple[Row, TrainingRecord] | None = None

    @property
    def counts(self) -> TrainingCounts:
        """Counts of the iteration so far."""
        return TrainingCounts(
            records=self._records,
            records_by_group=MappingProxyType(dict(sorted(self._groups.items()))),
            quarantined=self._bad,
            duplicates=self._duplicates,
            repeats=self._repeats,
            empty=self._empty,
            shared=self._shared,
            shared_examples=tuple(self._examples),
        )

    @property
    def notices(self) -> tuple[str, ...]:
        """Notices of the iteration, in words."""
        notices = list(notices_of_ignored(self._ignored))
        notices += [f"{counted(count, 'record')} read from {form}" for form, count in sorted(self._forms.items())]
        notices += [f"not read: {count} {kind}" for kind, count in sorted(self._skipped.items())]
        if self._rejected:
            notices.append(
                f"{counted(self._rejected, 'rejected answer')} left out, as the model is taught to avoid them "
                "(--preference both takes them in)"
            )
        if self._nameless:
            notices.append(
                f"{counted(self._nameless, 'record')} without an id: named by a hash of provider and content"
            )
        if self._empty:
            notices.append(
                f"{counted(self._empty, 'record')} left out, of one token or none: nothing predicts a text's first "
                f"token; the first such record is {self._first_empty}"
            )
        if self._duplicates:
            notices.append(
                f"{counted(self._duplicates, 'record')} came twice, with the same id and content: counted once"
            )
        if self._repeats:
            notices.append(
                f"{counted(self._repeats, 'record')} left out, which the same provider gave before, under another id; "
                "what is contributed twice is paid once"
            )
        if self._shared:
            notices.append(
                f"{counted(self._shared, 'record')} with the content of another provider's: {'; '.join(self._examples)}"
            )
        return tuple(notices)

    def __iter__(self) -> Iterator[TrainingRecord]:
        self._restart()
        with SeenRecords() as seen:
            for row, record in self._rows():
                try:
                    if not self._is_new(record, row.place, seen):
                        continue
                except InputError as error:
                    self._quarantine(row.quarantined(str(error)))
                    continue
                self._records += 1
                self._groups.update(share.group for share in record.shares)
                self._last = row, record
                yield record

    def _rows(self) -> Iterator[tuple[Row, TrainingRecord]]:
        """Yield all good records with their rows, repeats too."""
        known = self._own | set(FOREIGN_FIELDS) | (self._declarations.columns if self._declarations else set())
        for file in chain.from_iterable(training_files(path, self._skipped) for path in self._paths):
            card = self._cards.of(file.path, file.name.count("/")) if self._cards else None
            for row in rows_of(file, self._names, known, self._ignored):
                if isinstance(row, Quarantined):
                    self._quarantine(row)
                    continue
                try:
                    made = list(self._made(row, file, card))
                except InputError as error:
                    self._quarantine(row.quarantined(str(error)))
                    continue
                if self._declarations is not None:
                    self._declarations.note(row, made[0], card.declared if card else ())
                yield from ((row, record) for record in made)

    def _is_new(self, record: TrainingRecord, place: Place, seen: SeenRecords) -> bool:
        """Return True for a record that nobody, or only another provider, gave before; count all others.

        Raises:
            InputError: a different record has the id.
        """
        if seen.first_with_id(record, place) is not None:
            self._duplicates += 1
            return False
        provider = owners_in_words(record)
        if (other := seen.first_with_content(record, place)) is not None:
            if other.provider == provider:
                self._repeats += 1
                return False
            self._shared += 1
            if len(self._examples) < _EXAMPLES:
                self._examples.append(f"{place} ({provider}) = {other.place} ({other.provider})")
        return True

    def leave_out(self, error: InputError) -> None:
        """Take back the record handed out last: a model's encoder cannot use it.

        A record without a token to predict is counted. Any other is quarantined, with the error as the reason.
        """
        if self._last is None:
            raise error
        (row, record), self._last = self._last, None
        self._records -= 1
        self._groups.subtract(share.group for share in record.shares)
        # Without groups of no record: an empty provider must not show.
        self._groups = +self._groups
        if isinstance(error, NothingToPredictError):
            self._empty += 1
            self._first_empty = self._first_empty or str(row.place)
        else:
            self._quarantine(row.quarantined(str(error)))

    def _quarantine(self, item: Quarantined) -> None:
        self._bad += 1
        if self._on_quarantined is None:
            self.quarantined.append(item)
        else:
            self._on_quarantined(item)

    def _made(self, row: Row, file: TrainingFile, card: Croissant | None) -> Iterator[TrainingRecord]:
        """Yield the records of a row."""
        found = {name: lookup(row.record, theirs) for name, theirs in self._names.items()}
        own = {name: value for name, value in found.items() if value is not None}
        if self._rule is not None:
            if self._rule.name == CROISSANT:
                group = self._rule.group_of_creators(card)
            else:
                of_file = self._rule.name == PATH
                group = self._rule.group(file.name if of_file else lookup(row.record, self._rule.name))
            own["provider"] = group.provider
            if group.collection != DEFAULT_COLLECTION:
                own["collection"] = group.collection
        elif self._source.provider is not None and "splits" not in own:
            own.setdefault("provider", self._source.provider)
        made = list(formed_records(own, row.record, self._source))
        self._ignored.update(row.record.keys() - self._own - made[0].used)
        records = [self._record(item) for item in made]
        self._forms.update([made[0].form] if made[0].form else [])
        self._rejected += made[0].rejected
        self._nameless += "id" not in own
        yield from records

    def _record(self, made: Formed) -> TrainingRecord:
        fields = validate(_TrainingFields, made.values)
        shares = _shares(fields)
        for provider in (share.group.provider for share in shares):
            if provider == HOUSE:
                raise InputError(f"`provider` {HOUSE!r} is reserved; tag own data with a provider of kind house")
            if self._known_providers is not None and provider not in self._known_providers:
                raise InputError(f"the provider {provider!r} is unknown; add it first: credit providers add --help")
        record = _training_record(fields, shares)
        if fields.id is None:
            return replace(record, id=_NAMELESS + _identity(record).hex())
        return replace(record, id=f"{record.id}{made.suffix}")


def _shares(fields: _TrainingFields) -> tuple[Share, ...]:
    """Return the shares of a record: all for its provider, or those of its splits, also where they are 0."""
    if fields.provider is not None and fields.splits is not None:
        raise InputError("`provider` and `splits` both say whose the record is; keep one of them")
    if fields.provider is not None:
        return (Share(Group(fields.provider, fields.collection)),)
    if fields.splits is None:
        raise InputError("`provider` is missing; name it for all of it with --provider, or by a rule, --provider-from")
    return tuple(Share(Group(s.provider, s.collection or fields.collection), s.ppm) for s in fields.splits)


def _training_record(fields: _TrainingFields, shares: tuple[Share, ...]) -> TrainingRecord:
    try:
        splits = agreed_shares(shares)
    except InputError as error:
        raise InputError(f"`splits`: {error}") from error
    forms = [form is not None for form in (fields.text, fields.completion, fields.messages, fields.completion_ids)]
    if sum(forms) != 1 or (fields.prompt is None) != (fields.completion is None):
        raise InputError("exactly one is needed of `text`, `prompt` with `completion`, `messages`, and token ids")
    if fields.completion_ids is not None:
        ids, seen = fields.completion_ids, fields.prompt_ids
        return TrainingRecord(fields.id or "", None, splits=splits, prompt_ids=seen, completion_ids=ids)
    if fields.messages is not None:
        if not any(message.role == "assistant" and _says(message) for message in fields.messages):
            raise InputError("`messages` hold no answer: a message with the role assistant and some content")
        try:
            given = {"tools": fields.tools, "chat_template_kwargs": fields.chat_template_kwargs}
            template = template_of(given)
        except FieldError as error:
            raise InputError(str(error)) from error
        return TrainingRecord(fields.id or "", None, messages=fields.messages, splits=splits, template=template)
    said = fields.text or fields.completion or ""
    return TrainingRecord(fields.id or "", None, said, fields.prompt, splits=splits)


def _says(message: Message) -> bool:
    """Return True for a message with a text or a call of a tool: a model learns either."""
    return bool(message.content.strip()) or '"tool_calls"' in message.extra


@dataclass(frozen=True, slots=True)
class FirstSeen:
    """Place of the first record with some content, and its provider, or several with commas between them."""

    provider: str
    place: str


class SeenRecords:
    """Ids and contents of all records so far. Memory stays below some tens of megabytes for corpora of any size."""

    def __enter__(self) -> Self:
        # The empty name is SQLite's temporary database: private, on disk only when it outgrows its cache.
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(
            """
            PRAGMA journal_mode = OFF;
            PRAGMA synchronous = OFF;
            PRAGMA cache_size = -32768;
            CREATE TABLE ids (id TEXT PRIMARY KEY, digest BLOB, place TEXT) WITHOUT ROWID;
            CREATE TABLE contents (digest BLOB, provider TEXT, place TEXT);
            CREATE INDEX contents_by_digest ON contents (digest);
            BEGIN;  -- never committed: a commit for each record would write its pages out
            """
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._db.close()

    def first_with_id(self, record: TrainingRecord, place: Place) -> str | None:
        """Return the place of the same record if it came before; else note this one and return None.

        Raises:
            InputError: a different record has the id.
        """
        content = _identity(record)
        inserted = self._db.execute("INSERT OR IGNORE INTO ids VALUES (?, ?, ?)", (record.id, content, str(place)))
        if inserted.rowcount:
            return None
        before, first = self._db.execute("SELECT digest, place FROM ids WHERE id = ?", (record.id,)).fetchone()
        if before != content:
            raise InputError(f"`id` {record.id!r} was used before, at {first}, with another content or provider")
        return str(first)

    def first_with_content(self, record: TrainingRecord, place: Place) -> FirstSeen | None:
        """Return the first record with the same content; if it is another provider's or there is none, note this one.

        A provider's own record is found before another's, whoever came first. Providers who share a record together
        count as another provider than each of them alone.
        """
        content, provider = _content(record), owners_in_words(record)
        query = "SELECT provider, place FROM contents WHERE digest = ? ORDER BY provider <> ?, rowid LIMIT 1"
        row = self._db.execute(query, (content, provider)).fetchone()
        if row is None or row[0] != provider:
            # One row for each provider: a later copy is then told from a repeat, whoever came first.
            self._db.execute("INSERT INTO contents VALUES (?, ?, ?)", (content, provider, str(place)))
        return None if row is None else FirstSeen(*row)


def owners_in_words(record: TrainingRecord) -> str:
    """Return the providers of a record, with commas between them."""
    return ",".join(sorted({share.group.provider for share in record.shares}))


def _identity(record: TrainingRecord) -> bytes:
    """Return the hash of a record without its id: of its owners and content."""
    owners = (part for s in record.shares for part in (s.group.provider, s.group.collection, str(s.ppm)))
    return digest(*owners, _content(record))


def _content(record: TrainingRecord) -> bytes:
    turns = [part for message in record.messages for part in (message.role, message.content)]
    kind = "chat" if record.messages else "text" if record.prompt is None else "prompt"
    if record.completion_ids:
        return digest("tokens", str(record.prompt_ids), str(record.completion_ids))
    # Records without tools keep the ids that they had before there were any.
    more = [record.template, *(message.extra for message in record.messages)]
    if any(more):
        kind, turns = "chat with tools", [*turns, *more]
    return digest(kind, record.prompt or "", record.completion, *turns)
