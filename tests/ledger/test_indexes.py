from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, select

from credit.errors import LedgerError
from credit.ledger import indexes
from credit.ledger.schema import index_location
from tests.ledger import samples
from tests.ledger.samples import NOW


def test_an_index_is_registered_once_and_found_where_it_lay_last(conn):
    first = indexes.register_index(conn, "tiny", "f1", "here", "{}", NOW)
    assert indexes.register_index(conn, "tiny", "f1", "here", "{}", NOW) == first
    moved = indexes.register_index(conn, "tiny", "f1", "there", "{}", NOW + timedelta(days=1))
    assert (moved.id, moved.path, moved.registered_at) == (first.id, "there", NOW)
    assert indexes.register_index(conn, "tiny", "f1", "here", "{}", NOW).path == "here"
    assert conn.execute(select(func.count()).select_from(index_location)).scalar() == 3
    second = indexes.register_index(conn, "tiny", "f2", "second", "{}", NOW)
    assert [item.id for item in indexes.indexes(conn)] == [first.id, second.id]
    assert indexes.models(conn) == {"tiny": indexes.model_id(conn, "tiny")}


def test_an_index_that_is_back_where_another_lay_is_the_newest(conn):
    number = {name: indexes.register_index(conn, "tiny", name, "here", "{}", NOW).id for name in ("f1", "f2")}

    def order() -> list[int]:
        return [item.id for item in indexes.indexes(conn)]

    assert order() == [number["f1"], number["f2"]]
    for _ in range(2):
        indexes.register_index(conn, "tiny", "f1", "here", "{}", NOW)
        assert order() == [number["f2"], number["f1"]]
    elsewhere = indexes.register_index(conn, "tiny", "f3", "elsewhere", "{}", NOW).id
    indexes.register_index(conn, "tiny", "f1", "here", "{}", NOW)
    assert order() == [number["f2"], number["f1"], elsewhere], "nothing has changed"
    indexes.register_index(conn, "tiny", "f2", "here", "{}", NOW)
    assert order() == [number["f1"], elsewhere, number["f2"]]


def test_an_index_serves_one_model_name(conn):
    samples.add_index(conn, "tiny", "f1")
    with pytest.raises(LedgerError, match="registered for the model 'tiny'"):
        samples.add_index(conn, "other", "f1")


def test_an_unknown_model_is_named_with_the_remedy(conn):
    with pytest.raises(LedgerError, match="credit index"):
        indexes.model_id(conn, "nobody")
