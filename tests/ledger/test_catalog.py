from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Connection, func, select

from credit.errors import LedgerError
from credit.ledger import catalog, journal, sealchecks
from credit.ledger.database import Ledger
from credit.ledger.schema import index_location
from credit.records import Provider
from tests.ledger import samples
from tests.ledger.samples import NOW


def test_importing_adds_renames_and_leaves_alone(conn: Connection) -> None:
    first = [Provider("ada", "Ada Press"), Provider("own", "Own data", "house")]
    assert catalog.import_providers(conn, first, NOW) == {"ada": "added", "own": "added"}
    again = [Provider("ada", "Ada & Co"), Provider("own", "Own data", "house")]
    assert catalog.import_providers(conn, again, NOW) == {"ada": "changed", "own": "unchanged"}
    assert [item.name for item in catalog.providers(conn)] == ["Ada & Co", "House", "Own data"]


def test_importing_many_is_adding_them_one_by_one(ledger: Ledger) -> None:
    """However they are batched, and though keys come again; every row is sealed as it is."""
    many = [Provider(f"p{number % 1100}", f"name {number % 7}") for number in range(1300)]
    with ledger.write() as conn:
        said = catalog.import_providers(conn, many, NOW)
        assert list(sealchecks.check_sealed(conn)) == []
        found = {item.key: item for item in catalog.providers(conn) if item.kind == "provider"}
    assert found == {item.key: item for item in many}
    known: dict[str, Provider] = {}
    expected = {}
    for item in many:
        before = known.get(item.key)
        expected[item.key] = "added" if before is None else "unchanged" if before == item else "changed"
        known[item.key] = item
    assert said == expected


@pytest.mark.parametrize("key", ["", "Ada", "a b", "-a", "a" * 65, "ädä"])
def test_a_key_that_is_none_is_refused(conn: Connection, key: str) -> None:
    with pytest.raises(LedgerError, match="not a provider's key"):
        catalog.add_provider(conn, Provider(key, "Somebody"), NOW)


def test_the_house_stays_the_house(conn: Connection) -> None:
    with pytest.raises(LedgerError, match="reserved"):
        catalog.add_provider(conn, Provider("house", "Mine", "provider"), NOW)


@pytest.mark.parametrize("name", ["a\x00b", "\ud800"])
def test_a_name_that_no_database_keeps_is_refused(conn: Connection, name: str) -> None:
    with pytest.raises(LedgerError, match="cannot keep"):
        catalog.add_provider(conn, Provider("ada", name), NOW)


def test_the_kind_changes_until_the_first_credit(conn: Connection) -> None:
    samples.add_providers(conn)
    assert catalog.add_provider(conn, Provider("ada", "Ada", "house"), NOW) == "changed"
    assert catalog.add_provider(conn, Provider("ada", "Ada"), NOW) == "changed"
    journal.post(conn, samples.credit_posting("a"), now=NOW)
    with pytest.raises(LedgerError, match="has been credited"):
        catalog.add_provider(conn, Provider("ada", "Ada", "house"), NOW)


def test_an_index_is_registered_once_and_found_where_it_lay_last(conn: Connection) -> None:
    first = catalog.register_index(conn, "tiny", "f1", "here", "{}", NOW)
    assert catalog.register_index(conn, "tiny", "f1", "here", "{}", NOW) == first
    moved = catalog.register_index(conn, "tiny", "f1", "there", "{}", NOW + timedelta(days=1))
    assert (moved.id, moved.path, moved.registered_at) == (first.id, "there", NOW)
    assert catalog.register_index(conn, "tiny", "f1", "here", "{}", NOW).path == "here"
    assert conn.execute(select(func.count()).select_from(index_location)).scalar() == 3
    second = catalog.register_index(conn, "tiny", "f2", "second", "{}", NOW)
    assert [item.id for item in catalog.indexes(conn)] == [first.id, second.id]
    assert catalog.models(conn) == {"tiny": catalog.model_id(conn, "tiny")}


def test_an_index_that_is_back_where_another_lay_is_the_newest(conn: Connection) -> None:
    number = {name: catalog.register_index(conn, "tiny", name, "here", "{}", NOW).id for name in ("f1", "f2")}

    def order() -> list[int]:
        return [item.id for item in catalog.indexes(conn)]

    assert order() == [number["f1"], number["f2"]]
    for _ in range(2):
        catalog.register_index(conn, "tiny", "f1", "here", "{}", NOW)
        assert order() == [number["f2"], number["f1"]]
    elsewhere = catalog.register_index(conn, "tiny", "f3", "elsewhere", "{}", NOW).id
    catalog.register_index(conn, "tiny", "f1", "here", "{}", NOW)
    assert order() == [number["f2"], number["f1"], elsewhere], "nothing has changed"
    catalog.register_index(conn, "tiny", "f2", "here", "{}", NOW)
    assert order() == [number["f1"], elsewhere, number["f2"]]


def test_an_index_serves_one_model_name(conn: Connection) -> None:
    samples.add_index(conn, "tiny", "f1")
    with pytest.raises(LedgerError, match="registered for the model 'tiny'"):
        samples.add_index(conn, "other", "f1")


def test_an_unknown_model_is_named_with_the_remedy(conn: Connection) -> None:
    with pytest.raises(LedgerError, match="credit index"):
        catalog.model_id(conn, "nobody")


def test_rows_are_in_the_same_order_on_both_engines(conn: Connection) -> None:
    """By code point, whatever the database's own language: `_` after `Z`, before `a`."""
    keys = ["b", "a_b", "a-b", "ab", "a0"]
    catalog.import_providers(conn, [Provider(key, key) for key in keys], NOW)
    found = [item.key for item in catalog.providers(conn)]
    assert found == sorted(found)
