from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, create_engine, inspect, text

from credit.errors import LedgerError
from credit.ledger import database, holds, journal, providers, transactions, triggers
from credit.ledger.columns import TEXT
from credit.ledger.database import Ledger, upgrade
from credit.ledger.schema import REVISIONS, hold, metadata, seal
from credit.ledger.verify import verify
from credit.ledger.verify.definitions import check_definitions
from credit.records import Provider
from credit.resources import resource
from tests.conftest import ON_POSTGRESQL, ON_SQLITE
from tests.ledger import samples

RELEASED = Path(__file__).parent / "released"
"""Rows of a ledger of each released revision."""

NEXT_RELEASE = """
from alembic import op

revision, down_revision, branch_labels, depends_on = "9999", "{last}", None, None


def upgrade():
    op.execute("ALTER TABLE seal ADD COLUMN note " + {text})
    op.execute("ALTER TABLE hold ADD COLUMN note " + {text})
    op.execute("UPDATE hold SET note = NULL")
"""
"""A revision of a release to come: a column more in two tables, and a statement that the triggers refuse."""


def test_the_revisions_build_what_the_schema_says(ledger):
    with ledger.read() as conn:
        assert compare_metadata(MigrationContext.configure(conn), metadata) == []
        assert set(inspect(conn).get_table_names()) == {*metadata.tables, "alembic_version"}


def test_an_upgrade_leaves_every_trigger_in_place(ledger, engine_name):
    with ledger.read() as conn:
        assert triggers.installed(conn) == triggers.expected(engine_name)
        assert list(check_definitions(conn)) == []


@ON_SQLITE
def test_tables_are_strict(ledger):
    with ledger.read() as conn:
        strict = {row.name: row.strict for row in conn.exec_driver_sql("PRAGMA table_list")}
    assert all(strict[name] for name in metadata.tables)


def test_the_code_knows_every_revision():
    config = Config()
    config.set_main_option("script_location", str(resource("migrations")))
    found = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(found)) == REVISIONS


def test_a_fresh_ledger_has_the_house(ledger):
    with ledger.read() as conn:
        assert providers.providers(conn) == [Provider("house", "House", "house")]
    assert verify(ledger, None).problems == ()


def rows(conn: Connection) -> dict[str, list[object]]:
    return {name: list(conn.execute(text(f"SELECT * FROM {name} ORDER BY 1, 2"))) for name in metadata.tables}


def test_upgrading_twice_changes_nothing(database_url):
    with Ledger.open(database_url) as ledger, ledger.write() as conn:
        samples.populate(conn)
        before = rows(conn)
    assert upgrade(database_url) == REVISIONS[-1]
    with Ledger.open(database_url) as ledger:
        with ledger.read() as conn:
            assert rows(conn) == before
        assert verify(ledger, None).problems == ()


def test_an_upgrade_puts_missing_triggers_back(database_url, engine_name):
    made = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with made.begin() as conn:
        on = "" if engine_name == "sqlite" else " ON pool"
        conn.exec_driver_sql(f"DROP TRIGGER pool_delete{on}")
    made.dispose()
    upgrade(database_url)
    with Ledger.open(database_url) as ledger, ledger.read() as conn:
        assert triggers.installed(conn) == triggers.expected(engine_name)


@ON_POSTGRESQL
def test_functions_without_a_search_path_of_their_own_are_named_and_an_upgrade_gives_them_one(database_url):
    """Those of earlier releases had none, and whoever owns a function can take it away."""
    made = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with made.begin() as conn:
        conn.exec_driver_sql("ALTER FUNCTION pool_insert() RESET search_path")
        conn.exec_driver_sql("ALTER FUNCTION hold_insert() SET search_path = public")
    with Ledger.open(database_url) as ledger:
        places = {problem.place for problem in verify(ledger, None).problems}
        assert places == {"trigger pool_insert", "trigger hold_insert"}
        upgrade(database_url)
        assert verify(ledger, None).problems == ()
    with made.begin() as conn:
        found = conn.execute(text("SELECT DISTINCT proconfig FROM pg_proc p JOIN pg_trigger t ON tgfoid = p.oid"
                                  " WHERE NOT tgisinternal")).scalars().all()  # fmt: skip
    made.dispose()
    assert found == [["search_path=pg_catalog, public, pg_temp"]]


