"""Pages: attribution report, statement and check of training data as HTML, and the note in a provider's export.

A page is one file with its own style and charts, and loads nothing. Texts from outside are escaped, and characters
that turn the direction of writing are replaced. No page tells the time of its making: the same ledger gives the same
bytes.

The templates stand in `reports/templates`; filters write numbers, months and names in them. A name without a value is
an error, and never an empty place on a page.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from sqlalchemy import Connection

from credit.accounting.amounts import format_percent
from credit.accounting.credits import Policy
from credit.accounting.statement_lines import STATEMENT_LINES
from credit.ledger.indexes import indexes
from credit.ledger.outputs import pending_count
from credit.ledger.periods import Period, existing_period
from credit.ledger.providers import providers
from credit.ledger.score_books import posted_books
from credit.ledger.statements import Statement
from credit.ledger.unvalued import unvalued_outputs
from credit.records import HOUSE, UNATTRIBUTED
from credit.reporting.charts import DailyChart, ShareBar, daily_chart, share_chart
from credit.reporting.frames import (
    BY_COLLECTION,
    BY_DAY,
    BY_DAY_AND_PROVIDER,
    BY_PROVIDER,
    By,
    Totals,
    heaviest_outputs,
    totals,
)
from credit.reporting.signatures import LedgerProof
from credit.reporting.tables import credits_text, nats_text, rank_text, share_text
from credit.resources import resource
from credit.text import printable

if TYPE_CHECKING:
    from credit.fidelity.data_check import DataCheck  # it loads torch, which no other page needs

_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August",
    "September", "October", "November", "December",
)  # fmt: skip
"""Spelled here, because the calendar's names change with the locale."""


MOST_OUTPUTS = 200
"""Outputs that the page lists, the heaviest first. A month can have millions; the CSV has all of them."""


MOST_PROVIDERS = 400
"""Providers that the page lists one by one; the others share a line. The CSV has all of them."""


@dataclass(frozen=True, slots=True)
class ReportLine:
    """A line of the attribution table: a provider, one of its collections, or a day. Measures are in nats.

    `share_low` and `share_high` are the 90 % interval of the share (see `Totals`), `rank_low` and `rank_high` the
    places among the providers that it can have.
    """

    name: str
    key: str
    outputs: int
    influence: float
    support: float
    effect: float
    credit_micro: int
    share: float
    share_low: float = 0.0
    share_high: float = 0.0
    rank_low: int | None = None
    rank_high: int | None = None

    @property
    def rank(self) -> str:
        """The places as text."""
        return rank_text(self.rank_low, self.rank_high)


@dataclass(frozen=True, slots=True)
class HeavyOutput:
    """An output with its credits, the number of groups that got some, and the one that got most."""

    name: str
    day: str
    credit_micro: int
    groups: int
    provider: str
    collection: str
    group_micro: int


@dataclass(frozen=True, slots=True)
class ProviderLines:
    """A provider's line and those of its collections; `house` is True where the house gets the credits."""

    head: ReportLine
    house: bool
    collections: tuple[ReportLine, ...]


@dataclass(frozen=True, slots=True)
class ValuationMethod:
    """The model, index and policy behind credits of a period."""

    model: str
    index: str
    policy: Policy


@dataclass(frozen=True, slots=True)
class AttributionView:
    """Everything on the attribution page.

    `pending` counts outputs of the month without a value so far, `unvalued` those that never get one.
    `others` are the providers beyond those that the page lists. `covers_attribution` is as in `Totals`. `days` and
    `heaviest` have lines where a page is by day or by output.
    """

    period: Period
    by: By
    outputs: int
    pending: int
    unvalued: int
    credit_micro: int
    corrections_micro: int
    credited: int
    house_share: float
    unattributed_share: float
    providers: tuple[ProviderLines, ...]
    others: tuple[ProviderLines, ...]
    covers_attribution: bool
    methods: tuple[ValuationMethod, ...]
    shares: tuple[ShareBar, ...]
    daily: DailyChart
    days: tuple[ReportLine, ...]
    heaviest: tuple[HeavyOutput, ...]


@dataclass(frozen=True, slots=True)
class PageLink:
    """A link to a page of a site; `here` if it is this one."""

    text: str
    href: str
    here: bool = False


