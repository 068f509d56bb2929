"""Views for other software: `v_payouts`, `v_credits` and `v_statements`.

Their names and columns stay while the tables change, so that a BI tool may rely on them. As with triggers, no revision
creates a view: an upgrade drops all three, migrates, and installs those of this module. Each joins tables, so neither
engine takes writes through it.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, text
from sqlalchemy.exc import DatabaseError

from credit.ledger.accounts import AccountKind
from credit.records import CREDIT

VIEWS: dict[str, str] = {
    "v_payouts": """\
SELECT p.period_id AS period, r.key AS provider, r.name AS provider_name, p.currency AS currency,
    p.amount_minor AS amount_minor, CASE WHEN v.id IS NULL THEN p.status ELSE 'void' END AS status,
    t.recorded_at AS decided_at, b.reference AS batch, b.format AS channel, e.recorded_at AS status_since
FROM payout p
JOIN provider r ON r.id = p.provider_id
JOIN ledger_txn t ON t.id = p.txn_id
LEFT JOIN payout_event e ON e.id = (SELECT max(x.id) FROM payout_event x WHERE x.payout_id = p.id)
LEFT JOIN payout_batch b ON b.id = e.batch_id
LEFT JOIN payout_void v ON v.payout_id = p.id""",
    "v_credits": f"""\
SELECT t.period_id AS period, r.key AS provider, r.name AS provider_name, a.collection AS collection,
    t.effective_on AS day, CAST(sum(e.amount) AS BIGINT) AS credit_micro
FROM ledger_entry e
JOIN ledger_txn t ON t.id = e.txn_id
JOIN account a ON a.id = e.account_id
JOIN provider r ON r.id = a.provider_id
WHERE a.kind = '{AccountKind.EARNED}' AND e.commodity = '{CREDIT}'
GROUP BY t.period_id, r.key, r.name, a.collection, t.effective_on""",  # noqa: S608 - constants
    "v_statements": """\
SELECT s.period_id AS period, r.key AS provider, r.name AS provider_name, s.version AS version,
    CASE WHEN EXISTS (SELECT 1 FROM statement x WHERE x.period_id = s.period_id
        AND x.provider_id = s.provider_id AND x.version > s.version) THEN 0 ELSE 1 END AS is_newest,
    s.sha256 AS sha256, s.created_at AS created_at, s.body_json AS body_json
FROM statement s
JOIN provider r ON r.id = s.provider_id""",
}
"""The query of each view, in words that both engines know."""

_PLANS = 3
"""Plans to compare before a view counts as changed."""


def install(conn: Connection) -> None:
    """Create every view, in place of the present ones."""
    drop(conn)
    for name in VIEWS:
        conn.exec_driver_sql(_created(name))


def drop(conn: Connection) -> None:
    """Drop every view of the ledger that is there."""
    for name in VIEWS:
        conn.exec_driver_sql(f"DROP VIEW IF EXISTS {name}")


def differences(conn: Connection) -> Iterator[tuple[str, str]]:
    """Yield name and fault of each view that is missing, or not as this module defines it.

    PostgreSQL keeps a view in words of its own. There the plans of the view and of its query must be the same: so this
    needs no right but to read.
    """
    if conn.dialect.name == "sqlite":
        found = conn.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'view'"))
        made = {name: sql == _created(name) for name, sql in found if name in VIEWS}
    else:
        found = conn.execute(
            text(
                "SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum) FROM pg_class c"
                " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0"
                " WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'v' GROUP BY 1"
            )
        )
        made = {name: _is_same_on_postgresql(conn, name, columns) for name, columns in found if name in VIEWS}
    for name in VIEWS:
        if name not in made:
            yield name, "is missing; credit init puts it back"
        elif not made[name]:
            yield name, "is not as credit made it, or this user may not read it; run credit init, then credit roles"


def _created(name: str) -> str:
    return f"CREATE VIEW {name} AS\n{VIEWS[name]}"


def _is_same_on_postgresql(conn: Connection, name: str, columns: list[str]) -> bool:
    query = f"({VIEWS[name]}) {name}"
    # Undone whatever happens: a failure would end the snapshot.
    undone = conn.begin_nested()
    try:
        asked = conn.exec_driver_sql(f"SELECT * FROM {query} LIMIT 0").keys()  # noqa: S608 - constants
        # The server may gather new statistics between two plans, and choose another one for the second.
        same = any(_plan(conn, name) == _plan(conn, query) for _ in range(_PLANS))
    except DatabaseError:  # a table or a column is missing, or this user may not read the view
        return False
    finally:
        undone.rollback()
    return same and list(asked) == columns


def _plan(conn: Connection, source: str) -> list[str]:
    """Return the lines of PostgreSQL's plan for all that a view or a query gives."""
    asked = f"EXPLAIN (VERBOSE, COSTS OFF) SELECT * FROM {source}"  # noqa: S608 - constants, and nothing is run
    return list(conn.exec_driver_sql(asked).scalars())
