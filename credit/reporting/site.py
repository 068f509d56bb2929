"""A folder of linked pages: months, their attribution by collection, day and output, providers, and statements.

Nobody needs a server for it, and it loads nothing from elsewhere. The script on its pages, which searches and sorts
their tables, is allowed by its hash alone.

    index.html                       months and providers
    months/PERIOD.html               attribution by collection; PERIOD-day.html and PERIOD-output.html
    providers/KEY.html               a provider's months
    statements/PERIOD/KEY.html       the statement of a closed month
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from credit.accounting.amounts import format_amount, parse_amount
from credit.errors import InputError
from credit.ledger.periods import Period, periods
from credit.ledger.pools import standing_pools
from credit.ledger.providers import providers
from credit.ledger.statements import issuers
from credit.records import HOUSE
from credit.reporting.frames import By, latest_statements, trends
from credit.reporting.pages import AttributionView, PageLink, SitePlace, attribution_views, statement_page, template
from credit.storage import create_file, make_folder, make_folder_beside, replace_folder, sync_folder

_INDEX = "index.html"
_VIEWS: Mapping[By, str] = {"collection": "", "day": "-day", "output": "-output"}
"""Views of a month, with the ends of their pages' names."""

Progress = Callable[[int, int], None]
"""Called with the number of pages written, and of all."""

Money = Sequence[tuple[str, str]]
"""Amounts as decimal strings, each with its currency."""


@dataclass(frozen=True, slots=True)
class SiteMonth:
    """A month on the first page."""

    period: Period
    href: str
    outputs: int
    credit_micro: int
    credited: int
    pools: Money
    payable: Money


@dataclass(frozen=True, slots=True)
class SiteProvider:
    """A provider on the first page: its share of the last month, and what was payable in all months."""

    key: str
    name: str
    href: str
    share: float
    payable: Money


