"""Triggers for SQLite and PostgreSQL, made from one set of rules: see `credit.ledger.rules`.

`statements(dialect)` renders them. PostgreSQL's TRUNCATE, which fires no trigger of a row, gets one of its own.

Recreating a table drops its triggers: a migration that does so must create them again. `installed(conn)` and
`expected(dialect)` are compared by a test after every migration and by `credit verify` at any time.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, text

from credit.ledger.rules import APPEND_ONLY, ERASABLE, IN_A_PERIOD, MUTABLE, REFUSED, Dialect, Event, Rule, rules


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
    if checks[-1].condition:
        lines.append(f"  RETURN {'OLD' if event == 'DELETE' else 'NEW'};")
    return "\nBEGIN\n" + "\n".join(lines) + "\nEND\n"


def _postgres_parts(table: str, event: str, body: str) -> tuple[str, str]:
    """Return a trigger's function and the trigger, in the words of pg_get_triggerdef."""
    name = f"{table}_{event.lower()}"
    each = "STATEMENT" if event == "TRUNCATE" else "ROW"
    return (
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $${body}$$",
        f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH {each} EXECUTE FUNCTION {name}()",
    )


def _postgres_bodies() -> Iterator[tuple[str, str, str]]:
    for (table, event), checks in _grouped("postgresql").items():
        yield table, event, _postgres_body(table, event, checks)
    for item in (*APPEND_ONLY, *MUTABLE, ERASABLE):
        refusal = Rule(item.name, "DELETE", f"no row of {item.name} may be deleted")
        yield item.name, "TRUNCATE", _postgres_body(item.name, "DELETE", [refusal])


def statements(dialect: Dialect) -> list[str]:
    """Return the SQL that creates every guard on `dialect`."""
    if dialect == "sqlite":
        return [_sqlite_trigger(table, event, checks) for (table, event), checks in _grouped(dialect).items()]
    return [part for item in _postgres_bodies() for part in _postgres_parts(*item)]


def expected(dialect: Dialect) -> dict[str, str]:
    """Return the definition of every guard that must be there, by the trigger's name."""
    if dialect == "sqlite":
        return {sql.split()[2]: sql for sql in statements(dialect)}
    return {
        f"{table}_{event.lower()}": f"{_postgres_parts(table, event, body)[1]}\n{body}"
        for table, event, body in _postgres_bodies()
    }


def installed(conn: Connection) -> dict[str, str]:
    """Return the definition of every trigger in the database, by name, to be compared with `expected`."""
    if conn.dialect.name == "sqlite":
        sql = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
    else:
        sql = (
            "SELECT tgname, pg_get_triggerdef(t.oid, true) || chr(10) || prosrc"
            " || CASE tgenabled WHEN 'O' THEN '' ELSE ' (disabled)' END"
            " FROM pg_trigger t JOIN pg_proc p ON p.oid = tgfoid JOIN pg_class c ON c.oid = tgrelid"
            " WHERE NOT tgisinternal AND c.relnamespace = current_schema()::regnamespace ORDER BY tgname"
        )
    return {name: definition for name, definition in conn.execute(text(sql))}
