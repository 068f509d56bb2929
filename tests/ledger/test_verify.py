"""What was changed behind the ledger's back is found, and the place is named."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError

from credit.errors import IntegrityError
from credit.ledger import journal, statements
from credit.ledger.database import Ledger
from credit.ledger.schema import ledger_entry, ledger_txn
from credit.ledger.values import GENESIS
from credit.ledger.verify import check_all, verify
from credit.ledger.verify.definitions import check_definitions
from tests.conftest import ON_POSTGRESQL, ON_SQLITE
from tests.ledger import samples
from tests.ledger.tampering import CHECKS_OF_ROWS, unguarded

Tamper = Callable[..., None]


@pytest.fixture
def database_url(populated_url: str) -> str:
    return populated_url


@pytest.fixture
def tamper(ledger: Ledger, database_url: str) -> Tamper:
    def change(*statements: str) -> None:
        with unguarded(database_url) as conn:
            for statement in statements:
                conn.execute(text(statement))

    return change


def places(ledger: Ledger) -> list[str]:
    return [problem.place for problem in verify(ledger, None).problems]


def places_of_rows(conn: Connection) -> list[str]:
    """Places by every check but that of tables and triggers, which no changed row moves and which takes longest."""
    return [problem.place for problem in check_all(conn, CHECKS_OF_ROWS)]


def places_of_definitions(conn: Connection) -> list[str]:
    """Places by the check of tables and triggers alone."""
    return [problem.place for problem in check_all(conn, [check_definitions])]


def test_an_untouched_ledger_has_no_problems(ledger, tmp_path):
    (tmp_path / f"{samples.BOOK_SHA256}.parquet").write_bytes(samples.BOOK)
    report = verify(ledger, tmp_path)
    report.raise_for_problems()
    assert (report.problems, report.chain_seq, report.checked["ledger_txn"]) == ((), 13, 13)
    assert report.checked["score_book files"] == 1


def test_an_empty_ledger_has_no_problems(shared_database):
    with Ledger.open(shared_database()) as empty:
        report = verify(empty, None)
    assert (report.problems, report.chain_seq, report.chain_head) == ((), 0, GENESIS)


HEADER_CHANGES = {
    "id": "3000",
    "seq": "3000",
    "entry_count": "2",
    "reverses_txn_id": "1",
    "prev_hash": f"'{'1' * 64}'",
    "hash": f"'{'2' * 64}'",
    "input_sha256": f"'{'3' * 64}'",
    "period_id": "'2026-09'",
    "effective_on": "'2026-10-09'",
    "recorded_at": "'2026-10-05T12:30:00.000001Z'",
}
ENTRY_CHANGES = {
    "txn_id": "8",
    "line_no": "7",
    "entry_count": "9",
    "account_id": "3",
    "commodity": "'USD'",
    "amount": "1",
}
KEPT_BY_CHECKS = {"id", "seq", "line_no", "entry_count"}
"""Columns that PostgreSQL does not let even a superuser change alone, because a CHECK cannot be switched off."""


def change(conn: Connection, table: str, column: str, value: str, where: str) -> None:
    conn.exec_driver_sql(f"UPDATE {table} SET {column} = {value} WHERE {where}")


def first_in_chain(conn: Connection) -> str:
    return next(place for place in places_of_rows(conn) if place.startswith(("transaction", "entry")))


def test_what_the_changes_are_made_to_has_no_problems(raw):
    assert places_of_rows(raw) == []


@pytest.mark.parametrize("column", ledger_txn.c.keys())
def test_a_changed_header_is_found(raw, engine_name, column):
    if engine_name == "postgresql" and column in KEPT_BY_CHECKS - {"entry_count"}:
        with pytest.raises(DBAPIError, match="ck_ledger_txn_id_is_seq"):
            change(raw, "ledger_txn", column, "3000", "id = 4")
        return
    change(raw, "ledger_txn", column, HEADER_CHANGES.get(column, "'tampered'"), "id = 4")
    assert first_in_chain(raw) == ("entry 4/1" if column == "seq" else "transaction 4")


@pytest.mark.parametrize("column", ledger_entry.c.keys())
def test_a_changed_entry_is_found(raw, engine_name, column):
    where = "commodity = 'CREDIT' AND amount = 5"
    if engine_name == "postgresql" and column == "line_no":
        with pytest.raises(DBAPIError, match="ck_ledger_entry_line_no"):
            change(raw, "ledger_entry", column, "7", where)
        return
    assert raw.exec_driver_sql(f"SELECT txn_id FROM ledger_entry WHERE {where}").scalar_one() == 4
    change(raw, "ledger_entry", column, ENTRY_CHANGES[column], where)
    assert first_in_chain(raw) == "transaction 4"


def test_amounts_that_still_balance_are_found(raw):
    change(raw, "ledger_entry", "amount", "amount + 1", "txn_id = 4 AND line_no = 2")
    change(raw, "ledger_entry", "amount", "amount - 1", "txn_id = 4 AND line_no = 3")
    assert places_of_rows(raw) == ["transaction 4"]


@pytest.mark.parametrize(
    ("statements", "place"),
    [
        (["DELETE FROM ledger_entry WHERE txn_id = 4 AND line_no = 3"], "transaction 4"),
        (["DELETE FROM ledger_entry WHERE txn_id = 4", "DELETE FROM ledger_txn WHERE id = 4"], "transaction 5"),
        (["DELETE FROM ledger_txn WHERE id = 4"], "entry 4/1"),
        (["INSERT INTO ledger_entry VALUES (99, 1, 2, 1, 'CREDIT', 5)"], "entry 99/1"),
        (["DELETE FROM ledger_entry WHERE txn_id = 6", "DELETE FROM ledger_txn WHERE id = 6"], "transaction 7"),
        (
            ["UPDATE account SET key = 'credits:earned:ada/x', collection = 'x' WHERE collection = 'novels'"],
            "transaction 1",
        ),
        (["UPDATE account SET collection = 'other' WHERE id = 1"], "account 1"),
        (["UPDATE account SET provider_id = 3 WHERE id = 1"], "account 1"),
        (["UPDATE account SET key = 'nonsense' WHERE id = 1"], "account 1"),
        (["UPDATE output SET completion = 'other' WHERE id = 2"], "output 2"),
        (["UPDATE output SET messages_json = NULL WHERE id = 2"], "output 2"),
        (["UPDATE output SET weight_micro = 5 WHERE id = 2"], "output 2"),
        (["UPDATE output SET external_id = 'x' WHERE id = 2"], "output 2"),
        (["UPDATE output SET weight_micro = 5 WHERE id = 1"], "purge 1"),
        (["UPDATE output SET completion = 'other' WHERE id = 1"], "output 1"),
        (["UPDATE ingest_file SET accepted = 3"], "ingest_file 1"),
        (["UPDATE score_book SET output_count = 3"], "score_book 1"),
        (["DELETE FROM valuation WHERE output_id = 2"], "score_book 1"),
        (["DELETE FROM output WHERE id = 2"], "valuation 2, 1"),
        (["UPDATE statement SET body_json = '{}'"], "statement 1"),
        (["DELETE FROM unvalued"], "transaction 10"),
        (["INSERT INTO valuation VALUES (3, 1, 1)"], "output 3"),
        (
            ["UPDATE allocation SET amount_minor = amount_minor + 1 WHERE id = 1"],
            "pool 1 (2026-09, USD, subscriptions)",
        ),
        (["DELETE FROM allocation"], "pool 1 (2026-09, USD, subscriptions)"),
        (["UPDATE pool SET gross_minor = 200, net_minor = 180 WHERE id = 1"], "pool 1 (2026-09, USD, subscriptions)"),
        (["DELETE FROM ledger_entry WHERE txn_id > 7", "DELETE FROM ledger_txn WHERE id > 7"], "pool 2"),
    ],
)
def test_tampering_is_found_and_the_place_is_named(raw, statements, place):
    for statement in statements:
        raw.exec_driver_sql(statement)
    assert any(found.startswith(place) for found in places_of_rows(raw))


PAYMENT_CHANGES = {
    "payout": {"period_id": "'2026-10'", "provider_id": "3", "currency": "'EUR'", "amount_minor": "51",
               "status": "'paid'", "txn_id": "2", "id": "7"},
    "payout_batch": {"id": "7", "period_id": "'2026-10'", "currency": "'EUR'", "format": "'wise'",
                     "reference": "'CR9'", "payer_json": "'[]'", "payout_count": "2", "amount_minor": "51",
                     "file_sha256": f"'{'9' * 64}'", "txn_id": "2", "created_at": "'2027-10-05T12:30:00.000000Z'"},
    "payout_void": {"payout_id": "1", "goes_to": "'escrow'", "reason": "'x'", "txn_id": "2", "id": "7",
                    "recorded_at": "'2027-10-05T12:30:00.000000Z'"},
    "payout_event": {"payout_id": "7", "batch_id": "7", "status": "'paid'", "details_id": "7", "reference": "'x'",
                     "reason": "'x'", "txn_id": "2", "recorded_at": "'2027-10-05T12:30:00.000000Z'"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("table", "column"), [(table, column) for table, columns in PAYMENT_CHANGES.items() for column in columns]
)
def test_a_changed_payout_batch_event_or_void_is_found(raw, engine_name, table, column):
    value = PAYMENT_CHANGES[table][column]
    if engine_name == "postgresql" and (table, column) == ("payout_event", "status"):
        with pytest.raises(DBAPIError, match="ck_payout_event_details"):
            change(raw, table, column, value, "id = 1")
        return
    change(raw, table, column, value, "id = 1")
    assert any(place.startswith("payout") for place in places_of_rows(raw))


CLOSE_CHANGES = {
    "pool": {"period_id": "'2026-10'", "currency": "'GBP'", "reference": "'x'", "gross_minor": "122",
             "deductions_minor": "19", "net_minor": "100", "txn_id": "2"},
    "allocation": {"period_id": "'2026-10'", "pool_id": "2", "provider_id": "1", "credit_micro": "499999",
                   "total_credit_micro": "1000001", "amount_minor": "50", "txn_id": "7"},
    "reserve": {"period_id": "'2026-09'", "provider_id": "3", "currency": "'EUR'", "amount_minor": "2",
                "release_period": "'2026-11'", "txn_id": "2"},
    "unvalued": {"output_id": "1", "action": "'restored'", "reason": "'x'", "txn_id": "2",
                  "recorded_at": "'2027-10-05T12:30:00.000000Z'"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("table", "column"), [(table, column) for table, columns in CLOSE_CHANGES.items() for column in columns]
)
def test_a_changed_pool_share_reserve_or_unvalued_output_is_found(raw, engine_name, table, column):
    value = CLOSE_CHANGES[table][column]
    if engine_name == "postgresql" and column in {"gross_minor", "deductions_minor", "net_minor"}:
        with pytest.raises(DBAPIError, match="ck_pool_net"):
            change(raw, table, column, value, "id = 1")
        return
    change(raw, table, column, value, "id = 1")
    found = places_of_rows(raw)
    assert any(place.startswith((table, "pool")) for place in found), found


def test_shares_that_exchange_a_unit_are_found(raw):
    """They sum to the pool still, and each is a rounding of its exact share; the journal's lines say who got it."""
    change(raw, "allocation", "amount_minor", "101 - amount_minor", "true")
    assert {place.split(" (")[0] for place in places_of_rows(raw)} == {"allocation 1", "allocation 2"}


