"""Checks of the database's objects: triggers, tables and constraints are the ones that `credit` made."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, inspect, text

from credit.ledger import triggers
from credit.ledger.rules import Dialect
from credit.ledger.schema import metadata
from credit.ledger.verify.report import Problem


def check_definitions(conn: Connection) -> Iterator[Problem]:
    """Yield every trigger or named constraint that is missing or not as `credit` made it."""
    dialect: Dialect = "sqlite" if conn.dialect.name == "sqlite" else "postgresql"
    expected, installed = triggers.expected(dialect), triggers.installed(conn)
    for name in sorted(expected.keys() | installed.keys()):
        if name not in installed:
            yield Problem(f"trigger {name}", "is missing: the database no longer refuses what it guarded")
        elif name not in expected:
            yield Problem(f"trigger {name}", "is not one of this version of credit")
        elif installed[name] != expected[name]:
            yield Problem(f"trigger {name}", "is switched off or not as credit made it")
    found = inspect(conn)
    for table in metadata.sorted_tables:
        if not found.has_table(table.name):
            yield Problem(f"table {table.name}", "is missing")
            continue
        names = {item["name"] for item in found.get_check_constraints(table.name)}
        names |= {item["name"] for item in found.get_unique_constraints(table.name)}
        names |= {item["name"] for item in found.get_foreign_keys(table.name)}
        names.add(found.get_pk_constraint(table.name)["name"])
        for missing in sorted({str(item.name) for item in table.constraints} - {str(name) for name in names}):
            yield Problem(f"table {table.name}", f"has lost its constraint {missing}")


def check_storage(conn: Connection) -> Iterator[Problem]:
    """Yield what SQLite's own integrity check finds; PostgreSQL has no such check in SQL."""
    if conn.dialect.name == "sqlite":
        for (line,) in conn.execute(text("PRAGMA integrity_check(10)")):
            if line != "ok":
                yield Problem("database file", line)
