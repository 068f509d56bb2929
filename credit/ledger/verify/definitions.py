"""Checks of the database itself: its objects are as `schema`, `triggers` and `views` say, and no reference dangles.

The checks compare texts, and so find a constraint weakened under its own name. SQLite keeps each table's text as it was
written; the check takes it apart into columns and constraints. PostgreSQL keeps expressions in a form of its own. There
the check asks for the plan of a query with both expressions, the one that is there and the schema's: the server words
both alike. So it needs no right but to read, also on a standby.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import chain
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    DefaultClause,
    ForeignKeyConstraint,
    PrimaryKeyConstraint,
    Select,
    Table,
    UniqueConstraint,
    and_,
    select,
    text,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DatabaseError
from sqlalchemy.schema import ColumnCollectionConstraint, CreateIndex, CreateTable

from credit.ledger import triggers, views
from credit.ledger.schema import metadata
from credit.ledger.verify.report import Problem

_TABLE = re.compile(r'CREATE TABLE "?(\w+)"? *\((.*)\)([^)]*)', re.DOTALL)
_CONSTRAINT = re.compile(r" ?CONSTRAINT (\w+) ")

_OBJECTS = """
SELECT c.relname, 'table ' || c.relname, 'table' FROM pg_class c WHERE c.relnamespace = {space} AND c.relkind = 'r'
UNION ALL
SELECT c.relname, 'column ' || c.relname || '.' || a.attname,
    format_type(a.atttypid, a.atttypmod) || coalesce(' COLLATE ' || l.collname, '')
    || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
    || coalesce(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), '')
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    LEFT JOIN pg_collation l ON l.oid = a.attcollation
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE c.relnamespace = {space} AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT c.relname, 'constraint ' || n.conname, pg_get_constraintdef(n.oid) || CASE WHEN EXISTS (
    SELECT 1 FROM pg_trigger t WHERE t.tgconstraint = n.oid AND t.tgenabled <> 'O') THEN ' (switched off)' ELSE '' END
FROM pg_constraint n JOIN pg_class c ON c.oid = n.conrelid
WHERE c.relnamespace = {space} AND n.contype NOT IN ('c', 'n')
UNION ALL
SELECT c.relname, 'index ' || x.relname, pg_get_indexdef(x.oid, 0, true)
    || CASE WHEN i.indisvalid THEN '' ELSE ' (not valid)' END
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid
WHERE c.relnamespace = {space}
"""
"""Table, name and definition of every table, column, constraint and index; NOT NULL stands with its column."""

_CHECKS = """
SELECT c.relname, n.conname, pg_get_expr(n.conbin, n.conrelid),
    CASE WHEN n.convalidated THEN '' ELSE ' (not valid)' END || CASE WHEN n.connoinherit THEN ' NO INHERIT' ELSE '' END