def statement_at_head(ledger: Ledger) -> str:
    """Post something, and let a statement carry the head after it."""
    with ledger.write() as conn:
        journal.post(conn, samples.credit_posting("before the statement"), now=samples.NOW)
        _, head = journal.chain_head(conn)
        statements.add_statements(conn, samples.SEPTEMBER, [("bell", f'{{"chain_head":"{head}"}}')], now=samples.NOW)
    return head


CUT = ("DELETE FROM ledger_entry WHERE txn_id > 13", "DELETE FROM ledger_txn WHERE id > 13")


def test_a_tail_that_was_cut_off_is_found_by_the_statements_after_it(ledger, tamper):
    statement_at_head(ledger)
    assert places(ledger) == []
    tamper(*CUT)
    found = verify(ledger, None).problems
    assert {problem.place.split()[0] for problem in found} == {"seal", "statement"}
    assert found[-1].place == "statement 2"
    assert all("tail was cut off" in problem.message for problem in found)


def test_a_tail_that_was_cut_off_is_found_by_whoever_kept_the_head(ledger, tamper):
    with ledger.write() as conn:
        head = journal.post(conn, samples.credit_posting("last"), now=samples.NOW).hash
    assert verify(ledger, None, heads=[head]).problems == ()
    tamper(*CUT)
    assert places(ledger) == []
    (problem,) = verify(ledger, None, heads=[head]).problems
    assert (problem.place, problem.message[:22]) == ("chain", f"the head {head[:13]}")


