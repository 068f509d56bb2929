"""Admission of logged outputs: each call of a model becomes one output, and every record gets a verdict.

A batch is judged as a whole, so the order of its records does not matter: its spans are recorded first, then each
record is held against the ledger and the records before it, and spans that hold other calls come last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import NamedTuple

from sqlalchemy import Connection, select

from credit.ledger import identities
from credit.ledger.aliases import ModelNames
from credit.ledger.database import serialise_writers
from credit.ledger.identities import Key, Rival, Span, keys_of
from credit.ledger.outputs import content_sha256, context_json
from credit.ledger.schema import ingest_file, output
from credit.ledger.seals import add_rows
from credit.ledger.sql import among, load_rows, next_id
from credit.ledger.values import MAX_AMOUNT, is_storable, utc_text
from credit.records import CallIdentity, LoggedOutput, SpanLink

_COLUMNS = (
    "id", "source", "external_id", "model_id", "ingest_file_id", "occurred_at", "prompt", "messages_json",
    "completion", "weight_micro", "content_sha256", "user_hmac", "text_hmac", "line", "salt",
)  # fmt: skip


class Verdict(Enum):
    """The result of adding a record."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    """Source, external id and content are known: nothing to do."""
    TOLD = "told"
    """Another record told of the call, with the same text: of another logger, span or moment."""
    HOLDS = "holds"
    """The span holds the call, of which another span tells."""
    CONFLICT = "conflict"
    """Another record told of the call with another text, or two outputs are one call. What is logged stays."""
    UNKNOWN_MODEL = "unknown model"
    """The name of its model has no index."""
    UNSTORABLE = "unstorable"
    """Text with NUL or half a surrogate pair, or a weight below zero or beyond 64 bits."""


@dataclass(frozen=True, slots=True)
class Added:
    """The verdict on a record; `problem` says what is wrong with it, and the remedy."""

    verdict: Verdict
    problem: str = ""


def start_file(conn: Connection) -> int:
    """Return the id of the next file, for the outputs that are added before its row.

    The same transaction must call `record_file` with this id, or the database refuses the commit.
    """
    serialise_writers(conn)
    return next_id(conn, ingest_file)


def record_file(
    conn: Connection,
    file_id: int,
    *,
    sha256: str,
    name: str,
    format: str,  # noqa: A002 - the column's name, and always given by keyword
    accepted: int,
    duplicates: int,
    quarantined: int,
    now: datetime,
) -> None:
    """Record a file after its outputs: the hash of the bytes that were read, and the counts of its records."""
    row = {"id": file_id, "sha256": sha256, "name": name, "format": format, "ingested_at": utc_text(now)}
    counts = {"accepted": accepted, "duplicates": duplicates, "quarantined": quarantined}
    add_rows(conn, ingest_file, [{**row, **counts}])


def add_spans(conn: Connection, links: Iterable[SpanLink], ingest_file_id: int, *, file: str = "") -> list[str]:
    """Record spans, before the outputs in them. Return problems: outputs that turn out to be one call."""
    serialise_writers(conn)
    new = [(link.trace, link.span) for link in identities.add_links(conn, links, ingest_file_id) if not link.is_call]
    if not new:
        return []
    around = identities.spans_around(conn, new)
    above = identities.outputs_known_by(conn, (("span", *span, 0) for spans in around.values() for span in spans))
    if not above:
        return []
    within = identities.calls_within(conn, around)
    below = identities.outputs_known_by(conn, (("span", *span, 0) for spans in within.values() for span in spans))
    known = identities.rivals(conn, {*above.values(), *below.values()}, file)
    found = {}
    for span in new:
        outer = [above[key] for key in (("span", *item, 0) for item in around[span]) if key in above]
        inner = [below[key] for key in (("span", *item, 0) for item in sorted(within.get(span, ()))) if key in below]
        live = [number for number in (*outer[:1], *inner) if not known[number].unvalued]
        if outer and len(set(live)) > 1:
            found[outer[0]] = _doubled([known[number] for number in live])
    return list(found.values())


def add_outputs(
    conn: Connection,
    items: Sequence[LoggedOutput],
    ingest_file_id: int,
    *,
    file: str = "",
    lines: Sequence[int] = (),
) -> list[Added]:
    """Add outputs and return a verdict for each, in order.

    Args:
        conn: from `Ledger.write`.
        items: the outputs; `add_spans` knows their spans.
        ingest_file_id: from `start_file`.
        file: its name, for problems.
        lines: the line of each output in its file; none: unknown.
    """
    serialise_writers(conn)
    return _Batch(conn, items, ingest_file_id, file, lines).add()


def holders(conn: Connection, calls: Sequence[CallIdentity]) -> list[bool]:
    """Return for each span whether it holds another call. `add_spans` knows the spans."""
    if not calls:
        return []
    spans = [(call.trace, call.span) for call in calls]
    within = identities.calls_within(conn, identities.spans_around(conn, spans))
    return [span in within for span in spans]


_ACCEPTED, _DUPLICATE = Added(Verdict.ACCEPTED), Added(Verdict.DUPLICATE)


class _Named(NamedTuple):
    """An output under the name that its logger gave it: content hash and pseudonyms."""

    id: int
    digest: str
    user: str
    text: str
    salt: str
    purged: bool

    def says(self, item: LoggedOutput, digest: str) -> bool:
        """Return True if `item`, of this hash, says the same.

        A log without the user contradicts no other; the text is in the hash.
        """
        if digest == self.digest:
            return True
        user = item.user if self.user and item.user else self.user
        # A purge deletes the salt, if there was one; the key makes the same again.
        salts = (item.salt, "") if self.purged else (self.salt,)
        if (user, self.text, salts) == (item.user, item.text, (item.salt,)):
            return False
        alike = (replace(item, user=user, text=self.text, salt=salt) for salt in salts)
        return any(content_sha256(one) == self.digest for one in alike)


@dataclass(slots=True)
class _Candidate:
    """A record that can be stored, with what is compared with the ledger.

    Attributes:
        item: the record; its model is the one with the index.
        line: its line in the file; None: unknown.
        context: its context in JSON.
        digest: the hash of its content.
        keys: ids by which other records may tell of it.
        span: its place among spans.
    """

    item: LoggedOutput
    line: int | None
    context: str
    digest: str
    keys: list[Key]
    span: Span

    @classmethod
    def of(cls, item: LoggedOutput, line: int | None) -> _Candidate:
        """Return a record as a candidate."""
        context, identity = context_json(item), item.identity
        return cls(
            item, line, context, content_sha256(item, context), keys_of(identity), (identity.trace, identity.span)
        )


class _Batch:
    """Records judged together."""

    def __init__(
        self, conn: Connection, items: Sequence[LoggedOutput], ingest_file_id: int, file: str, lines: Sequence[int]
    ) -> None:
        self._models = ModelNames(conn)
        self._conn, self._count, self._file_id, self._file = conn, len(items), ingest_file_id, file
        # Only storable records can be looked up: PostgreSQL refuses NUL in a parameter too.
        # An alias ends here: an output is of the model with the index, whatever its log called it.
        self._candidates = {
            n: _Candidate.of(_of_model(item, self._models), lines[n] if lines else None)
            for n, item in enumerate(items)
            if _is_storable(item)
        }
        self._named = _named(conn, [made.item for made in self._candidates.values()])
        self._around: dict[Span, list[Span]] = {}
        self._within: dict[Span, set[Span]] = {}
        self._known: dict[Key, int] = {}
        self._find_calls()
        named = (
            (made, self._named.get((made.item.source, made.item.external_id))) for made in self._candidates.values()
        )
        changed = {first.id for made, first in named if first and not first.says(made.item, made.digest)}
        told = changed.union(self._known.values())
        self._rivals = identities.rivals(conn, told, file) if told else {}
        asked = {number for key, number in self._known.items() if key[0] == "request"}
        self._responses = identities.responses_of(conn, asked) if asked else {}
        self._next = next_id(conn, output)
        self._rows: list[tuple[object, ...]] = []
        self._new: list[tuple[Key, int]] = []

    def _find_calls(self) -> None:
        """Look up the spans around and within those of the batch, and the outputs that any identity names."""
        candidates = self._candidates.values()
        spans = {made.span for made in candidates if made.item.identity.span}
        if spans:
            self._around = identities.spans_around(self._conn, spans)
            self._within = identities.calls_within(self._conn, self._around)
            self._inherit()
        keys = [key for made in candidates for key in made.keys]
        keys += [("span", *span, 0) for some in (*self._around.values(), *self._within.values()) for span in some]
        if keys:
            self._known = identities.outputs_known_by(self._conn, keys)

    def _inherit(self) -> None:
        """Give a call the ids of the spans that hold it alone: a third logger may know it by those."""
        calls = {(made.span, made.item.identity.choice): made for made in self._candidates.values()}
        for made in self._candidates.values():
            within = self._within.get(made.span, ())
            inner = calls.get((next(iter(within)), made.item.identity.choice)) if len(within) == 1 else None
            if inner is None or inner.item.completion != made.item.completion:
                continue
            kinds = {key[0] for key in inner.keys}
            inner.keys += [key for key in made.keys if key[0] not in kinds]

    def add(self) -> list[Added]:
        """Judge all records, store the accepted ones, and return the verdicts."""
        verdicts = [Added(Verdict.UNSTORABLE)] * self._count
        for n, made in sorted(self._candidates.items(), key=lambda item: item[1].span in self._within):
            verdicts[n] = self._judge(made)
        load_rows(self._conn, output, _COLUMNS, self._rows)
        identities.add_identities(self._conn, self._new, self._file_id)
        return verdicts

    def _judge(self, made: _Candidate) -> Added:
        item = made.item
        first = self._named.get((item.source, item.external_id))
        if first is not None and first.says(item, made.digest):
            self._note(made, first.id)
            return _DUPLICATE
        if made.span in self._within:
            return self._judge_holder(made)
        if first is not None:
            return self._judge_named(made, self._rivals[first.id])
        if rivals := self._rivals_of(made):
            return self._judge_told(made, rivals)
        if item.model not in self._models.ids:
            return Added(Verdict.UNKNOWN_MODEL, self._models.remedy(item.model))
        return self._accept(made)

    def _judge_named(self, made: _Candidate, rival: Rival) -> Added:
        """Judge a record of another content than the output of its name; logs may note another moment of one call."""
        item = made.item
        if made.keys and rival.model == item.model and _says_the_same(rival, item):
            self._note(made, rival.id)
            return Added(Verdict.TOLD)
        return Added(
            Verdict.CONFLICT,
            f"output {item.name!r} is in the ledger with another content ({rival.place}); give it another id",
        )

    def _judge_holder(self, made: _Candidate) -> Added:
        """Judge a span that holds calls: these tell of it, unless it tells of another output."""
        keys = [("span", *span, made.item.identity.choice) for span in sorted(self._within[made.span])]
        inner = [self._rivals[self._known[key]] for key in keys if key in self._known]
        own = [rival for rival in self._rivals_of(made) if rival not in inner]
        if own and any(not rival.unvalued for rival in inner):
            return Added(Verdict.CONFLICT, _doubled([*own, *inner]))
        if len(keys) == len(inner) == 1 and _says_the_same(inner[0], made.item):
            self._note(made, inner[0].id)
        return Added(Verdict.HOLDS)

    def _judge_told(self, made: _Candidate, rivals: list[Rival]) -> Added:
        if len(rivals) > 1:
            return Added(Verdict.CONFLICT, _doubled(rivals))
        (rival,) = rivals
        if _says_the_same(rival, made.item):
            self._note(made, rival.id)
            return Added(Verdict.TOLD)
        if any(rival.id == self._known.get(key) for key in made.keys):
            return Added(Verdict.CONFLICT, f"the call is in the ledger with another text, as output {rival}")
        return Added(
            Verdict.CONFLICT,
            f"a span around it is in the ledger with another text, as output {rival}; to log the calls within that span"
            f" instead: credit outputs unvalue {rival.name} --reason ..., then read this file again",
        )

    def _rivals_of(self, made: _Candidate) -> list[Rival]:
        """Return the outputs that a record tells of once more, by its ids or by a span around its own."""
        found: dict[int, Rival] = {}
        for key in made.keys:
            number = self._known.get(key)
            if number is None:
                continue
            # Gateways give one request id to several calls, whose responses then differ.
            response = self._responses.get(number, "") if key[0] == "request" else ""
            if not response or made.item.identity.response in {"", response}:
                found[number] = self._rivals[number]
        for span in self._around.get(made.span, ()):
            number = self._known.get(("span", *span, made.item.identity.choice))
            # A person who takes out the output of an outer span lets in those within.
            if number is not None and not self._rivals[number].unvalued:
                found[number] = self._rivals[number]
        live = [rival for rival in found.values() if not rival.unvalued]
        return live or list(found.values())[:1]

    def _accept(self, made: _Candidate) -> Added:
        item, number = made.item, self._next
        self._next += 1
        self._rows.append((
            number, item.source, item.external_id, self._models.ids[item.model], self._file_id,
            utc_text(item.occurred_at), item.prompt, None if made.context == "[]" else made.context, item.completion,
            item.weight_micro, made.digest, item.user or None, item.text or None, made.line, item.salt or None,
        ))  # fmt: skip
        named = _Named(number, made.digest, item.user, item.text, item.salt, purged=False)
        self._named[item.source, item.external_id] = named
        place = identities.place_of(self._file, made.line)
        self._rivals[number] = Rival(number, item.name, place, item.model, item.completion, item.weight_micro)
        self._responses[number] = item.identity.response
        self._note(made, number)
        return _ACCEPTED

    def _note(self, made: _Candidate, number: int) -> None:
        """Note the ids of a record as those of an output."""
        for key in made.keys:
            if key not in self._known:
                self._known[key] = number
                self._new.append((key, number))


def _of_model(item: LoggedOutput, names: ModelNames) -> LoggedOutput:
    found = names.model_of(item.model)
    return item if found is None or found == item.model else replace(item, model=found)


def _says_the_same(rival: Rival, item: LoggedOutput) -> bool:
    """Return True if a record tells of a rival with the same text and weight; of a purged one its id has to do."""
    return rival.weight_micro == item.weight_micro and rival.completion in {None, item.completion}


def _doubled(rivals: Sequence[Rival]) -> str:
    named = " and ".join(map(str, rivals))
    return (
        f"shows that {named} are one call, logged twice; take one out: credit outputs unvalue {rivals[-1].name}"
        " --reason ..."
    )


def _is_storable(item: LoggedOutput) -> bool:
    identity = item.identity
    texts = [item.source, item.external_id, item.model, item.prompt, item.completion, item.thoughts, item.template]
    texts += [part for message in item.messages for part in (message.role, message.content, message.extra)]
    texts += [identity.trace, identity.span, identity.parent, identity.response, identity.request]
    return bool(item.external_id) and 0 <= item.weight_micro <= MAX_AMOUNT and is_storable(*texts)


def _named(conn: Connection, items: Sequence[LoggedOutput]) -> dict[tuple[str, str], _Named]:
    """Return the outputs of the ledger that have the names of these."""
    key = (output.c.source, output.c.external_id)
    said = (output.c.id, output.c.content_sha256, output.c.user_hmac, output.c.text_hmac, output.c.salt)
    query = among(
        conn, select(*key, *said, output.c.purge_id), key, {(item.source, item.external_id) for item in items}
    )
    return {
        (source, name): _Named(number, digest, user or "", text or "", salt or "", purge is not None)
        for source, name, number, digest, user, text, salt, purge in conn.execute(query)
    }