FROM pg_constraint n JOIN pg_class c ON c.oid = n.conrelid WHERE c.relnamespace = {space} AND n.contype = 'c'
ORDER BY 1, 2
"""
"""Table, name, expression and state of every CHECK."""

_ADDED = """
SELECT c.relname, 'rule ' || r.rulename || ' on ' || c.relname, 'rule'
FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class WHERE c.relnamespace = {space}
UNION ALL
SELECT c.relname, 'policy ' || p.polname || ' on ' || c.relname, 'policy'
FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE c.relnamespace = {space}
UNION ALL
SELECT c.relname, 'row security of ' || c.relname, 'row security'
FROM pg_class c WHERE c.relnamespace = {space} AND c.relrowsecurity
"""
"""The same for objects that make PostgreSQL hide or rewrite rows; `credit` makes none."""

_COLUMNS = {
    "sqlite": "SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table'",
    "postgresql": "SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
    " WHERE c.relnamespace = current_schema()::regnamespace AND a.attnum > 0 AND NOT a.attisdropped",
}
"""Queries for the tables that are there, with their columns."""

_LEDGER = "current_schema()::regnamespace"


def check_definitions(conn: Connection) -> Iterator[Problem]:
    """Yield each missing, added, changed or switched-off trigger, view, table, column, constraint or index.

    Added tables belong to other software, and added indexes to the keeper: the check passes over both. It names an
    added unique index, because such an index can refuse rows.
    """
    yield from _check_triggers(conn)
    found, expected = definitions(conn), expected_definitions(conn)
    # Tables first: a missing table explains its missing columns.
    for name in sorted(expected, key=lambda item: (not item.startswith("table "), item)):
        if name not in found:
            yield Problem(name, "is missing")
        elif found[name] != expected[name]:
            yield Problem(name, f"is not as credit made it: {found[name]} in place of {expected[name]}")
    for name in sorted(found.keys() - expected.keys()):
        if not name.startswith("index ") or "UNIQUE" in found[name]:
            yield Problem(name, "is not one of this version of credit")
    for name, fault in views.differences(conn):
        yield Problem(f"view {name}", fault)
    if conn.dialect.name == "postgresql":
        for name in sorted(_select(conn, _ADDED, _LEDGER)):
            yield Problem(name, "was not made by credit: it hides rows, or changes what is written")


def _check_triggers(conn: Connection) -> Iterator[Problem]:
    found, expected = triggers.installed(conn), triggers.expected(triggers.dialect_of(conn))
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            yield Problem(f"trigger {name}", "is missing: the database no longer keeps its rule")
        elif name not in expected:
            yield Problem(f"trigger {name}", "is not one of this version of credit")
        elif found[name] != expected[name]:
            yield Problem(f"trigger {name}", "is switched off or not as credit made it")


def definitions(conn: Connection) -> dict[str, str]:
    """Return the definition of each table of the ledger, and of its columns, constraints and indexes, by name."""
    if conn.dialect.name == "sqlite":
        made = conn.execute(text("SELECT tbl_name, sql FROM sqlite_master WHERE type IN ('table', 'index')"))
        return _taken_apart(sql for table, sql in made if table in metadata.tables and sql is not None)
    found = _select(conn, _OBJECTS, _LEDGER)
    checks: dict[str, dict[str, tuple[str, str]]] = {}
    for table, name, expression, state in conn.execute(text(_CHECKS.replace("{space}", _LEDGER))):
        if table in metadata.tables:
            checks.setdefault(table, {})[name] = expression, state
    for table, named in checks.items():
        worded = _worded(conn, table, {name: expression for name, (expression, _) in named.items()})
        found |= {f"constraint {name}": f"CHECK {worded[name]}{state}" for name, (_, state) in named.items()}
    return found


def expected_definitions(conn: Connection) -> dict[str, str]:
    """Return the definitions of the schema, in the words of the engine that `conn` is on."""
    if conn.dialect.name == "sqlite":
        return _expected_on_sqlite()
    found: dict[str, str] = {}
    for table in metadata.sorted_tables:
        found[f"table {table.name}"] = "table"
        found |= {f"column {table.name}.{column.name}": _column_words(column) for column in table.columns}
        found |= dict(_keys(table))
        rules = chain(table.constraints, *(column.constraints for column in table.columns))
        checks = {str(item.name): str(item.sqltext) for item in rules if isinstance(item, CheckConstraint)}
        found |= {f"constraint {name}": f"CHECK {said}" for name, said in _worded(conn, table.name, checks).items()}
    return found


def _worded(conn: Connection, table: str, expressions: Mapping[str, str]) -> dict[str, str]:
    """Return conditions on a table in PostgreSQL's words, by name; as they are where it cannot read them."""
    if not expressions:
        return {}
    asked = ", ".join(f"({expression})" for expression in expressions.values())
    # Undone whatever happens: a failure would end the snapshot.
    undone = conn.begin_nested()
    try:
        plan = conn.exec_driver_sql(
            f"EXPLAIN (VERBOSE, COSTS OFF, FORMAT JSON) SELECT {asked} FROM {table}",  # noqa: S608 - nothing is run
            execution_options={"no_parameters": True},
        ).scalar_one()
        return dict(zip(expressions, plan[0]["Plan"]["Output"], strict=True))
    except (DatabaseError, LookupError, ValueError):  # a column is missing, or of another type
        return dict(expressions)
    finally:
        undone.rollback()


def _column_words(column: Column[Any]) -> str:
    """Return a column in PostgreSQL's words."""
    kind = "bigint" if column.type.python_type is int else "text COLLATE C"
    default = column.server_default
    said = f" DEFAULT '{default.arg}'::text" if isinstance(default, DefaultClause) else ""
    return f"{kind}{'' if column.nullable else ' NOT NULL'}{said}"


def _keys(table: Table) -> Iterator[tuple[str, str]]:
    """Yield the keys and indexes of a table in PostgreSQL's words, by name."""
    for item in table.constraints:
        names = ", ".join(item.columns.keys()) if isinstance(item, ColumnCollectionConstraint) else ""
        if isinstance(item, ForeignKeyConstraint):
            of = ", ".join(key.column.name for key in item.elements)
            late = " DEFERRABLE INITIALLY DEFERRED" if item.deferrable else ""
            yield f"constraint {item.name}", f"FOREIGN KEY ({names}) REFERENCES {item.referred_table}({of}){late}"
        elif isinstance(item, PrimaryKeyConstraint | UniqueConstraint):
            kind = "PRIMARY KEY" if isinstance(item, PrimaryKeyConstraint) else "UNIQUE"
            yield f"constraint {item.name}", f"{kind} ({names})"
            yield f"index {item.name}", f"CREATE UNIQUE INDEX {item.name} ON {table} USING btree ({names})"
    for index in table.indexes:
        names = ", ".join(index.columns.keys())
        yield f"index {index.name}", f"CREATE INDEX {index.name} ON {table} USING btree ({names})"


