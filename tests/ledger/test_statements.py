from __future__ import annotations

import pytest
from sqlalchemy import Connection

from credit.ledger import journal, statements
from tests.ledger import samples
from tests.ledger.samples import NOW, OCTOBER


@pytest.fixture(autouse=True)
def start(conn: Connection) -> None:
    samples.add_providers(conn)


def test_statements_are_versioned_and_the_same_text_is_the_same_version(conn: Connection) -> None:
    journal.ensure_period(conn, OCTOBER, now=NOW)
    texts = ["{}", "{}", '{"a":1}', "{}", "{}"]
    versions = [statements.add_statement(conn, OCTOBER, "ada", body, now=NOW).version for body in texts]
    assert versions == [1, 1, 2, 3, 3]
    assert statements.add_statement(conn, OCTOBER, "bell", "{}", now=NOW).version == 1
    assert [item.version for item in statements.statements(conn, OCTOBER)] == [1, 2, 3, 1]
