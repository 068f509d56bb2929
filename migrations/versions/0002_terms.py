"""Add full contract terms, holds and reserves; periods close in their order.

The SQL lies beside this file, frozen as that of 0001 is. SQLite cannot change a CHECK, so that the table `account` is
built again there: the foreign keys that point to it are deferred until its rows are back. Terms of before become
versions in the order in which they began.
"""

from __future__ import annotations

from alembic import op

from credit.ledger.frozen_sql import run_frozen_sql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_frozen_sql(op.get_bind(), __file__, revision)


def downgrade() -> None:
    raise NotImplementedError("the ledger only goes forward; restore a backup instead")
