"""Moments of the ledger are in the order of its chain, and what was known at one of them never changes."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

from credit.errors import LedgerError
from credit.ledger import balances, clock, holds, journal, payouts, unvalued
from credit.ledger.journal import HashedFields, chain_hash
from credit.ledger.schema import ledger_txn
from credit.ledger.values import utc_moment, utc_text
from credit.ledger.verify import verify
from credit.ledger.verify.chains import check_journal
from tests.ledger import samples
from tests.ledger.samples import NOW, credit_posting
from tests.ledger.tampering import unguarded

NUMBERS = itertools.count()
steps = st.lists(
    st.tuples(st.sampled_from([-3600, -1, 0, 1e-6, 1, 60]) | st.floats(-1e4, 1e4), st.integers(1, 3)), max_size=8
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=steps)
def test_what_was_known_at_a_moment_never_changes_however_the_clock_is_set(module_ledger, moves):
    """Each step moves the machine's clock, and writes one database transaction of so many postings."""
    with module_ledger.write() as conn:
        samples.add_providers(conn)
    told, now = [], NOW
    for seconds, count in moves:
        now += timedelta(seconds=seconds)
        with module_ledger.write() as conn:
            before = clock.last_recorded(conn)
            seqs = [journal.post(conn, credit_posting(f"clock {next(NUMBERS)}"), now=now).seq for _ in range(count)]
            query = select(ledger_txn.c.recorded_at).where(ledger_txn.c.seq.in_(seqs))
            (recorded,) = set(conn.execute(query).scalars())
        moment = utc_moment(recorded)
        assert before is None or moment > before
        assert moment >= now
        assert moment == now or moment - timedelta(microseconds=1) == before
        with module_ledger.read() as conn:
            told.append((moment, balances.balances(conn, "ada", recorded=moment)))
    with module_ledger.read() as conn:
        for moment, known in told:
            assert balances.balances(conn, "ada", recorded=moment) == known
        chain = list(conn.execute(select(ledger_txn.c.recorded_at).order_by(ledger_txn.c.seq)).scalars())
    assert chain == sorted(chain)


def test_a_clock_that_lost_count_records_nothing(populated):
    """One wrong moment would stay ahead of all that follows."""
    with populated.read() as conn:
        last = clock.last_recorded(conn)
    assert last is not None
    wrong, right = last + timedelta(days=3654), last + timedelta(days=3653)
    acts = (
        lambda conn, now: journal.post(conn, credit_posting("late"), now=now),
        lambda conn, now: holds.place_hold(conn, "ada", None, "a doubt", now=now),
        payouts.next_batch,
    )
    for act in acts:
        with pytest.raises(LedgerError, match=r"clock says 2036-.*set it right"), populated.write() as conn:
            act(conn, wrong)
    with populated.write() as conn:
        for act in acts:
            act(conn, right)
    assert verify(populated, None).problems == ()


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        (timedelta(hours=1), ""),
        (timedelta(hours=1, microseconds=1), "is 1 hour ahead"),
        (timedelta(hours=47), "is 47 hours ahead"),
        (timedelta(days=364, hours=23), "is 364 days ahead"),
    ],
)
def test_a_ledger_says_by_how_much_its_clock_is_ahead(ledger, ahead, said):
    with ledger.write() as conn:
        assert clock.notice_of_lead(conn, NOW) == ""
        samples.add_providers(conn)
        journal.post(conn, credit_posting("fast"), now=NOW + ahead)
        notice = clock.notice_of_lead(conn, NOW)
    assert (said in notice) if said else not notice


def test_what_is_recorded_beside_a_transaction_has_its_moment(populated):
    """Unvalued outputs, batches and results, after the clock was set back by a day."""
    earlier = NOW - timedelta(days=1)
    with populated.write() as conn:
        unvalued.restore(conn, "log:out-3", "a mistake", now=earlier)
        unvalued.unvalue(conn, "log:out-3", "no mistake", now=earlier)
    with populated.write() as conn:
        (batch,) = payouts.batches(conn)
        results = [
            payouts.BankResult(item.payout.id, "failed", "", "closed") for item in payouts.batch_items(conn, batch)
        ]
        payouts.record_results(conn, batch, results, now=earlier)
    assert verify(populated, None).problems == ()


@pytest.mark.parametrize("earlier", [timedelta(microseconds=1), timedelta(days=400)])
def test_a_transaction_that_is_recorded_before_the_last_one_is_found(populated_url, earlier):
    """With a hash that is right, as a version that did not look at the order would have written it."""
    with unguarded(populated_url, undo=True) as conn:
        *_, before, last = conn.execute(select(ledger_txn).order_by(ledger_txn.c.seq)).all()
        moment = utc_text(utc_moment(before.recorded_at) - earlier)
        header = HashedFields(*(getattr(last, name) for name in HashedFields._fields))._replace(recorded_at=moment)
        entries = conn.execute(
            text("SELECT a.key, e.commodity, e.amount FROM ledger_entry e JOIN account a ON a.id = e.account_id"
                 " WHERE e.txn_id = :id ORDER BY e.line_no"), {"id": last.id}
        )  # fmt: skip
        digest = chain_hash(header, [tuple(row) for row in entries])
        change = text("UPDATE ledger_txn SET recorded_at = :moment, hash = :hash WHERE id = :id")
        conn.execute(change, {"moment": moment, "hash": digest, "id": last.id})
        (problem,) = check_journal(conn)
    said = (
        f"transaction {last.seq}: was recorded at {moment}, before transaction {last.seq - 1} at {before.recorded_at}"
    )
    assert str(problem) == said