def test_a_tail_that_was_cut_off_is_found_by_the_payouts_in_it(ledger, tamper):
    tamper("DELETE FROM ledger_entry WHERE txn_id > 10", "DELETE FROM ledger_txn WHERE id > 10")
    seal, *others = places(ledger)
    assert seal.startswith("seal ")
    assert {"payout", "payout_batch", "payout_void"} <= {place.split()[0] for place in others}


def test_entries_that_changed_places_are_found(raw):
    """Two transactions that both balance, with as many lines each, exchange their entries."""
    for old, new in ((1, 99), (4, 1), (99, 4)):
        change(raw, "ledger_entry", "txn_id", str(new), f"txn_id = {old}")
    assert places_of_rows(raw)[:2] == ["transaction 1", "transaction 4"]


def test_every_post_moves_the_head(ledger):
    """Whoever kept an earlier head can tell a tail that was cut off."""
    before = verify(ledger, None).chain_head
    with ledger.write() as conn:
        journal.post(conn, samples.credit_posting("more"), now=samples.NOW)
    after = verify(ledger, None)
    assert (after.chain_seq, after.problems) == (14, ())
    assert after.chain_head != before


def test_a_dropped_or_changed_guard_is_found(ledger, database_url, engine_name):
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as conn:
        on = "" if engine_name == "sqlite" else " ON ledger_txn"
        conn.exec_driver_sql(f"DROP TRIGGER ledger_txn_update{on}")
        if engine_name == "sqlite":
            conn.exec_driver_sql("DROP TRIGGER pool_delete")
            conn.exec_driver_sql("CREATE TRIGGER pool_delete BEFORE DELETE ON pool BEGIN SELECT 1; END")
            conn.exec_driver_sql("CREATE TRIGGER extra BEFORE DELETE ON pool BEGIN SELECT 1; END")
        else:
            conn.exec_driver_sql("ALTER TABLE pool DISABLE TRIGGER pool_delete")
            conn.exec_driver_sql(
                "CREATE TRIGGER extra BEFORE DELETE ON pool FOR EACH ROW EXECUTE FUNCTION pool_delete()"
            )
    engine.dispose()
    assert places(ledger) == ["trigger extra", "trigger ledger_txn_update", "trigger pool_delete"]


