"""What is left of personal details: seals that find every change while they are there, and tell nothing afterwards."""

from __future__ import annotations

import itertools
from datetime import date

import pytest
from sqlalchemy import Connection, insert, select, text

from credit.errors import LedgerError
from credit.ledger import (
    corrections,
    holds,
    journal,
    personal_data,
    pools,
    seals,
    terms,
    unvalued,
)
from credit.ledger.personal_data import Details
from credit.ledger.schema import metadata, provider_pii, seal
from credit.ledger.verify import verify
from credit.ledger.verify.chains import check_sealed_rows
from credit.records import Terms
from tests.ledger import samples
from tests.ledger.tampering import unguarded

ADA = Details(legal_name="Ada Lovelace", receiver="person", iban="DE02120300000000202051", town="London", country="GB")


def places(conn: Connection) -> list[str]:
    return [problem.place for problem in check_sealed_rows(conn)]


def sealed(conn: Connection) -> list[str]:
    query = select(seal.c.row_sha256).where(seal.c.table_name == provider_pii.name).order_by(seal.c.id)
    return list(conn.execute(query).scalars())


def test_an_iban_that_was_changed_is_found_in_whichever_version(ledger, database_url):
    with ledger.write() as conn:
        samples.add_providers(conn)
        personal_data.set_details(conn, "ada", ADA, now=samples.NOW)
        personal_data.set_details(conn, "ada", Details(iban="NL91ABNA0417164300"), now=samples.NOW)
    assert verify(ledger, None).problems == ()
    for version in (1, 2):
        with unguarded(database_url, undo=True) as conn:
            change = "UPDATE provider_pii SET iban = 'FR1420041010050500013M02606' WHERE id = :version"
            conn.execute(text(change), {"version": version})
            assert places(conn) == [f"provider_pii {version}"]
        with unguarded(database_url, undo=True) as conn:
            conn.execute(text("DELETE FROM provider_pii WHERE id = :version"), {"version": version})
            assert places(conn) == [f"provider_pii {version}"]
    with unguarded(database_url, undo=True) as conn:
        conn.execute(text("UPDATE provider_pii SET salt = (SELECT salt FROM provider_pii WHERE id = 2) WHERE id = 1"))
        assert places(conn) == ["provider_pii 1"]


def test_the_same_details_have_another_seal_each_time(conn):
    samples.add_providers(conn)
    for key, _ in itertools.product(("ada", "bell"), range(3)):
        personal_data.set_details(conn, key, ADA, now=samples.NOW)
        personal_data.erase_details(conn, key, reason="asked to", now=samples.NOW)
    assert len(set(sealed(conn))) == 6


def test_who_knows_the_details_cannot_match_a_seal_once_they_are_erased(conn):
    """Every column is known but the salt; of that, nothing is left in any table."""
    samples.add_providers(conn)
    version = personal_data.set_details(conn, "ada", ADA, now=samples.NOW)
    row = conn.execute(select(provider_pii)).mappings().one()
    (digest,) = sealed(conn)
    assert seals.row_sha256(conn, provider_pii.name, row) == digest
    personal_data.erase_details(conn, "ada", reason="asked to", now=samples.NOW)
    assert sealed(conn) == [digest]
    for guess in ({**row, "salt": None}, {**row, "salt": ""}, {**row, "salt": 64 * "0"}, {**row, "salt": digest}):
        assert seals.row_sha256(conn, provider_pii.name, guess) != digest
    left = "".join(repr(conn.execute(select(table)).all()) for table in metadata.sorted_tables)
    assert row["salt"] not in left
    assert version == row["id"]


def test_an_erasure_is_on_record_and_sealed_and_nothing_comes_back(ledger, database_url):
    with ledger.write() as conn:
        samples.add_providers(conn)
        personal_data.set_details(conn, "ada", ADA, now=samples.NOW)
        kept = dict(conn.execute(select(provider_pii)).mappings().one())
        personal_data.erase_details(conn, "ada", reason="asked to", now=samples.NOW)
    assert verify(ledger, None).problems == ()
    with pytest.raises(LedgerError, match="last event, which must have set them"), ledger.write() as conn:
        conn.execute(insert(provider_pii), kept)
    with unguarded(database_url, undo=True) as conn:
        conn.execute(insert(provider_pii), kept)
        assert places(conn) == ["provider_pii 1"]
    with unguarded(database_url, undo=True) as conn:
        conn.execute(text("DELETE FROM personal_event WHERE action = 'erased'"))
        assert places(conn) == ["personal_event 2", "provider_pii 1"]


IBAN = "de02 1203 0000 0000 2020 51"  # as people write it


@pytest.mark.parametrize(
    "write",
    [
        lambda conn: corrections.adjust(conn, "bell", 5, "EUR", period="2026-10", reason=f"to {IBAN}", now=samples.NOW),
        lambda conn: corrections.pay_advance(
            conn, "bell", 5, "EUR", paid_on=samples.NOW.date(), reference=IBAN, now=samples.NOW
        ),
        lambda conn: corrections.undo(conn, 1, reason=f"was for {IBAN}", now=samples.NOW),
        lambda conn: holds.place_hold(conn, "bell", None, f"{IBAN} is wrong", now=samples.NOW),
        lambda conn: unvalued.unvalue(conn, "log:out-1", f"asked by {IBAN}", now=samples.NOW),
        lambda conn: terms.agree(
            conn, "bell", "EUR", Terms(agreement_reference=IBAN), date(2026, 10, 1), now=samples.NOW
        ),
        lambda conn: pools.add_pool(conn, "2026-10", "EUR", 5, 0, reference=IBAN, now=samples.NOW),
    ],
    ids=["adjust", "advance", "undo", "hold", "unvalue", "terms", "pool"],
)
def test_what_stays_for_ever_must_not_repeat_what_can_be_erased(conn, write):
    """Whoever it is about, and however it is spaced."""
    samples.add_providers(conn)
    samples.add_index(conn)
    samples.add_outputs(conn, [samples.logged(1)])
    pools.add_pool(conn, "2026-10", "USD", 9, 0, reference="subscriptions", now=samples.NOW)
    personal_data.set_details(conn, "ada", ADA, now=samples.NOW)
    head = journal.chain_head(conn)
    with pytest.raises(LedgerError, match="holds the iban of ada; personal data must stay erasable") as caught:
        write(conn)
    assert "1203" not in str(caught.value)
    assert journal.chain_head(conn) == head
    personal_data.erase_details(conn, "ada", reason="asked to", now=samples.NOW)
    write(conn)
