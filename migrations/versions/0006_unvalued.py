"""Add unvalued outputs: an account of what they would have distributed, and which, when and why.

The SQL lies beside this file, frozen as that of 0001 is. SQLite cannot change a CHECK: it builds the accounts again.
"""

from __future__ import annotations

from alembic import op

from credit.ledger.frozen_sql import run_frozen_sql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_frozen_sql(op.get_bind(), __file__, revision)


def downgrade() -> None:
    raise NotImplementedError("the ledger only goes forward; restore a backup instead")