@ON_POSTGRESQL
def test_a_lost_constraint_is_found(ledger, database_url):
    # SQLite drops a constraint only with its table, and the triggers go with the table.
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as conn:
        conn.exec_driver_sql("ALTER TABLE ledger_entry DROP CONSTRAINT ck_ledger_entry_amount")
    engine.dispose()
    problems = verify(ledger, None).problems
    assert [str(item) for item in problems] == ["constraint ck_ledger_entry_amount: is missing"]


WEAKENED = {
    "constraint ck_pool_net": "ALTER TABLE pool DROP CONSTRAINT ck_pool_net, ADD CONSTRAINT ck_pool_net CHECK (true)",
    "constraint fk_pool_period_id": "ALTER TABLE pool DROP CONSTRAINT fk_pool_period_id",
    "constraint fk_hold_provider_id": "ALTER TABLE hold DISABLE TRIGGER ALL",
    "constraint uq_pool_period_id_currency_reference": "ALTER TABLE pool DROP CONSTRAINT"
    " uq_pool_period_id_currency_reference",
    "constraint extra": "ALTER TABLE pool ADD CONSTRAINT extra CHECK (gross_minor < 1000000)",
    "index ix_hold_provider_id": "DROP INDEX ix_hold_provider_id",
    "index extra": "CREATE UNIQUE INDEX extra ON hold (reason)",
    "column pool.gross_minor": "ALTER TABLE pool ALTER gross_minor DROP NOT NULL",
    "column hold.reason": 'ALTER TABLE hold ALTER reason TYPE text COLLATE "POSIX"',
    "rule nothing on pool": "CREATE RULE nothing AS ON INSERT TO pool DO INSTEAD NOTHING",
    "policy mine on pool": "CREATE POLICY mine ON pool USING (currency = 'EUR')",
    "row security of pool": "ALTER TABLE pool ENABLE ROW LEVEL SECURITY",
    "table payout_event": "DROP TABLE payout_event CASCADE",
}


