"""Seal personal details, each version with a salt that is erased with it; erased details cannot be put back.

The SQL lies beside this file, frozen as that of 0001 is. Details that are there get their salts from a temporary table,
because neither engine promises to draw them well enough. As at 0007, what the rows say is taken as it is.
"""

from __future__ import annotations

import secrets

from alembic import op
from sqlalchemy import text

from credit.ledger.frozen_sql import run_frozen_sql
from credit.ledger.seals import seal_rows

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    connection.execute(text("CREATE TEMPORARY TABLE salt_0008 (id BIGINT PRIMARY KEY, salt TEXT NOT NULL)"))
    known = connection.execute(text("SELECT id FROM provider_pii ORDER BY id")).scalars().all()
    if known:
        salts = [{"id": number, "salt": secrets.token_hex(32)} for number in known]
        connection.execute(text("INSERT INTO salt_0008 VALUES (:id, :salt)"), salts)
    run_frozen_sql(connection, __file__, revision)
    rows = connection.execute(text("SELECT * FROM provider_pii ORDER BY id")).mappings().all()
    seal_rows(connection, "provider_pii", rows)


def downgrade() -> None:
    raise NotImplementedError("the ledger only goes forward; restore a backup instead")
