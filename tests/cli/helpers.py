"""A person at the command line."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from sqlalchemy import Connection, Table

from credit.cli.main import cli
from credit.ledger.database import Ledger
from credit.ledger.schema import metadata


class Command:
    """Runs commands on one ledger. FOLDER in a line stands for its folder, `code` is the exit code to expect."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder

    def run(self, *arguments: str, typed: str | bytes | None = None) -> Result:
        """Run a command with a standard input, and return its result, whatever the exit code."""
        environment = {"CREDIT_DATABASE_URL": self.url, "CREDIT_DATA_DIR": str(self.folder)}
        return CliRunner(env=environment).invoke(cli, arguments, input=typed, catch_exceptions=False)

    def __call__(self, line: str, *more: str, code: int = 0, typed: str | bytes | None = None) -> str:
        """Run a line, followed by arguments that may hold spaces, and return everything printed."""
        arguments = [*shlex.split(line.replace("FOLDER", str(self.folder))), *more]
        result = self.run(*arguments, typed=typed)
        assert result.exit_code == code, f"credit {shlex.join(arguments)} -> {result.exit_code}\n{result.output}"
        return result.output

    def holds(self) -> dict[str, list[Any]]:
        """Every row of every table, and every file's bytes."""
        with Ledger.open(self.url) as ledger, ledger.read() as conn:
            found = {table.name: _rows(conn, table) for table in metadata.sorted_tables}
        files = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
        return found | {"files": [(str(path), path.read_bytes()) for path in files if ".lock" not in path.name]}


def _rows(conn: Connection, table: Table) -> list[Any]:
    return sorted((tuple(row) for row in conn.execute(table.select())), key=repr)
