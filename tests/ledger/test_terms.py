from __future__ import annotations

from datetime import date

import pytest
from sqlalchemy import Connection, text

from credit.errors import InvalidRequestError, LedgerError, PeriodClosedError
from credit.ledger import journal, terms
from credit.records import Terms
from tests.ledger import samples
from tests.ledger.samples import NOW, OCTOBER

JANUARY = date(2026, 1, 1)


def agree(conn: Connection, minimum: int, begin: date, end: date | None = None, **more: object) -> terms.Agreement:
    return terms.agree(conn, "ada", "USD", Terms(minimum_payout_minor=minimum), begin, end, now=NOW, **more)


def minimum_on(conn: Connection, day: date) -> int | None:
    found = terms.agreement_on(conn, "ada", "USD", day)
    on_that_day = terms.terms_on(conn, day).get(("ada", "USD"))
    assert (found.terms if found else None) == on_that_day
    return None if found is None else found.terms.minimum_payout_minor


def test_a_later_version_takes_over_from_terms_without_an_end(conn):
    samples.add_providers(conn)
    agree(conn, 100, JANUARY)
    agree(conn, 300, date(2026, 3, 1))
    days = (date(2025, 12, 31), JANUARY, date(2026, 2, 28), date(2026, 3, 1), date(2030, 1, 1))
    assert [minimum_on(conn, day) for day in days] == [None, 100, 100, 300, 300]
    assert terms.agreement_on(conn, "ada", "EUR", days[-1]) is None
    assert terms.agreement_on(conn, "bell", "USD", days[-1]) is None


def test_what_was_agreed_for_a_time_gives_way_afterwards(conn):
    samples.add_providers(conn)
    agree(conn, 100, JANUARY)
    agree(conn, 5, date(2026, 3, 1), date(2026, 3, 31))
    days = (date(2026, 2, 28), date(2026, 3, 1), date(2026, 3, 31), date(2026, 4, 1))
    assert [minimum_on(conn, day) for day in days] == [100, 5, 5, 100]


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (date(2026, 3, 1), None),
        (date(2026, 2, 1), None),
        (date(2026, 2, 1), date(2026, 3, 1)),
        (date(2026, 3, 31), None),
        (date(2026, 3, 10), date(2026, 3, 12)),
        (date(2026, 1, 1), date(2026, 12, 31)),
    ],
)
def test_an_overlap_is_refused_unless_it_is_said_to_supersede(conn, begin, end):
    samples.add_providers(conn)
    agree(conn, 100, date(2026, 3, 1), date(2026, 3, 31))
    with pytest.raises(LedgerError, match=r"overlap version 1 of ada's terms in USD .*--supersede"):
        agree(conn, 101, begin, end)
    agree(conn, 101, begin, end, supersede=True)
    assert minimum_on(conn, max(begin, date(2026, 3, 1))) == 101


@pytest.mark.parametrize("day", [date(2026, 2, 28), date(2026, 4, 1)])
def test_terms_that_only_touch_do_not_overlap(conn, day):
    samples.add_providers(conn)
    agree(conn, 100, date(2026, 3, 1), date(2026, 3, 31))
    agree(conn, 101, day, day)
    assert [minimum_on(conn, date(2026, 3, 31)), minimum_on(conn, day)] == [100, 101]


def test_the_same_terms_again_are_the_same_version(conn):
    samples.add_providers(conn)
    first = agree(conn, 100, JANUARY)
    assert agree(conn, 100, JANUARY) == first
    assert terms.history(conn, "ada") == [first]


def test_terms_do_not_reach_into_a_closed_period(conn):
    samples.add_providers(conn)
    assert terms.first_free_day(conn) == date.min
    journal.ensure_period(conn, OCTOBER, now=NOW)
    samples.close(conn, OCTOBER)
    with pytest.raises(PeriodClosedError, match="let them begin on 2026-11-01"):
        agree(conn, 100, date(2026, 10, 31))
    assert agree(conn, 100, terms.first_free_day(conn)).valid_from == date(2026, 11, 1)


@pytest.mark.parametrize(
    ("key", "currency", "end", "match"),
    [
        ("eve", "USD", None, "unknown provider"),
        ("ada", "usd", None, "ISO 4217"),
        ("house", "USD", None, "it has no terms"),
        ("ada", "USD", date(2025, 12, 31), "cannot end on 2025-12-31"),
    ],
)
def test_terms_that_make_no_sense_are_refused(conn, key, currency, end, match):
    samples.add_providers(conn)
    with pytest.raises(LedgerError, match=match):
        terms.agree(conn, key, currency, Terms(), JANUARY, end, now=NOW)


@pytest.mark.parametrize(
    "values",
    [
        {"rate_ppm": -1},
        {"rate_ppm": 1_000_001},
        {"withholding_ppm": 1_000_001},
        {"minimum_payout_minor": -1},
        {"fee_minor": -1},
        {"reserve_ppm": 1},
        {"reserve_release_periods": 1},
    ],
    ids=str,
)
def test_values_that_make_no_sense_are_refused(values):
    with pytest.raises(InvalidRequestError):
        Terms(**values)


INSERT = (
    "INSERT INTO contract_term SELECT {id}, provider_id, currency, {version}, {begin}, {end}, {supersedes}, rate_ppm,"
    " minimum_payout_minor, reserve_ppm, reserve_release_periods, recoupment_ppm, withholding_ppm, fee_minor,"
    " agreement_reference, created_at, pay_in, channel FROM contract_term WHERE id = 1"
)
CORRECT = {"id": 2, "version": 2, "begin": "'2026-05-01'", "end": "NULL", "supersedes": 0}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({}, None),
        ({"version": 3}, "take the next version"),
        ({"version": 1}, "take the next version"),
        ({"begin": "'2026-03-01'"}, "overlap others"),
        ({"begin": "'2026-01-01'", "end": "'2026-12-31'"}, "overlap others"),
        ({"begin": "'2026-03-01'", "supersedes": 1}, None),
        ({"supersedes": 2}, "ck_contract_term_supersedes"),
        ({"end": "'2026-04-30'"}, "ck_contract_term_valid"),
    ],
    ids=str,
)
def test_the_database_itself_keeps_versions_in_order(module_ledger, changes, match):
    def write() -> None:
        with samples.undone(module_ledger) as conn:
            samples.add_providers(conn)
            agree(conn, 100, date(2026, 3, 1), date(2026, 4, 30))
            conn.execute(text(INSERT.format(**{**CORRECT, **changes})))

    if match is None:
        write()
    else:
        with pytest.raises(LedgerError, match=match):
            write()
