"""Create the ledger: its tables, and the house.

Why a copy: the tables lie beside this file as they were on the day of release, and nothing here imports the package, so
that no later edit of it changes what this revision did. They are in the words of SQLite; PostgreSQL has other names for
two types. Triggers are in no revision: every upgrade installs them anew.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
from alembic import context, op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NO_HASH = "0" * 64


def upgrade() -> None:
    connection = op.get_bind()
    script = Path(__file__).with_suffix(".sql").read_text("utf-8")
    if connection.dialect.name == "postgresql":
        for ours, theirs in (
            (") WITHOUT ROWID, STRICT;", ");"),
            (") STRICT;", ");"),
            (" INTEGER", " BIGINT"),
            (" TEXT", ' TEXT COLLATE "C"'),
        ):
            script = script.replace(ours, theirs)
    for statement in script.split(";\n")[:-1]:
        # Without parameters, so that the driver reads no % as a placeholder.
        connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
    _add_house(connection, context.config.attributes.get("now") or datetime.now(UTC))


def _add_house(connection: sa.Connection, now: datetime) -> None:
    """Insert the house, the first provider, and the first seal, which is of that row."""
    created = now.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    house = {"id": 1, "key": "house", "name": "House", "kind": "house", "created_at": created}
    _insert(connection, "provider", house)
    content = _sha256(["credit.seal.1", "provider", house])
    digest = _sha256(["credit.seal.1", NO_HASH, 1, "provider", 1, content])
    seal = {"id": 1, "table_name": "provider", "row_id": 1, "row_sha256": content, "prev_hash": NO_HASH, "hash": digest}
    _insert(connection, "seal", seal)


def _insert(connection: sa.Connection, table: str, row: dict[str, object]) -> None:
    columns = [sa.column(name) for name in row]
    connection.execute(sa.table(table, *columns).insert(), row)


def _sha256(said: object) -> str:
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def downgrade() -> None:
    raise NotImplementedError("the ledger only goes forward; restore a backup instead")
