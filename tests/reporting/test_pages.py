"""Pages: self-contained, escaped, the same bytes again, and true to the ledger."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from credit.errors import LedgerError
from credit.ledger import terms
from credit.ledger.corrections import adjust, pay_advance
from credit.ledger.database import Ledger
from credit.payments.details import set_provider_details
from credit.records import Group, Provider, Terms
from credit.reporting import pages
from credit.reporting.frames import By, latest_statements
from credit.reporting.frames import attribution as attribution_frame
from credit.reporting.pages import MOST_OUTPUTS, attribution_page, readme_text, statement_page
from tests.reporting import ledgers
from tests.reporting.ledgers import ADA, BELL, ESSAYS, OCTOBER, OWN, Valued, at
from tests.reporting.reading import Page

HOSTILE = "<script>alert(1)</script>\"'>&\u202e"


def attribution(ledger: Ledger, books: Path, period: str = OCTOBER, by: By = "provider") -> str:
    with ledger.read() as conn:
        return attribution_page(conn, books, period, by)


def table_of(page: str, title: str) -> str:
    """Return the text of the page's table with this title."""
    return Page(page).text.partition(title)[2].partition("How it was computed")[0]


def statement(ledger: Ledger, provider: str) -> tuple[str, str]:
    with ledger.read() as conn:
        item = next(item for item in latest_statements(conn, OCTOBER) if item.provider == provider)
    return statement_page(item), item.sha256


def test_pages_load_nothing_and_run_nothing(month, books):
    ledgers.close(month, OCTOBER)
    for page in (attribution(month, books), statement(month, "ada")[0]):
        read = Page(page)
        assert not read.tags & {"script", "link", "img", "iframe", "object", "embed", "a", "base", "form"}
        assert not [name for name, _ in read.attributes if name.startswith("on") or name in {"src", "href", "style"}]
        assert "url(" not in page
        assert "@import" not in page
        assert not re.findall(r"https?://(?!www\.w3\.org/)", page), "only the names of XML's vocabularies"
        assert "default-src 'none'" in page


def test_the_same_ledger_gives_the_same_bytes(month, books):
    ledgers.close(month, OCTOBER)
    assert attribution(month, books) == attribution(month, books)
    assert statement(month, "ada") == statement(month, "ada")
    page = attribution(month, books)
    ledgers.value(month, books, [Valued("november", at(11, 1), {ADA: (1.0, 1)})])
    assert attribution(month, books) == page


def test_hostile_names_are_text(ledger, books):
    ledgers.add(ledger, [Provider("ada", HOSTILE.replace("\u202e", ""))])
    group = Group("ada", HOSTILE)
    ledgers.value(ledger, books, [Valued("o", at(10, 1), {group: (1.0, 1_000_000)})])
    ledgers.close(ledger, OCTOBER)
    for page in (attribution(ledger, books), statement(ledger, "ada")[0]):
        assert "<script" not in page
        assert "\u202e" not in page
        assert HOSTILE.replace("\u202e", "") in Page(page).text
    assert HOSTILE.replace("\u202e", "<U+202E>") in Page(page).text


def test_the_attribution_page_shows_the_ledgers_numbers(month, books):
    text = Page(attribution(month, books)).text
    for shown in ("October 2026", "Open", "5.000000", "2.900000", "58.00 %", "34.00 %", "20.00 %", "Ada Press", "−"):
        assert shown in text
    assert ledgers.INDEX in text
    assert "effect = influence beyond its noise + support; negative values earn nothing" in text
    assert "corrections" not in text
    assert "What the numbers do not mean" in text


@pytest.mark.parametrize(
    ("by", "title", "names"),
    [
        ("provider", "By provider", ["Ada Press", "Bell & Sons", "Own docs"]),
        ("collection", "By provider and collection", ["essays", "novels", "manuals"]),
        ("day", "By day", ["2026-10-03", "2026-10-20", "2026-10-31"]),
        ("output", "By output", ["o-1", "o-2", "=o", "openai:chat-1"]),
    ],
)
def test_the_attribution_page_has_the_rows_that_were_asked_for(month, books, by: By, title: str, names: list[str]):
    page = attribution(month, books, by=by)
    assert title in Page(page).labels
    table = table_of(page, title)
    assert [name for name in names if name in table] == names
    with month.read() as conn:
        frame = attribution_frame(conn, books, OCTOBER, by)
    rows = frame.group_by("output_id").agg(pl.col("credit_micro").sum()) if by == "output" else frame
    for micro in rows["credit_micro"]:
        assert f"{micro / 1_000_000:.6f}" in table
    assert ("essays" in table) == (by == "collection")


