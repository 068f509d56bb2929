"""What `credit verify` asks of the tables as a whole: that the guards stand, and that rows agree with each other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Connection,
    ForeignKeyConstraint,
    Row,
    Select,
    Table,
    and_,
    func,
    inspect,
    select,
    text,
)

from credit.errors import LedgerError
from credit.ledger import triggers
from credit.ledger.accounts import parse_account
from credit.ledger.outputs import changed_outputs
from credit.ledger.rules import Dialect
from credit.ledger.schema import (
    account,
    ingest_file,
    metadata,
    output,
    provider,
    score_book,
    statement,
    valuation,
)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was written: where, and what is wrong."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


def check_guards(conn: Connection) -> Iterator[Problem]:
    """Yield every guard or named constraint that is missing or not as `credit` made it."""
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


def check_references(conn: Connection) -> Iterator[Problem]:
    """Yield the first row of each table that refers to a row that is not there."""
    for table in metadata.sorted_tables:
        for key in sorted(table.foreign_key_constraints, key=lambda item: str(item.name)):
            row = conn.execute(_dangling(table, key)).one_or_none()
            if row is not None:
                yield Problem(_name(table, row), f"refers to a row of {key.referred_table.name} that is missing")


def _dangling(table: Table, key: ForeignKeyConstraint) -> Select[Any]:
    target = key.referred_table.alias("target")
    pairs = [(item.parent, target.c[item.column.name]) for item in key.elements]
    joined = table.outerjoin(target, and_(*(own == other for own, other in pairs)))
    lost = and_(*(own.is_not(None) for own, _ in pairs), pairs[0][1].is_(None))
    order = list(table.primary_key)
    return select(*order).select_from(joined).where(lost).order_by(*order).limit(1)


def check_accounts(conn: Connection) -> Iterator[Problem]:
    """Yield every account whose columns do not say what its key says."""
    query = select(account, provider.c.key.label("owner")).outerjoin(provider).order_by(account.c.id)
    for row in conn.execute(query):
        try:
            parsed = parse_account(row.key)
        except LedgerError as error:
            yield Problem(f"account {row.id}", str(error))
            continue
        if (parsed.kind, parsed.provider, parsed.collection) != (row.kind, row.owner, row.collection):
            yield Problem(f"account {row.id}", f"its columns are not those of its key {row.key}")


def check_outputs(conn: Connection) -> Iterator[Problem]:
    """Yield every output whose content is not what was logged."""
    for number in changed_outputs(conn):
        yield Problem(f"output {number}", "its content does not have the hash that was stored with it")


def check_counts(conn: Connection) -> Iterator[Problem]:
    """Yield every file and score book that states another number of outputs than there are."""
    for parent, stated, child in (
        (ingest_file, ingest_file.c.accepted, output.c.ingest_file_id),
        (score_book, score_book.c.output_count, valuation.c.score_book_id),
    ):
        found = func.count(child)
        rows = conn.execute(
            select(parent.c.id, stated, found)
            .outerjoin_from(parent, child.table, child == parent.c.id)
            .group_by(parent.c.id, stated)
            .having(found != stated)
            .order_by(parent.c.id)
        )
        for number, said, count in rows:
            yield Problem(f"{parent.name} {number}", f"says {said} outputs and has {count}")


def check_statements(conn: Connection) -> Iterator[Problem]:
    """Yield every statement whose text does not have its hash, or is about another provider or period."""
    query = select(statement, provider.c.key).join_from(statement, provider).order_by(statement.c.id)
    for row in conn.execute(query, execution_options={"yield_per": 100}):
        if hashlib.sha256(row.body_json.encode()).hexdigest() != row.sha256:
            yield Problem(f"statement {row.id}", "its text does not have the hash that was stored with it")
            continue
        body = json.loads(row.body_json)
        if "provider" in body and (body["period"], body["provider"]["key"]) != (row.period_id, row.key):
            yield Problem(f"statement {row.id}", f"is filed under {row.key} and {row.period_id}; its text is not")


def _name(table: Table, row: Row[Any]) -> str:
    return f"{table.name} " + ", ".join(str(value) for value in row)
