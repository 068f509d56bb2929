"""Identities of calls: the signs that two records are of one call, whatever their loggers, files and runs.

A call is known by the id of its response, by its span in a trace, and by the id of its request. `call_identity` keeps
each of these for one output. Tracers also write spans within spans for one call (of a framework and of its client,
say): the innermost is the call, and the others hold it. `span_link` keeps the spans, so a span in one file can tie
two calls in others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, ScalarSelect, exists, or_, select

from credit.ledger.schema import call_identity, ingest_file, model, output, span_link, unvalued
from credit.ledger.sql import among, load_rows, next_id
from credit.records import CallIdentity, SpanLink, output_name

Key = tuple[str, str, str, int]
"""Kind, scope, value and choice of an identity, as `call_identity` keeps them."""
Span = tuple[str, str]
"""Trace and span."""


class Rival(NamedTuple):
    """An output that a record may tell of once more.

    Attributes:
        id: number of the output.
        name: its name in reports.
        place: the file and line that it was logged from.
        model: name of its model.
        completion: its text; None after a purge.
        weight_micro: its weight in micro-credits.
        unvalued: a person took it out.
    """

    id: int
    name: str
    place: str
    model: str
    completion: str | None
    weight_micro: int
    unvalued: bool = False

    def __str__(self) -> str:
        return f"{self.name!r} ({self.place})"


def keys_of(identity: CallIdentity) -> list[Key]:
    """Return the keys of an identity, the surest first."""
    keys: list[Key] = []
    if identity.response:
        keys.append(("response", "", identity.response, identity.choice))
    if identity.trace and identity.span:
        keys.append(("span", identity.trace, identity.span, identity.choice))
    if identity.request:
        keys.append(("request", "", identity.request, identity.choice))
    return keys


def outputs_known_by(conn: Connection, keys: Iterable[Key]) -> dict[Key, int]:
    """Return the ids of the outputs with these identities."""
    columns = (call_identity.c.kind, call_identity.c.scope, call_identity.c.value, call_identity.c.choice)
    query = among(conn, select(*columns, call_identity.c.output_id), columns, dict.fromkeys(keys))
    return {(kind, scope, name, choice): number for kind, scope, name, choice, number in conn.execute(query)}


def add_identities(conn: Connection, found: Sequence[tuple[Key, int]], ingest_file_id: int) -> None:
    """Record identities of outputs, none of which the ledger knows."""
    if not found:
        return
    first = next_id(conn, call_identity)
    rows = [(number, *key, output_id, ingest_file_id) for number, (key, output_id) in enumerate(found, first)]
    columns = ("id", "kind", "scope", "value", "choice", "output_id", "ingest_file_id")
    load_rows(conn, call_identity, columns, rows)


def responses_of(conn: Connection, ids: Iterable[int]) -> dict[int, str]:
    """Return the response ids of outputs, where they are known."""
    query = select(call_identity.c.output_id, call_identity.c.value).where(call_identity.c.kind == "response")
    rows = conn.execute(among(conn, query, [call_identity.c.output_id], [(number,) for number in ids]))
    return {number: value for number, value in rows}


def rivals(conn: Connection, ids: Iterable[int], file: str = "") -> dict[int, Rival]:
    """Return outputs by id, as rivals; `file` is the name of the one being read, which has no row yet."""
    names = ("id", "source", "external_id", "line", "completion", "purge_id", "weight_micro")
    columns = [output.c[name] for name in names]
    query = (
        select(*columns, model.c.name.label("model"), ingest_file.c.name.label("file"), _last_act().label("act"))
        .join_from(output, model)
        .outerjoin(ingest_file, ingest_file.c.id == output.c.ingest_file_id)
    )
    found: dict[int, Rival] = {}
    for row in conn.execute(among(conn, query, [output.c.id], [(number,) for number in set(ids)])):
        name = output_name(row.source, row.external_id)
        place = place_of(row.file or file, row.line)
        taken_out = row.act == "unvalued"
        said = row.completion if row.purge_id is None else None
        found[row.id] = Rival(row.id, name, place, row.model, said, row.weight_micro, taken_out)
    return found


def place_of(file: str, line: int | None) -> str:
    """Return the place of an output in words."""
    return (file or "a file") if line is None else f"{file or 'a file'}:{line}"


def _last_act() -> ScalarSelect[str]:
    return (
        select(unvalued.c.action)
        .where(unvalued.c.output_id == output.c.id)
        .order_by(unvalued.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )


def add_links(conn: Connection, links: Iterable[SpanLink], ingest_file_id: int) -> list[SpanLink]:
    """Record spans, and return those that say something new."""
    wanted = {
        (link.trace, link.span, link.parent, int(link.is_call)): link for link in links if link.trace and link.span
    }
    if not wanted:
        return []
    columns = (span_link.c.trace, span_link.c.span, span_link.c.parent, span_link.c.is_call)
    query = among(conn, select(*columns), columns[:2], {(trace, span) for trace, span, _, _ in wanted})
    known = {(trace, span, parent, is_call) for trace, span, parent, is_call in conn.execute(query)}
    new = [key for key in wanted if key not in known]
    first = next_id(conn, span_link)
    rows = [(number, *key, ingest_file_id) for number, key in enumerate(new, first)]
    load_rows(conn, span_link, ("id", "trace", "span", "parent", "is_call", "ingest_file_id"), rows)
    return [wanted[key] for key in new]


def spans_around(conn: Connection, spans: Iterable[Span]) -> dict[Span, list[Span]]:
    """Return for each span those around it, the nearest first."""
    wanted = list(dict.fromkeys(spans))
    parents: dict[Span, Span] = {}
    met = set(wanted)
    ahead = wanted
    while ahead:
        above: dict[Span, None] = {}
        columns = (span_link.c.trace, span_link.c.span, span_link.c.parent)
        query = among(conn, select(*columns), columns[:2], ahead).where(span_link.c.parent != "")
        for trace, span, parent in conn.execute(query.order_by(span_link.c.id)):
            parents.setdefault((trace, span), (trace, parent))
            above[trace, parent] = None
        ahead = [span for span in above if span not in met]
        met.update(ahead)
    return {span: list(_climb(span, parents)) for span in wanted}


def _climb(span: Span, parents: dict[Span, Span]) -> Iterator[Span]:
    passed = {span}  # broken logs hold spans that are their own ancestors
    above = parents.get(span)
    while above is not None and above not in passed:
        yield above
        passed.add(above)
        above = parents.get(above)


def calls_within(conn: Connection, around: dict[Span, list[Span]]) -> dict[Span, set[Span]]:
    """Return the calls that spans hold; a span without any is left out.

    In broken logs spans can hold one another; then the first by its id is the call.

    Args:
        conn: the ledger.
        around: the spans, each with those around it: `spans_around`.
    """
    found: dict[Span, set[Span]] = defaultdict(set)
    ahead: dict[Span, set[Span]] = {span: {span} for span in around}
    met: dict[Span, set[Span]] = defaultdict(set)
    while ahead:
        below: dict[Span, set[Span]] = defaultdict(set)
        columns = (span_link.c.trace, span_link.c.parent, span_link.c.span, span_link.c.is_call)
        for trace, parent, span, is_call in conn.execute(among(conn, select(*columns), columns[:2], ahead)):
            here = (trace, span)
            holders = {
                top
                for top in ahead[trace, parent] - met[here]
                if top != here and (here not in around[top] or here < top)
            }
            met[here] |= holders
            for top in holders if is_call else ():
                found[top].add(here)
            if holders:
                below[here] |= holders
        ahead = below
    return dict(found)


def has_told(conn: Connection, ingest_file_id: int) -> bool:
    """Return True if a file has told of a span or an identity that was new."""
    told = (exists().where(table.c.ingest_file_id == ingest_file_id) for table in (call_identity, span_link))
    return bool(conn.execute(select(or_(*told))).scalar_one())