def test_the_attribution_page_by_output_names_the_leader_and_is_bounded(ledger, books):
    ledgers.add(ledger)
    small = [Valued(f"small-{n:03d}", at(10, 2), {ADA: (1.0, 1_000_000)}) for n in range(MOST_OUTPUTS)]
    ledgers.value(ledger, books, small)
    ledgers.value(ledger, books, [Valued("heavy", at(10, 3), {BELL: (2.0, 6_000_000), ESSAYS: (1.0, 2_000_000)})])
    page = attribution(ledger, books, by="output")
    seen = Page(page).seen
    heavy = seen[seen.index("heavy") : seen.index("small-000")]
    assert heavy == ["heavy", "2026-10-03", "8.000000", "2", "Bell & Sons", "75.00 %"]
    table = table_of(page, "By output")
    assert table.count("small-") == MOST_OUTPUTS - 1
    assert "These are the 200 outputs with most credits, of 201." in table
    assert "credit report attribution 2026-10 --by output --format csv" in table


def test_an_interval_can_be_seen_on_its_bar_in_the_light_and_in_the_dark(month, books):
    """WCAG 2.2, 1.4.11 asks for a contrast of 3 between graphics that are needed and what stands beside them."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    page = attribution(month, books)
    themes = re.findall(r":root \{(.*?)\}", page, re.DOTALL)
    assert len(themes) == 2
    bar = re.search(r"\.bars \.one, \.wide \.one { fill: var\(--(\w+)\); }", page)
    assert bar is not None
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", theme))
        light, dark = sorted((luminance(colours["ink"]), luminance(colours[bar[1]])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3


def test_the_attribution_page_says_what_is_missing(month, books):
    with month.write() as conn:
        ledgers.log(conn, [Valued("unvalued", at(10, 5), {ADA: (0.0, 1_000_000)})])
    assert "1 more of this month not valued yet" in Page(attribution(month, books)).text


def test_a_statement_prints_its_own_hash_balance_and_reason(month):
    with month.write() as conn:
        terms.agree(conn, "bell", "EUR", Terms(minimum_payout_minor=10_000_000), at(1, 1).date(), now=ledgers.NOW)
    ledgers.close(month, OCTOBER, net_minor=1_234_567_89)
    page, sha256 = statement(month, "ada")
    text = Page(page).text
    for shown in (sha256, "EUR 716,049.38", "58.00 %", "2.900000", "of 5.000000", "0.199999", "novels"):
        assert shown in text
    assert text.index("To be paid now") < text.index("Balance in EUR"), "what matters most stands first"
    assert 'content: "Statement 2026-10, ada"' in page, "every printed page says what it is of"
    assert "Bell" not in text
    carried = Page(statement(month, "bell")[0]).text
    assert "Nothing is paid now: the balance of 98765.43 EUR is below the minimum payout of 100000.00 EUR" in carried


def test_a_page_of_a_period_that_never_was_is_refused(month, books):
    with pytest.raises(LedgerError, match="no period 2026-01"):
        attribution(month, books, "2026-01")


def test_the_attribution_page_says_which_places_a_share_can_have(ledger, books):
    ledgers.add(ledger)
    swinging = [
        Valued(
            f"o{n}",
            at(10, n + 1),
            {ADA: (1.0, 450_000 + 20_000 * (n % 2)), BELL: (1.0, 470_000 - 20_000 * (n % 2)), OWN: (0.1, 80_000)},
        )
        for n in range(20)
    ]
    ledgers.value(ledger, books, swinging)
    seen = Page(attribution(ledger, books)).seen
    assert [seen[seen.index(key) + 1] for key in ("ada", "bell")] == ["1 to 2", "1 to 2"]
    assert seen[seen.index("own · to the house") + 1] == "8.00 %", "the house has no rank"


def test_the_attribution_page_of_many_providers_grows_with_their_number_and_not_its_square(ledger, books):
    """Pairs that cannot be told apart grew with the square: of 300 providers they filled 200 000 pixels."""
    keys = [f"p{number:03d}" for number in range(240)]
    ledgers.add(ledger, [Provider(key, f"Provider {key}") for key in keys])
    outputs = [
        Valued(f"o{n}", at(10, n + 1), {Group(key): (1.0, 4_000 + 100 * ((n + p) % 3)) for p, key in enumerate(keys)})
        for n in range(20)
    ]
    ledgers.value(ledger, books, outputs)
    page = attribution(ledger, books)
    assert len(page) < 160_000
    assert Page(page).seen.count("1 to 240") == 240


def test_a_statement_of_an_earlier_version_has_a_page_still(month):
    ledgers.close(month, OCTOBER)
    with month.read() as conn:
        item = latest_statements(conn, OCTOBER)[0]
    body = json.loads(item.body_json)
    del body["validation"], body["credits"]["certainty"]
    old = replace(item, body_json=json.dumps(body))
    assert "How it was checked" in statement_page(item)
    assert "How it was checked" not in statement_page(old)
    assert "sufficient validation" not in readme_text(old)


@pytest.mark.parametrize(
    ("over", "shown"),
    [
        (["outputs"], "12.00 % to 30.00 % with other outputs"),
        (["outputs", "attribution"], "likely 12.00 % to 30.00 %"),
    ],
)
def test_a_statement_calls_likely_only_an_interval_that_retraining_has_checked(month, over, shown):
    ledgers.close(month, OCTOBER)
    with month.read() as conn:
        item = latest_statements(conn, OCTOBER)[0]
    body = json.loads(item.body_json)
    body["credits"]["certainty"] = {
        "interval": "90 %",
        "interval_over": over,
        "outputs": 5,
        "providers_alike": 0,
        "share_low": "0.12",
        "share_high": "0.3",
    }
    head, _, rest = Page(statement_page(replace(item, body_json=json.dumps(body)))).text.partition("Balance in")
    assert shown in head
    assert ("likely" in head) == ("The interval counts in" in rest)
    assert ("likely" in head) != ("The error of the estimate itself comes on top" in rest)


def test_a_statement_says_which_part_was_agreed_of_what_it_takes(month):
    """Everything on the page can be computed again from the page: the part, of what, and how it is rounded."""
    agreed = Terms(
        rate_ppm=700_000,
        reserve_ppm=100_000,
        reserve_release_periods=2,
        recoupment_ppm=500_000,
        withholding_ppm=158_250,
    )
    with month.write() as conn:
        terms.agree(conn, "ada", "EUR", agreed, at(1, 1).date(), now=ledgers.NOW)
        pay_advance(conn, "ada", 500_000_00, "EUR", paid_on=at(10, 2).date(), reference="A-1", now=ledgers.NOW)
    ledgers.close(month, OCTOBER, net_minor=1_000_000_01)
    text = Page(statement(month, "ada")[0]).text
    earned = 580_000_01 - 580_000_01 * 3 // 10
    held, recouped = earned // 10, earned // 2
    owed = earned - held - recouped
    for label, minor in (
        ("Held in reserve (10 % of what was earned)", held),
        ("Towards advances paid before (50 % of what was earned, at most)", recouped),
        ("Tax withheld (15.825 % of what is paid out, before tax and fees)", owed * 15_825 // 100_000),
    ):
        assert f"−{minor // 100:,}.{minor % 100:02d}" in text.split(label)[1][:40]
    assert "406,000.01 70 %" in " ".join(text.split())
    assert "rounded down" in text
    assert "Held in reserve" not in Page(statement(month, "bell")[0]).text


def test_a_correction_is_named_once_with_what_it_corrects(month):
    with month.write() as conn:
        for reason in ("adjustment of a typing error", "counted twice"):
            adjust(conn, "ada", 100, "EUR", period=OCTOBER, reason=reason, cites=2, now=ledgers.NOW)
    ledgers.close(month, OCTOBER)
    text = " ".join(Page(statement(month, "ada")[0]).text.split())
    assert "corrects 2adjustment of a typing errorEUR" in text, "cells stand side by side"
    assert "adjustment: counted twice" in text


def test_a_statement_tells_a_new_account_by_its_last_four_characters(month):
    iban = "DE02120300000000202051"
    for number, to in ((1, {"iban": iban}), (2, {"iban": "DE75512108001245126199", "paypal": "ada@example.org"})):
        set_provider_details(month, "ada", to, now=at(10, number))
    ledgers.close(month, OCTOBER)
    with month.read() as conn:
        item = next(item for item in latest_statements(conn, OCTOBER) if item.provider == "ada")
    text = Page(statement_page(item)).text
    assert "On 2026-10-01, your bank account was recorded; its number ends with 2051." in text
    assert "On 2026-10-02, your bank account was changed; its number ends with 6199." in text
    assert "On 2026-10-02, your PayPal account was changed." in text
    assert "If you did not ask for this, tell us at once." in text
    for secret in (iban, "ada@example.org"):
        assert secret not in item.body_json
    assert "Where your money goes" not in Page(statement(month, "bell")[0]).text


def test_beyond_some_hundreds_of_providers_the_page_adds_up_the_others(month, books, monkeypatch):
    whole = attribution(month, books)
    monkeypatch.setattr(pages, "MOST_PROVIDERS", 1)
    page = attribution(month, books)
    table = table_of(page, "By provider")
    assert "Ada Press" in table
    assert "Bell & Sons" not in table
    assert "1 other provider" in table
    assert "0.400000" in table.partition("1 other provider")[2]
    assert "Own docs" in table, "the house's lines stay"
    assert "--by provider --format csv" in table
    assert "other provider" not in table_of(whole, "By provider")


def test_a_statement_says_nothing_is_paid_only_where_nothing_is(month, books):
    with month.write() as conn:
        terms.agree(conn, "ada", "HUF", Terms(channel="paypal"), at(1, 1).date(), now=ledgers.NOW)
        terms.agree(conn, "bell", "KWD", Terms(channel="paypal"), at(1, 1).date(), now=ledgers.NOW)
        ledgers.pools.add_pool(
            conn, OCTOBER, "KWD", gross_minor=500, deductions_minor=0, reference="pool", now=ledgers.NOW
        )
    ledgers.close(month, OCTOBER, 100_001, "HUF")
    paid, _ = statement(month, "ada")
    assert "HUF 580.00" in Page(paid).text
    rest = "PayPal carries whole HUF alone; the rest of 0.01 HUF is carried forward"
    assert f"Not all is paid now: {rest}" in Page(paid).text
    assert "Nothing is paid now" not in Page(paid).text
    assert "Nothing is paid now: the balance of 0.040 KWD cannot be paid" in Page(statement(month, "bell")[0]).text
