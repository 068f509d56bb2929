from __future__ import annotations

import pytest
from sqlalchemy import Connection

from credit.errors import LedgerError
from credit.ledger.issuers import Issuer, issuers, set_issuer
from tests.ledger.samples import NOW

LABS = Issuer("Example Labs", "1 Long Lane\nLondon", "")


def test_the_last_issuer_counts_and_all_are_remembered(conn: Connection) -> None:
    assert issuers(conn) == []
    first = set_issuer(conn, LABS, now=NOW)
    assert set_issuer(conn, LABS, now=NOW) == first, "twice is once"
    second = set_issuer(conn, Issuer("Example Labs", "2 Long Lane", "registered"), now=NOW)
    third = set_issuer(conn, LABS, now=NOW)
    assert issuers(conn) == [first, second, third]
    assert [item.version for item in issuers(conn)] == [1, 2, 3]


@pytest.mark.parametrize("item", [Issuer(" ", "x", ""), Issuer("x", "", ""), Issuer("x", "y", "\0")])
def test_an_issuer_that_nobody_could_find_is_refused(conn: Connection, item: Issuer) -> None:
    with pytest.raises(LedgerError, match=r"needs a name and an address|cannot keep"):
        set_issuer(conn, item, now=NOW)
    assert issuers(conn) == []
