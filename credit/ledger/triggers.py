"""Triggers for SQLite and PostgreSQL, made from one set of rules: see `credit.ledger.rules`.

PostgreSQL's TRUNCATE fires no row triggers. There each table gets one more trigger, for TRUNCATE. Its functions have a
search path of their own: with that of the session, whoever may create objects in another schema could put tables and
functions in front of those that the rules name.

No revision creates triggers. An upgrade drops them all, migrates, and installs those of this module. So triggers are
written once, and a revision is free to change tables. `credit verify` compares `installed` with `expected`.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, text

from credit.ledger.rules import APPEND_ONLY, ERASABLE, IN_A_PERIOD, MUTABLE, REFUSED, Dialect, Event, Rule, rules
from credit.ledger.schema import metadata

_PATH = "'pg_catalog, ' || quote_ident(current_schema()) || ', pg_temp'"
"""SQL for the search path of the functions. Where `pg_temp` is not named, temporary tables come first."""


def _grouped(dialect: Dialect) -> dict[tuple[str, Event], list[Rule]]:
    groups: dict[tuple[str, Event], list[Rule]] = {}
    for rule in rules():
        if rule.only in {None, dialect}:
            groups.setdefault((rule.table, rule.event), []).append(rule)
    return dict(sorted(groups.items()))


def _quoted(message: str) -> str:
    return "'" + (REFUSED + message).replace("'", "''") + "'"


def _sqlite_trigger(table: str, event: Event, checks: list[Rule]) -> str:
    lines = [
        f"  SELECT RAISE(ABORT, {_quoted(rule.message)})"
        + (f"\n    WHERE {rule.condition};" if rule.condition else ";")
        for rule in checks
    ]
    body = "\n".join(lines)
    return f"CREATE TRIGGER {table}_{event.lower()} BEFORE {event} ON {table}\nBEGIN\n{body}\nEND"


def _postgres_body(table: str, event: Event, checks: list[Rule]) -> str:
    lines = []
    if event == "INSERT" and table in {"ledger_txn", *IN_A_PERIOD}:
        # Held until commit: a close, which takes the row FOR UPDATE, waits for this post or is seen by it.
        lines.append("  PERFORM 1 FROM period WHERE id = NEW.period_id FOR SHARE;")
    for rule in checks:
        refusal = f"RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = {_quoted(rule.message)};"
        lines.append(f"  IF {rule.condition} THEN\n    {refusal}\n  END IF;" if rule.condition else f"  {refusal}")
    # After a refusal without condition nothing follows.
    if checks[-1].condition:
        lines.append(f"  RETURN {'OLD' if event == 'DELETE' else 'NEW'};")
    return "\nBEGIN\n" + "\n".join(lines) + "\nEND\n"


def _postgres_function(table: str, event: str, body: str, path: str) -> str:
    """Return a trigger's function; it finds tables and functions by a search path of its own."""
    head = f"CREATE OR REPLACE FUNCTION {table}_{event.lower()}() RETURNS trigger LANGUAGE plpgsql"
    return f"{head} SET search_path = {path} AS $${body}$$"


def _postgres_trigger(table: str, event: str) -> str:
    """Return a trigger, in the words of pg_get_triggerdef."""
    name = f"{table}_{event.lower()}"
    each = "STATEMENT" if event == "TRUNCATE" else "ROW"
    return f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH {each} EXECUTE FUNCTION {name}()"


def _postgres_bodies() -> Iterator[tuple[str, str, str]]:
    for (table, event), checks in _grouped("postgresql").items():
        yield table, event, _postgres_body(table, event, checks)
    for item in (*APPEND_ONLY, *MUTABLE, *ERASABLE):
        refusal = Rule(item.name, "DELETE", f"no row of {item.name} may be deleted")
        yield item.name, "TRUNCATE", _postgres_body(item.name, "DELETE", [refusal])


def dialect_of(conn: Connection) -> Dialect:
    """Return the engine of a connection."""
    return "sqlite" if conn.dialect.name == "sqlite" else "postgresql"


def install(conn: Connection) -> None:
    """Create every trigger, in place of the present ones."""
    drop(conn)
    for statement in _statements(conn):
        # Without parameters, so that the driver takes a `%` in a statement as it is.
        conn.exec_driver_sql(statement, execution_options={"no_parameters": True})


def drop(conn: Connection) -> None:
    """Drop every trigger of the ledger's tables, also triggers of other versions of `credit`."""
    if conn.dialect.name == "sqlite":
        made = conn.execute(text("SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger'"))
        for name, table in made.all():
            if table in metadata.tables:
                conn.exec_driver_sql(f'DROP TRIGGER "{name}"')
        return
    made = conn.execute(
        text(
            "SELECT quote_ident(tgname), c.relname, tgfoid::regprocedure::text"
            " FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid"
            " WHERE NOT tgisinternal AND c.relnamespace = current_schema()::regnamespace"
        )
    )
    ours = [row for row in made.all() if row[1] in metadata.tables]
    for name, table, _ in ours:
        conn.exec_driver_sql(f"DROP TRIGGER {name} ON {table}")
    # After the triggers, which depend on their functions.
    for function in sorted({row[2] for row in ours}):
        conn.exec_driver_sql(f"DROP FUNCTION {function}")


def _statements(conn: Connection) -> Iterator[str]:
    """Yield the SQL of every trigger, as the connection's engine takes it."""
    if dialect_of(conn) == "sqlite":
        yield from expected("sqlite").values()
        return
    path = conn.execute(text(f"SELECT {_PATH}")).scalar_one()
    for table, event, body in _postgres_bodies():
        yield _postgres_function(table, event, body, path)
        yield _postgres_trigger(table, event)


def expected(dialect: Dialect) -> dict[str, str]:
    """Return the definition of every required trigger, by name."""
    if dialect == "sqlite":
        made = (_sqlite_trigger(table, event, checks) for (table, event), checks in _grouped(dialect).items())
        return {sql.split()[2]: sql for sql in made}
    return {
        f"{table}_{event.lower()}": f"{_postgres_trigger(table, event)}\n{body}"
        for table, event, body in _postgres_bodies()
    }


def installed(conn: Connection) -> dict[str, str]:
    """Return the definition of every trigger in the database, by name, to be compared with `expected`."""
    if conn.dialect.name == "sqlite":
        sql = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
    else:
        sql = (
            "SELECT tgname, pg_get_triggerdef(t.oid, true) || chr(10) || prosrc"  # noqa: S608 - a constant
            # A table's owner can switch a trigger off and leave its definition as it was.
            " || CASE tgenabled WHEN 'O' THEN '' ELSE ' (disabled)' END"
            f" || CASE WHEN proconfig = ARRAY['search_path=' || {_PATH}] THEN '' ELSE ' (open search path)' END"
            " FROM pg_trigger t JOIN pg_proc p ON p.oid = tgfoid JOIN pg_class c ON c.oid = tgrelid"
            " WHERE NOT tgisinternal AND c.relnamespace = current_schema()::regnamespace ORDER BY tgname"
        )
    return {name: definition for name, definition in conn.execute(text(sql))}
