"""Pages in a real browser, on a phone, a tablet and a desk, light, dark and printed. It needs Debian's chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from credit.ledger.database import Ledger
from credit.ledger.providers import import_providers
from credit.records import Group, Provider
from credit.reporting.site import write_site
from tests.reporting import ledgers
from tests.reporting.ledgers import OCTOBER, Valued, at

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed: apt-get install chromium")

MANY = 300
NAMES = (
    "دار النشر العربية للكتب والمجلات",
    "Verlag " + "Donaudampfschifffahrtsgesellschaft" * 3,
    "北京大学出版社",
    "<b>Bold & Sons</b>",
    "a" * 120,
)
WIDTHS = (360, 768, 1280)
PAGES = {
    "index.html": 300_000,
    "months/2026-10.html": 300_000,
    "months/2026-10-day.html": 60_000,
    "months/2026-10-output.html": 60_000,
    "providers/p000.html": 30_000,
    "statements/2026-10/p000.html": 60_000,
    "months/2026-11.html": 40_000,
}
"""Pages of the site, each with the most bytes that it may have."""


@pytest.fixture(scope="module")
def site(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of a month with 300 providers, some with hostile names, and of a month without outputs."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copyfile(sqlite_template, folder / "credit.db")
    named = [
        Provider(f"p{number:03}", NAMES[number] if number < len(NAMES) else f"Provider {number}")
        for number in range(MANY)
    ]
    with Ledger.open(f"sqlite:///{folder / 'credit.db'}") as ledger:
        ledgers.add(ledger)
        with ledger.write() as conn:
            import_providers(conn, named, now=ledgers.NOW)
        for day in range(1, 21):
            micro = {
                Group(item.key, "a-" * 30 + "a"): (1.0 + number, 3_000 + number) for number, item in enumerate(named)
            }
            ledgers.value(ledger, folder / "books", [Valued(f"{'long-id-' * 12}{day}", at(10, day), micro)])
        ledgers.close(ledger, OCTOBER)
        with ledger.write() as conn:
            ledgers.pools.add_pool(
                conn, "2026-11", "EUR", gross_minor=5, deductions_minor=0, reference="pool", now=ledgers.NOW
            )
        with ledger.read() as conn:
            write_site(conn, folder / "books", folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-quic"])
        yield found
        found.close()


class Seen:
    """A page in the browser, with what it asked for and what it complained about."""

    def __init__(self, browser: Browser, path: Path, width: int, scheme: Any = "light") -> None:
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        self.page: Page = context.new_page()
        self.asked: list[str] = []
        self.said: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.goto(path.as_uri())

    def close(self) -> None:
        self.page.context.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_every_screen_asks_for_nothing_and_says_nothing(browser, site, name):
    assert (site / name).stat().st_size <= PAGES[name]
    for width in WIDTHS:
        seen = Seen(browser, site / name, width)
        assert seen.asked == [(site / name).as_uri()]
        assert seen.said == []
        wide = seen.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide == 0, f"{name} is {wide} px too wide at {width}"
        if width == WIDTHS[0]:
            seen.page.emulate_media(media="print")
            over = seen.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert over < 400, f"{name} runs {over} px off the paper"
        seen.close()


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(browser, site, name):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    # Colours are those of one style sheet: dark once, on the page with most of them.
    for width, scheme in ((360, "light"), (1280, "dark"))[: 2 if "statements" in name else 1]:
        seen = Seen(browser, site / name, width, scheme)
        found = axe.run(seen.page).response["violations"]
        serious = [
            (item["id"], item["nodes"][0]["html"][:200]) for item in found if item["impact"] in {"serious", "critical"}
        ]
        assert serious == []
        seen.close()


def test_tables_are_searched_and_sorted_in_the_page(browser, site):
    page = Seen(browser, site / "index.html", 1280).page
    people = page.get_by_role("region", name="Providers").locator("tbody tr")
    assert people.count() == MANY
    page.get_by_label("Find in Providers").fill("Provider 29")
    assert [row.split()[1] for row in people.locator("visible=true").all_inner_texts()] == [
        "299",
        *map(str, range(298, 289, -1)),
        "29",
    ]
    page.get_by_label("Find in Providers").fill("")
    page.get_by_role("button", name="Provider", exact=True).click()
    first, second = people.nth(0).inner_text(), people.nth(1).inner_text()
    page.get_by_role("button", name="Provider", exact=True).click()
    assert people.nth(MANY - 1).inner_text() == first != second
    page.get_by_role("button", name="Payable", exact=False).last.click()
    amounts = [float(text.split()[0].replace(",", "")) for text in people.locator("td:last-child").all_inner_texts()]
    assert amounts == sorted(amounts, reverse=True)
    assert page.locator("th[aria-sort]").count() == 1
    page.context.close()
