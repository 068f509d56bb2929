"""The site: links lead somewhere, amounts are the ledger's, and it is written whole or not at all."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from urllib.parse import urljoin

import pytest

from credit.errors import InputError, IntegrityError
from credit.ledger.database import Ledger
from credit.records import Group, Provider
from credit.reporting.frames import latest_statements, payouts, trends
from credit.reporting.site import write_site
from tests.reporting import ledgers
from tests.reporting.ledgers import OCTOBER, SEPTEMBER, Valued, at
from tests.reporting.reading import Page, content

HOSTILE = "<script>alert(1)</script>\"'>&"


@pytest.fixture
def year(month: Ledger, books: Path) -> Ledger:
    """A closed September, a closed October and an open November."""
    ledgers.value(month, books, [Valued("early", at(9, 30), {ledgers.ADA: (1.0, 1_000_000)})])
    ledgers.value(month, books, [Valued("late", at(11, 2), {ledgers.BELL: (1.0, 1_000_000)})])
    ledgers.close(month, SEPTEMBER, 30_000)
    ledgers.close(month, OCTOBER)
    return month


def _site(ledger: Ledger, books: Path, out: Path) -> dict[str, str]:
    with ledger.read() as conn:
        written = write_site(conn, books, out)
    found = {name: raw.decode() for name, raw in content(out).items()}
    assert sorted(path.relative_to(out).as_posix() for path in written) == sorted(found)
    return found


def test_every_link_leads_to_a_page_and_every_page_is_reached(year, books, tmp_path):
    pages = _site(year, books, tmp_path / "site")
    assert {"index.html", "months/2026-11-output.html", "providers/ada.html", "statements/2026-10/bell.html"} <= set(
        pages
    )
    reached, left = set[str](), ["index.html"]
    while left:
        name = left.pop()
        if name in reached:
            continue
        reached.add(name)
        left += [urljoin(name, href) for attribute, href in Page(pages[name]).attributes if attribute == "href"]
    assert reached == set(pages)


def test_pages_load_nothing_and_run_only_the_script_that_they_name(year, books, tmp_path):
    for page in _site(year, books, tmp_path / "site").values():
        read = Page(page)
        assert not read.tags & {"link", "img", "iframe", "object", "embed", "base", "form"}
        assert not [name for name, _ in read.attributes if name.startswith("on") or name in {"src", "style"}]
        assert page.count("<script>") == 1
        assert re.search(r"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-[\w+/]{43}='", page)


def test_amounts_are_those_of_the_ledger(year, books, tmp_path):
    pages = _site(year, books, tmp_path / "site")
    with year.read() as conn:
        told = {(item.period, item.provider): json.loads(item.body_json) for item in latest_statements(conn, OCTOBER)}
        paid = {row["provider"]: row["payable"] for row in payouts(conn, OCTOBER).iter_rows(named=True)}
        rows = trends(conn, books).to_dicts()
    index = Page(pages["index.html"]).text
    assert "1,000.00 EUR" in index
    assert "300.00 EUR" in index
    total = sum(float(row["payable"]) for row in rows if row["provider"] == "ada" and row["currency"])
    assert f"{total:,.2f} EUR" in index
    for (period, provider), body in told.items():
        page = Page(pages[f"statements/{period}/{provider}.html"]).text
        assert body["balances"][0]["payable"] == paid[provider]
        assert f"{float(paid[provider]):,.2f}" in page
        assert f"{float(paid[provider]):,.2f} EUR" in Page(pages[f"providers/{provider}.html"]).text


def test_the_same_ledger_gives_the_same_bytes_and_an_earlier_site_is_replaced(year, books, tmp_path):
    first = _site(year, books, tmp_path / "site")
    (tmp_path / "site" / "old.html").write_text("old")
    assert _site(year, books, tmp_path / "site") == first
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    for out in (tmp_path / "notes", tmp_path / "notes" / "mine.txt"):
        with pytest.raises(InputError, match="something else than a site"):
            _site(year, books, out)
    (tmp_path / "link").symlink_to("site")
    with pytest.raises(InputError, match="is a link"):
        _site(year, books, tmp_path / "link")
    book = next(books.glob("*.parquet"))
    book.write_bytes(book.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="restore it"):
        _site(year, books, tmp_path / "site")
    assert {name: raw.decode() for name, raw in content(tmp_path / "site").items()} == first
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_ledger_without_a_month_says_so(ledger, books, tmp_path):
    pages = _site(ledger, books, tmp_path / "site")
    assert list(pages) == ["index.html"]
    text = Page(pages["index.html"]).text
    assert "Nothing was credited yet" in text
    assert "No provider has earned credits yet" in text


def test_hostile_names_are_text(ledger, books, tmp_path):
    ledgers.add(ledger, [Provider("evil", HOSTILE), *ledgers.PROVIDERS])
    ledgers.value(ledger, books, [Valued(HOSTILE + "\u202e", at(10, 3), {Group("evil", "a<b"): (1.0, 1_000_000)})])
    ledgers.close(ledger, OCTOBER)
    for name, page in _site(ledger, books, tmp_path / "site").items():
        assert "\u202e" not in page, name
        assert page.count("<script>") == 1, name
        assert "alert(1)" not in re.sub(r"&lt;script&gt;alert\(1\)&lt;/script&gt;", "", page), name
    assert "<script>alert(1)</script>" in unescape((tmp_path / "site" / "index.html").read_text())
