"""Everything written says who wrote it, on both engines: transactions in their hash, all other rows in their seal."""

from __future__ import annotations

import getpass
import socket
from dataclasses import replace

import pytest
from sqlalchemy import select, text

from credit.errors import InvalidRequestError, LedgerError
from credit.ledger import holds, journal
from credit.ledger.actor import NOT_RECORDED
from credit.ledger.database import Ledger
from credit.ledger.journal import HashedFields, chain_hash
from credit.ledger.schema import hold, ledger_txn, seal
from credit.ledger.seals import last_actor
from credit.ledger.transactions import transactions
from credit.ledger.verify import chains, verify
from tests.ledger import samples
from tests.ledger.samples import NOW
from tests.ledger.tampering import unguarded


def test_each_row_says_who_wrote_it(database_url):
    for actor in ("anna", "ben"):
        with Ledger.open(database_url, actor=actor) as ledger, ledger.write() as conn:
            if actor == "anna":
                samples.add_providers(conn)
            journal.post(conn, samples.credit_posting(actor), now=NOW)
            holds.place_hold(conn, "ada", {"anna": "EUR", "ben": "USD"}[actor], "a question", now=NOW)
    with Ledger.open(database_url) as ledger:
        with ledger.read() as conn:
            assert [item.actor for item in transactions(conn)] == ["anna", "ben"]
            assert [item.id for item in transactions(conn, actor="ben")] == [2]
            with pytest.raises(LedgerError, match=r"'cho'; there are: anna, ben"):
                transactions(conn, actor="cho")
            assert conn.execute(select(hold.c.id, last_actor(hold)).order_by(hold.c.id)).all() == [
                (1, "anna"),
                (2, "ben"),
            ]
            assert conn.execute(select(seal.c.actor).where(seal.c.id == 1)).scalar() is None  # the house, by init
        assert verify(ledger, None).problems == ()


def test_the_same_posting_by_another_actor_is_a_replay(database_url):
    with Ledger.open(database_url, actor="anna") as ledger, ledger.write() as conn:
        samples.add_providers(conn)
        first = journal.post(conn, samples.credit_posting("a"), now=NOW)
    with Ledger.open(database_url, actor="ben") as ledger, ledger.write() as conn:
        assert journal.post(conn, samples.credit_posting("a"), now=NOW) == replace(first, replayed=True)
        assert [item.actor for item in transactions(conn)] == ["anna"]


def test_without_a_name_the_actor_is_the_user_of_the_system(ledger):
    assert ledger.actor == f"{getpass.getuser()}@{socket.gethostname()}"


@pytest.mark.parametrize("name", ["", " anna", "a" * 129, "an\nna", "an\u200bna", "an\x00na", NOT_RECORDED])
def test_a_name_that_is_none_is_refused(database_url, name):
    with pytest.raises(InvalidRequestError, match="actor"):
        Ledger.open(database_url, actor=name)


NEXT_ENTRIES = """
INSERT INTO ledger_entry SELECT txn_id + 1, line_no, entry_count, account_id, commodity, amount
FROM ledger_entry WHERE txn_id = (SELECT max(id) FROM ledger_txn)
"""
NEXT_TRANSACTION = """
INSERT INTO ledger_txn (id, seq, entry_count, kind, period_id, idempotency_key, input_sha256, effective_on, recorded_at,
    memo, details_json, prev_hash, hash)
SELECT id + 1, seq + 1, entry_count, kind, period_id, 'new', input_sha256, effective_on, recorded_at, memo,
    details_json, hash, input_sha256
FROM ledger_txn ORDER BY id DESC LIMIT 1
"""
NEXT_SEAL = """
INSERT INTO seal (id, table_name, row_id, row_sha256, prev_hash, hash)
SELECT id + 1, table_name, row_id, row_sha256, hash, row_sha256 FROM seal ORDER BY id DESC LIMIT 1
"""
COPIES = {ledger_txn: (NEXT_ENTRIES, NEXT_TRANSACTION), seal: (NEXT_SEAL,)}
"""Statements that copy the last row of a table as the next one, without its actor."""


@pytest.mark.parametrize("table", COPIES, ids=str)
def test_the_database_refuses_what_names_no_actor(populated, table):
    with pytest.raises(LedgerError, match="it names no actor"):
        run(populated, *COPIES[table])


def run(ledger: Ledger, *statements: str) -> None:
    with ledger.write() as conn:
        for statement in statements:
            conn.execute(text(statement))


def test_an_actor_that_was_taken_out_is_named_even_with_a_new_hash(populated_url):
    with unguarded(populated_url, undo=True) as conn:
        last = conn.execute(select(ledger_txn).order_by(ledger_txn.c.seq.desc()).limit(1)).one()
        header = HashedFields(*(getattr(last, name) for name in HashedFields._fields))._replace(actor=None)
        lines = [(line.account, line.commodity, line.amount) for line in journal.entries_of(conn, last.id)]
        change = text("UPDATE ledger_txn SET actor = NULL, hash = :hash WHERE id = :id")
        conn.execute(change, {"hash": chain_hash(header, lines), "id": last.id})
        (problem,) = chains.check_journal(conn)
        assert str(problem) == f"transaction {last.seq}: names no actor; every transaction since {last.seq - 1} must"
