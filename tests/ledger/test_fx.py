from __future__ import annotations

from datetime import date

import pytest
from sqlalchemy import text

from credit.errors import LedgerError, PeriodClosedError
from credit.ledger import fx, journal
from credit.records import GivenRate, Rate
from tests.ledger import samples
from tests.ledger.samples import NOW, OCTOBER, SEPTEMBER

FIRST = GivenRate("EUR", "USD", date(2026, 9, 29), Rate(10842, 4), "ECB reference rate")


def given(day: date, rate: Rate = FIRST.rate, source: str = FIRST.source, quote: str = "USD") -> GivenRate:
    return GivenRate("EUR", quote, day, rate, source)


def test_a_rate_given_twice_is_one_rate(conn):
    first = fx.give_rate(conn, FIRST, now=NOW)
    assert fx.give_rate(conn, FIRST, now=NOW) == first
    assert fx.give_rate(conn, given(FIRST.on, Rate(108420, 5)), now=NOW) == first, "the same number"
    assert fx.recorded_rates(conn) == [first]
    assert first.given == FIRST


def test_another_rate_for_the_day_must_be_said_to_supersede_it(conn):
    fx.give_rate(conn, FIRST, now=NOW)
    other = given(FIRST.on, Rate(11, 1))
    with pytest.raises(LedgerError, match=r"given already: 1 EUR = 1\.0842 USD \(ECB reference rate, 2026-09-29\)"):
        fx.give_rate(conn, other, now=NOW)
    assert fx.give_rate(conn, other, supersede=True, now=NOW).version == 2
    assert [item.version for item in fx.recorded_rates(conn)] == [1, 2]
    assert fx.rates_of_period(conn, SEPTEMBER) == {("EUR", "USD"): other}


def test_a_period_converts_by_the_last_day_of_it_that_has_a_rate(conn):
    for day in (date(2026, 8, 31), date(2026, 9, 30), date(2026, 9, 2), date(2026, 10, 1)):
        fx.give_rate(conn, given(day, Rate(day.month * 100 + day.day, 2)), now=NOW)
    fx.give_rate(conn, given(date(2026, 9, 1), quote="GBP"), now=NOW)
    held = {pair: item.on.isoformat() for pair, item in fx.rates_of_period(conn, SEPTEMBER).items()}
    assert held == {("EUR", "USD"): "2026-09-30", ("EUR", "GBP"): "2026-09-01"}
    assert fx.rates_of_period(conn, "2026-11") == {}


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (GivenRate("EUR", "EUR", FIRST.on, FIRST.rate, "s"), "it is one currency"),
        (GivenRate("euro", "USD", FIRST.on, FIRST.rate, "s"), "not an ISO 4217 code"),
        (given(FIRST.on, source=" "), "needs its source"),
        (given(FIRST.on, source="a\x00b"), "needs its source"),
        (given(date(2026, 10, 6)), "the day is still to come"),
    ],
)
def test_a_rate_that_makes_no_sense_is_refused(conn, rate, message):
    with pytest.raises(LedgerError, match=message):
        fx.give_rate(conn, rate, now=NOW)
    assert fx.recorded_rates(conn) == []


def test_a_closed_periods_rates_stay_as_they_were(conn):
    kept = fx.give_rate(conn, FIRST, now=NOW)
    journal.ensure_period(conn, SEPTEMBER, now=NOW)
    samples.add_providers(conn)
    samples.close(conn, SEPTEMBER)
    assert fx.give_rate(conn, FIRST, now=NOW) == kept, "the same again is no change"
    with pytest.raises(PeriodClosedError, match="comes too late: period 2026-09 is closed"):
        fx.give_rate(conn, given(FIRST.on, Rate(2, 0)), supersede=True, now=NOW)
    fx.give_rate(conn, given(date(2026, 10, 1)), now=NOW)


def test_the_database_refuses_a_rate_for_a_closed_period_or_out_of_order(populated):
    columns = "id, on_day, base, quote, version, coefficient, digits, source, created_at"
    late = text(
        f"INSERT INTO fx_rate ({columns}) VALUES (9, :day, 'EUR', 'USD', :version, 1, 0, 's',"
        " '2026-10-05T00\\:00\\:00.000000Z')"
    )
    for day, version, message in (("2026-09-30", 1, "the period is closed"), ("2026-10-02", 5, "next version")):
        with pytest.raises(LedgerError, match=message), populated.write() as conn:
            conn.execute(late, {"day": day, "version": version})
    with populated.read() as conn:
        assert len(fx.rates_of_period(conn, OCTOBER)) == 1
