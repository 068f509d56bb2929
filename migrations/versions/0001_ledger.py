"""Create the ledger: tables, guards and the house.

The SQL lies beside this file, one file for each engine, as it was on the day of release: generated from
`credit.ledger.schema` and `credit.ledger.triggers`, then frozen. This revision imports neither, so that later edits
to them cannot change what it did; a test compares what all revisions together build with what the two modules say.
Statements are parted by empty lines.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import context, op

from credit.ledger.frozen_sql import run_frozen_sql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    run_frozen_sql(connection, __file__, revision)
    moment = context.config.attributes.get("now") or datetime.now(UTC)
    now = moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    connection.execute(
        sa.text("INSERT INTO provider (id, key, name, kind, created_at) VALUES (1, 'house', 'House', 'house', :now)"),
        {"now": now},
    )


def downgrade() -> None:
    raise NotImplementedError("the ledger only goes forward; restore a backup instead")
