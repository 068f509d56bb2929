from __future__ import annotations

from datetime import date, timedelta

import pytest
from sqlalchemy import Connection

from credit.errors import LedgerError
from credit.ledger import balances, corrections
from credit.ledger.balances import Balance
from tests.ledger import samples
from tests.ledger.samples import NOW, OCTOBER


def test_a_balance_is_as_of_a_day_and_as_of_what_was_known(conn: Connection) -> None:
    samples.populate(conn)
    account, later = "money:payable:ada", NOW + timedelta(days=3)
    then = balances.balances(conn, account, recorded=NOW)
    assert then == [Balance(account, "USD", 0)]  # 51 allocated, 50 on their way, 1 in reserve
    corrections.adjust(conn, "ada", 9, "USD", period=OCTOBER, reason="a late claim", now=later)
    assert balances.balances(conn, account) == [Balance(account, "USD", 9)]
    assert balances.balances(conn, account, recorded=NOW) == then
    assert balances.balances(conn, account, effective=date(2026, 9, 30)) == [Balance(account, "USD", 1)]
    assert balances.balances(conn, account, effective=date(2026, 9, 27)) == []


def test_a_provider_has_all_its_accounts(conn: Connection) -> None:
    samples.populate(conn)
    held = {(item.account, item.commodity): item.amount for item in balances.balances(conn, "ada")}
    assert held == {
        ("credits:earned:ada/novels", "CREDIT"): 600_007,
        ("money:payable:ada", "USD"): 0,
        ("money:payout:ada", "USD"): 0,
        ("money:payout:ada/exported", "USD"): 50,  # the payout has left in a batch
        ("money:reserve:ada", "USD"): 1,
    }
    assert balances.balances(conn, "money:fees") == []


@pytest.mark.parametrize("whose", ["eve", "money:nothing", "money:payable:"])
def test_nobodys_balance_is_refused(conn: Connection, whose: str) -> None:
    with pytest.raises(LedgerError, match=r"is neither a provider|is not an account"):
        balances.balances(conn, whose)
