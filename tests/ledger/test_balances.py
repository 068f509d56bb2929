from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from credit.errors import LedgerError
from credit.ledger import balances, corrections, journal
from credit.ledger.balances import Balance
from credit.records import CREDIT
from tests.ledger import samples
from tests.ledger.samples import NOW, OCTOBER, credit_posting


def test_a_balance_is_as_of_a_day_and_as_of_what_was_known(conn):
    samples.populate(conn)
    account, later = "money:payable:ada", NOW + timedelta(days=3)
    then = balances.balances(conn, account, recorded=NOW)
    assert then == [Balance(account, "USD", 0)]  # 51 allocated, 50 on their way, 1 in reserve
    corrections.adjust(conn, "ada", 9, "USD", period=OCTOBER, reason="a late claim", now=later)
    assert balances.balances(conn, account) == [Balance(account, "USD", 9)]
    assert balances.balances(conn, account, recorded=NOW) == then
    assert balances.balances(conn, account, effective=date(2026, 9, 30)) == [Balance(account, "USD", 1)]
    assert balances.balances(conn, account, effective=date(2026, 9, 27)) == []


def test_a_provider_has_all_its_accounts(conn):
    samples.populate(conn)
    held = {(item.account, item.commodity): item.amount for item in balances.balances(conn, "ada")}
    assert held == {
        ("credits:earned:ada/novels", "CREDIT"): 500_007,
        ("money:payable:ada", "USD"): 0,
        ("money:payout:ada", "USD"): 0,
        ("money:payout:ada/exported", "USD"): 50,  # the payout has left in a batch
        ("money:reserve:ada", "USD"): 1,
    }
    assert balances.balances(conn, "money:fees") == []


@pytest.mark.parametrize("whose", ["eve", "money:nothing", "money:payable:"])
def test_nobodys_balance_is_refused(conn, whose):
    with pytest.raises(LedgerError, match=r"is neither a provider|is not an account"):
        balances.balances(conn, whose)


def test_a_balance_is_as_of_an_effective_and_a_recorded_date(conn):
    """Learnt on the 5th: earned on the 1st. Learnt on the 9th: that was wrong, and 3 were earned on the 8th."""
    samples.add_providers(conn)
    key = "credits:earned:ada/novels"
    journal.post(conn, credit_posting("a", 5, 1, day=date(2026, 10, 1)), now=NOW)
    later = NOW + timedelta(days=4)
    journal.reverse(conn, 1, period=OCTOBER, reason="wrong", now=later)
    journal.post(conn, credit_posting("b", 3, 1, day=date(2026, 10, 8)), now=later)

    def held(effective: int | None, recorded: datetime | None) -> int:
        day = None if effective is None else date(2026, 10, effective)
        return balances.balance(conn, key, CREDIT, effective=day, recorded=recorded)

    assert [held(day, NOW) for day in (None, 1, 8)] == [5, 5, 5]
    assert [held(day, later) for day in (None, 1, 7, 8)] == [3, 0, 0, 3]
    assert [held(day, None) for day in (None, 1)] == [3, 0]
    assert held(None, datetime(2026, 1, 1, tzinfo=UTC)) == 0
    assert balances.balance(conn, key, "USD") == balances.balance(conn, "money:payable:ada", "USD") == 0
