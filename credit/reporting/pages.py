"""Reports as HTML: one file each, with its own style and charts, that asks for nothing from anywhere.

Every text from outside is escaped, and what could turn the direction of writing is replaced. Nothing in a page says
when it was made: the same ledger gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from credit.accounting.credits import Policy
from credit.accounting.statement_lines import STATEMENT_LINES
from credit.ledger.indexes import indexes
from credit.ledger.outputs import pending_count
from credit.ledger.periods import Period
from credit.ledger.providers import providers
from credit.ledger.score_books import existing_period, posted_books
from credit.ledger.set_aside import standing
from credit.ledger.statements import Statement
from credit.records import HOUSE, UNATTRIBUTED
from credit.reporting.charts import DailyChart, ShareBar, daily_chart, share_chart
from credit.reporting.frames import BY_COLLECTION, BY_DAY_AND_PROVIDER, BY_PROVIDER, Totals, totals
from credit.reporting.tables import alike_pairs
from credit.reporting.templates import template


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the attribution table: a provider, or one of its collections. Measures in nats.

    `share_low` and `share_high` are the 90 % interval of the share (see `Totals`), `not_told_from` the keys of those
    whose shares cannot be told apart from it.
    """

    name: str
    key: str
    outputs: int
    influence: float
    support: float
    effect: float
    credit_micro: int
    share: float
    share_low: float
    share_high: float
    not_told_from: str = ""


@dataclass(frozen=True, slots=True)
class ProviderLines:
    """A provider's row and those of its collections."""

    head: Line
    house: bool
    collections: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Method:
    """How credits of a period were computed."""

    model: str
    index: str
    policy: Policy


@dataclass(frozen=True, slots=True)
class AttributionView:
    """What the attribution page shows.

    `pending` counts outputs of the month that are not valued yet, `set_aside` those that cannot be. `alike` names
    providers with those whose shares cannot be told apart from theirs. `covers_attribution`: see `Totals`.
    """

    period: Period
    outputs: int
    pending: int
    set_aside: int
    credit_micro: int
    corrections_micro: int
    credited: int
    house_share: float
    unattributed_share: float
    providers: tuple[ProviderLines, ...]
    alike: tuple[tuple[str, tuple[str, ...]], ...]
    covers_attribution: bool
    methods: tuple[Method, ...]
    shares: tuple[ShareBar, ...]
    daily: DailyChart


def attribution_page(conn: Connection, books_folder: Path, period: str) -> str:
    """Return the attribution report of a period, open or closed.

    Args:
        conn: from `Ledger.read`.
        books_folder: where the score books lie.
        period: the month, `YYYY-MM`.

    Raises:
        LedgerError: the ledger has no such period.
        IntegrityError: a score book is missing or changed, or the ledger says something else.
    """
    view = _attribution_view(conn, books_folder, period)
    return template("attribution.html.j2").render(view=view)


def statement_page(item: Statement) -> str:
    """Return a statement as a page: every number is from its stored text, whose SHA-256 the page prints."""
    body = json.loads(item.body_json)
    policies = [Policy.from_json(text) for text in body["policies"]]
    return template("statement.html.j2").render(statement=item, body=body, policies=policies, lines=STATEMENT_LINES)


def readme_text(item: Statement, public_key: str = "") -> str:
    """Return what a provider's export says about its files, in plain text; `public_key`: of the key that signed it."""
    body = json.loads(item.body_json)
    name, validation = body["provider"]["name"], body.get("validation", {"unvalidated": "", "words": []})
    facts = {"statement": item, "name": name, "validation": validation, "public_key": public_key}
    facts["issuer"] = body.get("issuer")
    return template("README.txt.j2").render(facts)


def _attribution_view(conn: Connection, books_folder: Path, period: str) -> AttributionView:
    found = existing_period(conn, period)
    sums = totals(conn, books_folder, period, [BY_PROVIDER, BY_COLLECTION, BY_DAY_AND_PROVIDER])
    known = providers(conn)
    names = {item.key: item.name for item in known}
    house = {item.key for item in known if item.kind == "house"}
    lines = _lines(sums, names, house)
    pairs = alike_pairs(
        {item.head.key: item.head.share for item in lines}, {item.head.key: item.head.not_told_from for item in lines}
    )
    credited = {item.head.key: item.head.credit_micro for item in lines}
    intervals = {item.head.key: (item.head.share_low, item.head.share_high) for item in lines}
    by_day: dict[str, dict[str, int]] = {}
    for row in sums.frames[BY_DAY_AND_PROVIDER].iter_rows(named=True):
        by_day.setdefault(row["day"], {})[row["provider"]] = row["credit_micro"]
    return AttributionView(
        period=found,
        outputs=sums.outputs,
        pending=pending_count(conn, since=period, through=period),
        set_aside=len(standing(conn, period)),
        credit_micro=sums.credit_micro,
        corrections_micro=sums.corrections_micro,
        credited=sum(1 for key, micro in credited.items() if micro > 0 and key not in house),
        house_share=sum(item.head.share for item in lines if item.house),
        unattributed_share=sum(
            part.share for item in lines for part in item.collections if (part.key, part.name) == (HOUSE, UNATTRIBUTED)
        ),
        providers=lines,
        alike=tuple((names[key], tuple(names[other] for other in others)) for key, others in pairs),
        covers_attribution=sums.covers_attribution,
        methods=_methods(conn, period),
        shares=share_chart(credited, names, house, intervals),
        daily=daily_chart(by_day, names, house, period),
    )


def _lines(sums: Totals, names: Mapping[str, str], house: Collection[str]) -> tuple[ProviderLines, ...]:
    """Return every provider with its collections: those with most credits first, the house last."""
    parts: dict[str, list[Line]] = {}
    for row in sums.frames[BY_COLLECTION].iter_rows(named=True):
        line = Line(key=row.pop("provider"), name=row.pop("collection"), **row)
        parts.setdefault(line.key, []).append(line)
    found = []
    for row in sums.frames[BY_PROVIDER].iter_rows(named=True):
        key = row.pop("provider")
        own = sorted(parts[key], key=lambda line: (-line.credit_micro, line.name))
        found.append(ProviderLines(Line(key=key, name=names[key], **row), key in house, tuple(own)))
    return tuple(sorted(found, key=lambda item: (item.house, -item.head.credit_micro, item.head.key)))


def _methods(conn: Connection, period: str) -> tuple[Method, ...]:
    """Return how the books were made whose credits were posted in a period."""
    models = {item.fingerprint: item.model for item in indexes(conn)}
    made = {(item.index_fingerprint, item.policy_json) for item in posted_books(conn, period) if item.transactions}
    return tuple(Method(models[index], index, Policy.from_json(policy)) for index, policy in sorted(made))
