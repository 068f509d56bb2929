from __future__ import annotations

import pytest
from sqlalchemy import Connection, text

from credit.errors import LedgerError
from credit.ledger import balances, corrections, outputs, periods, unvalued
from credit.ledger.verify import verify
from credit.ledger.verify.outputs import check_unvalued
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
    return balances.balance(conn, "credits:unvalued", "CREDIT")


def test_an_unvalued_output_is_not_pending_and_its_weight_is_on_record(logged):
    assert outputs.pending_count(logged, weighty=True) == 1
    done = unvalued.unvalue(logged, "log:out-2", "no token", now=NOW)
    assert (done.output, done.action, done.period, done.weight_micro) == ("log:out-2", "unvalued", SEPTEMBER, 2_500_000)
    assert outputs.pending_count(logged, weighty=True) == 0
    assert [item.id for item in outputs.pending_outputs(logged, MODEL, 0, 9)] == [3], "of no weight, and pending"
    assert weight(logged) == 2_500_000
    assert unvalued.unvalued_outputs(logged) == unvalued.unvalued_outputs(logged, SEPTEMBER) == [done]
    assert unvalued.unvalued_outputs(logged, OCTOBER) == []


def test_twice_is_once_and_a_restored_output_is_pending_again(logged):
    first = unvalued.unvalue(logged, "log:out-2", "no token", now=NOW)
    assert unvalued.unvalue(logged, "log:out-2", "no token", now=NOW) == first
    back = unvalued.restore(logged, "log:out-2", "a new index", now=NOW)
    assert unvalued.restore(logged, "log:out-2", "a new index", now=NOW) == back
    assert weight(logged) == 0
    assert outputs.pending_names(logged) == ["log:out-2"]
    again = unvalued.unvalue(logged, "log:out-2", "no token", now=NOW)
    assert again.txn_id > back.txn_id > first.txn_id
    assert unvalued.history(logged) == [first, back, again]
    assert list(check_unvalued(logged)) == []


def test_after_a_close_a_restored_output_counts_in_the_open_period(logged):
    done = unvalued.unvalue(logged, "log:out-2", "no token", now=NOW)
    samples.close(logged, SEPTEMBER)
    assert periods.last_closed(logged) == SEPTEMBER
    back = unvalued.restore(logged, "log:out-2", "a new index", now=NOW)
    assert (done.period, back.period) == (SEPTEMBER, OCTOBER)
    assert unvalued.unvalue(logged, "log:out-2", "not even that", now=NOW).period == OCTOBER


@pytest.mark.parametrize(
    ("name", "reason", "message"),
    [
        ("log:out-1", "x", "is valued and credited"),
        ("log:out-3", "x", "weighs nothing"),
        ("out-2", "x", "there is no output 'out-2'"),
        ("log:out-9", "x", "there is no output 'log:out-9'"),
        ("log:out-2", " ", "only with a reason"),
        ("log:out-2", "a\x00b", "that a database can keep"),
    ],
)
def test_what_makes_no_sense_is_refused(logged, name, reason, message):
    with pytest.raises(LedgerError, match=message):
        unvalued.unvalue(logged, name, reason, now=NOW)
    assert unvalued.history(logged) == []
    with pytest.raises(LedgerError, match=r"is not unvalued|there is no output|only with a reason"):
        unvalued.restore(logged, name, reason, now=NOW)


def test_another_reason_and_a_plain_reversal_are_refused(logged):
    done = unvalued.unvalue(logged, "log:out-2", "no token", now=NOW)
    with pytest.raises(LedgerError, match="unvalued already: no token"):
        unvalued.unvalue(logged, "log:out-2", "another", now=NOW)
    with pytest.raises(LedgerError, match="restore it: credit outputs restore"):
        corrections.undo(logged, done.txn_id, reason="x", now=NOW)


ROW = "INSERT INTO unvalued VALUES (9, {}, '{}', 'x', 1, '2026-10-05T12:30:00.000000Z')"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (ROW.format(1, "unvalued"), "a valued output cannot become unvalued"),
        (ROW.format(3, "unvalued"), "take turns"),
        (ROW.format(1, "restored"), "take turns"),
        ("INSERT INTO valuation VALUES (3, 1, 1)", "an unvalued output cannot be valued"),
    ],
)
def test_the_database_keeps_the_rules_by_itself(populated, statement, message):
    with pytest.raises(LedgerError, match=message), populated.write() as conn:
        conn.execute(text(statement))
    assert verify(populated, None).problems == ()