def _select(conn: Connection, query: str, space: str) -> dict[str, str]:
    """Return the definitions in a schema of PostgreSQL, of the ledger's tables alone."""
    made = conn.execute(text(query.replace("{space}", space)))
    return {name: definition for table, name, definition in made if table in metadata.tables}


@cache
def _expected_on_sqlite() -> dict[str, str]:
    return _taken_apart(_statements())


def _statements() -> Iterator[str]:
    """Yield SQLite's statement for every table and index of the schema."""
    for table in metadata.sorted_tables:
        yield str(CreateTable(table).compile(dialect=sqlite.dialect()))
        for index in sorted(table.indexes, key=lambda item: str(item.name)):
            yield str(CreateIndex(index).compile(dialect=sqlite.dialect()))


def _taken_apart(statements: Iterator[str]) -> dict[str, str]:
    """Return the parts of SQLite's statements by name: a column in one part, each constraint in another."""
    found: dict[str, str] = {}
    for statement in statements:
        whole = " ".join(statement.replace('"', "").split())
        table = _TABLE.fullmatch(whole)
        if table is None:
            unique, _, rest = whole.removeprefix("CREATE ").rpartition("INDEX ")
            found[f"index {rest.split()[0]}"] = unique + rest
            continue
        name, body, options = table.groups()
        found[f"table {name}"] = options.replace(" ", "")
        for part in _parts(body):
            column, *constraints = _CONSTRAINT.split(part)
            of, _, kind = column.partition(" ")
            if column:
                found[f"column {name}.{of}"] = kind
            for key, rule in zip(constraints[::2], constraints[1::2], strict=True):
                # A column that came later has its foreign key in the column; SQLite adds none to a table.
                said = f"FOREIGN KEY({of}) {rule}" if rule.startswith("REFERENCES ") else rule
                found[f"constraint {key}"] = said
    return found


def _parts(body: str) -> Iterator[str]:
    """Yield the columns and constraints of a table's definition: the text between commas outside brackets."""
    depth = start = 0
    for place, sign in enumerate(body):
        depth += {"(": 1, ")": -1}.get(sign, 0)
        if sign == "," and depth == 0:
            yield body[start:place].strip()
            start = place + 1
    yield body[start:].strip()


def is_readable(conn: Connection) -> bool:
    """Return True if every table and column of the schema is there for other checks to read."""
    found = {(table, column) for table, column in conn.execute(text(_COLUMNS[conn.dialect.name]))}
    return {(table.name, column.name) for table in metadata.sorted_tables for column in table.columns} <= found


def check_storage(conn: Connection) -> Iterator[Problem]:
    """Yield the faults of SQLite's own integrity check; PostgreSQL has none in SQL."""
    if conn.dialect.name == "sqlite":
        for (line,) in conn.execute(text("PRAGMA integrity_check(10)")):
            if line != "ok":
                yield Problem("database file", line)


def check_references(conn: Connection) -> Iterator[Problem]:
    """Yield, for each foreign key, the first row with a reference to a missing row."""
    for table in metadata.sorted_tables:
        for key in sorted(table.foreign_key_constraints, key=lambda item: str(item.name)):
            row = conn.execute(_first_dangling(table, key)).one_or_none()
            if row is not None:
                place = f"{table.name} " + ", ".join(str(value) for value in row)
                yield Problem(place, f"refers to a row of {key.referred_table.name} that is missing")


@cache
def _first_dangling(table: Table, key: ForeignKeyConstraint) -> Select[Any]:
    """Return the query for the primary key of the first row with a dangling reference."""
    target = key.referred_table.alias("target")
    pairs = [(item.parent, target.c[item.column.name]) for item in key.elements]
    joined = table.outerjoin(target, and_(*(own == other for own, other in pairs)))
    # One column of the key is enough: the outer join leaves all of them NULL, or none.
    lost = and_(*(own.is_not(None) for own, _ in pairs), pairs[0][1].is_(None))
    order = list(table.primary_key)
    return select(*order).select_from(joined).where(lost).order_by(*order).limit(1)
