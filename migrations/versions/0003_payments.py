"""Add payout batches, the events of payouts, and personal data in a table of its own that can be erased.

The SQL lies beside this file, frozen as that of 0001 is. A payout's status now follows its events; the guard of the
journal's headers no longer asks for keys that its other rules already keep free, which small transactions feel.
"""

from __future__ import annotations

from alembic import op

from credit.ledger.frozen_sql import run_frozen_sql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_frozen_sql(op.get_bind(), __file__, revision)


def downgrade() -> None:
    raise NotImplementedError("the ledger only goes forward; restore a backup instead")