def next_release(url: str, migrations: Path) -> None:
    """Upgrade and use a ledger as the next release would, in a process of its own."""
    for table in (seal, hold):
        table.append_column(Column("note", TEXT))
    database.REVISIONS = (*REVISIONS, "9999")
    assert upgrade(url, migrations=migrations) == "9999"
    with Ledger.open(url) as ledger:
        assert verify(ledger, None).problems == ()
        with ledger.write() as conn:
            journal.post(conn, samples.credit_posting("after the upgrade"), now=samples.NOW)
            holds.place_hold(conn, "ada", "GBP", "a question", now=samples.NOW)
        assert verify(ledger, None).problems == ()
        with pytest.raises(LedgerError, match="append-only"), ledger.write() as conn:
            conn.execute(text("UPDATE hold SET note = 'x'"))


def test_a_ledger_of_this_release_is_upgraded_with_all_that_is_in_it(database_url, engine_name, tmp_path):
    with Ledger.open(database_url) as ledger, ledger.write() as conn:
        samples.populate(conn)
        before = rows(conn)
    shutil.copytree(resource("migrations"), tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    column = "'TEXT'" if engine_name == "sqlite" else """'TEXT COLLATE "C"'"""
    (tmp_path / "migrations" / "versions" / "9999_notes.py").write_text(
        NEXT_RELEASE.format(text=column, last=REVISIONS[-1])
    )
    process = multiprocessing.get_context("spawn").Process(
        target=next_release, args=(database_url, tmp_path / "migrations")
    )
    process.start()
    process.join()
    assert process.exitcode == 0
    made = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with made.connect() as conn:
        for name, old in rows(conn).items():
            kept = {tuple(row)[: len(before[name][0])] for row in old} if before[name] else set()
            assert {tuple(row) for row in before[name]} <= kept
    made.dispose()


@pytest.mark.parametrize("revision", sorted(path.stem for path in RELEASED.glob("*.sql")))
def test_a_ledger_of_an_earlier_release_is_upgraded_verified_and_used(empty_url, revision):
    """Rows of `samples.populate` as the release of that revision wrote them, one INSERT a line."""
    made = create_engine(empty_url.replace("postgresql://", "postgresql+psycopg://"))
    config = Config()
    config.set_main_option("script_location", str(resource("migrations")))
    with made.begin() as conn:
        config.attributes["connection"] = conn
        command.upgrade(config, revision)
        conn.exec_driver_sql("DELETE FROM seal")
        conn.exec_driver_sql("DELETE FROM provider")
        for line in (RELEASED / f"{revision}.sql").read_text("utf-8").splitlines():
            conn.exec_driver_sql(line, execution_options={"no_parameters": True})
    made.dispose()
    upgrade(empty_url)
    with Ledger.open(empty_url) as ledger:
        with ledger.read() as conn:
            before = transactions.transactions(conn)
        assert verify(ledger, None).problems == ()
        with ledger.write() as conn:
            journal.post(conn, samples.credit_posting("after the upgrade"), now=samples.NOW)
            holds.place_hold(conn, "ada", "GBP", "a question", now=samples.NOW)
        assert verify(ledger, None).problems == ()
        with ledger.read() as conn:
            *same, last = transactions.transactions(conn)
        assert same == before
        assert {item.actor for item in before} == {None}
        assert last.actor == ledger.actor


def test_an_upgrade_that_fails_leaves_nothing(empty_url, tmp_path):
    broken = tmp_path / "migrations"
    shutil.copytree(resource("migrations"), broken, ignore=shutil.ignore_patterns("__pycache__"))
    script = broken / "versions" / "0001_ledger.sql"
    script.write_text(script.read_text() + "INSERT INTO provider (id) VALUES (NULL);\n")
    with pytest.raises(LedgerError):
        upgrade(empty_url, migrations=broken)
    made = create_engine(empty_url.replace("postgresql://", "postgresql+psycopg://"))
    with made.connect() as conn:
        assert inspect(conn).get_table_names() == []
    made.dispose()


@pytest.mark.parametrize("statement", ["DELETE FROM alembic_version", "DROP TABLE alembic_version"])
def test_a_ledger_without_the_record_of_its_revision_is_refused(database_url, statement):
    made = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with made.begin() as conn:
        conn.exec_driver_sql(statement)
    made.dispose()
    for act in (Ledger.open, upgrade):
        with pytest.raises(LedgerError, match=r"holds no ledger: .*alembic_version.* restore a backup"):
            act(database_url)
