from __future__ import annotations

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DatabaseError

from credit.errors import LedgerError
from credit.ledger import holds
from credit.ledger.engine import Ledger
from tests.ledger import samples
from tests.ledger.samples import NOW


def test_a_hold_stands_until_it_is_released_and_both_are_remembered(conn: Connection) -> None:
    samples.add_providers(conn)
    placed = holds.place_hold(conn, "ada", "USD", "bank details are wrong", now=NOW)
    assert holds.hold_on(conn, "ada", "USD") == placed
    assert holds.hold_on(conn, "ada", "EUR") is holds.hold_on(conn, "bell", "USD") is None
    assert holds.holds(conn) == {("ada", "USD"): placed}
    released = holds.release_hold(conn, "ada", "USD", "they are right now", now=NOW)
    assert holds.hold_on(conn, "ada", "USD") is None
    assert holds.hold_history(conn, "ada") == [placed, released]
    assert [item.action for item in holds.hold_history(conn)] == ["hold", "release"]


def test_a_hold_on_all_currencies_and_one_on_a_currency_are_two(conn: Connection) -> None:
    samples.add_providers(conn)
    everything = holds.place_hold(conn, "ada", None, "dispute", now=NOW)
    euros = holds.place_hold(conn, "ada", "EUR", "sanctions", now=NOW)
    assert holds.hold_on(conn, "ada", "USD") == holds.hold_on(conn, "ada", "EUR") == everything
    holds.release_hold(conn, "ada", None, "settled", now=NOW)
    assert holds.hold_on(conn, "ada", "USD") is None
    assert holds.hold_on(conn, "ada", "EUR") == euros


def test_twice_is_once(conn: Connection) -> None:
    samples.add_providers(conn)
    for _ in range(2):
        holds.place_hold(conn, "ada", None, "dispute", now=NOW)
    for _ in range(2):
        holds.release_hold(conn, "ada", None, "settled", now=NOW)
    assert len(holds.hold_history(conn)) == 2


def test_what_makes_no_sense_is_refused(conn: Connection) -> None:
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


@pytest.mark.parametrize("action", ["hold", "release"])
def test_the_database_itself_makes_holds_and_releases_take_turns(module_ledger: Ledger, action: str) -> None:
    copy = "INSERT INTO hold SELECT 99, provider_id, currency, :action, reason, created_at FROM hold WHERE id = 1"
    with samples.undone(module_ledger) as conn:
        samples.add_providers(conn)
        holds.place_hold(conn, "ada", None, "dispute", now=NOW)
        if action == "release":
            holds.release_hold(conn, "ada", None, "settled", now=NOW)
        with pytest.raises(DatabaseError, match="take turns"):
            conn.execute(text(copy), {"action": action})
