"""Database roles: on PostgreSQL each does its own work alone; a file that can only be read can be checked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from credit.ledger import roles
from credit.ledger.database import Ledger
from credit.ledger.schema import metadata
from credit.payments.details import set_provider_details
from tests.cli.helpers import Command
from tests.conftest import ON_POSTGRESQL, ON_SQLITE
from tests.ledger import samples
from tests.payments.samples import IBANS, NOW, SEPTEMBER, owe

THIS_MONTH = f"{datetime.now(UTC):%Y-%m}"
PREFIX = "test_ledger"


@pytest.fixture(scope="module")
def database(shared_database: Callable[..., str]) -> Iterator[str]:
    """A ledger with payouts that wait, and the four roles, each with one person in it."""
    url = shared_database()
    with Ledger.open(url) as ledger:
        owe(ledger)
        for key, iban in IBANS.items():
            values = {"legal_name": "Anna Berg", "iban": iban, "town": "Berlin", "country": "DE", "receiver": "person"}
            set_provider_details(ledger, key, values, now=NOW)
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as conn:
        for _ in range(2):  # after every upgrade it is run again
            conn.exec_driver_sql(roles.roles_sql(PREFIX), execution_options={"no_parameters": True})
        for role in roles.roles():
            conn.exec_driver_sql(f"DROP ROLE IF EXISTS {_person(role.name)}")
            conn.exec_driver_sql(f"CREATE ROLE {_person(role.name)} LOGIN IN ROLE {PREFIX}_{role.name}")
    yield url
    with engine.begin() as conn:
        for role in roles.roles():
            conn.exec_driver_sql(f"DROP ROLE {_person(role.name)}")
    engine.dispose()


def _person(role: str) -> str:
    return f"{PREFIX}_{role}_anna"


def _as(url: str, role: str) -> str:
    return sa.make_url(url).set(username=_person(role), password=None).render_as_string(hide_password=False)


@pytest.fixture
def command(database: str, tmp_path: Path) -> Callable[[str], Command]:
    """A function that gives the command line of the person in a role."""
    return lambda role: Command(_as(database, role), tmp_path)


@ON_POSTGRESQL
def test_an_auditor_reads_everything_and_writes_nothing(database, command):
    auditor = command("auditor")
    assert "everything is as it was written" in auditor("verify")
    for line in ("status", "transactions", "providers list", f"report attribution {SEPTEMBER}", "balance ada"):
        auditor(line)
    refused = auditor(f"pool add {THIS_MONTH} 1 EUR", code=1)
    assert "permission denied" in refused
    engine = sa.create_engine(_as(database, "auditor").replace("postgresql://", "postgresql+psycopg://"))
    for table in metadata.sorted_tables:
        column = next(iter(table.columns)).name
        for statement in (
            f"INSERT INTO {table.name} DEFAULT VALUES",
            f"UPDATE {table.name} SET {column} = {column}",
            f"DELETE FROM {table.name}",
            f"TRUNCATE {table.name} CASCADE",
        ):
            with pytest.raises(DBAPIError, match="permission denied"), engine.begin() as conn:
                conn.exec_driver_sql(statement)
    with engine.begin() as conn:
        assert conn.exec_driver_sql("SELECT count(*) FROM v_payouts").scalar_one() > 0
    for statement in ("CREATE TEMPORARY TABLE output (id bigint)", "CREATE TABLE more (id bigint)"):
        with pytest.raises(DBAPIError, match="permission denied"), engine.begin() as conn:
            conn.exec_driver_sql(statement)
    engine.dispose()


@ON_POSTGRESQL
def test_an_operator_runs_the_ledger_and_pays_nobody(command):
    operator = command("operator")
    operator("providers add dora Dora")
    operator(f"pool add {THIS_MONTH} 10 EUR")
    operator("hold place dora --reason 'a question'")
    assert "this role records no payments" in operator(f"pay export {SEPTEMBER} --currency EUR --out FOLDER/x", code=1)
    assert not (operator.folder / "x").exists()


@ON_POSTGRESQL
def test_a_payer_exports_payments_and_changes_nothing_else(command):
    payer = command("payer")
    assert "exported: " in payer(f"pay export {SEPTEMBER} --currency USD --format csv --out FOLDER/pay.csv")
    pool = f"pool add {THIS_MONTH} 99 EUR --reference evil"
    for line in (pool, "providers add evil Evil", "hold release dora --reason x"):
        assert re.search("permission denied|this role posts payments alone", payer(line, code=1)), line


@ON_POSTGRESQL
def test_what_one_role_proposes_another_approves(command):
    operator, approver = command("operator"), command("approver")
    operator("approve require pool")
    operator(f"pool add {THIS_MONTH} 25 EUR --reference more", code=5)
    refused = operator.run("--actor", "ben", "approve", "give", "1")
    assert (refused.exit_code, "connects under another one" in refused.output) == (1, True), refused.output
    engine = sa.create_engine(operator.url.replace("postgresql://", "postgresql+psycopg://"))
    with pytest.raises(DBAPIError, match="permission denied"), engine.begin() as conn:
        conn.exec_driver_sql("INSERT INTO approval DEFAULT VALUES")
    engine.dispose()
    assert "done: " in approver.run("--actor", "ben", "approve", "give", "1").output
    assert "everything is as it was written" in command("auditor")("verify")


def test_a_prefix_that_is_no_name_is_refused(tmp_path):
    command = Command("sqlite:///none.db", tmp_path)
    assert "CREATE ROLE books_auditor NOLOGIN" in command("roles --prefix books")
    assert "is no prefix of roles" in command("roles", "--prefix", "x; DROP TABLE output", code=2)


@pytest.fixture
def readable(database_url: str) -> Iterator[Path]:
    """The file of a ledger with something in every table, in a folder that everybody can only read."""
    with Ledger.open(database_url) as ledger, ledger.write() as conn:
        samples.populate(conn)
    # Not a folder of pytest's, which closes all of them to others whenever another run starts.
    folder = Path(tempfile.mkdtemp())
    shutil.copyfile(database_url.removeprefix("sqlite:///"), folder / "credit.db")
    (folder / "credit.db").chmod(0o444)
    folder.chmod(0o555)
    yield folder / "credit.db"
    folder.chmod(0o755)
    shutil.rmtree(folder)


def _run_as_nobody(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CREDIT_DATABASE_URL": f"sqlite:///{path}", "CREDIT_DATA_DIR": str(path.parent)}
    code = (
        "import os, sys\n"
        "from credit.cli.main import cli\n"  # before, because others may not reach its folder
        "import credit.cli.ledger, credit.cli.report, credit.pipeline.status, credit.ledger.verify\n"
        "import credit.reporting.frames, credit.reporting.tables, credit.ledger.transactions\n"
        "os.getuid() or os.setuid(65534)\n"
        "cli(sys.argv[1:])\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )


@ON_SQLITE
def test_a_file_that_can_only_be_read_is_verified_and_reported(readable):
    before = {item.name: item.stat().st_mtime_ns for item in readable.parent.iterdir()}
    for arguments in (("verify",), ("status",), ("transactions",)):
        done = _run_as_nobody(readable, *arguments)
        # Score books are not there: verify names them, and nothing in the database.
        expected = 4 if arguments == ("verify",) else 0
        assert (done.returncode, "Traceback" in done.stderr) == (expected, False), done.stderr
        assert "books/" in done.stdout or arguments != ("verify",), done.stdout
    refused = _run_as_nobody(readable, "providers", "add", "x", "X")
    assert refused.returncode == 1
    assert "a readonly database" in refused.stderr
    assert {item.name: item.stat().st_mtime_ns for item in readable.parent.iterdir()} == before
