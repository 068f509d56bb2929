from __future__ import annotations

import pytest
from sqlalchemy import Connection, text

from credit.errors import LedgerError
from credit.ledger import balances, corrections, integrity, outputs, periods, set_aside
from credit.ledger.database import Ledger
from tests.ledger import samples
from tests.ledger.samples import MODEL, NOW, OCTOBER, SEPTEMBER


@pytest.fixture
def logged(conn: Connection) -> Connection:
    """Three outputs of September, the last of which weighs nothing; the first is valued."""
    samples.add_providers(conn)
    index = samples.add_index(conn)
    samples.add_outputs(conn, [samples.logged(1), samples.logged(2, weight_micro=2_500_000)])
    samples.add_outputs(conn, [samples.logged(3, weight_micro=0)])
    samples.value(conn, index.id, [1])
    return conn


def weight(conn: Connection) -> int:
    return balances.balance(conn, "credits:set-aside", "CREDIT")


def test_an_output_set_aside_waits_no_more_and_what_it_weighs_is_on_record(logged: Connection) -> None:
    assert outputs.pending_count(logged, weighty=True) == 1
    done = set_aside.set_aside(logged, "log:out-2", "no token", now=NOW)
    assert (done.output, done.action, done.period, done.weight_micro) == (
        "log:out-2",
        "set-aside",
        SEPTEMBER,
        2_500_000,
    )
    assert outputs.pending_count(logged, weighty=True) == 0
    assert [item.id for item in outputs.pending_outputs(logged, MODEL, 0, 9)] == [3], "it weighs nothing, and waits"
    assert weight(logged) == 2_500_000
    assert set_aside.standing(logged) == set_aside.standing(logged, SEPTEMBER) == [done]
    assert set_aside.standing(logged, OCTOBER) == []


def test_twice_is_once_and_taken_back_it_waits_again(logged: Connection) -> None:
    first = set_aside.set_aside(logged, "log:out-2", "no token", now=NOW)
    assert set_aside.set_aside(logged, "log:out-2", "no token", now=NOW) == first
    back = set_aside.restore(logged, "log:out-2", "a new index", now=NOW)
    assert set_aside.restore(logged, "log:out-2", "a new index", now=NOW) == back
    assert weight(logged) == 0
    assert outputs.pending_names(logged) == ["log:out-2"]
    again = set_aside.set_aside(logged, "log:out-2", "no token", now=NOW)
    assert again.txn_id > back.txn_id > first.txn_id
    assert set_aside.history(logged) == [first, back, again]
    assert list(set_aside.check_set_aside(logged)) == []


def test_after_a_close_it_counts_and_comes_back_in_the_open_period(logged: Connection) -> None:
    done = set_aside.set_aside(logged, "log:out-2", "no token", now=NOW)
    samples.close(logged, SEPTEMBER)
    assert periods.last_closed(logged) == SEPTEMBER
    back = set_aside.restore(logged, "log:out-2", "a new index", now=NOW)
    assert (done.period, back.period) == (SEPTEMBER, OCTOBER)
    assert set_aside.set_aside(logged, "log:out-2", "not even that", now=NOW).period == OCTOBER


@pytest.mark.parametrize(
    ("name", "reason", "message"),
    [
        ("log:out-1", "x", "is valued and credited"),
        ("log:out-3", "x", "weighs nothing"),
        ("out-2", "x", "there is no output 'out-2'"),
        ("log:out-9", "x", "there is no output 'log:out-9'"),
        ("log:out-2", " ", "without a reason"),
        ("log:out-2", "a\x00b", "that a database can keep"),
    ],
)
def test_what_makes_no_sense_is_refused(logged: Connection, name: str, reason: str, message: str) -> None:
    with pytest.raises(LedgerError, match=message):
        set_aside.set_aside(logged, name, reason, now=NOW)
    assert set_aside.history(logged) == []
    with pytest.raises(LedgerError, match=r"is not set aside|there is no output|without a reason"):
        set_aside.restore(logged, name, reason, now=NOW)


def test_another_reason_and_a_plain_reversal_are_refused(logged: Connection) -> None:
    done = set_aside.set_aside(logged, "log:out-2", "no token", now=NOW)
    with pytest.raises(LedgerError, match="set aside already: no token"):
        set_aside.set_aside(logged, "log:out-2", "another", now=NOW)
    with pytest.raises(LedgerError, match="take it back: credit outputs restore"):
        corrections.undo(logged, done.txn_id, reason="x", now=NOW)


ROW = "INSERT INTO set_aside VALUES (9, {}, '{}', 'x', 1, '2026-10-05T12:30:00.000000Z')"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (ROW.format(1, "set-aside"), "an output that is valued is not set aside"),
        (ROW.format(3, "set-aside"), "take turns"),
        (ROW.format(1, "restored"), "take turns"),
        ("INSERT INTO valuation VALUES (3, 1, 1)", "an output that is set aside is not valued"),
    ],
)
def test_the_database_keeps_the_rules_by_itself(ledger: Ledger, statement: str, message: str) -> None:
    with ledger.write() as conn:
        samples.populate(conn)
    with pytest.raises(LedgerError, match=message), ledger.write() as conn:
        conn.execute(text(statement))
    assert integrity.verify(ledger, None).problems == ()