def write_site(conn: Connection, books_folder: Path, out: Path, progress: Progress | None = None) -> list[Path]:
    """Write the site into a folder, whole or not at all, in place of an earlier site; return its pages.

    Args:
        conn: from `Ledger.read`.
        books_folder: folder of the score books.
        out: the folder: a new one, or an earlier site.
        progress: called after every page.

    Raises:
        InputError: `out` holds something else, or is a link.
        IntegrityError: a score book or a statement was changed.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / _INDEX).is_file())):
        raise InputError(f"{out} holds something else than a site; choose another --out")
    if out.is_symlink():
        raise InputError(f"{out} is a link; write the site to a folder of its own: --out DIR")
    make_folder(out.absolute().parent)
    beside = make_folder_beside(out.absolute())
    try:
        written = []
        made = _Site(conn, books_folder)
        total = made.count
        for name, content in made.pages():
            path = beside / name
            make_folder(path.parent)
            with create_file(path) as file:
                file.write(content.encode())
            written.append(out / name)
            if progress:
                progress(len(written), total)
        replace_folder(beside, out.absolute())
        sync_folder(out.absolute().parent)
    finally:
        if beside.is_dir():
            shutil.rmtree(beside)
    return written


class _Site:
    def __init__(self, conn: Connection, books_folder: Path) -> None:
        self._conn, self._books = conn, books_folder
        self._periods = periods(conn)
        self._names = {item.key: item.name for item in providers(conn) if item.key != HOUSE}
        self._of_month: dict[str, list[dict[str, Any]]] = {}
        self._of_provider: dict[str, list[dict[str, Any]]] = {}
        for row in trends(conn, books_folder).iter_rows(named=True):
            self._of_month.setdefault(row["period"], []).append(row)
            if row["provider"] in self._names:
                self._of_provider.setdefault(row["provider"], []).append(row)
        self._earning = frozenset(self._of_provider)
        self._closed = [period.id for period in self._periods if period.status == "closed"]
        # Their names alone: the statements of years are more than should be in memory.
        self._told = {(period, item.provider) for period in self._closed for item in latest_statements(conn, period)}

    @property
    def count(self) -> int:
        """Number of pages."""
        return 1 + len(_VIEWS) * len(self._periods) + len(self._earning) + len(self._told)

    def pages(self) -> Iterator[tuple[str, str]]:
        """Yield the names of all pages with their content."""
        months = []
        for period in self._periods:
            views = attribution_views(self._conn, self._books, period.id, list(_VIEWS))
            for view in views:
                place = self._place("../", self._views_of(period.id, view.by), self._earning)
                name = f"months/{period.id}{_VIEWS[view.by]}.html"
                yield name, template("attribution.html.j2").render(view=view, place=place)
            months.append(self._month(period, views[0]))
        for month in self._closed:
            for item in latest_statements(self._conn, month):
                links = [PageLink("Month", f"../../months/{month}.html")]
                if item.provider in self._earning:
                    links.append(PageLink("Provider", f"../../providers/{item.provider}.html"))
                place = self._place("../../", links)
                yield f"statements/{month}/{item.provider}.html", statement_page(item, place=place)
        for key in sorted(self._earning):
            yield f"providers/{key}.html", self._provider(key)
        yield _INDEX, self._index(months)

    def _place(self, up: str, links: Sequence[PageLink], people: frozenset[str] = frozenset()) -> SitePlace:
        first = [PageLink("All months", f"{up}{_INDEX}")] if up else []
        return SitePlace(tuple([*first, *links]), f"{up}providers/", people)

    def _views_of(self, period: str, here: By) -> list[PageLink]:
        return [PageLink(f"By {by}", f"{period}{end}.html", by == here) for by, end in _VIEWS.items()]

    def _month(self, period: Period, view: AttributionView) -> SiteMonth:
        pools: dict[str, int] = {}
        for pool in standing_pools(self._conn, period.id):
            pools[pool.currency] = pools.get(pool.currency, 0) + pool.net_minor
        return SiteMonth(
            period,
            f"months/{period.id}.html",
            view.outputs,
            view.credit_micro,
            view.credited,
            [(format_amount(minor, currency), currency) for currency, minor in sorted(pools.items())],
            _payable(self._of_month.get(period.id, [])),
        )

    def _provider(self, key: str) -> str:
        own = self._of_provider[key]
        longest = max(row["share"] for row in own)
        rows = [
            {
                **row,
                "length": round(100 * max(0.0, row["share"]) / longest, 2) if longest > 0 else 0,
                "href": f"../statements/{row['period']}/{key}.html" if (row["period"], key) in self._told else "",
            }
            for row in reversed(own)
        ]
        place = self._place("../", [])
        return template("site-provider.html.j2").render(key=key, name=self._names[key], rows=rows, place=place)

    def _index(self, months: Sequence[SiteMonth]) -> str:
        # A month that has only its pool so far tells nobody's share.
        credited = (month for month, rows in self._of_month.items() if any(row["credit_micro"] for row in rows))
        last = max(credited, default="")
        shares = {row["provider"]: row["share"] for row in self._of_month.get(last, [])}
        people = [
            SiteProvider(
                key,
                self._names[key],
                f"providers/{key}.html",
                shares.get(key, 0.0),
                _payable(self._of_provider[key]),
            )
            for key in sorted(self._earning, key=lambda key: (-shares.get(key, 0.0), key))
        ]
        named = issuers(self._conn)
        issuer = named[-1].issuer.name if named else ""
        facts = {"months": months[::-1], "people": people, "last": last, "issuer": issuer}
        return template("site-index.html.j2").render(facts, place=self._place("", []))


def _payable(rows: Sequence[Mapping[str, Any]]) -> Money:
    """Return the sums of what is payable, by currency."""
    sums: dict[str, int] = {}
    for row in rows:
        if row["currency"]:
            sums[row["currency"]] = sums.get(row["currency"], 0) + parse_amount(row["payable"], row["currency"])
    return [(format_amount(minor, currency), currency) for currency, minor in sorted(sums.items())]