@ON_POSTGRESQL
@pytest.mark.parametrize("place", WEAKENED)
def test_what_postgresql_keeps_in_another_way_is_named(raw, place):
    assert places_of_definitions(raw) == []
    raw.exec_driver_sql(WEAKENED[place])
    assert place in places_of_definitions(raw)


REWRITTEN = {
    "constraint ck_pool_net": ("pool", "net_minor = gross_minor - deductions_minor", "net_minor = net_minor"),
    "constraint ck_pool_gross_minor": ("pool", "CHECK (gross_minor >= 0)", "CHECK (gross_minor >= -1)"),
    "constraint fk_pool_period_id": ("pool", "REFERENCES period (id)", "REFERENCES provider (id)"),
    "column hold.reason": ("hold", "reason TEXT NOT NULL", "reason TEXT"),
    "table hold": ("hold", "STRICT", ""),
}


@ON_SQLITE
@pytest.mark.parametrize("place", REWRITTEN)
def test_what_sqlite_keeps_in_another_way_is_named(ledger, database_url, place):
    table, old, new = REWRITTEN[place]
    with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        change = "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE type = 'table' AND name = ?"
        assert connection.execute(change, (old, new, table)).rowcount == 1
    with ledger.read() as conn:
        assert place in places_of_definitions(conn)


@ON_SQLITE
@pytest.mark.parametrize(
    ("place", "statement"),
    [
        ("index ix_hold_provider_id", "DROP INDEX ix_hold_provider_id"),
        ("index extra", "CREATE UNIQUE INDEX extra ON hold (reason)"),
        ("column hold.note", "ALTER TABLE hold ADD COLUMN note TEXT"),
        ("table payout_event", "DROP TABLE payout_event"),
    ],
)
def test_a_lost_or_added_object_of_sqlite_is_named(ledger, database_url, place, statement):
    with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute(statement)
    with ledger.read() as conn:
        assert place in places_of_definitions(conn)


def test_an_index_of_the_keepers_own_is_no_problem(ledger, database_url):
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as conn:
        conn.exec_driver_sql("CREATE INDEX own ON hold (created_at)")
        conn.exec_driver_sql("CREATE TABLE other_software (id INTEGER PRIMARY KEY)")
    engine.dispose()
    assert places(ledger) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is missing"), (b"short", "5 bytes"), (samples.BOOK[::-1], "does not have the SHA-256")],
)
def test_a_bad_score_book_file_is_found(ledger, tmp_path, content, message):
    path = tmp_path / f"{samples.BOOK_SHA256}.parquet"
    if content is not None:
        path.write_bytes(content)
    (problem,) = verify(ledger, tmp_path).problems
    assert problem.place == str(path)
    assert message in problem.message


def test_an_error_names_the_first_bad_place_and_the_number_of_others(ledger, tamper):
    tamper("UPDATE output SET completion = 'other'", "UPDATE ledger_txn SET memo = 'other' WHERE id = 3")
    with pytest.raises(IntegrityError, match=r"^transaction 3: .* \(and 3 more\)$"):
        verify(ledger, None).raise_for_problems()