@dataclass(frozen=True, slots=True)
class SitePlace:
    """Place of a page in a site.

    Attributes:
        links: links at its top.
        people: folder of the providers' pages, as the page sees it.
        known: keys of the providers with a page.
    """

    links: tuple[PageLink, ...]
    people: str = ""
    known: frozenset[str] = frozenset()

    @property
    def script(self) -> str:
        """The script that searches and sorts tables."""
        return _script()

    @property
    def script_sha256(self) -> str:
        """Its hash in Base64, by which the page allows it."""
        return base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode()


def attribution_page(conn: Connection, books_folder: Path, period: str, by: By = "provider") -> str:
    """Return the attribution report of a period, open or closed.

    Args:
        conn: from `Ledger.read`.
        books_folder: folder of the score books.
        period: the month, `YYYY-MM`.
        by: the rows of its table; those of `collection` stand below their providers'. By `output`, the page lists the
            `MOST_OUTPUTS` with most credits.

    Raises:
        LedgerError: the ledger has no such period.
        IntegrityError: a score book is missing or changed, or the ledger says something else.
    """
    (view,) = attribution_views(conn, books_folder, period, [by])
    return template("attribution.html.j2").render(view=view)


def statement_page(
    item: Statement, public_key: str = "", proof: LedgerProof | None = None, place: SitePlace | None = None
) -> str:
    """Return a statement as a page, for a signed folder with the signer's key and the proof.

    Every number is from its stored text; the page prints the SHA-256 of that text.
    """
    body = json.loads(item.body_json)
    facts = {"statement": item, "body": body, "lines": STATEMENT_LINES, "public_key": public_key, "proof": proof}
    facts |= {"policies": [Policy.from_json(text) for text in body["policies"]], "place": place}
    return template("statement.html.j2").render(facts)


def data_check_page(check: DataCheck) -> str:
    """Return a check of training data as a page."""
    return template("data-check.html.j2").render(check=check)


def readme_text(item: Statement, public_key: str = "", proof: LedgerProof | None = None) -> str:
    """Return the note about the files of a provider's export, for a signed one with the signer's key and the proof."""
    body = json.loads(item.body_json)
    name, validation = body["provider"]["name"], body.get("validation", {"unvalidated": "", "words": []})
    facts = {"statement": item, "name": name, "validation": validation, "public_key": public_key, "proof": proof}
    facts["issuer"] = body.get("issuer")
    return template("README.txt.j2").render(facts)


def attribution_views(conn: Connection, books_folder: Path, period: str, wanted: Sequence[By]) -> list[AttributionView]:
    """Return everything on the attribution pages of a period by some rows, from one pass; see `attribution_page`."""
    found = existing_period(conn, period)
    days = [BY_DAY] if "day" in wanted else []
    sums = totals(conn, books_folder, period, [BY_PROVIDER, BY_COLLECTION, BY_DAY_AND_PROVIDER, *days])
    known = providers(conn)
    names = {item.key: item.name for item in known}
    house = {item.key for item in known if item.kind == "house"}
    lines = _lines(sums, names, house)
    earning = tuple(item for item in lines if not item.house)
    credited = {item.head.key: item.head.credit_micro for item in lines}
    intervals = {item.head.key: (item.head.share_low, item.head.share_high) for item in lines}
    by_day: dict[str, dict[str, int]] = {}
    for row in sums.frames[BY_DAY_AND_PROVIDER].iter_rows(named=True):
        by_day.setdefault(row["day"], {})[row["provider"]] = row["credit_micro"]
    heaviest = heaviest_outputs(conn, books_folder, period, MOST_OUTPUTS).to_dicts() if "output" in wanted else []
    whole = AttributionView(
        period=found,
        by="provider",
        outputs=sums.outputs,
        pending=pending_count(conn, since=period, through=period),
        unvalued=len(unvalued_outputs(conn, period)),
        credit_micro=sums.credit_micro,
        corrections_micro=sums.corrections_micro,
        credited=sum(1 for key, micro in credited.items() if micro > 0 and key not in house),
        house_share=sum(item.head.share for item in lines if item.house),
        unattributed_share=sum(
            part.share for item in lines for part in item.collections if (part.key, part.name) == (HOUSE, UNATTRIBUTED)
        ),
        providers=(*earning[:MOST_PROVIDERS], *(item for item in lines if item.house)),
        others=earning[MOST_PROVIDERS:],
        covers_attribution=sums.covers_attribution,
        methods=_methods(conn, period),
        shares=share_chart(credited, names, house, intervals),
        daily=daily_chart(by_day, names, house, period),
        days=tuple(_day_line(row) for key in days for row in sums.frames[key].iter_rows(named=True)),
        heaviest=tuple(
            HeavyOutput(row.pop("output_id"), provider=names[row.pop("provider")], **row) for row in heaviest
        ),
    )
    return [replace(whole, by=by) for by in wanted]


