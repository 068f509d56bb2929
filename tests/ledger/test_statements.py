from __future__ import annotations

import pytest
from sqlalchemy import Connection

from credit.errors import LedgerError
from credit.ledger import journal, providers, statements
from credit.ledger.statements import Issuer, issuers, set_issuer
from credit.ledger.verify.chains import check_sealed_rows, check_seals
from credit.records import Provider
from tests.ledger import samples
from tests.ledger.samples import NOW, OCTOBER

LABS = Issuer("Example Labs", "1 Long Lane\nLondon", "")


@pytest.fixture(autouse=True)
def start(conn: Connection) -> None:
    samples.add_providers(conn)


def test_statements_are_versioned_and_the_same_text_is_the_same_version(conn):
    journal.ensure_period(conn, OCTOBER, now=NOW)
    texts = ["{}", "{}", '{"a":1}', "{}", "{}"]
    versions = [statements.add_statements(conn, OCTOBER, [("ada", body)], now=NOW) for body in texts]
    assert versions == [[1], [1], [2], [3], [3]]
    assert statements.add_statements(conn, OCTOBER, [("bell", "{}"), ("ada", "{}")], now=NOW) == [1, 3]
    assert [item.version for item in statements.statements(conn, OCTOBER)] == [1, 2, 3, 1]


def test_many_statements_are_written_as_each_would_be(conn, monkeypatch):
    monkeypatch.setattr(statements, "STATEMENTS_AT_ONCE", 3)
    keys = [f"p{number}" for number in range(10)]
    providers.import_providers(conn, [Provider(key, key) for key in keys], now=NOW)
    journal.ensure_period(conn, OCTOBER, now=NOW)
    statements.add_statements(conn, OCTOBER, [(key, "{}") for key in keys[::2]], now=NOW)
    told = [(key, f'{{"of":"{key}"}}') for key in keys]
    assert statements.add_statements(conn, OCTOBER, iter(told), now=NOW) == [2, 1] * 5
    latest = {item.provider: item.body_json for item in statements.statements(conn, OCTOBER)}
    assert latest == dict(told)
    assert list(check_sealed_rows(conn)) == list(check_seals(conn)) == []


def test_a_statement_of_nobody_is_refused(conn):
    journal.ensure_period(conn, OCTOBER, now=NOW)
    with pytest.raises(LedgerError, match="unknown provider 'eve'"):
        statements.add_statements(conn, OCTOBER, [("ada", "{}"), ("eve", "{}")], now=NOW)


def test_the_last_issuer_counts_and_all_are_remembered(conn):
    assert issuers(conn) == []
    first = set_issuer(conn, LABS, now=NOW)
    assert set_issuer(conn, LABS, now=NOW) == first, "twice is once"
    second = set_issuer(conn, Issuer("Example Labs", "2 Long Lane", "registered"), now=NOW)
    third = set_issuer(conn, LABS, now=NOW)
    assert issuers(conn) == [first, second, third]
    assert [item.version for item in issuers(conn)] == [1, 2, 3]


@pytest.mark.parametrize("item", [Issuer(" ", "x", ""), Issuer("x", "", ""), Issuer("x", "y", "\0")])
def test_an_issuer_that_nobody_could_find_is_refused(conn, item):
    with pytest.raises(LedgerError, match=r"needs a name and an address|cannot keep"):
        set_issuer(conn, item, now=NOW)
    assert issuers(conn) == []
