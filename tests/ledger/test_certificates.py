"""Certificates and reviews: registered once, never changed, and missed when a statement names one that is gone."""

from __future__ import annotations

import json
import re

import pytest
from sqlalchemy import text

from credit.errors import LedgerError
from credit.ledger import indexes
from credit.ledger.statements import add_statements
from credit.ledger.verify import check_all, verify
from tests.ledger import samples
from tests.ledger.tampering import CHECKS_OF_ROWS, unguarded


def test_a_certificate_is_registered_once_and_read_back(ledger):
    with ledger.write() as conn:
        index = samples.add_index(conn)
        first = samples.add_certificate(conn)
        assert samples.add_certificate(conn) == first
        other = indexes.register_certificate(conn, index.fingerprint, "quick", '{"x":1}', now=samples.NOW)
        assert indexes.certificates(conn) == [first, other]
    assert (first.index_fingerprint, first.kind, first.registered_at) == (index.fingerprint, "retraining", samples.NOW)


def test_an_index_that_the_ledger_does_not_know_has_no_certificate(ledger):
    with pytest.raises(LedgerError, match="does not know the index"), ledger.write() as conn:
        indexes.register_certificate(conn, "0" * 64, "quick", "{}", now=samples.NOW)


def test_a_review_is_registered_once_and_read_back(ledger):
    with ledger.write() as conn:
        index = samples.add_index(conn)
        first = samples.add_review(conn)
        assert samples.add_review(conn) == first
        other = samples.add_review(conn, "membership")
        assert indexes.reviews(conn) == [first, other]
        with pytest.raises(LedgerError, match="does not know the index"):
            indexes.register_review(conn, "0" * 64, "overlap", "{}", now=samples.NOW)
    assert (first.index_fingerprint, first.kind, first.registered_at) == (index.fingerprint, "overlap", samples.NOW)


@pytest.mark.parametrize(
    ("table", "listed", "other"), [("certificate", "checks", "quick"), ("review", "reviews", "membership")]
)
def test_a_changed_and_a_vanished_text_about_an_index_are_found(populated, populated_url, table, listed, other):
    with populated.write() as conn:
        samples.add_index(conn, fingerprint="d" * 64)
        (made,) = indexes.certificates(conn) if table == "certificate" else indexes.reviews(conn)
        body = {"validation": {listed: [{table: made.sha256}, {table: ""}]}}
        add_statements(conn, samples.OCTOBER, [("ada", json.dumps(body))], now=samples.NOW)
    assert verify(populated, None).problems == ()
    for change, place, message in (
        (f"UPDATE {table} SET body_json = body_json || ' '", f"{table} 1", "does not have its stored hash"),
        (f"UPDATE {table} SET kind = '{other}'", f"{table} 1", "of another kind"),
        (f"UPDATE {table} SET index_id = 2", f"{table} 1", "about another index"),
        (f"DELETE FROM {table}", "statement 2", f"{table} .* which is gone"),
    ):
        with unguarded(populated_url, undo=True) as conn:
            conn.execute(text(change))
            found = check_all(conn, CHECKS_OF_ROWS)
        assert place in {problem.place for problem in found}, (change, found)
        assert any(re.search(message, problem.message) for problem in found), (change, found)
