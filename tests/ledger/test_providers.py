from __future__ import annotations

import pytest

from credit.errors import LedgerError
from credit.ledger import journal, providers
from credit.ledger.verify.chains import check_sealed_rows
from credit.records import Provider
from tests.ledger import samples
from tests.ledger.samples import NOW


def test_importing_adds_renames_and_leaves_alone(conn):
    first = [Provider("ada", "Ada Press"), Provider("own", "Own data", "house")]
    assert providers.import_providers(conn, first, NOW) == {"ada": "added", "own": "added"}
    again = [Provider("ada", "Ada & Co"), Provider("own", "Own data", "house")]
    assert providers.import_providers(conn, again, NOW) == {"ada": "changed", "own": "unchanged"}
    assert [item.name for item in providers.providers(conn)] == ["Ada & Co", "House", "Own data"]


def test_importing_many_is_adding_them_one_by_one(ledger):
    """However they are batched, and though keys come again; every row is sealed as it is."""
    many = [Provider(f"p{number % 1100}", f"name {number % 7}") for number in range(1300)]
    with ledger.write() as conn:
        said = providers.import_providers(conn, many, NOW)
        assert list(check_sealed_rows(conn)) == []
        found = {item.key: item for item in providers.providers(conn) if item.kind == "provider"}
    assert found == {item.key: item for item in many}
    known: dict[str, Provider] = {}
    expected = {}
    for item in many:
        before = known.get(item.key)
        expected[item.key] = "added" if before is None else "unchanged" if before == item else "changed"
        known[item.key] = item
    assert said == expected


@pytest.mark.parametrize("key", ["", "Ada", "a b", "-a", "a" * 65, "ädä"])
def test_a_key_that_is_none_is_refused(conn, key):
    with pytest.raises(LedgerError, match="not a provider's key"):
        providers.add_provider(conn, Provider(key, "Somebody"), NOW)


def test_the_house_stays_the_house(conn):
    with pytest.raises(LedgerError, match="reserved"):
        providers.add_provider(conn, Provider("house", "Mine", "provider"), NOW)


@pytest.mark.parametrize("name", ["a\x00b", "\ud800"])
def test_a_name_that_no_database_keeps_is_refused(conn, name):
    with pytest.raises(LedgerError, match="cannot keep"):
        providers.add_provider(conn, Provider("ada", name), NOW)


def test_the_kind_changes_until_the_first_credit(conn):
    samples.add_providers(conn)
    assert providers.add_provider(conn, Provider("ada", "Ada", "house"), NOW) == "changed"
    assert providers.add_provider(conn, Provider("ada", "Ada"), NOW) == "changed"
    journal.post(conn, samples.credit_posting("a"), now=NOW)
    with pytest.raises(LedgerError, match="has been credited"):
        providers.add_provider(conn, Provider("ada", "Ada", "house"), NOW)


def test_rows_are_in_the_same_order_on_both_engines(conn):
    """By code point, whatever the database's own language: `_` after `Z`, before `a`."""
    keys = ["b", "a_b", "a-b", "ab", "a0"]
    providers.import_providers(conn, [Provider(key, key) for key in keys], NOW)
    found = [item.key for item in providers.providers(conn)]
    assert found == sorted(found)