def _day_line(row: dict[str, Any]) -> ReportLine:
    day = row.pop("day")
    return ReportLine(name=day, key=day, **row)


def _lines(sums: Totals, names: Mapping[str, str], house: Collection[str]) -> tuple[ProviderLines, ...]:
    """Return every provider with its collections, the one with most credits first, the house last."""
    parts: dict[str, list[ReportLine]] = {}
    for row in sums.frames[BY_COLLECTION].iter_rows(named=True):
        line = ReportLine(key=row.pop("provider"), name=row.pop("collection"), **row)
        parts.setdefault(line.key, []).append(line)
    found = []
    for row in sums.frames[BY_PROVIDER].iter_rows(named=True):
        key = row.pop("provider")
        own = sorted(parts[key], key=lambda line: (-line.credit_micro, line.name))
        found.append(ProviderLines(ReportLine(key=key, name=names[key], **row), key in house, tuple(own)))
    return tuple(sorted(found, key=lambda item: (item.house, -item.head.credit_micro, item.head.key)))


def _methods(conn: Connection, period: str) -> tuple[ValuationMethod, ...]:
    """Return the model, index and policy of every score book with credits in a period."""
    models = {item.fingerprint: item.model for item in indexes(conn)}
    made = {(item.index_fingerprint, item.policy_json) for item in posted_books(conn, period) if item.transactions}
    return tuple(ValuationMethod(models[index], index, Policy.from_json(policy)) for index, policy in sorted(made))


@functools.cache
def _script() -> str:
    return (resource("reports/templates") / "site.js").read_text(encoding="utf-8")


def template(name: str) -> jinja2.Template:
    """Return the template in the file `name`."""
    return _environment().get_template(name)


@functools.cache
def _environment() -> jinja2.Environment:
    # Strict: a misspelt name must fail a test, not print a hole on a statement.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resource("reports/templates")),
        autoescape=jinja2.select_autoescape(disabled_extensions=["txt.j2"], default=True, default_for_string=True),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # A page stands alone unless it is given a place in a site.
    environment.globals["place"] = None
    environment.filters |= {
        "amount": _amount_text,
        "count": "{:,}".format,
        "credits": lambda credit_micro: _minus(credits_text(int(credit_micro))),
        "fraction": _fraction_text,
        "day": lambda moment: moment.date().isoformat(),
        "month": _month_text,
        "percent": lambda ppm: format_percent(ppm).replace("%", " %"),
        "nats": lambda nats: _minus(nats_text(nats)),
        "plain": printable,
        "share": lambda share: _minus(share_text(share)),
        "signed": lambda amount: ("" if amount.startswith("-") else "+") + _amount_text(amount),
    }
    return environment


def _amount_text(amount: str) -> str:
    """Return a decimal string with commas between thousands. It stays text: no digit can be lost."""
    whole, point, fraction = amount.lstrip("-").partition(".")
    return ("−" if amount.startswith("-") else "") + f"{int(whole):,}{point}{fraction}"


def _fraction_text(fraction: str) -> str:
    """Return `credits/total` as percent."""
    part, whole = map(int, fraction.split("/"))
    return _minus(share_text(part / whole if whole else 0.0))


def _month_text(period: str) -> str:
    return f"{_MONTHS[int(period[5:]) - 1]} {period[:4]}"


def _minus(text: str) -> str:
    return text.replace("-", "−", 1) if text.startswith("-") else text
