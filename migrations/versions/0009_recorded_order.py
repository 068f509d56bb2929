"""Refuse transactions that are recorded before the last one.

The SQL lies beside this file, frozen as that of 0001 is. What is there stays as it is: `credit verify` names it.
"""

from __future__ import annotations

from alembic import op

from credit.ledger.frozen_sql import run_frozen_sql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_frozen_sql(op.get_bind(), __file__, revision)


def downgrade() -> None:
    raise NotImplementedError("the ledger only goes forward; restore a backup instead")
