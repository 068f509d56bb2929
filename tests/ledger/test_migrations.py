from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from credit.errors import LedgerError
from credit.ledger import database, providers, seals, terms, triggers
from credit.ledger.database import Ledger, upgrade
from credit.ledger.rules import Dialect
from credit.ledger.schema import REVISIONS, metadata
from credit.ledger.verify import verify
from credit.ledger.verify.definitions import check_definitions
from credit.records import Provider, Terms
from credit.resources import resource
from tests.conftest import ON_SQLITE
from tests.ledger import samples


def test_migrations_build_what_the_schema_says(ledger: Ledger) -> None:
    with ledger.read() as conn:
        assert compare_metadata(MigrationContext.configure(conn), metadata) == []
        assert set(inspect(conn).get_table_names()) == {*metadata.tables, "alembic_version"}


def test_migrations_leave_every_guard_in_place(ledger: Ledger, engine_name: Dialect) -> None:
    with ledger.read() as conn:
        assert triggers.installed(conn) == triggers.expected(engine_name)
        assert list(check_definitions(conn)) == []


def test_no_migration_loses_a_guard(empty_url: str) -> None:
    """SQLite drops triggers with a table that is built again, and says nothing."""
    before: set[str] = set()
    for revision in REVISIONS:
        upgrade_to(empty_url, revision)
        made = database._engine(database._parse(empty_url))
        with made.connect() as conn:
            after = set(triggers.installed(conn))
            tables = set(inspect(conn).get_table_names()) - {"alembic_version"}
        made.dispose()
        assert before <= after
        assert {f"{table}_{event}" for table in tables for event in ("update", "delete")} <= after
        before = after


@ON_SQLITE
def test_tables_are_strict(ledger: Ledger) -> None:
    with ledger.read() as conn:
        strict = {row.name: row.strict for row in conn.exec_driver_sql("PRAGMA table_list")}
    assert all(strict[name] for name in metadata.tables)


def test_the_code_knows_every_revision() -> None:
    config = Config()
    config.set_main_option("script_location", str(resource("migrations")))
    found = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(found)) == REVISIONS


def test_a_fresh_ledger_has_the_house(ledger: Ledger) -> None:
    with ledger.read() as conn:
        assert providers.providers(conn) == [Provider("house", "House", "house")]


def test_upgrading_twice_changes_nothing(database_url: str) -> None:
    with Ledger.open(database_url) as ledger, ledger.write() as conn:
        samples.populate(conn)
    assert upgrade(database_url) == REVISIONS[-1]
    with Ledger.open(database_url) as ledger, ledger.read() as conn:
        assert len(providers.providers(conn)) == 3


def upgrade_to(url: str, revision: str) -> None:
    """Bring a ledger to a revision that may not be the last one."""
    config = Config()
    config.set_main_option("script_location", str(resource("migrations")))
    made = database._engine(database._parse(url))
    with database._writing(made) as conn:
        config.attributes["connection"] = conn
        command.upgrade(config, revision)
    made.dispose()


def test_a_ledger_of_the_first_release_is_upgraded_with_all_that_is_in_it(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade_to(empty_url, "0001")
    made = database._engine(database._parse(empty_url))
    with database._writing(made) as conn, monkeypatch.context() as at_0001:
        # What that release did not have.
        at_0001.setattr(seals, "seal_rows", lambda *_: None)
        at_0001.setattr("credit.ledger.pools.keep_erasable", lambda *_: None)
        at_0001.setattr("credit.ledger.periods.after_holds", lambda _, now: now)
        samples.populate_first(conn)
        before = {
            table: conn.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2")).all()
            for table in inspect(conn).get_table_names()
            if table not in {"contract_term", "alembic_version"}
        }
        add = text(
            "INSERT INTO contract_term (id, provider_id, valid_from, currency, minimum_payout_minor, created_at)"
            " VALUES (:id, :provider, :day, :currency, :minimum, '2026-01-01T00\\:00\\:00.000000Z')"
        )
        for number, (owner, day, currency, minimum) in enumerate(
            ((2, "2026-03-01", "USD", 300), (2, "0001-01-01", "USD", 100), (2, "2026-01-01", "EUR", 7)), start=1
        ):
            values = {"id": number, "provider": owner, "day": day, "currency": currency, "minimum": minimum}
            conn.execute(add, values)
    made.dispose()
    assert upgrade(empty_url) == REVISIONS[-1]
    with Ledger.open(empty_url) as ledger:
        with ledger.read() as conn:
            after = {table: conn.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2")).all() for table in before}
            assert after == before
            assert [
                (item.currency, item.version, item.valid_from.isoformat(), item.terms)
                for item in terms.history(conn, "ada")
            ] == [
                ("EUR", 1, "2026-01-01", Terms(minimum_payout_minor=7)),
                ("USD", 1, "0001-01-01", Terms(minimum_payout_minor=100)),
                ("USD", 2, "2026-03-01", Terms(minimum_payout_minor=300)),
            ]
            assert compare_metadata(MigrationContext.configure(conn), metadata) == []
        assert verify(ledger, None).problems == ()


def test_an_upgrade_that_fails_leaves_nothing(empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "migrations"
    (broken / "versions").mkdir(parents=True)
    for path in resource("migrations").rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            (broken / path.relative_to(resource("migrations"))).write_bytes(path.read_bytes())
    for path in (broken / "versions").glob("*.sql"):
        path.write_text(path.read_text() + "\n\nINSERT INTO provider (id) VALUES (NULL)\n")
    monkeypatch.setattr("credit.resources.resource", lambda name: broken)
    with pytest.raises(LedgerError):
        upgrade(empty_url)
    made = database._engine(database._parse(empty_url))
    with made.connect() as conn:
        assert inspect(conn).get_table_names() == []
    made.dispose()
