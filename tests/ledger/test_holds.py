from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from credit.errors import IntegrityError, LedgerError
from credit.ledger import holds, journal, periods
from credit.records import Group
from tests.conftest import ON_POSTGRESQL
from tests.ledger import samples
from tests.ledger.samples import NOW


def test_a_hold_stands_until_it_is_released_and_both_are_remembered(conn):
    samples.add_providers(conn)
    placed = holds.place_hold(conn, "ada", "USD", "bank details are wrong", now=NOW)
    standing = holds.holds(conn)
    assert standing == {("ada", "USD", None): placed}
    assert holds.hold_on(standing, "ada", "USD") == placed
    assert holds.hold_on(standing, "ada", "EUR") is holds.hold_on(standing, "bell", "USD") is None
    released = holds.release_hold(conn, "ada", "USD", "they are right now", now=NOW)
    assert holds.holds(conn) == {}
    assert holds.hold_history(conn, "ada") == [placed, released]
    assert [item.action for item in holds.hold_history(conn)] == ["hold", "release"]


def test_a_hold_on_all_currencies_and_one_on_a_currency_are_two(conn):
    samples.add_providers(conn)
    everything = holds.place_hold(conn, "ada", None, "dispute", now=NOW)
    euros = holds.place_hold(conn, "ada", "EUR", "sanctions", now=NOW)
    standing = holds.holds(conn, "ada")
    assert holds.hold_on(standing, "ada", "USD") == holds.hold_on(standing, "ada", "EUR") == everything
    holds.release_hold(conn, "ada", None, "settled", now=NOW)
    standing = holds.holds(conn, "ada")
    assert holds.hold_on(standing, "ada", "USD") is None
    assert holds.hold_on(standing, "ada", "EUR") == euros


def test_twice_is_once(conn):
    samples.add_providers(conn)
    for _ in range(2):
        holds.place_hold(conn, "ada", None, "dispute", now=NOW)
    for _ in range(2):
        holds.release_hold(conn, "ada", None, "settled", now=NOW)
    assert len(holds.hold_history(conn)) == 2


def test_what_makes_no_sense_is_refused(conn):
    samples.add_providers(conn)
    holds.place_hold(conn, "ada", None, "dispute", now=NOW)
    with pytest.raises(LedgerError, match="on hold already: dispute"):
        holds.place_hold(conn, "ada", None, "another dispute", now=NOW)
    for key, currency, reason, match in (
        ("ada", "USD", "x", "is not on hold"),
        ("ada", None, " ", "needs a reason"),
        ("ada", "usd", "x", "ISO 4217"),
        ("house", None, "x", "never paid"),
        ("eve", None, "x", "unknown provider"),
    ):
        with pytest.raises(LedgerError, match=match):
            holds.release_hold(conn, key, currency, reason, now=NOW)


def test_a_hold_of_a_collection_is_one_of_its_own(conn):
    samples.add_providers(conn)
    journal.post(conn, samples.credit_posting("credits"), now=NOW)
    placed = holds.place_hold(conn, "ada", None, "who wrote it?", collection="novels", now=NOW)
    assert holds.place_hold(conn, "ada", None, "who wrote it?", collection="novels", now=NOW) == placed
    assert holds.held_collections(conn) == {Group("ada", "novels"): placed}
    assert holds.hold_on(holds.holds(conn), "ada", "USD") is None, "the provider is paid for the rest"
    with pytest.raises(LedgerError, match="on hold already: who wrote it"):
        holds.place_hold(conn, "ada", None, "who owns it?", collection="novels", now=NOW)
    with pytest.raises(LedgerError, match=r"nothing was credited yet to a collection 'novel' .*: novels"):
        holds.place_hold(conn, "ada", None, "who wrote it?", collection="novel", now=NOW)
    with pytest.raises(LedgerError, match="held in all currencies"):
        holds.place_hold(conn, "ada", "EUR", "who wrote it?", collection="novels", now=NOW)
    released = holds.release_hold(conn, "ada", None, "she did", collection="novels", now=NOW)
    assert holds.held_collections(conn) == {}
    assert holds.hold_history(conn) == [placed, released]


def test_holds_and_closes_have_moments_in_the_order_in_which_they_came(conn):
    """Whatever the machine's clock says: what stood at a close can be told for ever."""
    samples.add_providers(conn)
    placed = holds.place_hold(conn, "ada", None, "dispute", now=NOW)
    journal.ensure_period(conn, samples.SEPTEMBER, now=NOW)
    periods.mark_closed(conn, samples.SEPTEMBER, policy_json="{}", now=NOW - timedelta(hours=1))
    holds.release_hold(conn, "ada", None, "settled", now=NOW - timedelta(hours=2))
    (closed,) = periods.periods(conn)
    assert holds.holds(conn, until=closed.closed_at) == {placed.scope: placed}
    assert holds.holds(conn) == {}


@pytest.mark.parametrize("action", ["hold", "release"])
def test_the_database_itself_makes_holds_and_releases_take_turns(module_ledger, action):
    columns = "99, provider_id, currency, :action, reason, created_at, collection"
    copy = f"INSERT INTO hold SELECT {columns} FROM hold WHERE id = 1"
    with samples.undone(module_ledger) as conn:
        samples.add_providers(conn)
        holds.place_hold(conn, "ada", None, "dispute", now=NOW)
        if action == "release":
            holds.release_hold(conn, "ada", None, "settled", now=NOW)
        with pytest.raises(DatabaseError, match="take turns"):
            conn.execute(text(copy), {"action": action})


@ON_POSTGRESQL
@pytest.mark.parametrize("table", ["hold", "seal"])
def test_a_write_that_a_rule_swallows_is_an_error_and_no_success(conn, table):
    samples.add_providers(conn)
    conn.execute(text(f"CREATE RULE swallow AS ON INSERT TO {table} DO INSTEAD NOTHING"))
    with pytest.raises(IntegrityError, match=f"took 1 rows for {table} and stored 0"):
        holds.place_hold(conn, "ada", "USD", "bank details are wrong", now=NOW)


@ON_POSTGRESQL
@pytest.mark.parametrize("table", ["ledger_entry", "ledger_txn"])
def test_so_is_a_posting(conn, table):
    samples.add_providers(conn)
    conn.execute(text(f"CREATE RULE swallow AS ON INSERT TO {table} DO INSTEAD NOTHING"))
    with pytest.raises(IntegrityError, match=f"rows for {table} and stored 0"):
        journal.post(conn, samples.credit_posting("credits:1"), now=NOW)
