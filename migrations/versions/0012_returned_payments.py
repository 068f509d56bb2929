"""Let a payment that was paid come back: a payout may fail after it was paid, in the same batch.

The SQL lies beside this file, frozen as that of 0001 is.
"""

from __future__ import annotations

from alembic import op

from credit.ledger.frozen_sql import run_frozen_sql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_frozen_sql(op.get_bind(), __file__, revision)


def downgrade() -> None:
    raise NotImplementedError("the ledger only goes forward; restore a backup instead")
