"""Attribution and payouts: rows, sums, which outputs belong to a period, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from credit.errors import IntegrityError, InvalidRequestError, LedgerError
from credit.ledger import journal, providers, terms
from credit.ledger.credits import credits_by_group
from credit.ledger.database import Ledger, upgrade
from credit.ledger.transaction_kinds import CreditsDetails
from credit.records import Provider, Terms
from credit.reporting.frames import (
    BY_COLLECTION,
    BY_COLLECTION_AND_DAY,
    BY_DAY,
    BY_PROVIDER,
    OUTPUT_COLUMNS,
    PAYOUT_COLUMNS,
    TREND_SCHEMA,
    By,
    attribution,
    payouts,
    totals,
    trends,
)
from credit.reporting.tables import trend_table
from tests.reporting import ledgers
from tests.reporting.ledgers import ADA, BELL, MONTH, OCTOBER, SEPTEMBER, Valued, at


def report(ledger: Ledger, books: Path, by: By, period: str = OCTOBER) -> pl.DataFrame:
    with ledger.read() as conn:
        return attribution(conn, books, period, by)


def test_every_output_and_group_has_one_row_ordered_by_output_then_group(month, books):
    frame = report(month, books, "output")
    assert tuple(frame.columns) == OUTPUT_COLUMNS
    expected = sorted(
        (
            item.name if item.source == "own" else f"{item.source}:{item.name}",
            group.provider,
            group.collection,
            effect / 2,
            max(effect, 0.0) / 2,
            effect,
            micro,
        )
        for item in MONTH
        for group, (effect, micro) in item.scores.items()
    )
    assert frame.rows() == expected


@pytest.mark.parametrize("by", ["provider", "collection", "day", "output"])
def test_credits_of_every_report_sum_to_the_ledger(month, books, by):
    frame = report(month, books, by)
    with month.read() as conn:
        posted = sum(credits_by_group(conn, OCTOBER).values())
    assert frame["credit_micro"].sum() == posted == sum(item.weight_micro for item in MONTH)
    if "share" in frame.columns:
        assert frame["share"].sum() == pytest.approx(1.0)


def test_a_provider_counts_each_credited_output_once(month, books):
    frame = report(month, books, "provider")
    measured = ["outputs", "influence", "support", "effect", "credit_micro", "share", "share_low", "share_high"]
    assert frame.columns == ["provider", "name", *measured, "rank_low", "rank_high"]
    assert (frame["share_low"] <= frame["share"]).all()
    assert (frame["share"] <= frame["share_high"]).all()
    assert frame.select("provider", "name", "outputs", "credit_micro").rows() == [
        ("ada", "Ada Press", 3, 2_900_000),
        ("bell", "Bell & Sons", 1, 400_000),
        ("house", "House", 1, 1_000_000),
        ("own", "Own docs", 1, 700_000),
    ]
    assert frame["effect"][0] == pytest.approx(0.5 - 0.25 + 0.1 + 0.2 - 1 - 1 + 2.5)
    assert frame["share"][1] == 0.08


def test_collections_and_days_add_up_apart(month, books):
    collections = report(month, books, "collection").select("provider", "collection", "outputs", "credit_micro")
    assert collections.rows()[:3] == [
        ("ada", "essays", 1, 199_999),
        ("ada", "novels", 3, 2_700_001),
        ("bell", "default", 1, 400_000),
    ]
    days = report(month, books, "day").select("day", "outputs", "credit_micro")
    assert days.rows() == [("2026-10-03", 2, 2_000_000), ("2026-10-20", 1, 1_000_000), ("2026-10-31", 1, 2_000_000)]


def test_several_keys_in_one_pass_give_what_each_gives_alone(month, books):
    keys = [BY_PROVIDER, BY_COLLECTION, BY_DAY, BY_COLLECTION_AND_DAY]
    with month.read() as conn:
        together = totals(conn, books, OCTOBER, keys)
        for key in keys:
            assert_frame_equal(together.frames[key], totals(conn, books, OCTOBER, [key]).frames[key], check_exact=True)
    assert (together.outputs, together.credit_micro, together.corrections_micro) == (4, 5_000_000, 0)


def test_neither_the_books_nor_the_engine_change_a_report(month, books, tmp_path):
    singly = tmp_path / "singly"
    upgrade(f"sqlite:///{tmp_path}/other.db")
    with Ledger.open(f"sqlite:///{tmp_path}/other.db") as other:
        ledgers.add(other)
        for item in reversed(MONTH):
            ledgers.value(other, singly, [item])
        for by in ("provider", "collection", "day"):
            assert_frame_equal(report(other, singly, by), report(month, books, by))
        assert report(other, singly, "output").equals(report(month, books, "output"))


def test_a_late_output_belongs_to_the_period_its_credits_were_posted_in(month, books):
    ledgers.close(month, OCTOBER)
    before = report(month, books, "output")
    late = Valued("late", at(10, 3), {ADA: (0.5, 1_000_000)})
    timely = Valued("timely", at(11, 2), {BELL: (0.5, 1_000_000)})
    ledgers.value(month, books, [late, timely])
    assert_frame_equal(report(month, books, "output"), before)
    november = report(month, books, "output", "2026-11")
    assert november["output_id"].to_list() == ["late", "timely"]
    assert report(month, books, "day", "2026-11")["day"].to_list() == ["2026-10-03", "2026-11-02"]


def test_a_book_whose_days_went_to_two_periods_is_split_by_day(ledger, books):
    ledgers.add(ledger)
    items = [Valued("s", at(9, 30, 23), {ADA: (1.0, 10)}), Valued("o", at(10, 1, 0), {ADA: (1.0, 20)})]
    ledgers.value(ledger, books, items)
    assert report(ledger, books, "output", SEPTEMBER)["output_id"].to_list() == ["s"]
    assert report(ledger, books, "output")["output_id"].to_list() == ["o"]


def test_an_output_of_no_weight_is_listed_in_its_own_month(month, books):
    ledgers.value(month, books, [Valued("free", at(10, 9), {ADA: (0.5, 0), BELL: (0.1, 0)})])
    assert report(month, books, "output").filter(pl.col("output_id") == "free").height == 2
    assert report(month, books, "day").filter(pl.col("day") == "2026-10-09")["outputs"].to_list() == [0]


def test_a_reversal_moves_the_credits_of_its_group_and_day_and_is_told_apart(month, books):
    with month.write() as conn:
        journal.reverse(conn, 3, period=OCTOBER, reason="logged by mistake", now=ledgers.NOW)
    with month.read() as conn:
        sums = totals(conn, books, OCTOBER, [BY_DAY])
    assert (sums.credit_micro, sums.corrections_micro) == (3_000_000, -2_000_000)
    assert sums.frames[BY_DAY]["credit_micro"].to_list() == [2_000_000, 1_000_000, 0]


def test_a_changed_or_missing_book_is_refused(month, books):
    path = next(iter(sorted(books.iterdir())))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"!")
    with pytest.raises(IntegrityError, match=path.stem):
        report(month, books, "provider")
    path.unlink()
    with pytest.raises(IntegrityError, match="missing"):
        report(month, books, "output")


def test_a_ledger_that_posted_something_else_than_its_book_is_refused(ledger, books):
    ledgers.add(ledger)
    item = Valued("o", at(10, 1), {ADA: (1.0, 600_000), BELL: (0.5, 400_000)})
    ledgers.value(ledger, books, [item], posted={ADA: 599_999, BELL: 400_001})
    with pytest.raises(IntegrityError, match=r"ada/novels earned 600000 micro-credits on 2026-10-01; .* 599999"):
        report(ledger, books, "provider")


def test_a_book_that_nobody_registered_is_refused(month, books):
    entries = (journal.Entry("credits:issued", "CREDIT", -1), journal.Entry("credits:earned:ada/novels", "CREDIT", 1))
    posting = journal.Posting("credits", OCTOBER, at(10, 1).date(), "k", entries, details=CreditsDetails("f" * 64))
    nameless = replace(posting, idempotency_key="l", details=None)
    with month.write() as conn:
        journal.post(conn, posting, now=ledgers.NOW)
    with pytest.raises(IntegrityError, match="not registered"):
        report(month, books, "provider")
    with month.write() as conn:
        journal.post(conn, nameless, now=ledgers.NOW)
    with pytest.raises(IntegrityError, match="names no score book"):
        report(month, books, "provider")


def test_a_period_that_never_was_is_refused_with_the_remedy(month, books):
    with pytest.raises(LedgerError, match="credit compute"):
        report(month, books, "provider", "2026-01")
    with pytest.raises(LedgerError, match="YYYY-MM"):
        report(month, books, "output", "October")
    with pytest.raises(InvalidRequestError, match="'week'"):
        report(month, books, "week")  # type: ignore[arg-type] # what a caller without types may pass


def test_a_period_with_a_pool_alone_gives_empty_reports(month, books):
    with month.write() as conn:
        journal.ensure_period(conn, "2026-11", now=ledgers.NOW)
    for by in ("provider", "collection", "day", "output"):
        frame = report(month, books, by, "2026-11")
        assert frame.schema == report(month, books, by).schema
        assert frame.height == 0


def test_payouts_state_what_the_statements_and_payouts_say(month):
    with month.write() as conn:
        terms.agree(conn, "bell", "EUR", Terms(minimum_payout_minor=8_001), at(1, 1).date(), now=ledgers.NOW)
    ledgers.close(month, OCTOBER)
    with month.read() as conn:
        frame = payouts(conn, OCTOBER)
    assert tuple(frame.columns) == PAYOUT_COLUMNS
    ada, bell = frame.rows()
    zeros = ("0.00",) * 10
    assert ada == ("ada", "Ada Press", "EUR", "0.00", "580.00", *zeros, "580.00", "0.00", "pending", "")
    assert bell[:-1] == ("bell", "Bell & Sons", "EUR", "0.00", "80.00", *zeros, "0.00", "80.00", "carried")
    assert "below the minimum payout of 80.01 EUR" in bell[-1]


def test_payouts_name_a_provider_as_its_statement_does(month):
    ledgers.close(month, OCTOBER)
    with month.write() as conn:
        providers.add_provider(conn, Provider("ada", "Ada Press Ltd"), now=ledgers.NOW)
    with month.read() as conn:
        assert payouts(conn, OCTOBER)["name"].to_list() == ["Ada Press", "Bell & Sons"]


def test_payouts_of_an_open_period_are_refused(month):
    with month.read() as conn, pytest.raises(LedgerError, match="credit close 2026-10"):
        payouts(conn, OCTOBER)


def test_a_report_leaves_books_alone(month, books):
    before = {path: path.read_bytes() for path in books.iterdir()}
    report(month, books, "provider")
    assert {path: path.read_bytes() for path in books.iterdir()} == before


def test_trends_have_the_shares_of_reports_and_the_money_of_statements_month_by_month(month, books):
    ledgers.value(month, books, [Valued("s", at(9, 5), {ADA: (1.0, 250_000), BELL: (1.0, 750_000)})])
    ledgers.close(month, SEPTEMBER)
    ledgers.value(month, books, [Valued("n", at(11, 5), {BELL: (1.0, 1_000_000)})])
    with month.read() as conn:
        frame = trends(conn, books)
        by_month = {name: attribution(conn, books, name, "provider") for name in frame["period"].unique()}
        paid = {row["provider"]: row for row in payouts(conn, SEPTEMBER).iter_rows(named=True)}
        later = trends(conn, books, since=OCTOBER, until=OCTOBER)
    assert sorted(by_month) == [SEPTEMBER, OCTOBER, "2026-11"]
    for name, own in by_month.items():
        shown = frame.filter(pl.col("period") == name)
        columns = ["provider", "credit_micro", "share", "share_low", "share_high"]
        assert_frame_equal(shown.select(columns), own.select(columns))
    september = {row["provider"]: row for row in frame.iter_rows(named=True) if row["period"] == SEPTEMBER}
    for provider, row in paid.items():
        assert (september[provider]["earned"], september[provider]["payable"]) == (row["earned"], row["payable"])
    assert set(frame.filter(pl.col("period") != SEPTEMBER)["currency"]) == {""}, "what is open has no money yet"
    assert later["period"].unique().to_list() == [OCTOBER]


def test_a_table_of_trends_has_a_column_for_each_month_and_drops_the_first_where_there_is_no_room():
    rows = [
        (f"2026-{n:02d}", key, micro, micro / 4_000_000, 0.0, 1.0, currency, "0.00", "0.00")
        for n in range(1, 10)
        for key, micro in (("ann", 1_000_000), ("ben", 3_000_000))
        for currency in ("EUR", "USD")
    ]
    frame = pl.DataFrame(rows, schema=TREND_SCHEMA, orient="row")
    lines = trend_table(frame, width=200).splitlines()
    assert lines[0].split() == ["provider", *(f"2026-{n:02d}" for n in range(1, 10))]
    assert lines[2].split() == ["ann", *["25.00", "%"] * 9], "a line for each provider, and not for each currency"
    assert lines[-1].split() == ["all", "credits", *["4.000000"] * 9]
    narrow = trend_table(frame, width=60).splitlines()
    assert max(map(len, narrow)) <= 60
    assert "2026-09" in narrow[0]
    assert "Not shown at this width: 2026-01, 2026-02" in "\n".join(narrow)
    assert trend_table(frame, most=1).splitlines()[-1].startswith("... and 1 provider more")
